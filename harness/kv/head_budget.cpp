#include "harness/kv/head_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
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

// Whether `value` is a whole number too large to count entries with, its unit written or not.
bool is_endless_count(const Json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>() > std::numeric_limits<int64_t>::max();
  if (!value.is_string()) return false;
  std::string_view text = trimmed(value.get_ref<const std::string&>());
  if (text.ends_with("entries")) text = trimmed(text.substr(0, text.size() - 7));
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos && !parse_whole<int64_t>(text);
}

}  // namespace

TargetSize TargetSize::from_json(const Json& value, const std::string& pointer, Problems& problems) {
  const std::optional<TargetSize> target = read_size(value);
  if (is_endless_count(value)) {
    problems.add(fmt::format("target must be at most {} as a number of entries; got {}",
                             std::numeric_limits<int64_t>::max(), value.dump()),
                 pointer, kMend);
  } else if (!target) {
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

int64_t sum_of(const HeadTable<int64_t>& lengths) {
  return std::accumulate(lengths.all().begin(), lengths.all().end(), int64_t{0});
}

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

HeadBudget budget_of_bytes(const TargetSize& target, const HeadTable<int64_t>& source_len, const EntrySizes& sizes) {
  if (sizes.entry_bytes < 1) {
    throw Error(ErrorKind::kUsage, fmt::format("a target of {} needs a cache whose entries have a size", target.text()),
                "target", "write a fraction or a number of entries");
  }
  const auto n_heads = static_cast<int64_t>(source_len.all().size());
  const int64_t total =
      std::min(sum_of(source_len), (target.bytes - sizes.other_bytes) / sizes.entry_bytes - sizes.kept_entries);
  if (total >= n_heads) {
    const auto weights = source_len.map([](int64_t length) { return static_cast<double>(length); });
    HeadBudget budget{proportional_lengths(weights, source_len, total), {}};
    const bool enough = std::equal(source_len.all().begin(), source_len.all().end(), budget.target_len.all().begin(),
                                   [](int64_t source, int64_t kept) { return kept > 0 || source == 0; });
    if (enough) return budget;
  }
  throw Error(
      ErrorKind::kData,
      fmt::format("a target of {} is too small: an entry of one head takes {} bytes, the template {} bytes, and "
                  "{} heads keep at least one entry each",
                  target.text(), sizes.entry_bytes, sizes.kept_entries * sizes.entry_bytes, n_heads),
      "", "ask for more bytes, or leave this document out");
}

}  // namespace

HeadBudget uniform_budget(const TargetSize& target, const HeadTable<int64_t>& source_len, const EntrySizes& sizes) {
  if (target.unit == TargetSize::Unit::kBytes) return budget_of_bytes(target, source_len, sizes);
  return {source_len.map([&](int64_t length) { return uniform_length(target, length); }), {}};
}

int64_t total_length(const HeadBudget& budget) {
  return sum_of(budget.target_len);
}

namespace {

struct HeadShare {
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

HeadTable<int64_t> proportional_lengths(const HeadTable<double>& weights, const HeadTable<int64_t>& source_len,
                                        int64_t total) {
  const int64_t room = sum_of(source_len);
  if (!weights.same_shape(source_len) || total < 0 || total > room) {
    throw Error(ErrorKind::kInternal, fmt::format("{} entries cannot be spread over room for {}", total, room),
                "proportional_lengths", "ask for at most the source lengths, with one weight a head");
  }
  std::vector<HeadShare> heads;
  for (size_t i = 0; i < weights.all().size(); ++i) heads.push_back({weights.all()[i], source_len.all()[i]});
  fill(heads, static_cast<double>(total));
  HeadTable<int64_t> lengths = source_len;
  int64_t given = 0;
  for (size_t i = 0; i < heads.size(); ++i) {
    const auto whole = std::min(heads[i].room, static_cast<int64_t>(std::floor(heads[i].length + 1e-9)));
    lengths.all()[i] = whole;
    given += whole;
  }
  std::vector<size_t> order(heads.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto remainder = [&](size_t i) { return heads[i].length - std::floor(heads[i].length + 1e-9); };
    return remainder(a) > remainder(b);
  });
  while (given < total) {
    for (const size_t i : order) {
      int64_t& length = lengths.all()[i];
      if (given < total && length < heads[i].room) ++length, ++given;
    }
  }
  return lengths;
}

namespace {

using Lengths = HeadTable<int64_t>;
using Scores = HeadTable<std::vector<float>>;

struct ScoredEntry {
  float score;
  size_t head;  // of all heads, layer by layer
};

// Highest first, what is not a number last; a stable sort keeps equal ones in the order of layer, head, entry.
bool better(float a, float b) {
  return std::isnan(b) ? !std::isnan(a) : a > b;
}

bool better_entry(const ScoredEntry& a, const ScoredEntry& b) {
  return better(a.score, b.score);
}

int64_t floor_of(double fraction, int64_t length) {
  return static_cast<int64_t>(std::floor(fraction * static_cast<double>(length) + 1e-9));
}

// Adds to the lengths of heads [first, last) what the best of their entries beyond their own ones take.
void share_best(size_t first, size_t last, int64_t total, const Scores& scores, Lengths& lengths) {
  std::vector<ScoredEntry> rest;
  for (size_t h = first; h < last; ++h) {
    std::vector<float> sorted = scores.all()[h];
    std::stable_sort(sorted.begin(), sorted.end(), better);
    const int64_t own = lengths.all()[h];
    for (size_t i = static_cast<size_t>(own); i < sorted.size(); ++i) rest.push_back({sorted[i], h});
    total -= own;
  }
  const auto n = std::min(rest.size(), static_cast<size_t>(std::max<int64_t>(0, total)));
  std::stable_sort(rest.begin(), rest.end(), better_entry);
  for (size_t i = 0; i < n; ++i) ++lengths.all()[rest[i].head];
}

// fraction * start + (1 - fraction) * free for every head in [first, last), in whole entries that sum to what both sum
// to: remainders go to the largest fractions, ties to the lower layer and head.
void blend(size_t first, size_t last, double fraction, const Lengths& start, Lengths& lengths) {
  std::vector<std::pair<double, size_t>> remainders;
  int64_t left = 0;
  for (size_t h = first; h < last; ++h) {
    int64_t& length = lengths.all()[h];
    const int64_t begin = start.all()[h];
    const double mixed = fraction * static_cast<double>(begin) + (1 - fraction) * static_cast<double>(length);
    const auto whole = static_cast<int64_t>(std::floor(mixed + 1e-9));
    left += begin - whole;
    remainders.emplace_back(mixed - static_cast<double>(whole), h);
    length = whole;
  }
  std::stable_sort(remainders.begin(), remainders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = 0; i < static_cast<size_t>(left); ++i) ++lengths.all()[remainders[i].second];
}

// Places of all layers, best first: a place of a layer is one entry of each of its heads that is long enough. The last
// place that fits in part is given to the layer's first heads.
Lengths composite_lengths(const AdaptiveShare& share, const Lengths& start, const Scores& scores) {
  Lengths lengths = start.map([&](int64_t length) { return floor_of(share.floor_fraction, length); });
  int64_t left = sum_of(start) - sum_of(lengths);
  struct Place {
    float score;
    int64_t layer, place;
  };
  std::vector<Place> places;
  for (int64_t l = 0; l < start.n_layers(); ++l) {
    const auto own = scores.layer(l);
    std::vector<std::vector<float>> sorted(own.begin(), own.end());
    size_t longest = 0;
    for (auto& head : sorted) {
      std::stable_sort(head.begin(), head.end(), better);
      longest = std::max(longest, head.size());
    }
    for (size_t place = 0; place < longest; ++place) {
      double sum = 0;
      int64_t count = 0;
      for (const auto& head : sorted) {
        if (place >= head.size()) continue;
        sum += static_cast<double>(head[place]);
        ++count;
      }
      places.push_back({static_cast<float>(sum / static_cast<double>(count)), l, static_cast<int64_t>(place)});
    }
  }
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return better(a.score, b.score); });
  for (const Place& place : places) {
    for (int64_t h = 0; h < start.n_heads() && left > 0; ++h) {
      int64_t& length = lengths.at(place.layer, h);
      const bool taken = place.place < length;
      if (taken || place.place >= static_cast<int64_t>(scores.at(place.layer, h).size())) continue;
      ++length;
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
  std::vector<double> needed;  // of a layer
  double all = 0;
  for (int64_t l = 0; l < start.n_layers(); ++l) {
    double sum = 0;
    for (const auto& head : scores.layer(l))
      sum += entries_for(head, share.mass_fraction) / static_cast<double>(start.n_heads());
    needed.push_back(sum);
    all += sum;
  }
  const auto weights = HeadTable<double>::make(start.n_layers(), start.n_heads(), [&](int64_t l, int64_t h) {
    const double part = static_cast<double>(start.n_layers()) * needed[static_cast<size_t>(l)] / all;
    return static_cast<double>(start.at(l, h)) * (share.floor_fraction + (1 - share.floor_fraction) * part);
  });
  const auto room = scores.map([](const auto& head) { return static_cast<int64_t>(head.size()); });
  return proportional_lengths(weights, room, sum_of(start));
}

}  // namespace

HeadTable<int64_t> adaptive_lengths(const AdaptiveShare& share, const HeadTable<int64_t>& start,
                                    const HeadTable<std::vector<float>>& scores) {
  if (share.scope == AdaptiveShare::Scope::kLayers) return composite_lengths(share, start, scores);
  if (share.scope == AdaptiveShare::Scope::kUncertainty) return uncertainty_lengths(share, start, scores);
  const bool blended = share.safeguard == AdaptiveShare::Safeguard::kBlend;
  Lengths lengths = start.map([&](int64_t length) { return blended ? 0 : floor_of(share.floor_fraction, length); });
  const bool all = share.scope == AdaptiveShare::Scope::kAll;
  const size_t n_heads = start.all().size(), step = all ? n_heads : static_cast<size_t>(start.n_heads());
  for (size_t first = 0; first < n_heads; first += step) {
    const auto own = start.all().subspan(first, step);
    share_best(first, first + step, std::accumulate(own.begin(), own.end(), int64_t{0}), scores, lengths);
    if (blended) blend(first, first + step, share.floor_fraction, start, lengths);
  }
  return lengths;
}

}  // namespace kvc
