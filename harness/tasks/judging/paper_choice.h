// The option that a multiple-choice answer names by the rules of Attention Matching's evaluation (arXiv:2602.16284),
// kept as they are so that numbers can be compared with published ones. What a careful reader would read:
// choice_answer.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kvc {

// The option a multiple-choice answer names, from 0; nothing when it names none. n_options in [2, 26] is what counts as
// a letter. The rules, in this order:
//  1. "<think>" without "</think>": none.
//  2. Only the text behind the last "</think>" counts; without one, only the last line that is not empty.
//  3. Ignoring case, for "answer:", "answer is", "correct option is": a letter that starts the text behind the last
//     place of the pattern (leading colons, asterisks and white space left out).
//  4. The text before the first full stop, if it is one letter (either case, asterisks left out).
//  5. The last capital letter that stands next to no other letter.
std::optional<int64_t> paper_choice(const std::string& text, int64_t n_options);

}  // namespace kvc
