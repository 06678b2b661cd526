// The loop over layers and heads that every per-head method shares: checks, threads, packing, times.
#include "harness/api/compaction_method.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "harness/core/error.h"
#include "harness/core/stopwatch.h"

namespace kvc {

// Budgets with the shares of adaptive ones decided, and the scores that decided.
struct PerHeadMethod::Settled {
  std::vector<HeadBudget> budgets;
  std::vector<at::Tensor> scores;  // of each head of the layers, one layer after the other; empty: nobody asked

  at::Tensor of(size_t head) const { return scores.empty() ? at::Tensor() : scores[head]; }
};

struct PerHeadMethod::HeadResult {
  std::vector<HeadFit> fits;  // one a target
  double prepare_s = 0;
  std::vector<double> fit_s;
};

namespace {

using HeadResult = PerHeadMethod::HeadResult;

std::string head_name(int64_t layer, int64_t kv_head) {
  return fmt::format("layer {}, KV head {}", layer, kv_head);
}

Error broken(const std::string& fact, int64_t layer, int64_t kv_head) {
  return Error(ErrorKind::kInternal, fact, head_name(layer, kv_head), "this is a bug of the method; please report it");
}

// A well mixed seed for one head (the finaliser of SplitMix64), so that neighbouring heads draw unrelated numbers.
std::uint64_t head_seed(std::uint64_t seed, int64_t layer, int64_t kv_head) {
  std::uint64_t z = seed + 0x9e3779b97f4a7c15ULL *
                               (static_cast<std::uint64_t>(layer) * 4099 + static_cast<std::uint64_t>(kv_head) + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

void check_budgets(const CompactionRequest& request) {
  const KvCache& cache = request.cache;
  for (const HeadBudget& budget : request.budgets) {
    bool fits = static_cast<int64_t>(budget.target_len.size()) == cache.n_layers();
    for (const auto& layer : budget.target_len) fits = fits && static_cast<int64_t>(layer.size()) == cache.n_kv_heads();
    if (!fits) {
      throw Error(ErrorKind::kInternal, "a budget has other layers or heads than the cache", "compaction",
                  "make the budget from the cache's numbers of layers and heads");
    }
    for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < cache.n_kv_heads(); ++head) {
        const int64_t source_len = request.compactable.source_len(cache.layer(layer).head_len(head));
        if (budget.at(layer, head) < 0 || budget.at(layer, head) > source_len) {
          throw Error(ErrorKind::kInternal,
                      fmt::format("a target of {} entries for {} compactable ones", budget.at(layer, head), source_len),
                      head_name(layer, head), "keep every target within 0 and the source length");
        }
      }
    }
  }
}

HeadProblem make_problem(const CompactionRequest& request, const std::vector<at::Tensor>& queries, int64_t layer,
                         int64_t kv_head) {
  const LayerKv& source = request.cache.layer(layer);
  const int64_t first = request.compactable.prefix_len;
  const int64_t length = request.compactable.source_len(source.head_len(kv_head));
  HeadProblem problem;
  problem.keys = source.head_keys(kv_head).narrow(0, first, length);
  problem.values = source.head_values(kv_head).narrow(0, first, length);
  if (source.bias.defined()) problem.bias = source.head_bias(kv_head).narrow(0, first, length);
  if (!queries.empty()) {
    problem.queries = queries[static_cast<size_t>(layer)].select(0, kv_head);
    problem.window_queries = [all = request.queries, layer, kv_head](int64_t n_tokens) {
      return all->window(layer, n_tokens).select(0, kv_head);
    };
  }
  problem.layer = layer;
  problem.kv_head = kv_head;
  problem.seed = head_seed(request.seed, layer, kv_head);
  problem.request = &request;
  return problem;
}

void check_fit(const HeadFit& fit, const HeadProblem& problem, int64_t target_len) {
  const auto fail = [&](const std::string& fact) { throw broken(fact, problem.layer, problem.kv_head); };
  const int64_t source_len = problem.keys.size(0);
  const int64_t d = problem.keys.size(1);
  if (!fit.indices.defined() || fit.indices.dim() != 1 || fit.indices.scalar_type() != at::kLong) {
    fail("a fit returned no indices, or none that are a list of int64");
  }
  if (fit.indices.size(0) != target_len) {
    fail(fmt::format("a fit returned {} entries for a target of {}", fit.indices.numel(), target_len));
  }
  const at::Tensor indices = fit.indices.cpu().contiguous();
  std::vector<bool> seen(static_cast<size_t>(source_len), false);
  for (int64_t i = 0; i < target_len; ++i) {
    const int64_t index = indices.const_data_ptr<int64_t>()[i];
    if (index < 0 || index >= source_len) fail(fmt::format("a fit returned index {} of {} entries", index, source_len));
    if (seen[static_cast<size_t>(index)]) fail(fmt::format("a fit returned index {} twice", index));
    seen[static_cast<size_t>(index)] = true;
  }
  const std::vector<int64_t> shape = {target_len, d};
  if (!fit.keys.defined() || fit.keys.sizes().vec() != shape || !fit.values.defined() ||
      fit.values.sizes().vec() != shape ||
      (fit.bias.defined() && fit.bias.sizes().vec() != std::vector<int64_t>{target_len})) {
    fail("a fit returned keys, values or bias of another shape than its indices");
  }
  if (fit.keys.scalar_type() != problem.keys.scalar_type() ||
      fit.values.scalar_type() != problem.values.scalar_type() ||
      (fit.bias.defined() && fit.bias.scalar_type() != at::kFloat)) {
    fail("a fit returned another dtype than the cache's (bias: float32)");
  }
  if (!fit.keys.isfinite().all().item<bool>() || !fit.values.isfinite().all().item<bool>() ||
      (fit.bias.defined() && !fit.bias.isfinite().all().item<bool>())) {
    fail("a fit returned numbers that are not finite");
  }
}

void check_scores(const at::Tensor& scores, const HeadProblem& problem) {
  if (!scores.defined()) {
    throw Error(ErrorKind::kUsage, "this method has no scores, which an adaptive budget is made of", "budget",
                "take the uniform budget, or a method that scores its keys");
  }
  if (scores.dim() != 1 || scores.size(0) != problem.keys.size(0) || scores.scalar_type() != at::kFloat) {
    throw broken("scores of another shape or dtype than (T) float32", problem.layer, problem.kv_head);
  }
}

std::vector<float> to_list(const at::Tensor& scores) {
  const at::Tensor list = scores.cpu().contiguous();
  return {list.const_data_ptr<float>(), list.const_data_ptr<float>() + list.numel()};
}

// Runs work(i) for i in [0, n), on all threads of LibTorch when `parallel`. Every worker computes alone with one
// thread, so the result of an item depends neither on the number of workers nor on who took it. The exception of the
// lowest item is rethrown.
void for_each_item(int64_t n, bool parallel, const std::function<void(int64_t)>& work) {
  if (!parallel) {
    for (int64_t i = 0; i < n; ++i) work(i);
    return;
  }
  std::vector<std::exception_ptr> errors(static_cast<size_t>(n));
  std::atomic<int64_t> next{0};
  const int n_threads = at::get_num_threads();
  const auto worker = [&] {
    const c10::InferenceMode inference;
    at::set_num_threads(1);  // of this thread; the caller's own setting is restored below
    for (int64_t i = next++; i < n; i = next++) {
      try {
        work(i);
      } catch (...) {
        errors[static_cast<size_t>(i)] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    for (int64_t w = 0; w < std::min<int64_t>(n_threads, n); ++w) workers.emplace_back(worker);
  }
  at::set_num_threads(n_threads);
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

// [prefix as it was][fit][suffix as it was] of one head.
struct PackedHead {
  at::Tensor keys, values, bias;
};

PackedHead with_template(const LayerKv& source, int64_t kv_head, const Compactable& compactable, const HeadFit& fit) {
  const int64_t length = source.head_len(kv_head);
  const auto around = [&](const at::Tensor& whole, const at::Tensor& middle) {
    return at::cat({whole.narrow(0, 0, compactable.prefix_len), middle,
                    whole.narrow(0, length - compactable.suffix_len, compactable.suffix_len)});
  };
  PackedHead packed{around(source.head_keys(kv_head), fit.keys), around(source.head_values(kv_head), fit.values), {}};
  if (source.bias.defined() || fit.bias.defined()) {
    const auto zeros = [&](int64_t n) { return at::zeros({n}, source.keys.options().dtype(at::kFloat)); };
    packed.bias = around(source.bias.defined() ? source.head_bias(kv_head) : zeros(length),
                         fit.bias.defined() ? fit.bias : zeros(fit.keys.size(0)));
  }
  return packed;
}

void add_notes(Json& sum, const Json& notes) {
  for (const auto& [name, value] : notes.items()) {
    if (!sum.contains(name))
      sum[name] = value;
    else if (value.is_number_integer())
      sum[name] = sum[name].get<int64_t>() + value.get<int64_t>();
    else
      sum[name] = sum[name].get<double>() + value.get<double>();
  }
}

// heads: results of the layer's heads, of which fit `budget` is taken.
LayerKv pack_layer(const CompactionRequest& request, const HeadResult* heads, int64_t layer, size_t budget,
                   Json& notes) {
  std::vector<at::Tensor> keys, values, bias;
  for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
    const HeadFit& fit = heads[head].fits[budget];
    const PackedHead packed = with_template(request.cache.layer(layer), head, request.compactable, fit);
    keys.push_back(packed.keys);
    values.push_back(packed.values);
    bias.push_back(packed.bias);
    add_notes(notes, fit.notes);
  }
  LayerKv packed = pack_heads(keys, values, bias);
  if (packed.bias.defined() && packed.bias.count_nonzero().item<int64_t>() == 0) packed.bias = at::Tensor();
  return packed;
}

Compaction pack(const CompactionRequest& request, const std::vector<HeadResult>& heads, size_t budget) {
  std::vector<LayerKv> layers;
  Json notes = Json::object();
  for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
    layers.push_back(
        pack_layer(request, &heads[static_cast<size_t>(layer * request.cache.n_kv_heads())], layer, budget, notes));
  }
  return Compaction{KvCache(std::move(layers), request.cache.next_position()), 0, 0, std::move(notes)};
}

// Heads run at the same time, so their times add up to more than what passed; the wall clock is handed out in
// proportion.
void attribute_times(double wall_s, const std::vector<HeadResult>& heads, std::vector<Compaction>& compactions) {
  double prepare_s = 0;
  std::vector<double> fit_s(compactions.size(), 0.0);
  for (const HeadResult& head : heads) {
    prepare_s += head.prepare_s;
    for (size_t b = 0; b < fit_s.size(); ++b) fit_s[b] += head.fit_s[b];
  }
  double total_s = prepare_s;
  for (const double seconds : fit_s) total_s += seconds;
  if (total_s <= 0) return;
  for (size_t b = 0; b < fit_s.size(); ++b) {
    compactions[b].shared_s = wall_s * prepare_s / total_s;
    compactions[b].own_s = wall_s * fit_s[b] / total_s;
  }
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

// scores() is asked once a head, and only where a budget is adaptive.
PerHeadMethod::Settled PerHeadMethod::settle(const CompactionRequest& request, const std::vector<at::Tensor>& queries,
                                             int64_t first_layer, int64_t n_layers) const {
  Settled all{request.budgets, {}};
  const auto is_adaptive = [](const HeadBudget& budget) { return budget.adaptive.has_value(); };
  if (std::none_of(all.budgets.begin(), all.budgets.end(), is_adaptive)) return all;
  const auto n_kv_heads = static_cast<size_t>(request.cache.n_kv_heads());
  std::vector<std::vector<std::vector<float>>> scores(static_cast<size_t>(n_layers));
  for (auto& layer : scores) layer.resize(n_kv_heads);
  all.scores.resize(static_cast<size_t>(n_layers) * n_kv_heads);
  const auto score_head = [&](int64_t item) {
    const auto layer = static_cast<size_t>(item) / n_kv_heads;
    const auto head = static_cast<size_t>(item) % n_kv_heads;
    const HeadProblem problem =
        make_problem(request, queries, first_layer + static_cast<int64_t>(layer), static_cast<int64_t>(head));
    at::Tensor& made = all.scores[static_cast<size_t>(item)];
    made = this->scores(problem);
    check_scores(made, problem);
    scores[layer][head] = to_list(made);
  };
  for_each_item(n_layers * request.cache.n_kv_heads(), request.cache.layer(0).keys.is_cpu(), score_head);
  for (HeadBudget& budget : all.budgets) {
    if (!budget.adaptive) continue;
    const auto begin = budget.target_len.begin() + first_layer;
    const std::vector<std::vector<int64_t>> settled =
        adaptive_lengths(*budget.adaptive, {begin, begin + n_layers}, scores);
    std::copy(settled.begin(), settled.end(), begin);
  }
  return all;
}

std::vector<Compaction> PerHeadMethod::compact(const CompactionRequest& request) const {
  const c10::InferenceMode inference;
  check_budgets(request);
  if (needs_queries() && request.queries == nullptr) {
    throw Error(ErrorKind::kInternal, "a method that needs queries was given none", "compaction",
                "make the queries before the method is called");
  }
  if (request.budgets.empty()) return {};
  if (needs_queries() && request.queries->on_policy()) return compact_on_policy(request);
  const Stopwatch clock;
  const int64_t n_kv_heads = request.cache.n_kv_heads();
  const int64_t n_layers = request.cache.n_layers();
  std::vector<at::Tensor> queries;
  if (needs_queries()) {
    for (int64_t layer = 0; layer < n_layers; ++layer) queries.push_back(request.queries->layer(layer, nullptr));
  }
  const Settled settled = settle(request, queries, 0, n_layers);
  const std::vector<HeadBudget>& budgets = settled.budgets;
  const double settle_s = clock.seconds();

  std::vector<HeadResult> heads(static_cast<size_t>(n_layers * n_kv_heads));
  const auto do_head = [&](int64_t item) {
    const int64_t layer = item / n_kv_heads;
    const int64_t kv_head = item % n_kv_heads;
    std::vector<int64_t> targets;
    for (const HeadBudget& budget : budgets) targets.push_back(budget.at(layer, kv_head));
    HeadProblem problem = make_problem(request, queries, layer, kv_head);
    problem.scores = settled.of(static_cast<size_t>(item));
    fit_targets(problem, targets, heads[static_cast<size_t>(item)]);
  };
  // On a GPU one head fills the device; threads would only contend for its stream.
  for_each_item(n_layers * n_kv_heads, request.cache.layer(0).keys.is_cpu(), do_head);

  std::vector<Compaction> compactions;
  for (size_t b = 0; b < budgets.size(); ++b) compactions.push_back(pack(request, heads, b));
  attribute_times(clock.seconds() - settle_s, heads, compactions);
  for (Compaction& compaction : compactions) compaction.shared_s += settle_s;
  return compactions;
}

// Layer by layer, each budget alone: the queries of a layer depend on what became of the layers below.
std::vector<Compaction> PerHeadMethod::compact_on_policy(const CompactionRequest& request) const {
  const int64_t n_kv_heads = request.cache.n_kv_heads();
  const int64_t n_layers = request.cache.n_layers();
  std::vector<Compaction> compactions;
  for (const HeadBudget& budget : request.budgets) {
    if (budget.adaptive && budget.adaptive->scope == AdaptiveShare::Scope::kAll) {
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
      const Settled settled = settle(alone, queries, layer, 1);
      std::vector<HeadResult> heads(static_cast<size_t>(n_kv_heads));
      const auto do_head = [&](int64_t head) {
        HeadProblem problem = make_problem(alone, queries, layer, head);
        problem.scores = settled.of(static_cast<size_t>(head));
        fit_targets(problem, {settled.budgets.front().at(layer, head)}, heads[static_cast<size_t>(head)]);
      };
      for_each_item(n_kv_heads, request.cache.layer(0).keys.is_cpu(), do_head);
      layers[static_cast<size_t>(layer)] = pack_layer(alone, heads.data(), layer, 0, notes);
      queries[static_cast<size_t>(layer)] = at::Tensor();
    }
    compactions.push_back({KvCache(std::move(layers), request.cache.next_position()), 0, clock.seconds(), notes});
  }
  return compactions;
}

}  // namespace kvc
