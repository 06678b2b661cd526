#include "harness/kv/device_numbers.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "harness/math/to_device.h"

namespace kvc {

namespace {

// A step has tokens, positions, lengths, offsets and last rows, and each layer the offsets of its own ragged heads.
constexpr size_t kKept = 256;

struct Sent {
  std::vector<int64_t> numbers;
  at::ScalarType type;
  c10::Stream stream;  // work on another stream might run before the copy
  at::Tensor tensor;
};

at::Tensor send(const std::vector<int64_t>& numbers, const c10::Device& device, at::ScalarType type) {
  const c10::InferenceMode normal(false);  // what is kept may meet autograd
  return to_device(at::tensor(numbers, type), device);
}

}  // namespace

at::Tensor device_numbers(const std::vector<int64_t>& numbers, const c10::Device& device, at::ScalarType type) {
  if (device.is_cpu()) return at::tensor(numbers, type);
  thread_local std::deque<Sent> sent;
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  const auto known = std::find_if(sent.begin(), sent.end(), [&](const Sent& s) {
    return s.stream == stream && s.type == type && s.numbers == numbers;
  });
  if (known != sent.end()) return known->tensor;
  if (sent.size() == kKept) sent.pop_front();
  sent.push_back({numbers, type, stream, send(numbers, device, type)});
  return sent.back().tensor;
}

}  // namespace kvc
