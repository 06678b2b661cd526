// A CUDA graph: a GPU's operations, recorded once and replayed by one call. A decoding step is hundreds of small
// kernels (12 a layer, counted by gpu_step_test.cpp), which a host is expected to start more slowly than a large GPU
// runs them; the step `decode` of gpu_bench measures it with and without graphs.
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

  // Runs `work` once, so that libraries allocate their workspaces, then records it; an earlier recording is dropped
  // with its memory. `work` must do nothing but start operations on `device`: no wait, no copy to or from the host, no
  // choice by a tensor's content. Every tensor it reads must stay where it is until the next call; those it makes and
  // keeps are valid until then, and hold results only after replay(). The host waits for the device. Throws
  // Error(kInternal) where !available().
  void record(const c10::Device& device, const std::function<void()>& work);
  // Starts what was recorded, on the current stream; not waited for.
  void replay();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvc
