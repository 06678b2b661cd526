// How much memory a piece of a sweep's work took, for its records.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "harness/core/config_text.h"
#include "harness/model/device_care.h"
#include "harness/sweep/run_info.h"

namespace kvc {

// The most that was held at one time, bytes.
struct Peak {
  HostPeak host;
  std::optional<int64_t> device;  // tensors on GPUs; nothing where there is none
};

// Since the last call.
inline Peak take_peak(const DeviceCare& device) {
  Peak peak{take_host_peak(), std::nullopt};
  if (device.take_peak) peak.device = device.take_peak();
  return peak;
}

inline Peak larger(const Peak& a, const Peak& b) {
  return {{std::max(a.host.bytes, b.host.bytes), a.host.of_process || b.host.of_process}, std::max(a.device, b.device)};
}

// Writes it to a record's sizes: peak_bytes, peak_device_bytes, and peak_of_process where the system knows no other.
inline void set_peak(Json& sizes, const Peak& peak, const std::string& of = "") {
  sizes[of + "peak_bytes"] = peak.host.bytes;
  if (peak.host.of_process) sizes["peak_of_process"] = true;
  if (peak.device) sizes[of + "peak_device_bytes"] = *peak.device;
}

}  // namespace kvc
