// What evictions and merges cost on one head for three targets (2, 10 and 20 %) in one call; one thread, as heads run
// beside each other. T = 3000 entries, d = 64, n = 4096 and 49152 queries. `logits` is the matrix product that scores
// from all queries cannot do without: the limit to compare with.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>

#include "harness/math/attention.h"
#include "harness/testing/method_heads.h"

namespace kvc {
namespace {

const HeadProblem& head_with(int64_t n_queries) {
  static const HeadProblem few = random_head(3000, 4096, 64, 1), many = random_head(3000, 49152, 64, 1);
  return n_queries == 4096 ? few : many;
}

void fits(benchmark::State& state, const char* name) {
  const c10::InferenceMode inference;
  at::set_num_threads(1);
  const NamedMethod method(name);
  const HeadProblem& problem = head_with(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(method->fit(problem, {60, 300, 600}));
}

void logits(benchmark::State& state) {
  const c10::InferenceMode inference;
  at::set_num_threads(1);
  const HeadProblem& problem = head_with(state.range(0));
  for (auto _ : state) {
    for (int64_t first = 0; first < state.range(0); first += 256) {
      benchmark::DoNotOptimize(attention_logits(problem.queries.narrow(0, first, 256), problem.keys, problem.bias));
    }
  }
}

BENCHMARK(logits)->Arg(4096)->Arg(49152)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, h2o, "h2o")->Arg(4096)->Arg(49152)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, kvzip, "kvzip")->Arg(4096)->Arg(49152)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, cam, "cam")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, d2o, "d2o")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, snapkv, "snapkv")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, tova, "tova")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, key_norm, "key_norm")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, keydiff, "keydiff")->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fits, random_keys, "random_keys")->Arg(4096)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kvc
