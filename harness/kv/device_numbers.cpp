#include "harness/kv/device_numbers.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <deque>
#include <utility>

namespace kvc {

namespace {

constexpr size_t kKept = 8;  // a step has tokens, positions, lengths, offsets and last rows

struct Sent {
  std::vector<int64_t> numbers;
  c10::Stream stream;  // work on another stream might run before the copy
  at::Tensor tensor;
};

at::Tensor send(const std::vector<int64_t>& numbers, const c10::Device& device) {
  const c10::InferenceMode normal(false);  // what is kept may meet autograd
  const auto options = at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda());
  const at::Tensor host = at::empty({static_cast<int64_t>(numbers.size())}, options);
  std::copy(numbers.begin(), numbers.end(), host.mutable_data_ptr<int64_t>());
  return host.to(device, /*non_blocking=*/true);
}

}  // namespace

at::Tensor device_numbers(const std::vector<int64_t>& numbers, const c10::Device& device) {
  if (device.is_cpu()) return at::tensor(numbers, at::kLong);
  thread_local std::deque<Sent> sent;
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  const auto known =
      std::find_if(sent.begin(), sent.end(), [&](const Sent& s) { return s.stream == stream && s.numbers == numbers; });
  if (known != sent.end()) return known->tensor;
  if (sent.size() == kKept) sent.pop_front();
  sent.push_back({numbers, stream, send(numbers, device)});
  return sent.back().tensor;
}

}  // namespace kvc
