#include "harness/model/device_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/error.h"

namespace kvc {

DevicePlan spread_layers(const DecoderSpec& spec, const std::vector<c10::Device>& devices) {
  DevicePlan plan(devices.at(0));
  const auto n_devices = static_cast<int64_t>(devices.size());
  if (n_devices == 1) return plan;
  const double heads = static_cast<double>((2 * spec.n_query_heads + 2 * spec.n_kv_heads) * spec.head_dim);
  const double layer =
      static_cast<double>(spec.hidden_size) * (heads + 3.0 * static_cast<double>(spec.feed_forward_size));
  const double home = static_cast<double>(spec.vocab_size * spec.hidden_size) * (spec.tied_embeddings ? 1 : 2);
  const double share = (home + layer * static_cast<double>(spec.n_layers)) / static_cast<double>(n_devices);
  for (int64_t d = 0; d < n_devices; ++d) {
    // Up to which layer the devices so far should reach, with at least one for each and for those still to come.
    const double wanted = (share * static_cast<double>(d + 1) - home) / layer;
    const int64_t least = std::min(static_cast<int64_t>(plan.layers.size()) + 1, spec.n_layers);
    const int64_t most = std::max(least, spec.n_layers - (n_devices - 1 - d));
    const int64_t end =
        d + 1 == n_devices ? spec.n_layers : std::clamp(static_cast<int64_t>(std::lround(wanted)), least, most);
    while (static_cast<int64_t>(plan.layers.size()) < end) plan.layers.push_back(devices[static_cast<size_t>(d)]);
  }
  return plan;
}

std::vector<c10::Device> choose_devices(const std::string& devices, const c10::Device& first, int64_t n_gpus) {
  if (devices == "1") return {first};
  const int64_t begin = std::max<int64_t>(first.index(), 0), left = n_gpus - begin;
  if (!first.is_cuda()) {
    if (devices == "auto") return {first};
    throw Error(ErrorKind::kUsage, fmt::format("devices is '{}', but the model is on the CPU", devices),
                "model option 'devices'", "leave it out, or take a machine with GPUs and device: cuda");
  }
  const int64_t n = devices == "auto" ? left : std::stoll(devices);
  if (n > left) {
    throw Error(ErrorKind::kUsage,
                fmt::format("devices is '{}', but from {} on LibTorch finds {} GPU(s)", devices, first.str(), left),
                "model option 'devices'", fmt::format("write devices: {}, or auto", left));
  }
  std::vector<c10::Device> list;
  for (int64_t i = 0; i < n; ++i) list.emplace_back(c10::kCUDA, static_cast<c10::DeviceIndex>(begin + i));
  return list;
}

}  // namespace kvc
