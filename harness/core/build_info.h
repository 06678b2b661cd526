// Which program this is: what a record and `kvc --version` say about the build.
#pragma once

#include <string>

#include "harness/core/config_text.h"

namespace kvc {

struct BuildInfo {
  std::string version;     // "0.1.0"
  std::string commit;      // 40 hexadecimal digits of the git commit; "" when built outside of a git checkout
  bool dirty = false;      // the sources differed from that commit
  std::string compiler;    // "GNU 12.2.0"
  std::string build_type;  // "Release"
  std::string libtorch;    // "2.13.0", of the headers and libraries it was built with
  std::string cuda;        // CUDA version of that LibTorch, e.g. "13.0"; "" for one without CUDA
};

const BuildInfo& build_info();

// {version, commit, dirty, compiler, build_type, libtorch, cuda}; commit and cuda are null where there is none.
Json build_info_json();

// The instruction sets of this machine's processor that matter to matrix products, e.g. "avx2 fma avx512f"; "unknown"
// where the system does not tell.
std::string cpu_features();

}  // namespace kvc
