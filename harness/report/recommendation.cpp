#include "harness/report/recommendation.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "harness/core/count.h"
#include "harness/report/label.h"
#include "harness/report/tabulate.h"

namespace kvc {
namespace {

// Means over the records of one cell; what no record has is not there.
struct Means {
  std::map<std::string, std::pair<double, double>> sums;  // and numbers of records
  void add(const Json& object, const char* name) {
    if (!object.is_object() || !object.contains(name) || !object.at(name).is_number()) return;
    sums[name].first += object.at(name).get<double>();
    sums[name].second += 1;
  }
  std::optional<double> of(const char* name) const {
    const auto found = sums.find(name);
    return found == sums.end() ? std::nullopt : std::optional(found->second.first / found->second.second);
  }
};

std::map<std::string, Means> means_by_cell(const std::vector<Record>& records) {
  std::map<std::string, Means> means;
  for (const Record& record : records) {
    if (record.status != "done") continue;
    Means& own = means[record.cell_id];
    for (const char* name : {"kept_fraction", "bytes_before", "bytes_after"}) own.add(record.sizes, name);
    for (const char* name : {"compaction_shared_s", "compaction_s"}) own.add(record.seconds, name);
  }
  return means;
}

SizeOutcome outcome_of(const Certification& certification, const CertifiedCell& cell, double level,
                       const Means& means) {
  const LossSettings& settings = certification.settings();
  SizeOutcome size;
  size.target = cell_part(cell.ruled.cell, "target");
  size.state = cell.state;
  size.documents = static_cast<int64_t>(cell.losses.size());
  for (const DocumentLoss& document : cell.losses) {
    size.lost += document.lost;
    size.right += document.right;
  }
  if (const auto loss = measured_loss(cell.losses)) size.loss = *loss * settings.unit();
  std::tie(size.low, size.high) = certification.interval(cell);
  size.bound = certification.bound(cell);
  if (cell.state == CellState::kCertified) size.bound = std::min(size.bound, settings.tolerance);
  size.more = more_documents(cell.losses, settings.tolerance / settings.unit(), certification.most(), level);
  size.kept_fraction = means.of("kept_fraction");
  size.bytes_before = means.of("bytes_before");
  size.bytes_after = means.of("bytes_after");
  if (means.of("compaction_s"))
    size.compaction_s = means.of("compaction_shared_s").value_or(0) + *means.of("compaction_s");
  size.error = cell.error;
  return size;
}

// The smaller kept fraction first, then the smaller measured loss; methods without a certified size come last.
bool before(const MethodOutcome& a, const MethodOutcome& b) {
  const SizeOutcome* const first = a.certified();
  const SizeOutcome* const second = b.certified();
  if (first == nullptr || second == nullptr) return first != nullptr && second == nullptr;
  const auto kept = [](const SizeOutcome& size) {
    return size.target.is_number() ? size.target.get<double>() : size.kept_fraction.value_or(1);
  };
  return std::pair(kept(*first), first->loss.value_or(0)) < std::pair(kept(*second), second->loss.value_or(0));
}

std::string size_text(const Json& target) {
  return target.is_number() ? fmt::format("{:g} %", 100 * target.get<double>()) : target_text(target);
}

std::string lost_text(const Recommendation& r, const SizeOutcome& size) {
  if (r.settings.metric == "kl") return fmt::format("mean {}", loss_text(r.settings, size.loss.value_or(0)));
  return fmt::format("{:g} of {:g} lost", size.lost, size.right);
}

std::string what_is_lost(const Recommendation& r, const std::string& tolerance) {
  if (r.settings.metric == "kl")
    return fmt::format(
        "the mean KL to the full cache is at most {} per token (each question's counted up to {:g} nats)", tolerance,
        r.settings.kl_bound);
  if (r.settings.metric == "agreement")
    return fmt::format("at most {} of the full cache's own tokens would have been others", tolerance);
  return fmt::format("of what the full cache answers right, at most {} goes wrong", tolerance);
}

const SizeOutcome* first_open(const MethodOutcome& method) {
  return method.n_certified < method.sizes.size() ? &method.sizes[method.n_certified] : nullptr;
}

// The (method, size) with the least bound, and what it is.
std::string best_bound_text(const Recommendation& r) {
  const MethodOutcome* method = nullptr;
  const SizeOutcome* best = nullptr;
  for (const MethodOutcome& one : r.methods) {
    for (const SizeOutcome& size : one.sizes) {
      if (size.documents == 0 || (best != nullptr && size.bound >= best->bound)) continue;
      method = &one;
      best = &size;
    }
  }
  if (best == nullptr || best->bound >= r.settings.unit()) return "Nothing is certain yet.";
  return fmt::format("What is certain: keeping {} with {} loses at most {}.", size_text(best->target), method->label,
                     loss_text(r.settings, best->bound));
}

// The fewest documents that would certify anything more, at the losses seen.
std::string more_text(const Recommendation& r) {
  std::optional<int64_t> fewest;
  const MethodOutcome* method = nullptr;
  for (const MethodOutcome& one : r.methods) {
    const SizeOutcome* size = first_open(one);
    if (size == nullptr || size->state == CellState::kHalved || size->documents == 0 || !size->more ||
        (fewest && *size->more >= *fewest))
      continue;
    fewest = std::max<int64_t>(1, *size->more);
    method = &one;
  }
  if (!fewest) return "More documents like these would not change that: each method lost too much on them.";
  return fmt::format("About {} like these would certify {} at {}.", count(*fewest, "more document"), method->label,
                     size_text(first_open(*method)->target));
}

std::string state_text(const Recommendation& r, const SizeOutcome& size) {
  const std::string loss = size.loss ? loss_text(r.settings, *size.loss) : "nothing measurable";
  switch (size.state) {
    case CellState::kOutside:
      return fmt::format("loses too much: {} on {}, certainly above {}", loss, count(size.documents, "document"),
                         loss_text(r.settings, size.low));
    case CellState::kOutOfReach:
      return fmt::format("lost {} on {}; the documents left could not certify it", loss,
                         count(size.documents, "document"));
    case CellState::kDropped:
      return fmt::format("not measured further: another method is certified at no more than this one could reach");
    case CellState::kHalved:
      return fmt::format(
          "dropped out of the race after {}: others were within the tolerance at a smaller size, or "
          "lost less there",
          count(size.documents, "document"));
    case CellState::kFailed:
      return "failed: " + size.error.substr(0, size.error.find('\n'));
    default:
      return fmt::format("undecided after {}: lost {}{}", count(size.documents, "document"), loss,
                         size.more ? fmt::format("; about {} like these would certify it",
                                                 count(std::max<int64_t>(1, *size.more), "more document"))
                                   : "");
  }
}

Json size_json(const SizeOutcome& size) {
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  return {{"target", size.target},
          {"state", state_name(size.state)},
          {"documents", size.documents},
          {"loss", number(size.loss)},
          {"low", size.low},
          {"high", size.high},
          {"at_most", size.bound},
          {"more_documents", size.more ? Json(*size.more) : Json(nullptr)},
          {"kept_fraction", number(size.kept_fraction)},
          {"bytes_before", number(size.bytes_before)},
          {"bytes_after", number(size.bytes_after)},
          {"compaction_s", number(size.compaction_s)},
          {"error", size.error.empty() ? Json(nullptr) : Json(size.error)}};
}

}  // namespace

std::string loss_text(const LossSettings& settings, double loss) {
  if (settings.metric == "kl") return fmt::format("{:.3g} nats", loss);
  return fmt::format("{:.3g} %", 100 * loss);
}

Recommendation recommendation_of(Certification& certification, const std::vector<Record>& records,
                                 const Json& defaults) {
  Recommendation result;
  result.settings = certification.settings();
  result.documents = certification.cells().empty() ? 0 : certification.n_documents();
  result.all_documents = certification.n_all_documents();
  result.left_out = certification.n_left_out();
  const std::map<std::string, Means> means = means_by_cell(records);
  std::vector<Record> ours;
  for (const Record& record : records) {
    if (certification.has(record.cell_id)) ours.push_back(record);
  }
  const Labels labels(ours, defaults);
  for (const Chain& chain : certification.chains()) {
    MethodOutcome method;
    const Json& cell = certification.cells()[chain.cells.front()].ruled.cell;
    method.method = cell_part(cell, "method");
    method.queries = cell_part(cell, "queries");
    method.budget = cell_part(cell, "budget");
    method.label = labels.of("method", method.method);
    if (!method.budget.is_null()) method.label += fmt::format(", {} budget", method.budget.value("name", ""));
    method.n_certified = chain.n_certified;
    const double level = result.settings.level() * chain.share;
    for (const size_t i : chain.cells) {
      const CertifiedCell& one = certification.cells()[i];
      const auto own = means.find(one.ruled.id);
      method.sizes.push_back(outcome_of(certification, one, chain.share > 0 ? level : result.settings.level(),
                                        own == means.end() ? Means() : own->second));
      result.right = std::max(result.right, method.sizes.back().right);
    }
    result.methods.push_back(std::move(method));
  }
  std::stable_sort(result.methods.begin(), result.methods.end(), before);
  return result;
}

std::string recommendation_sentence(const Recommendation& r) {
  const std::string tolerance = loss_text(r.settings, r.settings.tolerance);
  const std::string confidence = fmt::format("{:g} % confidence", 100 * r.settings.confidence);
  if (const MethodOutcome* best = r.best()) {
    const SizeOutcome& size = *best->certified();
    return fmt::format("Keep {} of the cache with {}: {} on documents like these, with {} ({} on {}).",
                       size_text(size.target), best->label, what_is_lost(r, tolerance), confidence, lost_text(r, size),
                       count(size.documents, "document"));
  }
  if (r.documents > 0 && r.right == 0)
    return fmt::format(
        "The full cache answers nothing right on the {} measured: nothing can be lost, and nothing can be "
        "said "
        "about what a smaller cache loses.",
        count(r.documents, "document"));
  return fmt::format(
      "No size is certified for a loss of at most {} with {}{}. {} {}", tolerance, confidence,
      r.out_of_time ? fmt::format(" after the {} that the time allowed", count(r.documents, "document")) : "",
      best_bound_text(r), more_text(r));
}

TextTable recommendation_table(const Recommendation& r) {
  TextTable table{{"method", "keep", "smaller", "lost", "at most", "documents", "s/doc", "cache"}, {}};
  for (const MethodOutcome& method : r.methods) {
    const SizeOutcome* size = method.certified();
    if (size == nullptr) {
      table.rows.push_back({method.label, kNoValue, kNoValue, kNoValue, kNoValue, kNoValue, kNoValue, kNoValue});
      continue;
    }
    const auto ratio =
        size->kept_fraction && *size->kept_fraction > 0 ? std::optional(1 / *size->kept_fraction) : std::nullopt;
    table.rows.push_back({method.label, size_text(size->target), ratio_text(ratio),
                          size->loss ? loss_text(r.settings, *size->loss) : kNoValue,
                          loss_text(r.settings, size->bound), fmt::format("{}", size->documents),
                          seconds_text(size->compaction_s),
                          size->bytes_after ? bytes_text(*size->bytes_after) : kNoValue});
  }
  return table;
}

std::vector<std::string> recommendation_notes(const Recommendation& r) {
  std::vector<std::string> notes;
  for (const MethodOutcome& method : r.methods) {
    const SizeOutcome* open = first_open(method);
    if (open != nullptr)
      notes.push_back(fmt::format("{} at {}: {}.", method.label, size_text(open->target), state_text(r, *open)));
  }
  if (r.left_out > 0)
    notes.push_back(fmt::format("{} left out: the full cache itself could not be asked about {}.",
                                count(r.left_out, "document"), r.left_out == 1 ? "it" : "them"));
  if (r.out_of_time) notes.push_back("The time was over before everything was decided; the same command goes on.");
  return notes;
}

Plot recommendation_plot(const Recommendation& r) {
  Plot plot;
  plot.title = fmt::format("{}, {}", r.data, r.task);
  PlotPanel panel;
  panel.share = r.settings.metric != "kl";
  panel.y_label = r.settings.metric == "kl"          ? "KL to the full cache (nats per token)"
                  : r.settings.metric == "agreement" ? "tokens that differ (%)"
                                                     : "right answers that go wrong (%)";
  panel.title = fmt::format("at most {} lost, {:g} % confidence", loss_text(r.settings, r.settings.tolerance),
                            100 * r.settings.confidence);
  PlotBand band{r.settings.tolerance, std::nullopt};
  for (const MethodOutcome& method : r.methods) {
    PlotLine line{plot.series.size(), {}};
    for (const SizeOutcome& size : method.sizes) {
      if (!size.loss || !size.kept_fraction || *size.kept_fraction <= 0) continue;
      line.points.push_back(
          {*size.kept_fraction, *size.loss, size.low, size.high, size.state != CellState::kCertified});
      if (size.state == CellState::kCertified) band.kept = std::min(band.kept.value_or(1), *size.kept_fraction);
    }
    if (line.points.empty()) continue;
    const auto place = static_cast<int>(plot.series.size());
    plot.series.push_back({method.label, {place < kNSeriesColours ? place : -1, place % 8}});
    panel.lines.push_back(std::move(line));
  }
  panel.band = band;
  if (!panel.lines.empty()) plot.panels.push_back(std::move(panel));
  plot.notes.push_back(
      fmt::format("Filled: certified. Hollow: not. Bars: {:g} % intervals of a size alone that hold at any time of "
                  "looking. Shaded: within the tolerance, down to the smallest certified size.",
                  100 * r.settings.confidence));
  return plot;
}

Json recommendation_json(const Recommendation& r) {
  Json methods = Json::array();
  for (const MethodOutcome& method : r.methods) {
    Json sizes = Json::array();
    for (const SizeOutcome& size : method.sizes) sizes.push_back(size_json(size));
    methods.push_back({{"label", method.label},
                       {"method", method.method},
                       {"queries", method.queries},
                       {"budget", method.budget},
                       {"certified", method.certified() == nullptr ? Json(nullptr) : method.certified()->target},
                       {"command", method.command.empty() ? Json(nullptr) : Json(method.command)},
                       {"sizes", sizes}});
  }
  return {{"format", "kvcompact.recommendation"},
          {"version", 1},
          {"sentence", recommendation_sentence(r)},
          {"model", r.model},
          {"data", r.data},
          {"task", r.task},
          {"metric", r.settings.metric},
          {"tolerance", r.settings.tolerance},
          {"confidence", r.settings.confidence},
          {"kl_bound", r.settings.metric == "kl" ? Json(r.settings.kl_bound) : Json(nullptr)},
          {"certified", r.best() != nullptr},
          {"out_of_time", r.out_of_time},
          {"documents", {{"measured", r.documents}, {"all", r.all_documents}, {"left_out", r.left_out}}},
          {"methods", methods}};
}

}  // namespace kvc
