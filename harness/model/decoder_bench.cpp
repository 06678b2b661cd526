// Prefill and batched decode of the demo model beside what the machine could do at best: the matrix products of the
// same shapes alone (prefill), and the weights read once (decode). Names: prefill/DTYPE/TOKENS,
// decode/DTYPE/BATCH/PREFIX, prefill_limit/DTYPE, decode_limit/DTYPE. KVC_MODEL names another GGUF file than the demo
// model's.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>

#include <cstdlib>
#include <map>
#include <string>

#include "harness/model/generate.h"
#include "harness/model/linear.h"
#include "harness/model/model.h"

namespace kvc {
namespace {

// Loaded when first asked for; one benchmark runs at a time.
const Model& model(const std::string& dtype) {
  static std::map<std::string, Model> loaded;
  const auto found = loaded.find(dtype);
  if (found != loaded.end()) return found->second;
  const char* path = std::getenv("KVC_MODEL");
  ModelConfig config;
  config.path = path != nullptr ? path : std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
  config.dtype = dtype;
  config.device = "cpu";
  return loaded.emplace(dtype, Model::load(config)).first->second;
}

std::vector<int64_t> some_tokens(int64_t n) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(1000 + i * 7919 % 40000);
  return tokens;
}

// The weights of one layer, by shape: (rows, columns).
std::vector<std::pair<int64_t, int64_t>> layer_shapes(const DecoderSpec& s) {
  return {{(s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim, s.hidden_size},
          {s.hidden_size, s.n_query_heads * s.head_dim},
          {2 * s.feed_forward_size, s.hidden_size},
          {s.hidden_size, s.feed_forward_size}};
}

double layer_products(const DecoderSpec& spec) {
  double products = 0;
  for (const auto& [rows, columns] : layer_shapes(spec)) products += static_cast<double>(rows * columns);
  return products;
}

void tokens_per_second(benchmark::State& state, double tokens) {
  state.counters["tokens_per_s"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
}

void prefill(benchmark::State& state, const std::string& dtype, int64_t n_tokens) {
  const Decoder& decoder = model(dtype).decoder();
  const auto tokens = some_tokens(n_tokens);
  (void)decoder.prefill(some_tokens(256));  // warm: threads, allocator, weights in memory
  for (auto _ : state) benchmark::DoNotOptimize(decoder.prefill(tokens));
  tokens_per_second(state, static_cast<double>(n_tokens));
}

// The matrix products of one chunk of 1,024 tokens in every layer, nothing else: tokens/s that no prefill can pass.
void prefill_limit(benchmark::State& state, const std::string& dtype) {
  const c10::InferenceMode inference;
  const Decoder& decoder = model(dtype).decoder();
  std::vector<at::Tensor> weights, rows;
  for (const auto& [out, in] : layer_shapes(decoder.spec())) {
    weights.push_back(at::randn({out, in}).to(decoder.options()));
    rows.push_back(at::randn({1024, in}).to(decoder.options()));
  }
  for (auto _ : state) {
    for (int64_t layer = 0; layer < decoder.spec().n_layers; ++layer) {
      for (size_t i = 0; i < weights.size(); ++i) benchmark::DoNotOptimize(project(rows[i], weights[i]));
    }
  }
  tokens_per_second(state, 1024);
  const double flops = 2 * 1024 * layer_products(decoder.spec()) * static_cast<double>(decoder.spec().n_layers);
  state.counters["flop_per_s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// One token for each of `batch` sequences behind a shared prefix, after prompts of 16 tokens; tails of 16 to 48
// entries.
void decode(benchmark::State& state, const std::string& dtype, int64_t batch, int64_t prefix_tokens) {
  const c10::InferenceMode inference;
  const Decoder& decoder = model(dtype).decoder();
  const KvCache prefix = decoder.prefill(some_tokens(prefix_tokens));
  Tails tails = Tails::behind(prefix, batch, 16 + 32);
  const auto n = static_cast<size_t>(batch);
  (void)decoder.forward(PackedTokens::pack(std::vector<std::vector<int64_t>>(n, some_tokens(16))), prefix, tails);
  const PackedTokens step = PackedTokens::pack(std::vector<std::vector<int64_t>>(n, {1234}));
  const auto take_step = [&] {
    if (tails.lengths()[0] == tails.capacity()) {
      for (int64_t b = 0; b < batch; ++b) tails.truncate(b, 16);
    }
    benchmark::DoNotOptimize(at::amax(decoder.logits(decoder.forward(step, prefix, tails)), {1}));
  };
  take_step();
  // Sixteen steps at a time, as many as one measurement needs to be steady.
  for (auto _ : state) {
    for (int i = 0; i < 16; ++i) take_step();
  }
  tokens_per_second(state, 16 * static_cast<double>(batch));
}

// Every weight that a step needs, read once by a sum: the least time of a step, whatever its batch.
void decode_limit(benchmark::State& state, const std::string& dtype) {
  const c10::InferenceMode inference;
  const DecoderSpec& spec = model(dtype).spec();
  const double numbers = layer_products(spec) * static_cast<double>(spec.n_layers) +
                         static_cast<double>(spec.vocab_size * spec.hidden_size);
  const double bytes = numbers * static_cast<double>(model(dtype).decoder().options().dtype().itemsize());
  const at::Tensor weights = at::ones({static_cast<int64_t>(bytes / 4)}, at::kFloat);
  for (auto _ : state) benchmark::DoNotOptimize(weights.sum());
  state.counters["steps_per_s"] = benchmark::Counter(1, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["bytes_per_s"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

template <class Function, class... Arguments>
void add(const std::string& name, Function function, Arguments... arguments) {
  benchmark::RegisterBenchmark(name.c_str(), function, arguments...)->Unit(benchmark::kMillisecond)->UseRealTime();
}

const bool kRegistered = [] {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const int64_t n : {2048, 6144}) add("prefill/" + dtype + "/" + std::to_string(n), prefill, dtype, n);
    add("prefill_limit/" + dtype, prefill_limit, dtype);
    for (const int64_t batch : {1, 8, 16, 32}) {
      for (const int64_t n : {1024, 3072}) {
        add("decode/" + dtype + "/" + std::to_string(batch) + "/" + std::to_string(n), decode, dtype, batch, n);
      }
    }
    add("decode_limit/" + dtype, decode_limit, dtype);
  }
  return true;
}();

}  // namespace
}  // namespace kvc
