#include "harness/sweep/stage_rates.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

// Where records of one size do not tell: attention is a part of a prefill, the whole of a selection's scores.
constexpr double kPrefillExponent = 1.15;
constexpr double kCompactionExponent = 1.1;
constexpr double kReferenceExponent = 0.2;
constexpr double kMaxExponent = 2.5;
constexpr double kLinear = 1;     // reading and compacting take at least as much more as there is
constexpr double kOneSize = 1.2;  // sizes nearer than this factor count as one

std::string key_of(std::initializer_list<Json> parts) {
  return canonical_json(Json(std::vector<Json>(parts)));
}

Json part_of(const Json& object, const char* name) {
  return object.is_object() && object.contains(name) ? object.at(name) : Json(nullptr);
}

double number(const Json& object, const char* name) {
  const Json value = part_of(object, name);
  return value.is_number() ? value.get<double>() : 0;
}

std::string method_key(const Json& cell) {
  return key_of({part_of(cell, "model"), part_of(cell, "queries"), part_of(cell, "method"), part_of(cell, "budget")});
}

std::string task_key_of(const Json& cell) {
  return key_of({part_of(cell, "model"), part_of(cell, "dataset"), part_of(cell, "task")});
}

std::string online_key(const Json& cell) {
  return key_of({Json(task_key_of(cell)), Json(method_key(cell)), part_of(cell, "target")});
}

// Of a record that may be another program's.
std::optional<TargetSize> target_of(const Json& cell) {
  Problems problems;
  const TargetSize target = TargetSize::from_json(part_of(cell, "target"), "", problems);
  return problems.list().empty() ? std::optional(target) : std::nullopt;
}

}  // namespace

CellSeconds& CellSeconds::operator+=(const CellSeconds& other) {
  prefill += other.prefill;
  queries += other.queries;
  compaction += other.compaction;
  reference += other.reference;
  ask += other.ask;
  return *this;
}

double StageRates::fraction_of(const Json& model, const std::optional<TargetSize>& target, double tokens) const {
  if (!target) return 1;
  if (target->unit == TargetSize::Unit::kFraction) return target->fraction;
  if (target->unit == TargetSize::Unit::kEntries) return std::min(1.0, static_cast<double>(target->entries) / tokens);
  const auto token = token_bytes_.find(key_of({model}));
  return token == token_bytes_.end()
             ? 1
             : std::min(1.0, static_cast<double>(target->bytes) / (token->second.value() * std::max(tokens, 1.0)));
}

void StageRates::add_compaction(const Record& record) {
  if (record.status != "done" || !record.seconds.contains("prefill_s")) return;
  const Json& cell = record.cell;
  const double tokens = number(record.sizes, "context_tokens");
  if (tokens <= 0) return;
  const Json model = part_of(cell, "model");
  if (const double bytes = number(record.sizes, "bytes_before"); bytes > 0) {
    Mean& token = token_bytes_[key_of({model})];
    token.sum += bytes / tokens;
    token.n += 1;
  }
  if (const double peak = number(record.sizes, "peak_bytes"); peak > 0) peak_.push_back({tokens, peak});
  prefill_[key_of({model})].push_back({tokens, number(record.seconds, "prefill_s")});
  if (const Json source = part_of(cell, "queries"); !source.is_null())
    queries_[key_of({model, source})].push_back({tokens, number(record.seconds, "queries_s")});
  shared_[method_key(cell)].push_back({tokens, number(record.seconds, "compaction_shared_s")});
  own_[method_key(cell)][fraction_of(model, target_of(cell), tokens)].push_back(
      {tokens, number(record.seconds, "compaction_s")});
}

void StageRates::add_online(const Record& record) {
  Mean& question = online_[online_key(record.cell)];
  for (const char* part : {"compaction_s", "drift_s", "ask_s"}) question.sum += number(record.seconds, part);
  question.n += static_cast<double>(record.answers.size());
}

void StageRates::add(const Record& record) {
  if (record.status != "done" || record.answers.empty()) return;
  if (!record.seconds.contains("prefill_s")) return add_online(record);
  add_compaction(record);
  const double tokens = number(record.sizes, "context_tokens"), n = static_cast<double>(record.answers.size());
  if (tokens <= 0) return;
  const std::string task = task_key_of(record.cell);
  reference_[task].push_back({tokens, number(record.seconds, "reference_s") / n});
  (number(record.seconds, "asked_together") > 1 ? ask_together_ : ask_)[task].push_back(
      {number(record.sizes, "head_len_mean"), number(record.seconds, "ask_s") / n});
  Mean& bytes = record_bytes_[task];
  bytes.sum += static_cast<double>(record.to_json().dump(-1, ' ', false, Json::error_handler_t::replace).size());
  bytes.n += n;
}

bool StageRates::knows_ask(const Cell& cell) const {
  const Json json = cell.to_json();
  const std::string task = task_key_of(json);
  return ask_.contains(task) || ask_together_.contains(task) || online_.contains(online_key(json));
}

const StageRates::Points& StageRates::ask_points(const std::string& task, bool together) const {
  static const Points none;
  const auto& first = together ? ask_together_ : ask_;
  const auto& second = together ? ask_ : ask_together_;
  if (const auto place = first.find(task); place != first.end()) return place->second;
  const auto place = second.find(task);
  return place == second.end() ? none : place->second;
}

bool StageRates::knows_compaction(const Cell& cell) const {
  const Json json = cell.to_json();
  return own_.contains(method_key(json)) || online_.contains(online_key(json));
}

double StageRates::power_law(const Points& points, double size, double exponent, double slowest) {
  if (points.empty()) return 0;
  double mean_x = 0, mean_y = 0, least = points.front().size, most = least;
  for (const Point& point : points) {
    mean_x += std::log(point.size);
    mean_y += std::log(std::max(point.seconds, 1e-9));
    least = std::min(least, point.size);
    most = std::max(most, point.size);
  }
  mean_x /= static_cast<double>(points.size());
  mean_y /= static_cast<double>(points.size());
  if (most / least > kOneSize) {
    double xy = 0, xx = 0;
    for (const Point& point : points) {
      const double x = std::log(point.size) - mean_x;
      xy += x * (std::log(std::max(point.seconds, 1e-9)) - mean_y);
      xx += x * x;
    }
    if (xy / xx < slowest) {
      Points large;
      std::copy_if(points.begin(), points.end(), std::back_inserter(large),
                   [&](const Point& point) { return point.size * kOneSize > most; });
      return power_law(large, size, slowest, slowest);
    }
    exponent = std::clamp(xy / xx, 0.0, kMaxExponent);
  }
  return std::exp(mean_y + exponent * (std::log(size) - mean_x));
}

double StageRates::straight_line(const Points& points, double x) {
  if (points.empty()) return 0;
  double mean_x = 0, mean_y = 0;
  for (const Point& point : points) {
    mean_x += point.size / static_cast<double>(points.size());
    mean_y += point.seconds / static_cast<double>(points.size());
  }
  double xy = 0, xx = 0;
  for (const Point& point : points) {
    xy += (point.size - mean_x) * (point.seconds - mean_y);
    xx += (point.size - mean_x) * (point.size - mean_x);
  }
  const double slope = xx > 0 ? std::clamp(xy / xx, 0.0, mean_x > 0 ? mean_y / mean_x : 0.0) : 0;
  return std::max(0.0, mean_y + slope * (x - mean_x));
}

double StageRates::own_seconds(const Cell& cell, double tokens) const {
  const auto place = own_.find(method_key(cell.to_json()));
  if (place == own_.end()) return 0;
  const std::map<double, Points>& by_fraction = place->second;
  const double fraction = fraction_of(cell.model, cell.target, tokens);
  const auto at = [&](std::map<double, Points>::const_iterator it) {
    return power_law(it->second, tokens, kCompactionExponent, kLinear);
  };
  const auto above = by_fraction.lower_bound(fraction);
  if (above == by_fraction.end()) return at(std::prev(above));
  if (above->first == fraction || above == by_fraction.begin()) return at(above);
  const auto below = std::prev(above);
  const double weight = (fraction - below->first) / (above->first - below->first);
  return (1 - weight) * at(below) + weight * at(above);
}

std::vector<CellSeconds> StageRates::predict(const std::vector<CellWork>& document) const {
  const auto of = [](const auto& map, const std::string& key) -> const Points& {
    static const Points none;
    const auto place = map.find(key);
    return place == map.end() ? none : place->second;
  };
  std::set<std::string> paid;
  std::map<std::string, int64_t> caches;  // of one method that one task asks
  for (const CellWork& work : document) {
    const Json cell = work.cell->to_json();
    ++caches[task_key_of(cell) + method_key(cell)];
  }
  std::vector<CellSeconds> list;
  for (const CellWork& work : document) {
    CellSeconds seconds;
    const Json cell = work.cell->to_json();
    const double tokens = std::max(1.0, static_cast<double>(work.context_tokens));
    const double n = static_cast<double>(work.questions);
    if (const auto online = online_.find(online_key(cell)); online != online_.end()) {
      seconds.ask = n * online->second.value();
      list.push_back(seconds);
      continue;
    }
    const auto once = [&](const char* stage, const std::string& key) { return paid.insert(stage + key).second; };
    if (const std::string key = key_of({work.cell->model}); once("prefill", key))
      seconds.prefill = power_law(of(prefill_, key), tokens, kPrefillExponent, kLinear);
    if (const std::string key = key_of({work.cell->model, work.cell->queries});
        !work.cell->queries.is_null() && once("queries", key))
      seconds.queries = power_law(of(queries_, key), tokens, kPrefillExponent, kLinear);
    if (const std::string key = method_key(cell); once("shared", key))
      seconds.compaction = power_law(of(shared_, key), tokens, kCompactionExponent, kLinear);
    if (once("own", method_key(cell) + target_json(work.cell->target).dump()))
      seconds.compaction += own_seconds(*work.cell, tokens);
    const std::string task = task_key_of(cell);
    if (once("reference", task)) seconds.reference = n * power_law(of(reference_, task), tokens, kReferenceExponent, 0);
    const bool nothing_kept = work.cell->method.value("name", "") == "no_context";
    const double kept = nothing_kept ? 0 : tokens * fraction_of(work.cell->model, work.cell->target, tokens);
    const bool together = caches.at(task + method_key(cell)) > 1;
    seconds.ask = n * straight_line(ask_points(task, together), kept);
    list.push_back(seconds);
  }
  return list;
}

double StageRates::record_bytes(const Cell& cell, std::int64_t questions) const {
  const auto place = record_bytes_.find(task_key_of(cell.to_json()));
  return place == record_bytes_.end() ? 0 : place->second.value() * static_cast<double>(questions);
}

}  // namespace kvc
