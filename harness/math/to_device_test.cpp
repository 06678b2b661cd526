#include "harness/math/to_device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "harness/testing/pretended_gpu.h"

namespace kvc {
namespace {

TEST(ToDevice, IsTheSameTensorOnTheCpu) {
  const at::Tensor numbers = at::arange(5);
  EXPECT_TRUE(to_device(numbers, at::kCPU).is_same(numbers));
}

TEST(ToDevice, DoesNotWaitForAGpu) {
  if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
  const at::Tensor numbers = at::arange(5);
  (void)pretended::take_gpu_counts();
  const at::Tensor there = to_device(numbers, c10::Device(c10::kCUDA, 0));
  EXPECT_TRUE(there.is_cuda());
  EXPECT_EQ(there.sizes(), numbers.sizes());
  EXPECT_EQ(pretended::take_gpu_counts().waits, 0);
  (void)numbers.to(c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(pretended::take_gpu_counts().waits, 1) << "an ordinary copy waits";
}

// Pinned memory is allocated in the context of the current GPU.
TEST(ToDevice, OpensNoOtherGpu) {
  if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
  (void)pretended::take_gpu_counts();
  (void)to_device(at::arange(5), c10::Device(c10::kCUDA, 1));
  EXPECT_EQ(pretended::take_gpu_counts().made_current, std::set<int>{1});
}

}  // namespace
}  // namespace kvc
