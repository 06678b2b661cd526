// What a run needs to know of its GPU besides tensors: how it computes there, whether the GPU still works after a
// failure, and how much of its memory a piece of work took.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/error.h"

namespace kvc {

// Settles how this process computes on a GPU, before anything goes there: products are kept exact (float_product.h),
// and fits are made in float64 where the GPU is fast in it (least_squares.h). Whatever times or tests what a run does
// on a GPU calls it first. Without effect for the CPU.
void prepare_device(const c10::Device& device);
// The way that fits take on a GPU, for records: "float64" or "float32, refined".
const char* gpu_fit_name();

// Thrown when a GPU is lost to the process: after an illegal access or a failed kernel every further operation fails.
// It is not recorded as the failure of a cell; it ends the run.
class DeviceLost : public Error {
 public:
  // `first` failed, then the probe of the device with `then`.
  DeviceLost(const std::string& first, const std::string& then);
};

// Empty functions: there is no GPU to care for.
struct DeviceCare {
  std::function<void()> probe;    // starts an operation on the device and waits for it; throws where that fails
  std::function<void()> release;  // gives memory that is kept for reuse back to the device
  // The most bytes that tensors held at one time since the last call.
  std::function<int64_t()> take_peak;

  // Of one or several GPUs, whose peaks are added up; empty for the CPU.
  static DeviceCare of(const std::vector<c10::Device>& devices);

  // After a failure whose text is `message`: gives memory back, and throws DeviceLost where the device is lost. A probe
  // that finds no memory proves a device that works.
  void after_failure(const std::string& message) const;
};

// LibTorch's message of too little memory on a GPU, without its advice on its own settings, and the ways out.
std::string out_of_device_memory(const std::string& message);

}  // namespace kvc
