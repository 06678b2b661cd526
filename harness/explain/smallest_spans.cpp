#include "harness/explain/smallest_spans.h"

#include <algorithm>
#include <utility>

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

namespace {

// Pieces of `size` tokens, cut at its multiples from the front, so that each is half of one of the round before; the
// least weight first.
std::vector<TokenSpan> pieces_of(const TokenSpan& whole, int64_t size, const std::vector<double>& weights) {
  std::vector<std::pair<double, TokenSpan>> pieces;
  for (int64_t first = whole.first; first < whole.end; first += size) {
    const TokenSpan piece{first, std::min(whole.end, first + size)};
    double weight = 0;
    for (int64_t token = piece.first; token < piece.end; ++token)
      weight += weights[static_cast<size_t>(token - whole.first)];
    pieces.emplace_back(weight, piece);
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<TokenSpan> list;
  for (const auto& [weight, piece] : pieces) list.push_back(piece);
  return list;
}

}  // namespace

SmallestSpans smallest_spans(const TokenSpan& whole, const std::vector<double>& weights,
                             const std::function<bool(const TokenSpans&)>& has_effect, int64_t max_tests) {
  SmallestSpans result{{whole}, 0, true};
  int64_t size = 1;
  while (size < whole.size()) size *= 2;
  while (size > 1 && result.finished) {
    size /= 2;
    for (const TokenSpan& piece : pieces_of(whole, size, weights)) {
      const TokenSpans rest = without(result.spans, piece);
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
