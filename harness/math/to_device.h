// Small tensors made on the host that a GPU is to read, sent without a wait.
#pragma once

#include <ATen/core/Tensor.h>

namespace kvc {

// `host` (on the CPU) on `device`; itself where that is the CPU. On a GPU it goes through pinned memory and the current
// stream, so the host neither waits for the work before it nor for the copy: an ordinary Tensor::to() waits for both.
// Costs a copy on the host; meant for tables of a few kilobytes.
at::Tensor to_device(const at::Tensor& host, const c10::Device& device);

}  // namespace kvc
