// What a GPU takes for the stages of a sweep at published shapes, each beside what the machine could do at best. Prints
// one JSON line a measurement; scripts/gpu_check runs it and makes a table.
//
//   gpu_bench --step NAME [--shape NAME] [--device cuda] [--seconds 20]
//
// Steps: limits (copies and products, which the others are held against), prefill, read, decode, score, fit, pursuit,
// match (Attention Matching as a sweep calls it, heads in batches). score, fit and pursuit take the 8 heads of a layer
// at once; their times are of all 8, and are to be multiplied by the 36 layers. Weights, caches and texts are random
// numbers made on the device from a seed, so nothing is loaded. Fits and pursuits get keys in clusters and queries that
// look at some of them, since random ones attend to everything alike.
//
// With --device cpu the same program runs on the CPU, for which --shape tiny is meant: a test that it works.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/api/pack_compaction.h"
#include "harness/attention/device_attention.h"
#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/core/registry.h"
#include "harness/core/stopwatch.h"
#include "harness/math/batched_least_squares.h"
#include "harness/math/block_cholesky.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/float_product.h"
#include "harness/math/least_squares.h"
#include "harness/math/product_statistics.h"
#include "harness/model/decode_step.h"
#include "harness/model/device_care.h"
#include "harness/model/linear.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

constexpr double kGiga = 1e9, kTera = 1e12;

struct Shape {
  DecoderSpec spec;
  int64_t context;                         // tokens of the document
  std::vector<int64_t> prefills, batches;  // tokens; sequences decoded together
  int64_t compact;                         // entries a head that are left
  std::vector<int64_t> n_queries, targets;
  int64_t pursuit_keys, pursuit_picks;
  int64_t questions, question_tokens;
};

DecoderSpec spec_of(int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t d, int64_t ffn,
                    int64_t vocab, int64_t positions, bool qk_norm, bool tied) {
  DecoderSpec spec;
  spec.n_layers = layers;
  spec.hidden_size = hidden;
  spec.n_query_heads = heads;
  spec.n_kv_heads = kv_heads;
  spec.head_dim = d;
  spec.feed_forward_size = ffn;
  spec.vocab_size = vocab;
  spec.max_positions = positions;
  spec.qk_norm = qk_norm;
  spec.tied_embeddings = tied;
  return spec;
}

Shape shape_of(const std::string& name) {
  if (name == "qwen3-4b") {
    return {spec_of(36, 2560, 32, 8, 128, 9728, 151'936, 131'072, true, true),
            60'000,
            {8192, 16'384, 60'000},
            {1, 20, 100},
            3000,
            {4096, 50'000},
            {600, 3000},
            8192,
            400,
            20,
            250};
  }
  if (name == "llama-3.1-8b") {
    return {spec_of(32, 4096, 32, 8, 128, 14'336, 128'256, 131'072, false, false),
            60'000,
            {8192, 60'000},
            {1, 20, 100},
            3000,
            {4096, 50'000},
            {600, 3000},
            8192,
            400,
            20,
            250};
  }
  if (name == "tiny") {
    return {spec_of(2, 64, 4, 2, 16, 96, 300, 2048, true, true), 200, {150}, {1, 3}, 20, {64}, {20}, 128, 12, 2, 9};
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown shape '{}'", name), "--shape",
              suggest_name(name, {"qwen3-4b", "llama-3.1-8b", "tiny"}));
}

// What the rooflines are made of, as measured by the step `limits` or given by its output; 0: not known.
struct Limits {
  double copy_bytes_per_s = 0, bfloat16_flops = 0, float32_flops = 0, float64_flops = 0;
};

class Bench {
 public:
  Bench(Shape shape, const at::Device& device, double seconds, Limits limits)
      : shape_(std::move(shape)), device_(device), care_(DeviceCare::of({device})), seconds_(seconds), limits_(limits) {
    at::manual_seed(18);
  }

  // Whether everything of the step was measured.
  bool run(const std::string& step) {
    measure(step);
    return !failed_;
  }

 private:
  void measure(const std::string& step) {
    if (step == "limits") return measure_limits();
    if (step == "prefill") return prefill();
    if (step == "read") return read();
    if (step == "decode") return decode();
    if (step == "score") return score();
    if (step == "fit") return fit();
    if (step == "pursuit") return pursuit();
    if (step == "match") return match();
    throw Error(ErrorKind::kUsage, fmt::format("unknown step '{}'", step), "--step",
                suggest_name(step, {"limits", "prefill", "read", "decode", "score", "fit", "pursuit", "match"}));
  }

  const DecoderSpec& spec() const { return shape_.spec; }
  at::TensorOptions halves() const { return at::TensorOptions().dtype(at::kBFloat16).device(device_); }
  at::TensorOptions floats() const { return at::TensorOptions().dtype(at::kFloat).device(device_); }

  void wait() const { (void)at::zeros({1}, floats()).item<float>(); }

  // Median and spread of as many runs as fit the time, three at least; the first, which makes libraries load, is left
  // out.
  std::vector<double> time(const std::function<void()>& work) const {
    work();
    wait();
    std::vector<double> seconds;
    double total = 0;
    while (seconds.size() < 3 || (total < seconds_ / 8 && seconds.size() < 50)) {
      const Stopwatch clock;
      work();
      wait();
      seconds.push_back(clock.seconds());
      total += seconds.back();
      if (total > seconds_ && !seconds.empty()) break;
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds;
  }

  // Prints a line. flops are of the products named by `at`; the roofline is the larger of memory and arithmetic.
  double tell(const std::string& step, const Json& facts, const std::function<void()>& work, double bytes, double flops,
              double flops_per_s) {
    if (care_.take_peak) (void)care_.take_peak();
    Json line = {{"step", step}};
    line.update(facts);
    double median = 0;
    try {
      const std::vector<double> seconds = time(work);
      median = seconds[seconds.size() / 2];
      line["seconds"] = median;
      line["least_s"] = seconds.front();
      line["most_s"] = seconds.back();
      line["runs"] = seconds.size();
      double floor = 0;
      if (limits_.copy_bytes_per_s > 0) floor = bytes / limits_.copy_bytes_per_s;
      if (flops_per_s > 0) floor = std::max(floor, flops / flops_per_s);
      if (floor > 0) line["roofline_s"] = floor;
      if (bytes > 0) line["GB_per_s"] = bytes / median / kGiga;
      if (flops > 0) line["TFLOP_per_s"] = flops / median / kTera;
    } catch (const c10::Error& error) {
      failed_ = true;
      line["error"] = std::string(error.what_without_backtrace()).substr(0, 400);
      care_.after_failure(line["error"]);
    }
    if (care_.take_peak) line["peak_device_bytes"] = care_.take_peak();
    print(line);
    return median;
  }

  static void print(const Json& line) {
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }

  void measure_limits() {
    const int64_t n = device_.is_cuda() ? int64_t{1} << 28 : int64_t{1} << 20, size = device_.is_cuda() ? 8192 : 256;
    const at::Tensor from = at::zeros({n}, floats()), to = at::empty_like(from);
    const double bytes = 8.0 * static_cast<double>(n), flops = 2.0 * std::pow(static_cast<double>(size), 3);
    tell(
        "copy", Json::object(), [&] { to.copy_(from); }, bytes, 0, 0);
    const std::pair<const char*, at::ScalarType> types[] = {
        {"bfloat16", at::kBFloat16}, {"float32", at::kFloat}, {"float64", at::kDouble}};
    for (const auto& [name, dtype] : types) {
      const at::Tensor a = at::randn({size, size}, floats()).to(dtype), out = at::empty_like(a);
      tell(
          "product", {{"dtype", name}, {"size", size}}, [&] { at::mm_out(const_cast<at::Tensor&>(out), a, a); }, 0,
          flops, 0);
    }
    const at::Tensor a = at::randn({size, size}, floats()).to(at::kBFloat16);
    tell(
        "product", {{"dtype", "bfloat16 to float32"}, {"size", size}}, [&] { (void)float_product(a, a); }, 0, flops, 0);
    print({{"step", "route"},
           {"attention", gpu::attention_way()},
           {"fast_float64", device_.is_cuda() && gpu::has_fast_double(device_)}});
  }

  at::Tensor normal(at::IntArrayRef shape, double scale) const {
    return at::randn(shape, floats()).mul_(scale).to(at::kBFloat16);
  }

  const Decoder& decoder() {
    if (decoder_) return *decoder_;
    const DecoderSpec& s = spec();
    const double from_hidden = 1.0 / std::sqrt(static_cast<double>(s.hidden_size));
    const at::Tensor ones = at::ones({s.hidden_size}, halves()), head_ones = at::ones({s.head_dim}, halves());
    DecoderWeights weights;
    weights.embedding = normal({s.vocab_size, s.hidden_size}, 0.5);
    for (int64_t l = 0; l < s.n_layers; ++l) {
      LayerWeights layer;
      layer.attention_norm = layer.feed_forward_norm = ones;
      if (s.qk_norm) layer.q_norm = layer.k_norm = head_ones;
      layer.qkv = normal({(s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim, s.hidden_size}, from_hidden);
      layer.attention_output = normal({s.hidden_size, s.n_query_heads * s.head_dim}, from_hidden);
      layer.gate_up = normal({2 * s.feed_forward_size, s.hidden_size}, from_hidden);
      layer.down = normal({s.hidden_size, s.feed_forward_size}, from_hidden);
      weights.layers.push_back(std::move(layer));
    }
    weights.final_norm = ones;
    weights.head = s.tied_embeddings ? weights.embedding : normal({s.vocab_size, s.hidden_size}, from_hidden);
    decoder_.emplace(s, std::move(weights));
    return *decoder_;
  }

  std::vector<int64_t> tokens(int64_t n) const {
    std::vector<int64_t> list;
    for (int64_t i = 0; i < n; ++i) list.push_back(i * 7919 % spec().vocab_size);
    return list;
  }

  double layer_weights() const {
    const DecoderSpec& s = spec();
    const int64_t qkv = (s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim;
    return static_cast<double>(s.hidden_size * (qkv + s.n_query_heads * s.head_dim + 3 * s.feed_forward_size));
  }

  // The layer's products alone, for n rows.
  void products(int64_t n) {
    const LayerWeights& layer = decoder().weights().layers.front();
    const at::Tensor rows = at::zeros({n, spec().hidden_size}, halves());
    const at::Tensor heads = at::zeros({n, spec().n_query_heads * spec().head_dim}, halves());
    const at::Tensor inner = at::zeros({n, spec().feed_forward_size}, halves());
    (void)project(rows, layer.qkv);
    (void)project(heads, layer.attention_output);
    (void)project(rows, layer.gate_up);
    (void)project(inner, layer.down);
  }

  // A layer's attention alone, in the chunks that a prefill reads.
  void attention(int64_t total) {
    const int64_t chunk = decoder().chunk_tokens();
    const at::Tensor keys = at::zeros({1, spec().n_kv_heads, total, spec().head_dim}, halves());
    const LayerKv nothing{at::zeros({0, spec().head_dim}, halves()),
                          at::zeros({0, spec().head_dim}, halves()),
                          {},
                          std::vector<int64_t>(static_cast<size_t>(spec().n_kv_heads) + 1, 0)};
    for (int64_t first = 0; first < total; first += chunk) {
      const int64_t n = std::min(chunk, total - first);
      const at::Tensor queries = at::zeros({n, spec().n_query_heads, spec().head_dim}, halves());
      (void)context_attention(queries, nothing, keys, keys, {first}, {0, n});
    }
  }

  void prefill() {
    for (const int64_t n : shape_.prefills) {
      const auto count = static_cast<double>(n), layers = static_cast<double>(spec().n_layers);
      const double of_products = 2 * count * layers * layer_weights();
      const double of_attention =
          2 * count * count * layers * static_cast<double>(spec().n_query_heads * spec().head_dim);
      const std::vector<int64_t> text = tokens(n);
      const Json facts = {{"tokens", n}};
      const double whole = tell(
          "prefill", facts, [&] { (void)decoder().prefill(text); }, 0, of_products + of_attention,
          limits_.bfloat16_flops);
      const double products_s = tell(
          "prefill: one layer's products", facts,
          [&] {
            for (int64_t first = 0; first < n; first += decoder().chunk_tokens())
              products(std::min(decoder().chunk_tokens(), n - first));
          },
          0, of_products / layers, limits_.bfloat16_flops);
      const double attention_s = tell(
          "prefill: one layer's attention", facts, [&] { attention(n); }, 0, of_attention / layers,
          limits_.bfloat16_flops);
      print({{"step", "prefill: parts"},
             {"tokens", n},
             {"products_s", products_s * layers},
             {"attention_s", attention_s * layers},
             {"rest_s", whole - (products_s + attention_s) * layers}});
    }
  }

  // A cache of random entries: every head of `entries`, or around it where ragged, with a bias.
  KvCache cache(int64_t entries, bool ragged) {
    std::vector<LayerKv> layers;
    for (int64_t l = 0; l < spec().n_layers; ++l) {
      LayerKv layer;
      layer.head_offsets = {0};
      for (int64_t h = 0; h < spec().n_kv_heads; ++h) {
        const int64_t own = ragged ? entries / 2 + entries * ((l + h) % 5) / 4 : entries;
        layer.head_offsets.push_back(layer.head_offsets.back() + own);
      }
      layer.keys = normal({layer.n_entries(), spec().head_dim}, 1);
      layer.values = normal({layer.n_entries(), spec().head_dim}, 1);
      if (ragged) layer.bias = at::randn({layer.n_entries()}, floats());
      layers.push_back(std::move(layer));
    }
    return {std::move(layers), shape_.context};
  }

  void read() {
    const KvCache full = cache(shape_.context, false);
    const int64_t n = shape_.questions * shape_.question_tokens;
    const PackedTokens questions = PackedTokens::pack(
        std::vector<std::vector<int64_t>>(static_cast<size_t>(shape_.questions), tokens(shape_.question_tokens)));
    const double layers = static_cast<double>(spec().n_layers);
    const double flops = 2 * static_cast<double>(n) * layers * layer_weights() +
                         4 * static_cast<double>(n) * static_cast<double>(shape_.context) * layers *
                             static_cast<double>(spec().n_query_heads * spec().head_dim);
    tell(
        "read", {{"questions", shape_.questions}, {"tokens", shape_.question_tokens}, {"entries", shape_.context}},
        [&] {
          Tails tails = Tails::behind(full, shape_.questions, shape_.question_tokens);
          (void)decoder().forward(questions, full, tails);
        },
        static_cast<double>(full.bytes()), flops, limits_.bfloat16_flops);
  }

  void decode() {
    for (const bool ragged : {false, true}) {
      const int64_t entries = ragged ? shape_.compact : shape_.context;
      const KvCache prefix = cache(entries, ragged);
      const double weights = 2 * (static_cast<double>(spec().n_layers) * layer_weights() +
                                  static_cast<double>(spec().vocab_size * spec().hidden_size));
      for (const int64_t batch : shape_.batches) {
        for (const bool graph : {false, true}) {
          if (graph && !decode_graph_obstacle(spec(), halves()).empty()) continue;
          const Json facts = {{"batch", batch}, {"entries", entries}, {"bias", ragged}, {"graph", graph}};
          decode_steps(prefix, batch, graph, facts, weights + static_cast<double>(prefix.bytes()));
        }
      }
    }
  }

  void decode_steps(const KvCache& prefix, int64_t batch, bool graph, const Json& facts, double bytes) {
    Tails tails = Tails::behind(prefix, batch, 512);
    const std::vector<int64_t> next = tokens(batch);
    if (graph) {
      DecodeStep step(decoder(), prefix, DecodeStep::Way::kGraph);
      tell(
          "decode", facts, [&] { (void)step.logits(next, tails); }, bytes, 0, 0);
      return;
    }
    PackedTokens input = PackedTokens::pack(std::vector<std::vector<int64_t>>(static_cast<size_t>(batch), {1}));
    tell(
        "decode", facts, [&] { (void)decoder().logits(decoder().forward(input, prefix, tails)); }, bytes, 0, 0);
  }

  struct Head {
    at::Tensor queries, keys, values;
  };
  // Keys in clusters; queries look at some of them more than at others.
  Head head(int64_t n, int64_t entries) const {
    const int64_t d = spec().head_dim;
    const at::TensorOptions whole = floats().dtype(at::kLong);
    const at::Tensor centres = at::randn({64, d}, floats()).mul_(2);
    const auto around = [&](int64_t rows, double pull, double noise) {
      return (centres.index_select(0, at::randint(64, {rows}, whole)) * pull + at::randn({rows, d}, floats()) * noise)
          .to(at::kBFloat16);
    };
    return {around(n, 0.6, 1.0), around(entries, 1.0, 0.7), normal({entries, d}, 1)};
  }
  // Several of them, stacked.
  Head heads(int64_t count, int64_t n, int64_t entries) const {
    std::vector<at::Tensor> queries, keys, values;
    for (int64_t h = 0; h < count; ++h) {
      Head one = head(n, entries);
      queries.push_back(std::move(one.queries));
      keys.push_back(std::move(one.keys));
      values.push_back(std::move(one.values));
    }
    return {at::stack(queries), at::stack(keys), at::stack(values)};
  }
  int64_t at_once() const { return spec().n_kv_heads; }
  Json of_heads() const { return {{"heads", at_once()}, {"of", spec().n_layers * spec().n_kv_heads}}; }

  void score() {
    for (const int64_t n : shape_.n_queries) {
      const Head h = heads(at_once(), n, shape_.context);
      const double logits = static_cast<double>(at_once() * n) * static_cast<double>(shape_.context);
      Json facts = {{"queries", n}, {"entries", shape_.context}};
      facts.update(of_heads());
      // A logit is written and read a few times: header of product_statistics.h.
      tell(
          "score", facts, [&] { (void)summarize_heads(h.queries, h.keys, {}, KeyScore::kRms, h.values); }, 32 * logits,
          4 * logits * static_cast<double>(spec().head_dim), limits_.bfloat16_flops);
    }
  }

  void fit() {
    for (const int64_t n : shape_.n_queries) {
      for (const int64_t t : shape_.targets) {
        const Head h = heads(at_once(), n, t);
        at::Tensor table = at::empty({at_once(), n, t}, floats());
        logits_into(table, h.queries, h.keys, {});
        table.sub_(table.amax(2, true)).exp_();
        const at::Tensor mass = table.sum(2);
        const at::Tensor weights = table / mass.unsqueeze(2), output = at::bmm(weights, h.values.to(at::kFloat));
        const at::Tensor present = at::ones({at_once(), t}, floats().dtype(at::kBool));
        const double flops = 1.13 * static_cast<double>(at_once() * n) * std::pow(static_cast<double>(t), 2);
        for (const FitRoute route : {FitRoute::kRefined, FitRoute::kDouble}) {
          const bool doubles = route == FitRoute::kDouble;
          Json facts = {{"queries", n}, {"target", t}, {"route", doubles ? "float64" : "refined"}};
          facts.update(of_heads());
          const double rate = doubles ? limits_.float64_flops : limits_.float32_flops;
          const BoxSettings box{.lower = 0.05, .upper = 20.0, .iterations = 2};
          tell(
              "bias fit", facts, [&] { (void)batched_fit_box(table, mass, present, box, route); }, 0, flops, rate);
          tell(
              "value fit", facts, [&] { (void)batched_least_squares(weights, output, route); }, 0, flops, rate);
        }
        at::Tensor gram = at::bmm(table.transpose(1, 2).to(at::kDouble), table.to(at::kDouble));
        gram.diagonal(0, 1, 2).mul_(1.001);
        Json facts = {{"target", t}};
        facts.update(of_heads());
        tell(
            "Cholesky, float64", facts, [&] { (void)BlockCholesky(gram.clone()); }, 0,
            2 * static_cast<double>(at_once()) * std::pow(static_cast<double>(t), 3) / 3, limits_.float64_flops);
      }
    }
  }

  void pursuit() {
    const int64_t size = shape_.pursuit_keys, picks = shape_.pursuit_picks;
    const Head h = heads(at_once(), size, size);
    const AttentionSummary summary = summarize_heads(h.queries, h.keys, {}, KeyScore::kRms);
    Json facts = {{"queries", size}, {"entries", size}, {"target", picks}};
    facts.update(of_heads());
    const KeysAtHand usual;
    const auto n = static_cast<double>(size), t = static_cast<double>(picks);
    const double a_pick = 8 * n * t + 8 * t * t / 2 + 4 * n * static_cast<double>(usual.keys) +
                          4 * n * n / static_cast<double>(usual.choices);
    int64_t n_taken_back = 0;
    double n_readings = 0;
    tell(
        "pursuit", facts,
        [&] {
          DevicePursuits pursuits(h.queries, h.keys, {}, summary.row_max, summary.row_sum, {});
          pursuits.run(std::vector<int64_t>(static_cast<size_t>(at_once()), picks));
          (void)pursuits.picks(std::vector<int64_t>(static_cast<size_t>(at_once()), picks));
          n_taken_back = pursuits.n_taken_back();
          n_readings = pursuits.n_readings();
        },
        static_cast<double>(at_once()) * t * a_pick, 0, 0);
    print({{"step", "pursuit: choices"},
           {"taken_back", n_taken_back},
           {"of", picks * at_once()},
           {"readings_a_pick", n_readings / static_cast<double>(picks)}});
  }

  // The methods themselves, over as many heads as a small GPU holds.
  void match() {
    const int64_t n = shape_.n_queries.front(), target = shape_.targets.back(), count = 2 * at_once();
    std::vector<HeadProblem> problems;
    for (int64_t h = 0; h < count; ++h) {
      const Head one = head(n, shape_.context);
      HeadProblem problem;
      problem.keys = one.keys;
      problem.values = one.values;
      problem.queries = one.queries;
      problems.push_back(std::move(problem));
    }
    const std::vector<std::vector<int64_t>> targets(problems.size(), {target});
    for (const char* name : {"am_highest_attention", "am_omp"}) {
      const auto made = Registry<CompactionMethod>::instance().create(name, Json::object());
      const auto& method = dynamic_cast<const PerHeadMethod&>(*made);
      const Json facts = {{"method", name},   {"queries", n},   {"entries", shape_.context},
                          {"target", target}, {"heads", count}, {"of", spec().n_layers * spec().n_kv_heads}};
      tell(
          "match", facts, [&] { (void)method.fit_heads(problems, targets); }, 0, 0, 0);
    }
  }

  Shape shape_;
  at::Device device_;
  DeviceCare care_;
  double seconds_;
  Limits limits_;
  std::optional<Decoder> decoder_;
  bool failed_ = false;
};

int run(int argc, char** argv) {
  std::string step, shape = "qwen3-4b", device = "cuda";
  double seconds = 20;
  Limits limits;
  CLI::App app("Stages of a sweep on a GPU, at published shapes, beside their rooflines");
  app.add_option("--step", step, "limits, prefill, read, decode, score, fit, pursuit or match")->required();
  app.add_option("--shape", shape, "qwen3-4b, llama-3.1-8b or tiny")->capture_default_str();
  app.add_option("--device", device, "cuda, cuda:1 or cpu")->capture_default_str();
  app.add_option("--seconds", seconds, "that one measurement may take, once it has been made")->capture_default_str();
  app.add_option("--copy", limits.copy_bytes_per_s, "bytes read and written a second, from the step limits");
  app.add_option("--bfloat16", limits.bfloat16_flops, "FLOP/s of bfloat16 products, likewise");
  app.add_option("--float32", limits.float32_flops, "likewise");
  app.add_option("--float64", limits.float64_flops, "likewise");
  CLI11_PARSE(app, argc, argv);
  const at::Device where(device);
  if (where.is_cuda() && !at::hasCUDA()) {
    std::fprintf(stderr, "no GPU: LibTorch finds no CUDA device\n");
    return 77;
  }
  const c10::InferenceMode inference;
  if (where.is_cuda()) keep_products_exact();
  return Bench(shape_of(shape), where, seconds, limits).run(step) ? 0 : 1;
}

}  // namespace
}  // namespace kvc

int main(int argc, char** argv) {
  try {
    return kvc::run(argc, argv);
  } catch (const kvc::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kvc::exit_code(error.kind());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
