// How alike two texts are, as Python's difflib says it: LongBench's code similarity is defined by it.
#pragma once

#include <string>

namespace kvc {

// difflib.SequenceMatcher(None, a, b).ratio() over code points: 2 M / T, M the code points of the matching blocks that
// are found by taking the longest one first (Ratcliff and Obershelp 1988), T those of both texts. As there, in a `b` of
// 200 code points or more those that make up more than 1 % of it do not begin a block. Two empty texts: 1.
double sequence_ratio(const std::string& a, const std::string& b);

}  // namespace kvc
