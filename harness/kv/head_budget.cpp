#include "harness/kv/head_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "harness/core/error.h"

namespace kvc {

namespace {

constexpr const char* kMend = "write a fraction as 0.05, in (0, 1], or a number of entries as '512 entries'";

// The N of "N entries"; nothing when the text is not of that form, digits alone.
std::optional<int64_t> parse_entries(std::string_view text) {
  constexpr std::string_view kUnit = " entries";
  if (!text.ends_with(kUnit)) return std::nullopt;
  text.remove_suffix(kUnit.size());
  int64_t entries = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), entries);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return entries;
}

}  // namespace

TargetSize TargetSize::from_json(const Json& value, const std::string& pointer, Problems& problems) {
  TargetSize target;
  if (value.is_number_float()) {
    target.fraction = value.get<double>();
    if (!(target.fraction > 0 && target.fraction <= 1)) {
      problems.add(fmt::format("target {} is out of range: a kept fraction is above 0 and at most 1", target.fraction),
                   pointer, kMend);
    }
    return target;
  }
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() ? value.get<std::uint64_t>() == 0 : value.get<int64_t>() <= 0) {
      problems.add(fmt::format("target {} is out of range: nothing would be kept", value.dump()), pointer, kMend);
    } else {
      problems.add(fmt::format("target {} is ambiguous: a fraction or a number of entries?", value.dump()), pointer,
                   fmt::format("write {0}.0 for the fraction or '{0} entries'", value.dump()));
    }
    return target;
  }
  const std::optional<int64_t> entries = value.is_string() ? parse_entries(value.get<std::string>()) : std::nullopt;
  if (!entries) {
    problems.add(fmt::format("target {} is no size", value.dump()), pointer, kMend);
  } else if (*entries < 1) {
    problems.add(fmt::format("target {} is out of range: nothing would be kept", value.dump()), pointer, kMend);
  } else {
    target.unit = Unit::kEntries;
    target.entries = *entries;
  }
  return target;
}

Json TargetSize::to_json() const {
  if (unit == Unit::kFraction) return fraction;
  return text();
}

std::string TargetSize::text() const {
  return unit == Unit::kFraction ? fmt::format("{}", fraction) : fmt::format("{} entries", entries);
}

HeadBudget uniform_budget(const TargetSize& target, int64_t source_len, int64_t n_layers, int64_t n_kv_heads) {
  int64_t keep = target.entries;
  if (target.unit == TargetSize::Unit::kFraction) {
    // A product such as 0.29 * 100 lies a rounding error below the whole number that was meant.
    const double product = target.fraction * static_cast<double>(source_len);
    const double nearest = std::round(product);
    keep = static_cast<int64_t>(std::abs(product - nearest) <= 1e-12 * nearest ? nearest : std::floor(product));
    if (keep < 1) {
      throw Error(ErrorKind::kData,
                  fmt::format("a target of {} of {} compactable entries is {:.3g} entries, less than one",
                              target.text(), source_len, product),
                  "", "ask for a larger fraction, or leave this document out");
    }
  } else if (keep > source_len) {
    throw Error(ErrorKind::kData,
                fmt::format("a target of {} is more than the {} compactable entries", target.text(), source_len), "",
                "ask for fewer entries, or leave this document out");
  }
  keep = std::min(keep, source_len);
  HeadBudget budget;
  budget.target_len.assign(static_cast<size_t>(n_layers), std::vector<int64_t>(static_cast<size_t>(n_kv_heads), keep));
  return budget;
}

}  // namespace kvc
