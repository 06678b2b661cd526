// Matching pursuit beside a plain float32 version of the published loop (Algorithm 1 of arXiv:2602.16284) on the same
// tensors: T = 2048 keys, n = 4096 queries, d = 128, t = 200 picks. `naive` forms the (n,T) product of the table with
// the residual and solves least squares from scratch at every step, as published. Counters: picks equal to naive's, of
// 200.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <limits>

#include "harness/math/attention.h"
#include "harness/math/matching_pursuit.h"

namespace kvc {
namespace {

constexpr int64_t kKeys = 2048, kQueries = 4096, kDim = 128, kPicks = 200;

struct Head {
  at::Tensor queries, keys, row_max, row_sum;

  Head() {
    const at::Generator generator = at::detail::createCPUGenerator(1);
    const auto normal = [&](int64_t rows, int64_t columns) {
      return at::randn({rows, columns}, generator, at::TensorOptions(at::kFloat));
    };
    // Keys in clusters that queries look at to different degrees: a few keys carry most of the attention.
    const at::Tensor centres = normal(24, kDim);
    const auto near = [&](int64_t rows, double spread) {
      const at::Tensor member = at::randint(24, {rows}, generator, at::TensorOptions(at::kLong));
      return centres.index_select(0, member) + normal(rows, kDim) * spread;
    };
    keys = near(kKeys, 0.6);
    queries = near(kQueries, 0.8);
    const at::Tensor logits = attention_logits(queries, keys, {});
    row_max = logits.amax(1, /*keepdim=*/true);
    row_sum = (logits - row_max).exp().sum(1, /*keepdim=*/true);
  }
  static const Head& get() {
    static const Head head;
    return head;
  }
  MatchingPursuit pursuit() const { return {queries, keys, {}, row_max, row_sum, {}}; }
};

std::vector<int64_t> naive_order() {
  const Head& head = Head::get();
  const at::Tensor logits = at::mm(head.queries, head.keys.t()) / std::sqrt(static_cast<double>(kDim));
  const at::Tensor table = (logits - logits.amax(1, /*keepdim=*/true)).exp();
  const at::Tensor mass = table.sum(1, /*keepdim=*/true);
  at::Tensor current = at::zeros_like(mass);
  std::vector<int64_t> order;
  while (static_cast<int64_t>(order.size()) < kPicks) {
    at::Tensor correlation = (table * (mass - current)).sum(0);
    for (const int64_t key : order) correlation[key] = -std::numeric_limits<float>::infinity();
    order.push_back(correlation.argmax().item<int64_t>());
    const at::Tensor columns = table.index_select(1, at::tensor(order, at::kLong));
    const at::Tensor weights =
        std::get<0>(at::linalg_lstsq(columns, mass, std::nullopt, "gels")).clamp(1e-12, std::exp(7.0));
    current = at::mm(columns, weights);
  }
  return order;
}

std::vector<int64_t> found_by_naive;  // where its benchmark runs too

void naive(benchmark::State& state) {
  const c10::InferenceMode inference;
  Head::get();
  for (auto _ : state) found_by_naive = naive_order();
}

void pursuit(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  std::vector<int64_t> order;
  for (auto _ : state) {
    MatchingPursuit made = head.pursuit();
    made.run(kPicks);
    order = made.picks(kPicks).order;
  }
  if (found_by_naive.empty()) return;
  double equal = 0;
  for (size_t i = 0; i < order.size(); ++i) equal += order[i] == found_by_naive[i] ? 1 : 0;
  state.counters["picks_as_naive"] = equal;
}

// Targets 200, 100, 50, 20 and 10 from one run.
void pursuit_of_five_targets(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  for (auto _ : state) {
    MatchingPursuit made = head.pursuit();
    made.run(kPicks);
    for (const int64_t target : {200, 100, 50, 20, 10}) benchmark::DoNotOptimize(made.picks(target));
  }
}

// What precedes the first pick.
void pursuit_table(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  for (auto _ : state) benchmark::DoNotOptimize(head.pursuit());
}

BENCHMARK(naive)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(pursuit)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(pursuit_of_five_targets)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(pursuit_table)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace kvc
