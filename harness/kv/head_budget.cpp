#include "harness/kv/head_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>

#include "harness/core/byte_size.h"
#include "harness/core/error.h"

namespace kvc {

namespace {

constexpr const char* kMend =
    "write a fraction (0.05 or '5 %'; at most 1, which keeps everything), a number of entries (512 or '512 entries') "
    "or bytes ('64 MiB')";

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

TargetSize of_bytes(int64_t bytes) {
  TargetSize target;
  target.unit = TargetSize::Unit::kBytes;
  target.bytes = bytes;
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
  if (const auto bytes = parse_bytes(text)) return of_bytes(*bytes);
  const Json number = plain_number(text);
  return number.is_null() ? std::nullopt : read_size(number);
}

}  // namespace

TargetSize TargetSize::from_json(const Json& value, const std::string& pointer, Problems& problems) {
  const std::optional<TargetSize> target = read_size(value);
  if (!target) {
    problems.add(fmt::format("target must be a fraction, a number of entries or bytes; got {}", value.dump()), pointer,
                 kMend);
  } else if (target->unit == Unit::kFraction && !(target->fraction > 0 && target->fraction <= 1)) {
    problems.add(fmt::format("target must be above 0 and at most 1 as a fraction; got {}", value.dump()), pointer,
                 kMend);
  } else if (target->unit == Unit::kEntries && target->entries < 1) {
    problems.add(fmt::format("target must keep at least one entry; got {}", value.dump()), pointer, kMend);
  } else if (target->unit == Unit::kBytes && target->bytes < 1) {
    problems.add(fmt::format("target must be at least one byte; got {}", value.dump()), pointer, kMend);
  }
  return target.value_or(TargetSize{});
}

Json TargetSize::to_json() const {
  if (unit == Unit::kFraction) return fraction;
  return text();
}

std::string TargetSize::text() const {
  if (unit == Unit::kBytes) return bytes_as_text(bytes);
  return unit == Unit::kFraction ? fmt::format("{}", fraction) : fmt::format("{} entries", entries);
}

namespace {

int64_t uniform_length(const TargetSize& target, int64_t source_len) {
  int64_t keep = target.entries;
  if (target.unit == TargetSize::Unit::kFraction) {
    // A product such as 0.29 * 100 is a rounding error below the intended whole number.
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

namespace {

HeadBudget budget_of_bytes(const TargetSize& target, const std::vector<std::vector<int64_t>>& source_len,
                           const EntrySizes& sizes) {
  if (sizes.entry_bytes < 1) {
    throw Error(ErrorKind::kUsage, fmt::format("a target of {} needs a cache whose entries have a size", target.text()),
                "target", "write a fraction or a number of entries");
  }
  int64_t all = 0, n_heads = 0;
  std::vector<std::vector<double>> weights;
  for (const auto& layer : source_len) {
    weights.emplace_back(layer.begin(), layer.end());
    for (const int64_t length : layer) all += length;
    n_heads += static_cast<int64_t>(layer.size());
  }
  const int64_t total = std::min(all, (target.bytes - sizes.other_bytes) / sizes.entry_bytes - sizes.kept_entries);
  HeadBudget budget;
  bool enough = total >= n_heads;
  if (enough) {
    budget.target_len = proportional_lengths(weights, source_len, total);
    for (size_t l = 0; l < source_len.size(); ++l) {
      for (size_t h = 0; h < source_len[l].size(); ++h)
        enough = enough && (budget.target_len[l][h] > 0 || source_len[l][h] == 0);
    }
  }
  if (enough) return budget;
  throw Error(
      ErrorKind::kData,
      fmt::format("a target of {} is too small: an entry of one head takes {} bytes, the template {} bytes, and "
                  "{} heads keep at least one entry each",
                  target.text(), sizes.entry_bytes, sizes.kept_entries * sizes.entry_bytes, n_heads),
      "", "ask for more bytes, or leave this document out");
}

}  // namespace

HeadBudget uniform_budget(const TargetSize& target, const std::vector<std::vector<int64_t>>& source_len,
                          const EntrySizes& sizes) {
  if (target.unit == TargetSize::Unit::kBytes) return budget_of_bytes(target, source_len, sizes);
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

namespace {

using Lengths = std::vector<std::vector<int64_t>>;
using Scores = std::vector<std::vector<std::vector<float>>>;

int64_t sum_of(const Lengths& lengths) {
  int64_t sum = 0;
  for (const auto& layer : lengths) {
    for (const int64_t length : layer) sum += length;
  }
  return sum;
}

Lengths lengths_of(const Scores& scores) {
  Lengths lengths;
  for (const auto& layer : scores) {
    lengths.emplace_back();
    for (const auto& head : layer) lengths.back().push_back(static_cast<int64_t>(head.size()));
  }
  return lengths;
}

// Places of all layers, best first: a place of a layer is one entry of each of its heads that is long enough. The last
// place that fits in part is given to the layer's first heads.
Lengths composite_lengths(const AdaptiveShare& share, const Lengths& start, const Scores& scores) {
  Lengths lengths = start;
  int64_t left = sum_of(start);
  std::vector<ScoredEntry> places;  // `head` counts the place
  for (size_t l = 0; l < start.size(); ++l) {
    std::vector<std::vector<float>> sorted = scores[l];
    size_t longest = 0;
    for (auto& head : sorted) {
      std::stable_sort(head.begin(), head.end(), better);
      longest = std::max(longest, head.size());
    }
    for (size_t h = 0; h < start[l].size(); ++h) {
      lengths[l][h] = static_cast<int64_t>(std::floor(share.floor_fraction * static_cast<double>(start[l][h]) + 1e-9));
      left -= lengths[l][h];
    }
    for (size_t place = 0; place < longest; ++place) {
      double sum = 0;
      int64_t count = 0;
      for (const auto& head : sorted) {
        if (place >= head.size()) continue;
        sum += static_cast<double>(head[place]);
        ++count;
      }
      places.push_back({static_cast<float>(sum / static_cast<double>(count)), l, place});
    }
  }
  std::stable_sort(places.begin(), places.end(),
                   [](const ScoredEntry& a, const ScoredEntry& b) { return better(a.score, b.score); });
  for (const ScoredEntry& place : places) {
    for (size_t h = 0; h < start[place.layer].size() && left > 0; ++h) {
      const bool taken = static_cast<int64_t>(place.head) < lengths[place.layer][h];
      if (taken || place.head >= scores[place.layer][h].size()) continue;
      ++lengths[place.layer][h];
      --left;
    }
  }
  return lengths;
}

// How many of a head's best entries hold `part` of the sum of its scores: at least one.
double entries_for(std::vector<float> scores, double part) {
  for (float& score : scores) score = score > 0 ? score : 0;  // what is not a number too
  std::sort(scores.begin(), scores.end(), std::greater<>());
  double sum = 0;
  for (const float score : scores) sum += std::isinf(score) ? 0 : static_cast<double>(score);
  double held = 0;
  size_t count = 0;
  while (count < scores.size() && (count == 0 || held < part * sum)) {
    held += std::isinf(scores[count]) ? 0 : static_cast<double>(scores[count]);
    ++count;
  }
  return static_cast<double>(count);
}

Lengths uncertainty_lengths(const AdaptiveShare& share, const Lengths& start, const Scores& scores) {
  std::vector<double> needed(start.size(), 0.0);
  double all = 0;
  for (size_t l = 0; l < start.size(); ++l) {
    for (const auto& head : scores[l])
      needed[l] += entries_for(head, share.mass_fraction) / static_cast<double>(start[l].size());
    all += needed[l];
  }
  std::vector<std::vector<double>> weights;
  for (size_t l = 0; l < start.size(); ++l) {
    const double part = static_cast<double>(start.size()) * needed[l] / all;
    weights.emplace_back();
    for (const int64_t length : start[l]) {
      weights.back().push_back(static_cast<double>(length) *
                               (share.floor_fraction + (1 - share.floor_fraction) * part));
    }
  }
  return proportional_lengths(weights, lengths_of(scores), sum_of(start));
}

}  // namespace

std::vector<std::vector<int64_t>> adaptive_lengths(const AdaptiveShare& share,
                                                   const std::vector<std::vector<int64_t>>& start,
                                                   const std::vector<std::vector<std::vector<float>>>& scores) {
  if (share.scope == AdaptiveShare::Scope::kLayers) return composite_lengths(share, start, scores);
  if (share.scope == AdaptiveShare::Scope::kUncertainty) return uncertainty_lengths(share, start, scores);
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
