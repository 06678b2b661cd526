#include "harness/sweep/run_info.h"

#include <ATen/Parallel.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <thread>

#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#elif __has_include(<torch/csrc/api/include/torch/version.h>)
#include <torch/csrc/api/include/torch/version.h>
#endif

#include "harness/core/build_info.h"

namespace kvc {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  }
  return "unknown";
}

// VmHWM of /proc/self/status; 0 where there is none.
std::int64_t high_water_mark() {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
  return 0;
}

bool reset_high_water_mark() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5\n" << std::flush;
  return file.good();
}

}  // namespace

std::string torch_version() {
#ifdef TORCH_VERSION_MAJOR
  return fmt::format("{}.{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH);
#else
  return "unknown";
#endif
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

HostPeak take_host_peak() {
  static bool was_reset = false;  // before the first call the mark is the process's
  const std::int64_t mark = high_water_mark();
  const bool own = was_reset && mark > 0;
  was_reset = reset_high_water_mark();
  return own ? HostPeak{mark, false} : HostPeak{peak_resident_bytes(), true};
}

Json run_info() {
  return Json{{"kvc_version", KVC_VERSION},
              {"program", build_info_json()},
              {"hardware",
               Json{{"cpu", cpu_name()}, {"cores", std::thread::hardware_concurrency()}, {"features", cpu_features()}}},
              {"threads", at::get_num_threads()},
              {"torch_version", torch_version()},
              {"started_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))}};
}

}  // namespace kvc
