// Small tables of whole numbers (positions, lengths, offsets) that every layer of a step reads: sent to the device
// once, not once per layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvc {

// `numbers` as int64, or another whole-number type, (n) on `device`. On a GPU, a table equal to one
// that this thread sent recently on the same stream is not sent again: the tensor is shared and must not be written to.
// Sent from pinned memory: the host does not wait for the device.
at::Tensor device_numbers(const std::vector<int64_t>& numbers, const c10::Device& device,
                          c10::ScalarType type = c10::ScalarType::Long);

}  // namespace kvc
