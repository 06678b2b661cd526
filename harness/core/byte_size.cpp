#include "harness/core/byte_size.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

namespace kvc {
namespace {

struct ByteUnit {
  std::string_view name;
  double bytes;
};
// Longer names before those that they end in.
constexpr ByteUnit kByteUnits[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"KiB", 1024.0}, {"GB", 1e9},
                                   {"MB", 1e6},           {"kB", 1e3},        {"KB", 1e3},     {"bytes", 1.0},
                                   {"byte", 1.0},         {"B", 1.0}};

}  // namespace

std::optional<int64_t> parse_bytes(std::string_view text) {
  for (const ByteUnit& unit : kByteUnits) {
    if (!text.ends_with(unit.name)) continue;
    text.remove_suffix(unit.name.size());
    while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool whole = !text.empty() && error == std::errc{} && end == text.data() + text.size();
    if (!whole || !std::isfinite(number) || std::abs(number * unit.bytes) > 9e18) return std::nullopt;
    return static_cast<int64_t>(std::floor(number * unit.bytes));
  }
  return std::nullopt;
}

std::string bytes_as_text(int64_t bytes) {
  for (const ByteUnit& unit : {kByteUnits[0], kByteUnits[1], kByteUnits[2]}) {
    const auto size = static_cast<int64_t>(unit.bytes);
    if (bytes > 0 && bytes % size == 0) return fmt::format("{} {}", bytes / size, unit.name);
  }
  return fmt::format("{} B", bytes);
}

}  // namespace kvc
