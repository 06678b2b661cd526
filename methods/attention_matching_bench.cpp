// What Attention Matching costs on one head, by stage; one thread, as heads run beside each other. T = 3000 entries, n
// = 4096 queries, d = 64. The matrix product at the end is the limit to compare with: the Gram matrix of t columns in
// float64, all of it. `published_loop` is a whole fit (selection, bias, values) as the published code does it, in plain
// float32 ATen with unblocked tables and QR solves; `whole` is the same by the methods' parts.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "harness/math/attention.h"
#include "harness/math/least_squares.h"
#include "methods/parts/fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

struct Head {
  HeadProblem problem;
  AttentionSummary attention;
  at::Tensor order;

  Head() {
    at::set_num_threads(1);
    const at::Generator generator = at::detail::createCPUGenerator(1);
    const auto normal = [&](int64_t rows) { return at::randn({rows, 64}, generator, at::TensorOptions(at::kFloat)); };
    const at::Tensor mix = normal(64) / 4;  // logits of a few units, as in a real head
    problem.keys = at::mm(normal(3000), mix);
    problem.values = normal(3000);
    problem.queries = at::mm(normal(4096), mix);
    attention = summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kRms, problem.values);
    order = best_keys(attention.scores, 3000);
  }
  static const Head& get() {
    static const Head head;
    return head;
  }
  at::Tensor logits(int64_t t) const {
    return attention_logits(problem.queries, problem.keys.index_select(0, order.narrow(0, 0, t)), problem.bias);
  }
};

void summary(benchmark::State& state) {
  const c10::InferenceMode inference;
  const HeadProblem& problem = Head::get().problem;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kRms, problem.values));
  }
}

void fit(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  const OrderedFit fitted(head.problem, head.attention, head.order, {});
  for (auto _ : state) benchmark::DoNotOptimize(fitted.fit(state.range(0)));
}

void fit_logits_and_exp(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  for (auto _ : state) benchmark::DoNotOptimize((head.logits(state.range(0)) - head.attention.row_max).exp_());
}

void fit_mass_gram(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  const at::Tensor table = (head.logits(state.range(0)) - head.attention.row_max).exp_(),
                   mass = head.attention.row_sum.squeeze(1);
  for (auto _ : state) benchmark::DoNotOptimize(NormalEquations(table, mass));
}

void fit_mass_solve(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  const NormalEquations equations((head.logits(state.range(0)) - head.attention.row_max).exp_(),
                                  head.attention.row_sum.squeeze(1));
  for (auto _ : state)
    benchmark::DoNotOptimize(equations.fit_box(state.range(0), {.lower = 0.05, .upper = 20, .iterations = 2}));
}

void fit_values(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Head& head = Head::get();
  const at::Tensor weights = at::softmax(head.logits(state.range(0)), 1);
  for (auto _ : state) benchmark::DoNotOptimize(least_squares(weights, head.attention.output));
}

void gram_by_one_product(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor a = Head::get().logits(state.range(0)).to(at::kDouble);
  for (auto _ : state) benchmark::DoNotOptimize(at::mm(a.t(), a));
  state.counters["flops"] =
      benchmark::Counter(2.0 * 4096 * static_cast<double>(state.range(0) * state.range(0)),
                         benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void whole(benchmark::State& state) {
  const c10::InferenceMode inference;
  const HeadProblem& problem = Head::get().problem;
  for (auto _ : state) {
    const AttentionSummary attention =
        summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kRms, problem.values);
    const OrderedFit fitted(problem, attention, best_keys(attention.scores, state.range(0)), {});
    benchmark::DoNotOptimize(fitted.fit(state.range(0)));
  }
}

// Highest-attention keys, Algorithm 3 with two steps, least squares on values, as published (arXiv:2602.16284).
void published_loop(benchmark::State& state) {
  const c10::InferenceMode inference;
  const HeadProblem& problem = Head::get().problem;
  const int64_t t = state.range(0);
  const double low = std::exp(-3.0), high = std::exp(3.0), scale = 1.0 / 8;
  const auto solve = [](const at::Tensor& a, const at::Tensor& b) {
    return std::get<0>(at::linalg_lstsq(a, b, std::nullopt, "gels"));
  };
  for (auto _ : state) {
    const at::Tensor logits = at::mm(problem.queries, problem.keys.t()) * scale;
    const at::Tensor table = (logits - logits.amax(1, /*keepdim=*/true)).exp();
    const at::Tensor mass = table.sum(1, /*keepdim=*/true);
    const at::Tensor attention = table / mass;
    const at::Tensor order = std::get<1>(at::topk(attention.square().mean(0).sqrt(), t));
    const at::Tensor columns = table.index_select(1, order);
    at::Tensor w = solve(columns, mass).clamp(low, high);
    at::Tensor u = at::randn({t, 1});
    for (int step = 0; step < 3; ++step) {
      u = u / u.norm();
      u = at::mm(columns.t(), at::mm(columns, u));
    }
    const double eta = 1 / u.norm().item<double>();
    for (int step = 0; step < 2; ++step) {
      w = (w - at::mm(columns.t(), at::mm(columns, w) - mass) * eta).clamp(low, high);
    }
    const at::Tensor keys = problem.keys.index_select(0, order);
    const at::Tensor weights = at::softmax(at::mm(problem.queries, keys.t()) * scale + w.log().t(), 1);
    benchmark::DoNotOptimize(solve(weights, at::mm(attention, problem.values)));
  }
}

BENCHMARK(published_loop)->Arg(60)->Arg(300)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(whole)->Arg(60)->Arg(300)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(summary)->Unit(benchmark::kMillisecond);
BENCHMARK(fit)->Arg(60)->Arg(150)->Arg(300)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(fit_logits_and_exp)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(fit_mass_gram)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(fit_mass_solve)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(fit_values)->Arg(600)->Unit(benchmark::kMillisecond);
BENCHMARK(gram_by_one_product)->Arg(600)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kvc
