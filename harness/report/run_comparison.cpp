#include "harness/report/run_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/report/grouped_records.h"
#include "harness/report/short_names.h"
#include "harness/report/text_table.h"

namespace kvc {
namespace {

struct Place {
  const Table* table = nullptr;
  const Row* row = nullptr;
  const CellSummary* cell = nullptr;
};

std::string label_of(const Place& place) {
  std::string text = fmt::format("{}, {}: {}", place.table->dataset_label, place.table->task_label, place.row->label());
  if (!place.cell->target.is_null()) text += " at " + target_text(place.cell->target);
  return text;
}

std::map<std::string, Place> places_of(const Tabulated& tabulated) {
  std::map<std::string, Place> places;
  for (const Table& table : tabulated.tables) {
    if (!table.parts.empty()) continue;  // its answers are in its parts' tables
    for (const Row& row : table.rows) {
      const auto add = [&](const CellSummary& cell) {
        if (cell.n_done == 0 || cell.metrics.empty()) return;
        const Json model = table.model.is_object() ? Json(table.model.value("name", "")) : table.model;
        places[canonical_json(Json{model, table.dataset, table.task, row.method, row.queries, cell.target})] = {
            &table, &row, &cell};
      };
      if (row.untargeted) add(*row.untargeted);
      for (const auto& cell : row.cells) {
        if (cell) add(*cell);
      }
    }
  }
  return places;
}

// Documents of the cell whose right answers depend on the seed: the tables have each as one document a seed.
std::set<std::string> documents_of_seeds(const CellSummary& cell) {
  std::set<std::string> known, list;
  for (const ScoredQuestion& question : cell.questions) known.insert(question.document);
  for (const ScoredQuestion& answer : cell.answers) {
    if (known.count(answer.document) == 0) list.insert(answer.document);
  }
  return list;
}

// A question's value as the tables have it, the mean over its seeds, and its right answer.
struct AskedQuestion {
  double sum = 0, count = 0;
  size_t gold = 0;
  double value() const { return sum / count; }
};
using AskedQuestions = std::map<std::pair<std::string, std::string>, AskedQuestion>;  // by document, question

AskedQuestions questions_of(const CellSummary& cell, const std::set<std::string>& of_seeds) {
  AskedQuestions questions;
  for (const ScoredQuestion& answer : cell.answers) {
    if (answer.values.empty() || std::isnan(answer.values.front())) continue;
    const bool own = of_seeds.count(answer.document) > 0;
    AskedQuestion& question =
        questions[{own ? document_under(answer.document, answer.seed) : answer.document, answer.question}];
    question.sum += answer.values.front();
    question.count += 1;
    question.gold = answer.gold;
  }
  return questions;
}

// Nothing where no question is shared; `asked_otherwise` counts those of one id with two right answers.
std::optional<CellChange> change_of(const Place& first, const Place& second, int64_t& asked_otherwise) {
  // A run with one seed alone cannot tell that its documents are those of the seed; the other run may.
  std::set<std::string> of_seeds = documents_of_seeds(*first.cell);
  of_seeds.merge(documents_of_seeds(*second.cell));
  const AskedQuestions before = questions_of(*first.cell, of_seeds), after = questions_of(*second.cell, of_seeds);
  CellChange change;
  change.dataset = first.table->dataset_label;
  change.task = first.table->task_label;
  change.method = first.row->label();
  change.target = target_text(first.cell->target);
  change.metric = first.cell->metrics.front().info;
  std::vector<PairedValues> pairs;
  bool positive = true;
  for (const auto& [question, own] : before) {
    const auto other = after.find(question);
    if (other == after.end()) continue;
    if (own.gold != other->second.gold) {
      ++asked_otherwise;
      continue;
    }
    const double value = own.value(), now = other->second.value();
    change.before += value;
    change.after += now;
    positive = positive && value >= 0 && now >= 0;
    pairs.push_back({question.first, now, value});
  }
  if (pairs.empty()) return std::nullopt;
  change.before /= static_cast<double>(pairs.size());
  change.after /= static_cast<double>(pairs.size());
  change.pair = compare_pair(pairs, change.metric.share ? MetricScale::kShare
                                    : positive          ? MetricScale::kPositive
                                                        : MetricScale::kReal);
  return change;
}

// Every path of `json` with the text of its value: "method.window" -> "64".
void flatten(const Json& json, const std::string& path, std::map<std::string, std::set<std::string>>& flat) {
  if (json.is_object()) {
    for (const auto& [name, value] : json.items()) flatten(value, path.empty() ? name : path + "." + name, flat);
  } else {
    flat[path].insert(json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

std::string joined(const std::set<std::string>& values) {
  if (values.empty()) return "none";
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : " and ") + value;
  return text.size() > 160 ? text.substr(0, 157) + "..." : text;
}

std::vector<std::string> settings_of(const Tabulated& first, const Tabulated& second) {
  std::map<std::string, std::set<std::string>> a, b;
  for (const auto& [tabulated, flat] : {std::pair(&first, &a), std::pair(&second, &b)}) {
    for (const Json& provenance : tabulated->provenance) flatten(provenance, "", *flat);
  }
  std::vector<std::string> list;
  std::set<std::string> names;
  for (const auto* flat : {&a, &b}) {
    for (const auto& [name, values] : *flat) names.insert(name);
  }
  for (const std::string& name : names) {
    if (a[name] != b[name]) list.push_back(fmt::format("{}: {} -> {}", name, joined(a[name]), joined(b[name])));
  }
  return list;
}

std::string number(double value, bool share) {
  return share ? fmt::format("{:.3f}", value) : fmt::format("{:.3g}", value);
}

std::string verdict(const CellChange& change) {
  return change.better > 0 ? "better" : change.better < 0 ? "WORSE" : "undecided";
}

}  // namespace

double CellChange::loss() const {
  const double lost = metric.higher_is_better ? before - after : after - before;
  if (metric.share) return lost;
  return lost / std::max(std::abs(before), 1e-12);
}

RunComparison compare_runs(const Tabulated& first, const Tabulated& second) {
  const std::map<std::string, Place> a = places_of(first), b = places_of(second);
  RunComparison comparison;
  for (const auto& [key, place] : a) {
    const auto other = b.find(key);
    const auto change = other == b.end() ? std::nullopt : change_of(place, other->second, comparison.asked_otherwise);
    if (change) {
      comparison.cells.push_back(*change);
    } else {
      comparison.only_in_first.push_back(label_of(place));
    }
  }
  for (const auto& [key, place] : b) {
    if (a.count(key) == 0) comparison.only_in_second.push_back(label_of(place));
  }
  std::vector<double> p;
  // Where nothing can be decided (too few documents) p is 1.
  for (const CellChange& change : comparison.cells) p.push_back(change.pair.p.value_or(1));
  const std::vector<double> corrected = holm(p);
  for (size_t i = 0; i < corrected.size(); ++i) {
    CellChange& change = comparison.cells[i];
    change.p_holm = corrected[i];
    if (corrected[i] <= 1 - kLevel) change.better = change.loss() > 0 ? -1 : change.loss() < 0 ? 1 : 0;
  }
  std::stable_sort(comparison.cells.begin(), comparison.cells.end(), [](const CellChange& x, const CellChange& y) {
    return std::tuple(x.better == 0, x.better, x.p_holm) < std::tuple(y.better == 0, y.better, y.p_holm);
  });
  comparison.settings = settings_of(first, second);
  return comparison;
}

std::vector<const CellChange*> worse_cells(const RunComparison& comparison, double tolerance) {
  std::vector<const CellChange*> cells;
  for (const CellChange& change : comparison.cells) {
    if (change.better < 0 && change.loss() > tolerance) cells.push_back(&change);
  }
  return cells;
}

std::string comparison_text(const RunComparison& comparison, const std::string& first, const std::string& second,
                            size_t width) {
  constexpr size_t kShown = 30;
  std::vector<std::string> labels;
  for (const CellChange& change : comparison.cells) labels.push_back(change.method);
  const ShortNames names = short_names(labels, 24);
  std::map<std::string, TextTable> tables;
  std::map<int, int64_t> verdicts;
  size_t left_out = 0, n_shown = 0;
  int64_t better = 0, worse = 0, same = 0;
  for (const CellChange& change : comparison.cells) {
    ++verdicts[change.better];
    const bool up = change.metric.higher_is_better;
    better += up ? change.pair.wins : change.pair.losses;
    worse += up ? change.pair.losses : change.pair.wins;
    same += change.pair.ties;
    if (n_shown >= kShown) {
      ++left_out;
      continue;
    }
    ++n_shown;
    const std::string title =
        fmt::format("{}, {}: {}{}", change.dataset, change.task, change.metric.name, up ? "" : ", lower is better");
    TextTable& table = tables[title];
    table.header = {"method", "at", "first", "second", "+/-/=", "p", ""};
    table.rows.push_back({names.of(change.method), change.target.empty() ? kNoValue : change.target,
                          number(change.before, change.metric.share), number(change.after, change.metric.share),
                          fmt::format("{}/{}/{}", up ? change.pair.wins : change.pair.losses,
                                      up ? change.pair.losses : change.pair.wins, change.pair.ties),
                          fmt::format("{:.2g}", change.p_holm), verdict(change)});
  }
  std::string text = wrapped_text(fmt::format("first {}, second {}", first, second), width) + "\n";
  for (const auto& [title, table] : tables)
    text += "\n" + wrapped_text(title, width) + "\n" + terminal_table(table, 1, width);
  std::string notes;
  for (const std::string& note : names.notes) notes += (notes.empty() ? "" : "  ") + note;
  if (!notes.empty()) text += wrapped_text(notes, width) + "\n";
  text += wrapped_text("+/-/=: answers that the second has better, worse, the same. p: over all cells (Holm).", width) +
          "\n";
  if (left_out > 0) text += fmt::format("{} more cells, none of lower p.\n", left_out);
  const auto list = [&](const char* title, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    text += fmt::format("\n{}\n", title);
    for (size_t i = 0; i < std::min<size_t>(lines.size(), 10); ++i) text += wrapped_text("- " + lines[i], width) + "\n";
    if (lines.size() > 10) text += fmt::format("- and {} more\n", lines.size() - 10);
  };
  list("Only in the first:", comparison.only_in_first);
  list("Only in the second:", comparison.only_in_second);
  list("Settings that differ:", comparison.settings);
  if (comparison.asked_otherwise > 0) {
    text += "\n" +
            wrapped_text(fmt::format("{} {} not compared: the two runs disagree on the right answer to the same "
                                     "question id. Were they run with other seeds, or on other data?",
                                     count(comparison.asked_otherwise, "answer"),
                                     comparison.asked_otherwise == 1 ? "is" : "are"),
                         width) +
            "\n";
  }
  text +=
      "\n" +
      wrapped_text(fmt::format("{} on the same questions: {} decidedly better, {} decidedly worse, {} undecided at 5 % "
                               "over all of them. Answers: {} better, {} worse, {} the same.",
                               count(std::ssize(comparison.cells), "cell"), verdicts[1], verdicts[-1], verdicts[0],
                               better, worse, same),
                   width) +
      "\n";
  return text;
}

}  // namespace kvc
