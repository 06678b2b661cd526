// What every step of gpu_bench measures with: shapes, clocks and rooflines.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/model/decoder_spec.h"
#include "harness/model/device_care.h"

namespace kvc {

struct Shape {
  DecoderSpec spec;
  int64_t context;                         // tokens of the document
  std::vector<int64_t> prefills, batches;  // tokens; sequences decoded together
  int64_t compact;                         // entries a head that are left
  std::vector<int64_t> n_queries, targets;
  int64_t pursuit_keys, pursuit_picks;
  int64_t question_tokens;
};

// "qwen3-4b", "llama-3.1-8b", "tiny". Throws Error(kUsage) for another name.
Shape shape_of(const std::string& name);

// What the rooflines are made of, as measured by the step `limits` or given by its output; 0: not known.
struct Limits {
  double copy_bytes_per_s = 0, bfloat16_flops = 0, float32_flops = 0, float64_flops = 0;
};

// What a call of gpu_bench asks for.
struct BenchSetting {
  Shape shape;
  at::Device device;
  double seconds;
  Limits limits;
};

class Measure {
 public:
  explicit Measure(BenchSetting setting);
  bool failed() const { return failed_; }  // something was not measured

 protected:
  const DecoderSpec& spec() const { return shape_.spec; }
  at::TensorOptions halves() const { return at::TensorOptions().dtype(at::kBFloat16).device(device_); }
  at::TensorOptions floats() const { return at::TensorOptions().dtype(at::kFloat).device(device_); }
  at::Tensor normal(at::IntArrayRef shape, double scale) const;  // bfloat16

  // Measures and prints a line; the median. The roofline is the larger of memory and arithmetic, `flops` at a rate of
  // flops_per_s (0: not known).
  double tell(const std::string& step, const Json& facts, const std::function<void()>& work, double bytes, double flops,
              double flops_per_s);
  static void print(const Json& line);

  Shape shape_;
  at::Device device_;
  double seconds_;
  Limits limits_;

 private:
  void wait() const;
  std::vector<double> time(const std::function<void()>& work) const;

  DeviceCare care_;
  bool failed_ = false;
};

// Steps prefill, repeat, read and decode; score, fit, pursuit and match. Whether everything of the step was measured.
bool measure_model(const BenchSetting& setting, const std::string& step);
bool measure_matching(const BenchSetting& setting, const std::string& step);

}  // namespace kvc
