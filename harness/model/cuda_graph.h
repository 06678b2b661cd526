// A GPU's operations, recorded once and started again by one call (CUDA graph): a step of decoding is hundreds of small
// kernels, and the host would start them more slowly than the GPU runs them.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace kvc {

class CudaGraph {
 public:
  CudaGraph();
  ~CudaGraph();

  // Whether this build can record: it has CUDA and this project's kernels.
  static bool available();

  // Runs `work` once as it is, so that libraries make what they keep, then records it; what an earlier call recorded is
  // gone, with its memory. `work` must do nothing but start operations on `device`: no wait, no copy to or from the
  // host, no choice by a tensor's content. Every tensor it reads must stay where it is until the next call; those it
  // makes and keeps are valid until then, and hold results only after replay(). The host waits for the device. Throws
  // Error(kInternal) where !available().
  void record(const c10::Device& device, const std::function<void()>& work);
  // Starts what was recorded, on the current stream; not waited for.
  void replay();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvc
