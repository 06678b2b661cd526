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

// The version of LibTorch's headers this program was compiled with, e.g. "2.13.0".
std::string torch_version();

}  // namespace kvc
