// Attention against LibTorch's own and against the matrix product, in one run: read ratios, not absolutes.
// The CPU column is the time of all threads together, which holds on a busy machine too.
// Counters: flops as a rate (causal flops only), bytes of keys and values as a rate.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <vector>

#include "harness/attention/ragged_attention.h"

namespace kvc {
namespace {

constexpr int64_t kKvHeads = 3, kGroup = 3, kHeads = kKvHeads * kGroup, kDim = 64;

at::ScalarType dtype_of(const benchmark::State& state) {
  return state.range(0) == 0 ? at::kFloat : at::kBFloat16;
}

void report_flops(benchmark::State& state, double flops) {
  state.SetLabel(dtype_of(state) == at::kFloat ? "float32" : "bfloat16");
  state.counters["flops"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

double causal_flops(int64_t n) {
  return 4.0 * kHeads * kDim * static_cast<double>(n) * (static_cast<double>(n) + 1) / 2;
}

void matrix_product(benchmark::State& state) {
  const at::Tensor a = at::randn({2048, 1536}).to(dtype_of(state)), b = at::randn({1536, 1536}).to(dtype_of(state));
  for (auto _ : state) benchmark::DoNotOptimize(at::mm(a, b));
  report_flops(state, 2.0 * 2048 * 1536 * 1536);
}

void causal_prefill(benchmark::State& state) {
  const int64_t n = state.range(1);
  const at::Tensor queries = at::randn({n, kHeads, kDim}).to(dtype_of(state));
  const at::Tensor keys = at::randn({1, kKvHeads, n, kDim}).to(dtype_of(state)), values = at::randn_like(keys);
  for (auto _ : state) benchmark::DoNotOptimize(tail_attention(queries, {keys, values, {0}, {0, n}}));
  report_flops(state, causal_flops(n));
}

void causal_prefill_libtorch(benchmark::State& state) {
  const int64_t n = state.range(1);
  const at::Tensor queries = at::randn({1, kHeads, n, kDim}).to(dtype_of(state));
  const at::Tensor keys = at::randn({1, kHeads, n, kDim}).to(dtype_of(state)), values = at::randn_like(keys);
  for (auto _ : state) {
    benchmark::DoNotOptimize(at::scaled_dot_product_attention(queries, keys, values, {}, 0.0, /*is_causal=*/true));
  }
  report_flops(state, causal_flops(n));
}

// `batch` sequences that decode a token each over a shared ragged prefix of `entries` in all.
void decode_over_prefix(benchmark::State& state) {
  const int64_t batch = state.range(1), entries = state.range(2);
  const at::TensorOptions options = at::TensorOptions().dtype(dtype_of(state));
  const LayerKv prefix{at::randn({entries, kDim}).to(options),
                       at::randn({entries, kDim}).to(options),
                       at::randn({entries}),
                       {0, entries / 6, entries / 2, entries}};
  const at::Tensor queries = at::randn({batch, kHeads, kDim}).to(options);
  for (auto _ : state) benchmark::DoNotOptimize(prefix_attention(queries, prefix));
  report_flops(state, 4.0 * static_cast<double>(batch * kGroup * entries * kDim));
  state.SetBytesProcessed(state.iterations() * entries * kDim * 2 * queries.element_size());
}

// One token over its own tail: what plain decoding of one sequence does.
void decode_over_tail(benchmark::State& state) {
  const int64_t batch = state.range(1), n = state.range(2);
  const at::Tensor queries = at::randn({batch, kHeads, kDim}).to(dtype_of(state));
  const at::Tensor keys = at::randn({batch, kKvHeads, n, kDim}).to(dtype_of(state)), values = at::randn_like(keys);
  const std::vector<int64_t> lengths(static_cast<size_t>(batch), n - 1);
  std::vector<int64_t> offsets;
  for (int64_t b = 0; b <= batch; ++b) offsets.push_back(b);
  for (auto _ : state) benchmark::DoNotOptimize(tail_attention(queries, {keys, values, lengths, offsets}));
  report_flops(state, 4.0 * static_cast<double>(batch * kHeads * n * kDim));
  state.SetBytesProcessed(state.iterations() * batch * kKvHeads * n * kDim * 2 * queries.element_size());
}

BENCHMARK(matrix_product)->MeasureProcessCPUTime()->UseRealTime()->Arg(0)->Arg(1);
BENCHMARK(causal_prefill)->MeasureProcessCPUTime()->UseRealTime()->ArgsProduct({{0, 1}, {2048, 6144}});
BENCHMARK(causal_prefill_libtorch)->MeasureProcessCPUTime()->UseRealTime()->ArgsProduct({{0, 1}, {2048, 6144}});
BENCHMARK(decode_over_prefix)->MeasureProcessCPUTime()->UseRealTime()->ArgsProduct({{0, 1}, {1, 16}, {9000, 3000}});
BENCHMARK(decode_over_tail)->MeasureProcessCPUTime()->UseRealTime()->ArgsProduct({{0, 1}, {1, 16}, {1024}});

}  // namespace
}  // namespace kvc
