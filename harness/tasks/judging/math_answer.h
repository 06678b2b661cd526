// Answers to mathematical problems compared by their value, as a careful reader would, and found in a worked solution.
//
// What public graders agree on is kept (MATH's is_equiv, arXiv:2103.03874; Minerva, arXiv:2206.14858; PRM800K,
// arXiv:2305.20050): LaTeX spacing and fonts, \dfrac, units, "x =" and \% of one side do not matter, and the order of a
// tuple does. Departures: numbers are compared exactly and expressions by value (they compare texts, or call a computer
// algebra system); lists without brackets and sets have no order; two units must be the same one.
#pragma once

#include <optional>
#include <string>

namespace kvc {

// - Integers, decimals, fractions, mixed numbers, repeating decimals: by exact value. 0.33 is not 1/3; "1,000" is 1000;
//   "2 1/2" is 5/2; "3 million" is 3000000; "1e3" is 1000. 3:4 is 6:8, but two times of the day must be the same.
// - Expressions with roots, pi, variables and functions: by value.
// - A unit, a currency or a percent sign that one side lacks is left out; where both have one it must be the same, and
//   nothing is converted. "50%" is 50, and 0.5 too.
// - Tuples and intervals, (1,2) and [1,2): brackets and order count, and their commas part items, not thousands:
//   [0,500] is not 500; "1 < x <= 2" and "x \in (1,2]" are intervals.
//   Unions \cup, sets \{1,2\}, and lists "1, 2" or "1 and 2": order does not count; x \pm y is a list of two.
// - Matrices: entry by entry, of the same shape.
// - "x = 5" is 5; two equations are the same where one is a multiple of the other.
// - "1,234" beside a list may be one: the list 1, 234 in any spelling.
// - All else as text without case, blanks, articles and LaTeX: \text{Evelyn} is evelyn.
// An answer of more than 2,000 bytes is compared as text.
bool same_math_answer(const std::string& answer, const std::string& gold);

// The answer that a worked solution ends in; nothing where it gives none. Thoughts must have been left out before
// (thought.h). The first of these that the text has decides:
// 1. the last closed \boxed{...} that is not empty;
// 2. what stands behind the last "####" (GSM8K's form), "answer:", "answer is": the rest of the sentence or line, or
//    the next line where that is empty;
// 3. the last formula between dollar signs, \(...\) or \[...\] of the last line;
// 4. the last number; without any, the last line.
// `cut`: the text was cut off by a limit, so an answer that it ends in may lack something and is not read.
std::optional<std::string> final_math_answer(const std::string& text, bool cut = false);

// Whether the answer that `text` ends in is the gold one. Where the gold is a number and the answer is words with one
// number in front ("18 because she sells nine"), that number counts, unless it is denied.
bool gives_math_answer(const std::string& text, const std::string& gold, bool cut = false);

}  // namespace kvc
