#include "harness/testing/gpu/bench_measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "harness/core/error.h"
#include "harness/core/stopwatch.h"

namespace kvc {
namespace {

constexpr double kGiga = 1e9, kTera = 1e12;

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

}  // namespace

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
            250};
  }
  if (name == "tiny") {
    return {spec_of(2, 64, 4, 2, 16, 96, 300, 2048, true, true), 200, {150}, {1, 3}, 20, {64}, {20}, 128, 12, 9};
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown shape '{}'", name), "--shape",
              suggest_name(name, {"qwen3-4b", "llama-3.1-8b", "tiny"}));
}

Measure::Measure(BenchSetting setting)
    : shape_(std::move(setting.shape)),
      device_(setting.device),
      seconds_(setting.seconds),
      limits_(setting.limits),
      care_(DeviceCare::of({setting.device})) {
  at::manual_seed(18);
}

void Measure::wait() const {
  (void)at::zeros({1}, floats()).item<float>();
}

// Median and spread of as many runs as fit the time, three at least; the first, which makes libraries load, is left
// out.
std::vector<double> Measure::time(const std::function<void()>& work) const {
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

double Measure::tell(const std::string& step, const Json& facts, const std::function<void()>& work, double bytes,
                     double flops, double flops_per_s) {
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

void Measure::print(const Json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

at::Tensor Measure::normal(at::IntArrayRef shape, double scale) const {
  return at::randn(shape, floats()).mul_(scale).to(at::kBFloat16);
}

}  // namespace kvc
