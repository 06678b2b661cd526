// Finds the smallest text span that still restores the answer, by halving.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace kvc {

struct TokenSpan {
  int64_t first = 0, end = 0;  // tokens [first, end)
  int64_t size() const { return end - first; }
  bool operator==(const TokenSpan&) const = default;
};
using TokenSpans = std::vector<TokenSpan>;  // ascending, not empty, none touching the next

int64_t n_tokens(const TokenSpans& spans);
bool holds(const TokenSpans& spans, int64_t token);
// The tokens of `spans` that `taken` does not hold.
TokenSpans without(const TokenSpans& spans, const TokenSpan& taken);
// Tokens [first, end) that `spans` does not hold.
TokenSpans complement(const TokenSpans& spans, const TokenSpan& whole);

struct SmallestSpans {
  TokenSpans spans;
  int64_t n_tests = 0;
  bool finished = true;  // false: max_tests ended the search, and a smaller part may do
};

// `has_effect(whole)` is known to be true. Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
// Failure-Inducing Input", IEEE TSE 28(2), 2002) in its greedy form: pieces of half, a quarter, ... of the text down to
// one token are left out wherever what remains still has the effect, those of the least weight first. Where each half
// alone lacks it, both stay and are made smaller. For an effect that more text never takes away, no token of the result
// can be left out; for others, no token could be when it was tried. `weights`: one for each token of `whole`, of any
// scale. About 3 log2(T / k) + 2 k tests for one span of k tokens of T.
SmallestSpans smallest_spans(const TokenSpan& whole, const std::vector<double>& weights,
                             const std::function<bool(const TokenSpans&)>& has_effect, int64_t max_tests);

}  // namespace kvc
