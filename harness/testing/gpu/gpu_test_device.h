// What tests of a GPU begin with: skipped, with the reason, where LibTorch finds none. With KVC_GPU_TEST_DEVICE=cpu
// both sides are the CPU: that shows no more than that the tests themselves are whole. Models are random ones made
// here; the golden ones are read below KVC_TEST_ROOT, the root of the sources (default: where the program runs).
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/model/device_care.h"
#include "harness/testing/tiny_model.h"

namespace kvc {

inline std::string root() {
  const char* given = std::getenv("KVC_TEST_ROOT");
  return given == nullptr ? "." : given;
}

inline std::string device_name() {
  const char* given = std::getenv("KVC_GPU_TEST_DEVICE");
  return given == nullptr ? "cuda" : given;
}

// float32 sums in another order; bfloat16 rounds every intermediate result to 8 bits, at other places of a sum.
inline double tolerance(at::ScalarType dtype) {
  return dtype == at::kFloat ? 2e-4 : 5e-2;
}

// Relative to the largest number wanted.
inline void expect_near(const at::Tensor& got, const at::Tensor& want, double most, const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  if (want.numel() == 0) return;
  const at::Tensor exact = want.to(at::kCPU, at::kDouble), found = got.to(at::kCPU, at::kDouble);
  ASSERT_TRUE(at::equal(exact.isinf(), found.isinf())) << what;
  const at::Tensor far = (found - exact).nan_to_num(0.0, 0.0, 0.0).abs();
  EXPECT_LE(far.max().item<double>(), most * (1e-6 + exact.nan_to_num(0.0, 0.0, 0.0).abs().max().item<double>()))
      << what;
  EXPECT_FALSE(found.isnan().any().item<bool>()) << what;
}

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (device_name() == "cuda" && !at::hasCUDA()) {
      GTEST_SKIP() << "no GPU: LibTorch finds no CUDA device, so nothing of the GPU half has been run";
    }
    prepare_device(device());
    if (device_name() == "cuda") RecordProperty("attention", gpu::attention_way());
  }

  static at::Device device() { return at::Device(device_name() == "cuda" ? "cuda:0" : "cpu"); }
  static at::Tensor there(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(device()) : tensor; }

  // A random model of 2 layers whose text is bytes.
  static Model make(at::ScalarType dtype, const at::Device& where, bool decode_graphs = false) {
    return tiny_model(3, dtype, 2048, where, decode_graphs);
  }

  static Model load(const std::string& path, const std::string& dtype, const std::string& where,
                    const std::string& devices = ModelConfig().devices) {
    ModelConfig config;
    config.path = root() + path;
    config.dtype = dtype;
    config.device = where;
    config.devices = devices;
    config.chat_template = "chatml";  // the golden files store none
    return Model::load(config);
  }
};

}  // namespace kvc
