// The number that a worked solution ends in, as a careful reader reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kvc {

// An integer from 0 to 999; nothing when the text names none. Thoughts must have been left out before (thought.h).
//
// The first of these that the text has decides, whether or not its number is an integer in range:
// 1. the last closed \boxed{...} that holds a number, inner braces, \text{}, \mathbf{}, units, degrees and a modulus
// set
//    aside; of "m + n = 204" what stands behind the equals sign;
// 2. the first number behind the last "answer:", "answer is" (in the same line);
// 3. the last number of the text.
// "1,024" and "1{,}024" are 1024; 70.0 is 70; 042 is 42; -70, 70.5, 3/7, \frac{3}{7}, 2^5 and x12 are no answer.
// `cut`: the text was cut off by a limit, so a number that it ends in may lack digits and is not read.
std::optional<int64_t> parse_integer(const std::string& text, bool cut = false);

}  // namespace kvc
