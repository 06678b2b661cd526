#include "harness/core/build_info.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace kvc {

// In a file that scripts/cmake/commit.cmake writes.
extern const char* const kBuildCommit;
extern const bool kBuildDirty;

const BuildInfo& build_info() {
  static const BuildInfo info{KVC_VERSION,    kBuildCommit,         kBuildDirty,      KVC_COMPILER,
                              KVC_BUILD_TYPE, KVC_LIBTORCH_VERSION, KVC_LIBTORCH_CUDA};
  return info;
}

Json build_info_json() {
  const BuildInfo& info = build_info();
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return Json{{"version", info.version},   {"commit", or_null(info.commit)}, {"dirty", info.dirty},
              {"compiler", info.compiler}, {"build_type", info.build_type},  {"libtorch", info.libtorch},
              {"cuda", or_null(info.cuda)}};
}

std::string cpu_features() {
  constexpr std::array kOfInterest = {"sse4_2",      "f16c",        "fma",      "avx2", "avx512f", "avx512bw",
                                      "avx512_bf16", "avx512_vnni", "amx_bf16", "sve",  "bf16"};
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    std::istringstream words(line.substr(std::min(line.size(), line.find(':') + 1)));
    const std::vector<std::string> flags{std::istream_iterator<std::string>(words), {}};
    std::string text;
    for (const char* name : kOfInterest) {
      if (std::find(flags.begin(), flags.end(), name) != flags.end())
        text += (text.empty() ? "" : " ") + std::string(name);
    }
    return text.empty() ? "none of note" : text;
  }
  return "unknown";
}

}  // namespace kvc
