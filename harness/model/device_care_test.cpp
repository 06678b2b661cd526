#include "harness/model/device_care.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/math/least_squares.h"
#include "harness/testing/pretended_gpu.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

TEST(DeviceCare, TheCpuNeedsNone) {
  const DeviceCare care = DeviceCare::of({c10::Device(c10::kCPU)});
  EXPECT_FALSE(care.probe || care.release || care.take_peak);
  EXPECT_NO_THROW(care.after_failure("anything"));
}

// An H200, pretended: float64 is half as fast as float32 there.
TEST(DeviceCare, ADeviceIsPreparedBeforeItComputes) {
  if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
  set_gpu_fit_route(FitRoute::kRefined);
  prepare_device(c10::Device(c10::kCPU));
  EXPECT_EQ(gpu_fit_route(), FitRoute::kRefined);
  prepare_device(c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(gpu_fit_route(), FitRoute::kDouble);
  EXPECT_STREQ(gpu_fit_name(), "float64");
  set_gpu_fit_route(FitRoute::kRefined);
}

TEST(DeviceCare, ADeviceThatAnswersIsKept) {
  int released = 0, probed = 0;
  const DeviceCare care{[&] { ++probed; }, [&] { ++released; }, {}};
  EXPECT_NO_THROW(care.after_failure("out of memory"));
  EXPECT_EQ(released, 1);
  EXPECT_EQ(probed, 1);
}

TEST(DeviceCare, ADeadOneEndsTheRunWithBothCauses) {
  const DeviceCare care{
      [] { TORCH_CHECK(false, "CUDA error: an illegal memory access was encountered\nmore"); }, {}, {}};
  EXPECT_THAT([&] { care.after_failure("the GPU refuses: unspecified launch failure\n  where: attention kernel"); },
              ThrowsMessage<DeviceLost>(AllOf(HasSubstr("the GPU no longer works"),
                                              HasSubstr("an illegal memory access was encountered"),
                                              HasSubstr("after: the GPU refuses: unspecified launch failure"),
                                              HasSubstr("run the same command again"), Not(HasSubstr("more")))));
}

TEST(DeviceCare, AFullDeviceIsNotDead) {
  const DeviceCare care{[] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory."); }, {}, {}};
  EXPECT_NO_THROW(care.after_failure("out of memory"));
}

TEST(DeviceCare, MemoryMessagesKeepSizesAndSayTheWayOut) {
  const std::string text = out_of_device_memory(
      "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.02 GiB is "
      "free. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF");
  EXPECT_THAT(text, AllOf(HasSubstr("Tried to allocate 2.00 GiB"), HasSubstr("1.02 GiB is free"),
                          HasSubstr("mend:  take a shorter document"), Not(HasSubstr("PYTORCH"))));
}

}  // namespace
}  // namespace kvc
