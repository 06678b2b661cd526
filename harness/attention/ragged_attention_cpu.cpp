// Which kernel runs.
#include "harness/attention/ragged_attention_cpu.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "harness/core/error.h"

namespace kvc {
namespace {

std::vector<CpuAttentionKernel> all_kernels() {
  std::vector<CpuAttentionKernel> kernels = cpu_attention_avx512_kernels();
  for (const auto& more : {cpu_attention_avx2_kernels(), cpu_attention_portable_kernels()}) {
    kernels.insert(kernels.end(), more.begin(), more.end());
  }
  return kernels;
}

CpuLevel highest_level(const std::vector<CpuAttentionKernel>& kernels) {
  const char* wish = std::getenv("KVC_CPU_KERNELS");
  if (wish == nullptr || *wish == '\0') return kernels.front().level;
  std::vector<std::string_view> known;
  for (const std::string_view name : kCpuLevelNames) {
    const auto level = static_cast<CpuLevel>(known.size());
    if (level > kernels.front().level) break;
    if (name == wish) return level;
    known.push_back(name);
  }
  throw Error(ErrorKind::kUsage, fmt::format("this processor has no CPU kernels '{}'", wish),
              "environment variable KVC_CPU_KERNELS", fmt::format("unset it, or one of: {}", fmt::join(known, ", ")));
}

}  // namespace

const CpuAttentionKernel& cpu_attention_kernel(bool bfloat16) {
  static const std::vector<CpuAttentionKernel> kernels = all_kernels();
  const CpuLevel highest = highest_level(kernels);
  return *std::find_if(kernels.begin(), kernels.end(), [&](const CpuAttentionKernel& kernel) {
    return kernel.bfloat16 == bfloat16 && kernel.level <= highest;
  });
}

}  // namespace kvc
