#include "harness/model/device_care.h"

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/math/float_product.h"
#include "harness/math/least_squares.h"

namespace kvc {

namespace {

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace

void prepare_device(const c10::Device& device) {
  if (!device.is_cuda()) return;
  keep_products_exact();
  set_gpu_fit_route(gpu::has_fast_double(device) ? FitRoute::kDouble : FitRoute::kRefined);
}

const char* gpu_fit_name() {
  return gpu_fit_route() == FitRoute::kDouble ? "float64" : "float32, refined";
}

DeviceLost::DeviceLost(const std::string& first, const std::string& then)
    : Error(ErrorKind::kInternal, "the GPU no longer works for this process: " + first_line(then),
            "after: " + first_line(first),
            "run the same command again: what was measured before is kept. If it fails at the same place, run it with "
            "CUDA_LAUNCH_BLOCKING=1 and report the message") {}

DeviceCare DeviceCare::of(const std::vector<c10::Device>& devices) {
  if (devices.empty() || !devices.front().is_cuda()) return {};
  const auto memory = [] { return c10::getDeviceAllocator(c10::kCUDA); };
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {[devices] {
            for (const c10::Device& device : devices)
              (void)at::zeros({1}, at::TensorOptions().device(device)).item<float>();
          },
          [memory] { memory()->emptyCache(); },
          [memory, devices] {
            int64_t peak = 0;
            for (const c10::Device& device : devices) {
              const auto index = std::max<c10::DeviceIndex>(device.index(), 0);
              peak += memory()->getDeviceStats(index).allocated_bytes[kAll].peak;
              memory()->resetPeakStats(index);
            }
            return peak;
          }};
}

void DeviceCare::after_failure(const std::string& message) const {
  if (!probe) return;
  try {
    if (release) release();
    probe();
  } catch (const c10::OutOfMemoryError&) {  // others hold the memory; the device works
  } catch (const c10::Error& error) {
    throw DeviceLost(message, error.what_without_backtrace());
  }
}

std::string out_of_device_memory(const std::string& message) {
  std::string fact = message.substr(0, message.find(" If reserved but unallocated memory"));
  return "the GPU's memory is too small: " + first_line(fact) +
         "\n  mend:  take a shorter document, fewer queries (max_queries), a smaller batch or dtype bfloat16";
}

}  // namespace kvc
