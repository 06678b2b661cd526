// The number that a worked solution ends in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kvc {

// An integer from 0 to 999; nothing when the text names none. The rules of Attention Matching's evaluation on AIME
// (arXiv:2602.16284), in this order; a "short number" is one to three digits with no letter, digit or underscore beside
// them:
//  1. Behind the last "I need to respond with the answer.\n</think>Final Answer: " (the forced end): the first short
//     number.
//  2. With "</think>" and without the forced end: the last \boxed{...} before the first "</think>" that holds a short
//     number (its last one).
//  3. The tail (behind the forced end, else behind the last "</think>", else the whole text): its last short number,
//     then its last run of digits worth 0 to 999.
std::optional<int64_t> parse_integer(const std::string& text);

}  // namespace kvc
