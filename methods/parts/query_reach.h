// Attention weights as the model has them, not over the compactable entries alone: where a score compares heads or
// queries with each other, it matters what else they attend to. A head that looks at the template gives the article
// little; renormalised over the article it would look as important as any.
//
// Letters: T compactable entries, n queries of one KV head.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "methods/parts/key_selection.h"

namespace kvc {

enum class SoftmaxOver : std::uint8_t {
  kArticle,  // the T entries, all of them, and nothing else
  kText,     // all that a query attends to: template, entries up to its own position, its own text up to itself
};

// The option `softmax_over` of methods that score by attention weights.
struct SoftmaxRange {
  std::string softmax_over = "text";
  void range_field(auto&& visit) {
    visit("softmax_over", softmax_over,
          "attention weights are shares of: text (template, article up to the query, the query's own text), or article",
          one_of({"text", "article"}));
  }
  SoftmaxOver range() const { return softmax_over == "text" ? SoftmaxOver::kText : SoftmaxOver::kArticle; }
};

// The options of methods that score by a window of last queries, smoothed over positions.
struct QueryWindow {
  int64_t window, kernel;
  void window_fields(auto&& visit) {
    visit("window", window, "last tokens of the query text whose queries score the entries, at most 128",
          between(1, LayerQueries::kMaxWindow));
    visit("kernel", kernel, "width of the smoothing over positions, odd; 1 = none", odd(1001));
  }
};

// Attention of all queries of `problem`, or of the last n_tokens tokens of their text, over its entries: (T) float32.
// With kText some things may be unknown, see reach_notes(): queries that stand nowhere (random_vectors, on-policy
// sources) have no text of their own and see all entries; template entries always count where there is a request.
at::Tensor attention_scores(const HeadProblem& problem, SoftmaxOver range, KeyScore score);
at::Tensor window_attention_scores(const HeadProblem& problem, int64_t n_tokens, SoftmaxOver range, KeyScore score);
// The same of several heads, in their order: on the CPU one after the other, on a GPU at once, within rounding.
std::vector<at::Tensor> attention_scores(const std::vector<HeadProblem>& problems, SoftmaxOver range, KeyScore score);
std::vector<at::Tensor> window_attention_scores(const std::vector<HeadProblem>& problems, int64_t n_tokens,
                                                SoftmaxOver range, KeyScore score);

// How many query heads the rows of problem.queries come from, head by head: the group's size, or 1 where the rows do
// not tell (a mix, vectors of no head) or the head comes without a model.
int64_t query_heads(const HeadProblem& problem);

// attention_scores() of every query head alone, query_heads() of them: (h, T) float32. `weight` (n) float32, or
// undefined: how much each query counts.
at::Tensor scores_by_query_head(const HeadProblem& problem, SoftmaxOver range, KeyScore score,
                                const at::Tensor& weight = {});

// Attention weights of the last n_tokens tokens themselves: (g, n_tokens, T) float32, 0 where an entry is not seen. For
// scores that are more than a sum over queries; 4 g n_tokens T bytes.
at::Tensor window_weights(const HeadProblem& problem, int64_t n_tokens, SoftmaxOver range);

// What could not be told of the head, for a fit's notes. "heads_without_text": kText was asked for and the source does
// not know what its queries attend to. "heads_without_positions": queries of the context meet entries of a cache that
// was compacted before, whose positions nobody knows; they see all of them.
Json reach_notes(const HeadProblem& problem, SoftmaxOver range);

}  // namespace kvc
