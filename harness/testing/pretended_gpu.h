// A GPU that has shapes but no numbers, for builds whose LibTorch has no CUDA: what is written for a GPU runs on the
// CPU as far as shapes, dtypes and branches go, and its launches, bytes and waits are counted.
//
// Tensors on "cuda:0", "cuda:1" and so on hold no memory; an operation on tensors of two of them throws, unless it is a
// copy. An operation on them runs on LibTorch's meta device, which computes shapes, and
// counts as one launch; views and allocations count nothing. So an operation of several kernels (a sort) counts once: a
// count says what the host asks for. What reads a number (item(), a copy to the CPU) gets 1, or false, and counts as
// a wait; so does a copy from the CPU unless it is non_blocking (then it is taken to come from pinned memory). What
// cannot be known without numbers (nonzero) throws. This project's own kernels are not run but counted, by the
// launchers' own text.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace kvc::pretended {

struct GpuCounts {
  int64_t launches = 0;
  int64_t bytes = 0;  // read and written, as the operations' tensors say
  int64_t waits = 0;
  std::map<std::string, int64_t> by_name;  // launches of each operation or kernel
  std::map<std::string, int64_t> races;    // of these, launches whose results may differ from run to run in last bits
  std::set<int> made_current;              // GPUs that a guard made the current one
};

// Makes the device known to LibTorch, once a process. False, and nothing done, where LibTorch has CUDA.
bool install_gpu();
// Since the last call.
GpuCounts take_gpu_counts();

}  // namespace kvc::pretended
