// What a GPU takes for the stages of a sweep at published shapes, each beside what the machine could do at best. Prints
// one JSON line a measurement; scripts/gpu_check runs it and makes a table.
//
//   gpu_bench --step NAME [--shape NAME] [--device cuda] [--seconds 20]
//
// Steps: limits (copies and products, which the others are held against), prefill, repeat (the context read again
// behind its cache), read (questions), decode, score, fit, pursuit, match (Attention Matching as a sweep calls it,
// heads in batches). score, fit and pursuit take the 8 heads of a layer at once; their times are of all 8, and are to
// be multiplied by the 36 layers. Weights, caches and texts are random numbers made on the device from a seed, so
// nothing is loaded. Fits and pursuits get keys in clusters and queries that look at some of them, since random ones
// attend to everything alike.
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
#include <string>
#include <utility>
#include <vector>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/error.h"
#include "harness/math/float_product.h"
#include "harness/testing/gpu/bench_measure.h"

namespace kvc {
namespace {

class LimitsBench : public Measure {
 public:
  using Measure::Measure;

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
    // What float32 would take if it were rounded to TF32, as this program never does.
    const at::Tensor wide = at::randn({size, size}, floats());
    at::globalContext().setAllowTF32CuBLAS(true);
    tell(
        "product", {{"dtype", "float32 as TF32"}, {"size", size}}, [&] { (void)at::mm(wide, wide); }, 0, flops, 0);
    at::globalContext().setAllowTF32CuBLAS(false);
    const at::Tensor a = wide.to(at::kBFloat16);
    tell(
        "product", {{"dtype", "bfloat16 to float32"}, {"size", size}}, [&] { (void)float_product(a, a); }, 0, flops, 0);
    print({{"step", "route"},
           {"attention", gpu::attention_way()},
           {"fast_float64", device_.is_cuda() && gpu::has_fast_double(device_)},
           {"fits", device_.is_cuda() ? gpu_fit_name() : "the CPU's"}});
  }
};

// Whether everything of the step was measured.
bool measure(const BenchSetting& setting, const std::string& step) {
  using Steps = std::vector<std::string>;
  const Steps of_model = {"prefill", "repeat", "read", "decode"}, of_matching = {"score", "fit", "pursuit", "match"};
  const auto is_in = [&](const Steps& steps) { return std::find(steps.begin(), steps.end(), step) != steps.end(); };
  if (is_in(of_model)) return measure_model(setting, step);
  if (is_in(of_matching)) return measure_matching(setting, step);
  if (step != "limits") {
    Steps all = {"limits"};
    all.insert(all.end(), of_model.begin(), of_model.end());
    all.insert(all.end(), of_matching.begin(), of_matching.end());
    throw Error(ErrorKind::kUsage, fmt::format("unknown step '{}'", step), "--step", suggest_name(step, all));
  }
  LimitsBench bench(setting);
  bench.measure_limits();
  return !bench.failed();
}

int run(int argc, char** argv) {
  std::string step, shape = "qwen3-4b", device = "cuda";
  double seconds = 20;
  Limits limits;
  CLI::App app("Stages of a sweep on a GPU, at published shapes, beside their rooflines");
  app.add_option("--step", step, "limits, prefill, repeat, read, decode, score, fit, pursuit or match")->required();
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
  prepare_device(where);
  return measure({shape_of(shape), where, seconds, limits}, step) ? 0 : 1;
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
