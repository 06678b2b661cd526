#include "methods/parts/query_reach.h"

#include <ATen/ATen.h>

#include <vector>

#include "harness/math/attention.h"
#include "methods/parts/batched_scores.h"
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
  if (reach.known()) add(reach.text_log_mass.to(problem.keys.device()));
  return rows;
}

// Nothing where all see all.
RowReach reach_of(const HeadProblem& problem, const at::Tensor& queries, SoftmaxOver range,
                  const std::function<QueryReach()>& reach) {
  if (range != SoftmaxOver::kText || problem.request == nullptr || problem.request->queries == nullptr) return {};
  return row_reach(problem, queries, reach());
}

at::Tensor scores_of(const HeadProblem& problem, const at::Tensor& queries, SoftmaxOver range, KeyScore score,
                     const std::function<QueryReach()>& reach) {
  return summarize_attention(queries, problem.keys, problem.bias, score, {}, reach_of(problem, queries, range, reach))
      .scores;
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

std::vector<at::Tensor> attention_scores(const std::vector<HeadProblem>& problems, SoftmaxOver range, KeyScore score) {
  std::vector<at::Tensor> one_by_one;
  std::vector<RowReach> reaches;
  for (const HeadProblem& problem : problems) {
    if (problem.keys.is_cpu()) {
      one_by_one.push_back(attention_scores(problem, range, score));
    } else {
      reaches.push_back(reach_of(problem, problem.queries, range,
                                 [&] { return problem.request->queries->reach(problem.layer, problem.kv_head); }));
    }
  }
  return reaches.empty() ? one_by_one : scores_together(problems, score, reaches);
}

std::vector<at::Tensor> window_attention_scores(const std::vector<HeadProblem>& problems, int64_t n_tokens,
                                                SoftmaxOver range, KeyScore score) {
  std::vector<at::Tensor> one_by_one;
  std::vector<HeadProblem> asked;
  std::vector<RowReach> reaches;
  for (const HeadProblem& problem : problems) {
    if (problem.keys.is_cpu()) {
      one_by_one.push_back(window_attention_scores(problem, n_tokens, range, score));
      continue;
    }
    asked.push_back(problem);
    asked.back().queries = window_queries(problem, n_tokens);
    reaches.push_back(reach_of(problem, asked.back().queries, range, [&] {
      return problem.request->queries->window_reach(problem.layer, problem.kv_head, n_tokens);
    }));
  }
  return reaches.empty() ? one_by_one : scores_together(asked, score, reaches);
}

int64_t query_heads(const HeadProblem& problem) {
  if (problem.request == nullptr || problem.request->queries == nullptr) return 1;
  const int64_t group_size = problem.request->model.spec().group_size();
  const bool told = problem.request->queries->by_query_head() && problem.queries.size(0) % group_size == 0;
  return told ? group_size : 1;
}

at::Tensor scores_by_query_head(const HeadProblem& problem, SoftmaxOver range, KeyScore score,
                                const at::Tensor& weight) {
  RowReach all;
  if (range == SoftmaxOver::kText && problem.request != nullptr && problem.request->queries != nullptr) {
    all = row_reach(problem, problem.queries, problem.request->queries->reach(problem.layer, problem.kv_head));
  }
  all.weight = weight;
  const int64_t n_heads = query_heads(problem), n = problem.queries.size(0) / n_heads;
  std::vector<at::Tensor> rows;
  for (int64_t head = 0; head < n_heads; ++head) {
    const auto part = [&](const at::Tensor& whole) { return whole.defined() ? whole.narrow(0, head * n, n) : whole; };
    rows.push_back(summarize_attention(part(problem.queries), problem.keys, problem.bias, score, {},
                                       {part(all.n_visible), part(all.elsewhere), part(all.weight)})
                       .scores);
  }
  return at::stack(rows);
}

at::Tensor window_weights(const HeadProblem& problem, int64_t n_tokens, SoftmaxOver range) {
  const at::Tensor queries = window_queries(problem, n_tokens);
  RowReach rows;
  if (range == SoftmaxOver::kText && problem.request != nullptr && problem.request->queries != nullptr) {
    rows =
        row_reach(problem, queries, problem.request->queries->window_reach(problem.layer, problem.kv_head, n_tokens));
  }
  const AttentionSummary made = summarize_attention(queries, problem.keys, problem.bias, KeyScore::kMean, {}, rows);
  at::Tensor log_mass = made.row_max + made.row_sum.log();
  if (rows.elsewhere.defined()) {
    log_mass = at::logaddexp(log_mass, rows.elsewhere.to(log_mass.device()).unsqueeze(1));
  }
  at::Tensor weights = attention_logits(queries, problem.keys.to(queries.scalar_type()), problem.bias);
  weights.sub_(log_mass).exp_();
  if (rows.n_visible.defined()) {
    const at::Tensor visible = rows.n_visible.to(weights.device()).unsqueeze(1);
    weights.masked_fill_(at::arange(weights.size(1), visible.options()) >= visible, 0);
  }
  return weights.view({-1, n_tokens, problem.keys.size(0)});
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
