// The option that a multiple-choice answer names, as a careful reader reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kvc {

// From 0; nothing when the text names none, or more than one. n_options in [2, 26]. Thoughts must have been left out
// before (thought.h), and an answer that was cut off by a limit names nothing: neither is for this function to know.
//
// 1. What is said outright, anywhere; the last one counts: a letter in \boxed{}, behind a label ("Answer: B", "the
//    correct option is (c)", "I would choose D", "actually D"), "B is correct", or alone on its line ("**C**", "(c)").
// 2. Without any of these a line that begins with a letter ("C. The old man", "(B) A dog"). Lines that begin with
//    several letters list the options and name none, unless the text ends with one of them.
//
// A letter stands alone: not the C of "38.3 °C", the A of "N/A" or "A-level", the D of "Don't know". "A" or "I" before
// a small word is an article or a pronoun, but for words such as "because". "A or B" names none.
//
// Of a longer reply the last kMostBytes are read: matching takes time with the square of a text made against it.
constexpr std::size_t kMostBytes = 32768;
std::optional<int64_t> choice_answer(const std::string& reply, int64_t n_options);

}  // namespace kvc
