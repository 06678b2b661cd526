#include "methods/parts/query_reach.h"

#include <ATen/ATen.h>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

// Where the head's entries stand in the text; unknown once a cache was compacted.
bool knows_positions(const HeadProblem& problem) {
  return problem.keys.size(0) == problem.request->context.article_len();
}

bool sees_behind(const HeadProblem& problem) {
  const at::Tensor positions = problem.request->queries->positions();
  return positions.defined() && positions.numel() > 0 &&
         positions.min().item<int64_t>() < problem.request->cache.next_position();
}

// ln of the mass of the queries on `length` entries of the head from `first` on: (n) float32.
at::Tensor log_mass(const HeadProblem& problem, const at::Tensor& queries, int64_t first, int64_t length,
                    const at::Tensor& n_visible) {
  const LayerKv& layer = problem.request->cache.layer(problem.layer);
  const at::Tensor keys = layer.head_keys(problem.kv_head).narrow(0, first, length);
  const at::Tensor bias =
      layer.bias.defined() ? layer.head_bias(problem.kv_head).narrow(0, first, length) : at::Tensor();
  const AttentionSummary made = summarize_attention(queries, keys, bias, KeyScore::kMean, {}, {n_visible, {}});
  return made.row_max.add(made.row_sum.log()).squeeze(1);
}

// What the queries see of the entries, and their mass elsewhere.
RowReach row_reach(const HeadProblem& problem, const at::Tensor& queries, const QueryReach& reach) {
  const CompactionRequest& request = *problem.request;
  const int64_t source_len = problem.keys.size(0);
  const auto [prefix_len, suffix_len] = request.compactable;
  RowReach rows;
  at::Tensor suffix_visible;
  if (reach.known() && knows_positions(problem)) {
    const int64_t first = prefix_len + request.context.first_position;
    const at::Tensor seen = reach.positions - (first - 1);
    rows.n_visible = seen.clamp(0, source_len);
    // Behind a slice of a longer text the suffix stands where the whole text ends.
    suffix_visible = (reach.positions - (request.cache.next_position() - suffix_len - 1)).clamp(0, suffix_len);
  }
  const auto add = [&](const at::Tensor& mass) {
    rows.elsewhere = rows.elsewhere.defined() ? at::logaddexp(rows.elsewhere, mass) : mass;
  };
  if (prefix_len > 0) add(log_mass(problem, queries, 0, prefix_len, {}));
  if (suffix_len > 0) add(log_mass(problem, queries, prefix_len + source_len, suffix_len, suffix_visible));
  if (reach.known()) add(reach.text_log_mass);
  return rows;
}

at::Tensor scores_of(const HeadProblem& problem, const at::Tensor& queries, SoftmaxOver range, KeyScore score,
                     const std::function<QueryReach()>& reach) {
  RowReach rows;
  if (range == SoftmaxOver::kText && problem.request != nullptr && problem.request->queries != nullptr) {
    rows = row_reach(problem, queries, reach());
  }
  return summarize_attention(queries, problem.keys, problem.bias, score, {}, rows).scores;
}

}  // namespace

at::Tensor attention_scores(const HeadProblem& problem, SoftmaxOver range, KeyScore score) {
  return scores_of(problem, problem.queries, range, score,
                   [&] { return problem.request->queries->reach(problem.layer, problem.kv_head); });
}

at::Tensor window_attention_scores(const HeadProblem& problem, int64_t n_tokens, SoftmaxOver range, KeyScore score) {
  return scores_of(problem, window_queries(problem, n_tokens), range, score,
                   [&] { return problem.request->queries->window_reach(problem.layer, problem.kv_head, n_tokens); });
}

Json reach_notes(const HeadProblem& problem, SoftmaxOver range) {
  Json notes = Json::object();
  if (range != SoftmaxOver::kText || problem.request == nullptr || problem.request->queries == nullptr) return notes;
  if (!problem.request->queries->knows_reach()) {
    notes["heads_without_text"] = 1;
  } else if (!knows_positions(problem) && sees_behind(problem)) {
    notes["heads_without_positions"] = 1;
  }
  return notes;
}

}  // namespace kvc
