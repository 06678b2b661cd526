// The loop over layers and heads that every per-head method shares.
#include "harness/api/compaction_method.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "harness/api/check_compaction.h"
#include "harness/api/head_schedule.h"
#include "harness/api/pack_compaction.h"
#include "harness/api/settle_budgets.h"
#include "harness/core/error.h"
#include "harness/core/stopwatch.h"

namespace kvc {
namespace {

// A well mixed seed for one head (the finaliser of SplitMix64), so that neighbouring heads draw unrelated numbers.
std::uint64_t head_seed(std::uint64_t seed, int64_t layer, int64_t kv_head) {
  std::uint64_t z = seed + 0x9e3779b97f4a7c15ULL *
                               (static_cast<std::uint64_t>(layer) * 4099 + static_cast<std::uint64_t>(kv_head) + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

HeadProblem make_problem(const CompactionRequest& request, const std::vector<at::Tensor>& queries, int64_t layer,
                         int64_t kv_head) {
  const LayerKv& source = request.cache.layer(layer);
  const int64_t first = request.compactable.prefix_len;
  const HeadEntries entries =
      source.head(kv_head).slice(first, request.compactable.source_len(source.head_len(kv_head)));
  HeadProblem problem;
  problem.keys = entries.keys;
  problem.values = entries.values;
  problem.bias = entries.bias;
  if (!queries.empty()) {
    // Query sources keep all layers on one device; a layer's entries may lie on another.
    const at::Device device = problem.keys.device();
    problem.queries = queries[static_cast<size_t>(layer)].select(0, kv_head).to(device);
    problem.window_queries = [all = request.queries, layer, kv_head, device](int64_t n_tokens) {
      return all->window(layer, n_tokens).select(0, kv_head).to(device);
    };
  }
  problem.layer = layer;
  problem.kv_head = kv_head;
  problem.seed = head_seed(request.seed, layer, kv_head);
  problem.request = &request;
  return problem;
}

}  // namespace

HeadFit PerHeadMethod::keep(const HeadProblem& problem, const at::Tensor& indices) {
  HeadFit fit;
  fit.indices = indices;
  fit.keys = problem.keys.index_select(0, indices);
  fit.values = problem.values.index_select(0, indices);
  if (problem.bias.defined()) fit.bias = problem.bias.index_select(0, indices);
  return fit;
}

std::vector<HeadFit> PerHeadMethod::fit(const HeadProblem& problem, const std::vector<int64_t>& targets) const {
  const c10::InferenceMode inference;
  HeadResult result;
  fit_targets(problem, targets, result);
  return std::move(result.fits);
}

void PerHeadMethod::fit_targets(const HeadProblem& problem, const std::vector<int64_t>& targets,
                                HeadResult& result) const {
  const int64_t largest = targets.empty() ? 0 : *std::max_element(targets.begin(), targets.end());
  Stopwatch watch;
  const HeadFitter fitter = largest > 0 ? prepare(problem, largest) : HeadFitter();
  result.prepare_s += watch.lap();
  for (const int64_t target_len : targets) {
    const auto none = [&] { return keep(problem, at::empty({0}, problem.keys.options().dtype(at::kLong))); };
    result.fits.push_back(target_len > 0 ? fitter(target_len) : none());
    check_fit(result.fits.back(), problem, target_len);
    result.fit_s.push_back(watch.lap());
  }
}

std::vector<HeadResult> PerHeadMethod::fit_heads(const std::vector<HeadProblem>& problems,
                                                 const std::vector<std::vector<int64_t>>& targets) const {
  std::vector<HeadResult> results(problems.size());
  for (size_t i = 0; i < problems.size(); ++i) fit_targets(problems[i], targets[i], results[i]);
  return results;
}

// The heads of some layers, one layer after the other, each for every settled budget.
std::vector<HeadResult> PerHeadMethod::fit_layers(const CompactionRequest& request,
                                                  const std::vector<at::Tensor>& queries, const SettledBudgets& settled,
                                                  int64_t first_layer, int64_t n_layers) const {
  const int64_t n_kv_heads = request.cache.n_kv_heads(), n_heads = n_layers * n_kv_heads;
  const at::Device device = request.cache.layer(0).keys.device();
  const auto problem_of = [&](int64_t item) {
    HeadProblem problem = make_problem(request, queries, first_layer + item / n_kv_heads, item % n_kv_heads);
    problem.scores = settled.scores_of(static_cast<size_t>(item));
    return problem;
  };
  const auto targets_of = [&](int64_t item) {
    std::vector<int64_t> targets;
    for (const HeadBudget& budget : settled.budgets) {
      targets.push_back(budget.at(first_layer + item / n_kv_heads, item % n_kv_heads));
    }
    return targets;
  };
  std::vector<HeadResult> heads(static_cast<size_t>(n_heads));
  if (!fits_heads_together(device)) {
    // On a GPU threads would only contend for its stream.
    for_each_item(n_heads, device.is_cpu(), [&](int64_t item) {
      fit_targets(problem_of(item), targets_of(item), heads[static_cast<size_t>(item)]);
    });
    return heads;
  }
  std::vector<HeadProblem> problems;
  std::vector<std::vector<int64_t>> targets;
  for (int64_t item = 0; item < n_heads; ++item) {
    problems.push_back(problem_of(item));
    targets.push_back(targets_of(item));
  }
  heads = fit_heads(problems, targets);
  for (size_t i = 0; i < heads.size(); ++i) {
    for (size_t k = 0; k < targets[i].size(); ++k) check_fit(heads[i].fits[k], problems[i], targets[i][k]);
  }
  return heads;
}

SettledBudgets PerHeadMethod::settle(const CompactionRequest& request, const std::vector<at::Tensor>& queries,
                                     int64_t first_layer, int64_t n_layers) const {
  return settle_budgets(
      request, first_layer, n_layers,
      [&](int64_t layer, int64_t head) { return make_problem(request, queries, layer, head); },
      [&](const std::vector<HeadProblem>& problems) { return score_heads(problems); });
}

std::vector<at::Tensor> PerHeadMethod::score_heads(const std::vector<HeadProblem>& problems) const {
  std::vector<at::Tensor> list;
  list.reserve(problems.size());
  for (const HeadProblem& problem : problems) list.push_back(scores(problem));
  return list;
}

std::vector<Compaction> PerHeadMethod::compact(const CompactionRequest& request) const {
  const c10::InferenceMode inference;
  check_budgets(request);
  if (needs_queries() && request.queries == nullptr) {
    throw Error(ErrorKind::kInternal, "a method that needs queries got none", "compaction",
                "make the queries before the method is called");
  }
  if (request.budgets.empty()) return {};
  if (needs_queries() && request.queries->on_policy()) return compact_on_policy(request);
  const Stopwatch clock;
  const int64_t n_layers = request.cache.n_layers();
  std::vector<at::Tensor> queries;
  if (needs_queries()) {
    for (int64_t layer = 0; layer < n_layers; ++layer) queries.push_back(request.queries->layer(layer, nullptr));
  }
  const SettledBudgets settled = settle(request, queries, 0, n_layers);
  const double settle_s = clock.seconds();
  const std::vector<HeadResult> heads = fit_layers(request, queries, settled, 0, n_layers);
  std::vector<Compaction> compactions;
  for (size_t b = 0; b < settled.budgets.size(); ++b) compactions.push_back(pack(request, heads, b));
  attribute_times(clock.seconds() - settle_s, heads, compactions);
  for (Compaction& compaction : compactions) compaction.shared_s += settle_s;
  return compactions;
}

// Layer by layer, each budget alone: the queries of a layer depend on what became of the layers below.
std::vector<Compaction> PerHeadMethod::compact_on_policy(const CompactionRequest& request) const {
  const int64_t n_layers = request.cache.n_layers();
  std::vector<Compaction> compactions;
  for (const HeadBudget& budget : request.budgets) {
    if (budget.adaptive && budget.adaptive->over_layers()) {
      throw Error(ErrorKind::kUsage, "a budget shared over all layers cannot be combined with on-policy queries",
                  "budget", "share per layer (scope: layer), or set on_policy: false");
    }
    const Stopwatch clock;
    const CompactionRequest alone{request.model,   request.context, request.cache, request.compactable,
                                  request.queries, {budget},        request.seed};
    std::vector<LayerKv> layers;
    for (int64_t layer = 0; layer < n_layers; ++layer) layers.push_back(request.cache.layer(layer));
    Json notes = Json::object();
    std::vector<at::Tensor> queries(static_cast<size_t>(n_layers));
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      const KvCache below(layers, request.cache.next_position());
      queries[static_cast<size_t>(layer)] = request.queries->layer(layer, &below);
      const SettledBudgets settled = settle(alone, queries, layer, 1);
      const std::vector<HeadResult> heads = fit_layers(alone, queries, settled, layer, 1);
      layers[static_cast<size_t>(layer)] = pack_layer(alone, heads.data(), layer, 0, notes);
      queries[static_cast<size_t>(layer)] = at::Tensor();
    }
    compactions.push_back({KvCache(std::move(layers), request.cache.next_position()), 0, clock.seconds(), notes});
  }
  return compactions;
}

}  // namespace kvc
