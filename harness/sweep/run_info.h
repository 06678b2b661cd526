// On what the numbers were measured.
#pragma once

#include <cstdint>

#include "harness/core/config_text.h"

namespace kvc {

// {kvc_version, program: as build_info_json(), hardware: {cpu, cores, features}, threads, torch_version, started_at};
// the time is UTC, ISO 8601.
Json run_info();

// The largest resident memory of the process so far.
std::int64_t peak_resident_bytes();

// The largest resident memory since the last call. Linux keeps such a mark and lets a process set it back
// (/proc/self/clear_refs); where it does not, that of the process so far, and of_process is true.
struct HostPeak {
  std::int64_t bytes = 0;
  bool of_process = false;
};
HostPeak take_host_peak();

// The version of LibTorch's headers this program was compiled with, e.g. "2.13.0".
std::string torch_version();

}  // namespace kvc
