#include "harness/kv/head_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "harness/core/error.h"

namespace kvc {

namespace {

constexpr const char* kMend =
    "write a fraction (0.05 or '5 %'; at most 1, which keeps everything) or a number of entries (512 or '512 entries')";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

template <class Number>
std::optional<Number> parse_whole(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "5 %": the digits with two places more, so that 5 % and 0.05 are the same float64.
std::optional<double> parse_percent(std::string_view number) {
  if (number.find_first_of("eE") == std::string_view::npos) return parse_whole<double>(std::string(number) + "e-2");
  const auto value = parse_whole<double>(number);
  return value ? std::optional(*value / 100) : std::nullopt;
}

// A number without a unit, as JSON has it; nothing when `text` is none.
Json plain_number(std::string_view text) {
  if (const auto entries = parse_whole<int64_t>(text)) return *entries;
  if (const auto fraction = parse_whole<double>(text); fraction && text.find_first_of("0123456789") != text.npos)
    return *fraction;
  return nullptr;
}

TargetSize of_fraction(double fraction) {
  TargetSize target;
  target.fraction = fraction;
  return target;
}

TargetSize of_entries(int64_t entries) {
  TargetSize target;
  target.unit = TargetSize::Unit::kEntries;
  target.entries = entries;
  return target;
}

// A number, or text with or without a unit; nothing when it is neither. The range is checked by the caller.
std::optional<TargetSize> read_size(const Json& value) {
  if (value.is_number_float()) return of_fraction(value.get<double>());
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<int64_t>::max())
    return std::nullopt;
  if (value.is_number_integer())  // 1 is everything, as 1.0 is; a single entry needs its unit
    return value.get<int64_t>() == 1 ? of_fraction(1) : of_entries(value.get<int64_t>());
  if (!value.is_string()) return std::nullopt;
  const auto& whole = value.get_ref<const std::string&>();
  std::string_view text = trimmed(whole);
  for (const std::string_view unit : {"%", "entries", "entry"}) {
    if (!text.ends_with(unit)) continue;
    text = trimmed(text.substr(0, text.size() - unit.size()));
    if (unit == "%") {
      const auto fraction = parse_percent(text);
      return fraction ? std::optional(of_fraction(*fraction)) : std::nullopt;
    }
    const auto entries = parse_whole<int64_t>(text);
    return entries ? std::optional(of_entries(*entries)) : std::nullopt;
  }
  const Json number = plain_number(text);
  return number.is_null() ? std::nullopt : read_size(number);
}

}  // namespace

TargetSize TargetSize::from_json(const Json& value, const std::string& pointer, Problems& problems) {
  const std::optional<TargetSize> target = read_size(value);
  if (!target) {
    problems.add(fmt::format("target must be a fraction or a number of entries; got {}", value.dump()), pointer, kMend);
  } else if (target->unit == Unit::kFraction && !(target->fraction > 0 && target->fraction <= 1)) {
    problems.add(fmt::format("target must be above 0 and at most 1 as a fraction; got {}", value.dump()), pointer,
                 kMend);
  } else if (target->unit == Unit::kEntries && target->entries < 1) {
    problems.add(fmt::format("target must keep at least one entry; got {}", value.dump()), pointer, kMend);
  }
  return target.value_or(TargetSize{});
}

Json TargetSize::to_json() const {
  if (unit == Unit::kFraction) return fraction;
  return text();
}

std::string TargetSize::text() const {
  return unit == Unit::kFraction ? fmt::format("{}", fraction) : fmt::format("{} entries", entries);
}

namespace {

int64_t uniform_length(const TargetSize& target, int64_t source_len) {
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
  return std::min(keep, source_len);
}

}  // namespace

HeadBudget uniform_budget(const TargetSize& target, const std::vector<std::vector<int64_t>>& source_len) {
  HeadBudget budget;
  budget.target_len = source_len;
  for (auto& layer : budget.target_len) {
    for (int64_t& length : layer) length = uniform_length(target, length);
  }
  return budget;
}

int64_t total_length(const HeadBudget& budget) {
  int64_t total = 0;
  for (const auto& layer : budget.target_len) {
    for (const int64_t length : layer) total += length;
  }
  return total;
}

namespace {

struct HeadShare {
  size_t layer, head;
  double weight;
  int64_t room;
  double length = 0;  // before rounding
};

// Water-filling: heads whose share exceeds their room are full; what is left is shared among the others. Every round
// fills at least one head, so there are at most as many rounds as heads.
void fill(std::vector<HeadShare>& heads, double total) {
  std::vector<HeadShare*> open;
  for (HeadShare& head : heads) open.push_back(&head);
  while (!open.empty() && total > 0) {
    double weights = 0;
    for (const HeadShare* head : open) weights += head->weight;
    const auto share = [&](const HeadShare& head) {
      return weights > 0 ? total * head.weight / weights : total / static_cast<double>(open.size());
    };
    std::vector<HeadShare*> full, rest;
    for (HeadShare* head : open) (share(*head) >= static_cast<double>(head->room) ? full : rest).push_back(head);
    if (full.empty()) {
      for (HeadShare* head : open) head->length = share(*head);
      return;
    }
    for (HeadShare* head : full) {
      head->length = static_cast<double>(head->room);
      total -= head->length;
    }
    open = std::move(rest);
  }
}

}  // namespace

std::vector<std::vector<int64_t>> proportional_lengths(const std::vector<std::vector<double>>& weights,
                                                       const std::vector<std::vector<int64_t>>& source_len,
                                                       int64_t total) {
  std::vector<HeadShare> heads;
  std::vector<std::vector<int64_t>> lengths = source_len;
  int64_t room = 0;
  bool same_shape = weights.size() == source_len.size();
  for (size_t l = 0; same_shape && l < weights.size(); ++l) {
    same_shape = weights[l].size() == source_len[l].size();
    for (size_t h = 0; same_shape && h < weights[l].size(); ++h) {
      heads.push_back({l, h, weights[l][h], source_len[l][h]});
      room += source_len[l][h];
    }
  }
  if (!same_shape || total < 0 || total > room) {
    throw Error(ErrorKind::kInternal, fmt::format("{} entries cannot be spread over room for {}", total, room),
                "proportional_lengths", "ask for at most the source lengths, with one weight a head");
  }
  fill(heads, static_cast<double>(total));
  int64_t given = 0;
  for (const HeadShare& head : heads) {
    const auto whole = std::min(head.room, static_cast<int64_t>(std::floor(head.length + 1e-9)));
    lengths[head.layer][head.head] = whole;
    given += whole;
  }
  std::stable_sort(heads.begin(), heads.end(), [](const HeadShare& a, const HeadShare& b) {
    return a.length - std::floor(a.length + 1e-9) > b.length - std::floor(b.length + 1e-9);
  });
  while (given < total) {
    for (const HeadShare& head : heads) {
      int64_t& length = lengths[head.layer][head.head];
      if (given < total && length < head.room) ++length, ++given;
    }
  }
  return lengths;
}

namespace {

using HeadList = std::vector<std::pair<size_t, size_t>>;  // (layer, head)

struct ScoredEntry {
  float score;
  size_t layer, head;
};

// Highest first, what is not a number last; a stable sort keeps equal ones in the order of layer, head, entry.
bool better(float a, float b) {
  return std::isnan(b) ? !std::isnan(a) : a > b;
}

// Adds to lengths of the heads in `scope` what the best of their entries beyond their own `floor` ones take.
void share_best(const HeadList& scope, int64_t total, const std::vector<std::vector<std::vector<float>>>& scores,
                std::vector<std::vector<int64_t>>& lengths) {
  std::vector<ScoredEntry> rest;
  for (const auto& [l, h] : scope) {
    std::vector<float> sorted = scores[l][h];
    std::stable_sort(sorted.begin(), sorted.end(), better);
    const auto floor = static_cast<size_t>(lengths[l][h]);
    for (size_t i = floor; i < sorted.size(); ++i) rest.push_back({sorted[i], l, h});
    total -= lengths[l][h];
  }
  const auto n = std::min(rest.size(), static_cast<size_t>(std::max<int64_t>(0, total)));
  std::stable_sort(rest.begin(), rest.end(),
                   [](const ScoredEntry& a, const ScoredEntry& b) { return better(a.score, b.score); });
  for (size_t i = 0; i < n; ++i) ++lengths[rest[i].layer][rest[i].head];
}

// fraction * start + (1 - fraction) * free for every head, in whole entries that sum to what both sum to: remainders go
// to the largest fractions, ties to the lower layer and head.
void blend(const HeadList& scope, double fraction, const std::vector<std::vector<int64_t>>& start,
           std::vector<std::vector<int64_t>>& lengths) {
  std::vector<std::pair<double, std::pair<size_t, size_t>>> remainders;
  int64_t left = 0;
  for (const auto& [l, h] : scope) {
    const double mixed =
        fraction * static_cast<double>(start[l][h]) + (1 - fraction) * static_cast<double>(lengths[l][h]);
    const auto whole = static_cast<int64_t>(std::floor(mixed + 1e-9));
    left += start[l][h] - whole;
    remainders.push_back({mixed - static_cast<double>(whole), {l, h}});
    lengths[l][h] = whole;
  }
  std::stable_sort(remainders.begin(), remainders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = 0; i < static_cast<size_t>(left); ++i) {
    ++lengths[remainders[i].second.first][remainders[i].second.second];
  }
}

}  // namespace

std::vector<std::vector<int64_t>> adaptive_lengths(const AdaptiveShare& share,
                                                   const std::vector<std::vector<int64_t>>& start,
                                                   const std::vector<std::vector<std::vector<float>>>& scores) {
  const bool blended = share.safeguard == AdaptiveShare::Safeguard::kBlend;
  const double floor_fraction = blended ? 0 : share.floor_fraction;
  std::vector<std::vector<int64_t>> lengths = start;
  std::vector<HeadList> scopes(share.scope == AdaptiveShare::Scope::kAll ? 1 : start.size());
  std::vector<int64_t> totals(scopes.size(), 0);
  for (size_t l = 0; l < start.size(); ++l) {
    const size_t scope = scopes.size() == 1 ? 0 : l;
    for (size_t h = 0; h < start[l].size(); ++h) {
      scopes[scope].emplace_back(l, h);
      totals[scope] += start[l][h];
      lengths[l][h] = static_cast<int64_t>(std::floor(floor_fraction * static_cast<double>(start[l][h]) + 1e-9));
    }
  }
  for (size_t scope = 0; scope < scopes.size(); ++scope) {
    share_best(scopes[scope], totals[scope], scores, lengths);
    if (blended) blend(scopes[scope], share.floor_fraction, start, lengths);
  }
  return lengths;
}

}  // namespace kvc
