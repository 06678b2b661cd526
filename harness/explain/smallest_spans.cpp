#include "harness/explain/smallest_spans.h"

#include <algorithm>

namespace kvc {

int64_t n_tokens(const TokenSpans& spans) {
  int64_t n = 0;
  for (const TokenSpan& span : spans) n += span.size();
  return n;
}

bool holds(const TokenSpans& spans, int64_t token) {
  return std::any_of(spans.begin(), spans.end(),
                     [&](const TokenSpan& span) { return token >= span.first && token < span.end; });
}

TokenSpans without(const TokenSpans& spans, const TokenSpan& taken) {
  TokenSpans rest;
  for (const TokenSpan& span : spans) {
    const TokenSpan before{span.first, std::min(span.end, taken.first)};
    const TokenSpan behind{std::max(span.first, taken.end), span.end};
    if (before.size() > 0) rest.push_back(before);
    if (behind.size() > 0) rest.push_back(behind);
  }
  return rest;
}

TokenSpans complement(const TokenSpans& spans, const TokenSpan& whole) {
  TokenSpans rest = {whole};
  for (const TokenSpan& span : spans) rest = without(rest, span);
  return rest;
}

SmallestSpans smallest_spans(const TokenSpan& whole, const std::function<bool(const TokenSpans&)>& has_effect,
                             int64_t max_tests) {
  SmallestSpans result{{whole}, 0, true};
  int64_t piece = 1;
  while (piece < whole.size()) piece *= 2;
  while (piece > 1 && result.finished) {
    piece /= 2;
    // Pieces are cut at multiples of their size from the front of the text: each is half of one of the round before.
    for (int64_t first = whole.first; first < whole.end; first += piece) {
      const TokenSpans rest = without(result.spans, {first, first + piece});
      if (rest.empty() || rest == result.spans) continue;
      if (result.n_tests == max_tests) {
        result.finished = false;
        break;
      }
      ++result.n_tests;
      if (has_effect(rest)) result.spans = rest;
    }
  }
  return result;
}

}  // namespace kvc
