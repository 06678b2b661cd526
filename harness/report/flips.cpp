#include "harness/report/flips.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/core/count.h"
#include "harness/core/printable.h"
#include "harness/report/text_table.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {
namespace {

constexpr size_t kShownBytes = 1200;  // of one text in a terminal

std::string method_name(const Row& row) {
  return row.method.is_object() ? row.method.value("name", "") : "";
}

// "0.10" and 0.1 are one target, "512" and "512 entries" too.
bool same_target(const Json& target, const std::string& asked) {
  if (target_text(target) == asked || target_text(target) == asked + " entries") return true;
  const Json number = Json::parse(asked, nullptr, /*allow_exceptions=*/false);
  return number.is_number() && target.is_number() && number.get<double>() == target.get<double>();
}

// Of options that were scored, the likeliest per token, as the task likelihood decides.
std::string chosen_option(const std::string& details) {
  const Json answer = Json::parse(details, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object() || !answer.contains("option_log_likelihood") || !answer.contains("option_tokens")) return "";
  const Json& scores = answer.at("option_log_likelihood");
  const Json& tokens = answer.at("option_tokens");
  if (!scores.is_array() || !tokens.is_array() || scores.size() != tokens.size() || scores.empty()) return "";
  size_t best = 0;
  double highest = -INFINITY;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!scores[i].is_number() || !tokens[i].is_number() || tokens[i].get<double>() <= 0) return "";
    const double mean = scores[i].get<double>() / tokens[i].get<double>();
    if (mean > highest) {
      highest = mean;
      best = i;
    }
  }
  const std::string letter = best < 26 ? fmt::format(" ({})", static_cast<char>('A' + best)) : "";
  return fmt::format("option {}{}, by likelihood", best + 1, letter);
}

class Finder {
 public:
  Finder(const LoadedReport& loaded, const FlipFilter& filter) : loaded_(loaded), filter_(filter) {}

  Flips run() {
    check_filter();
    bool any = false;
    for (const Table& table : loaded_.tabulated.tables) any = compare_table(table) || any;
    if (!any) {
      throw Error(ErrorKind::kData,
                  "nothing to compare: no task judges answers right or wrong, with full_cache to compare with",
                  loaded_.name,
                  "measure full_cache in the same sweep, with a task such as exact_match, likelihood or "
                  "multiple_choice");
    }
    return std::move(flips_);
  }

 private:
  using Questions = std::map<std::tuple<std::string, std::string, std::string>, std::pair<const CellSummary*, double>>;

  bool wants(const Row& row) const {
    const std::vector<std::string>& names = filter_.methods;
    if (names.empty()) return row.role == Role::kMethod;
    return row.role != Role::kCeiling && std::any_of(names.begin(), names.end(), [&](const std::string& name) {
             return name == method_name(row) || name == row.method_label || name == row.label();
           });
  }
  bool wants(const Json& target) const {
    const std::vector<std::string>& targets = filter_.targets;
    return targets.empty() || std::any_of(targets.begin(), targets.end(),
                                          [&](const std::string& asked) { return same_target(target, asked); });
  }

  // A misspelt method would be a report of no flips.
  void check_filter() const {
    std::set<std::string> methods, names, targets;
    std::vector<Json> values;
    for (const Table& table : loaded_.tabulated.tables) {
      for (const Row& row : table.rows) {
        if (row.role == Role::kCeiling) continue;
        names.insert(method_name(row));
        methods.insert({method_name(row), row.method_label, row.label()});
      }
      for (const Json& target : table.targets) {
        targets.insert(target_text(target));
        values.push_back(target);
      }
    }
    for (const std::string& name : filter_.methods) {
      if (methods.contains(name)) continue;
      throw Error(ErrorKind::kUsage, fmt::format("the results have no method '{}'", printable(name)), "--method",
                  suggest_name(name, {names.begin(), names.end()}));
    }
    for (const std::string& asked : filter_.targets) {
      if (std::any_of(values.begin(), values.end(), [&](const Json& v) { return same_target(v, asked); })) continue;
      throw Error(ErrorKind::kUsage, fmt::format("the results have no target '{}'", printable(asked)), "--target",
                  fmt::format("known: {}", fmt::join(targets, ", ")));
    }
  }

  static Questions questions_of(const CellSummary& cell) {
    Questions questions;
    for (const ScoredQuestion& question : cell.answers) {
      if (!question.values.empty() && !std::isnan(question.values[0]))
        questions[question.key()] = {&cell, question.values[0]};
    }
    return questions;
  }

  // False where the table has nothing that is right or wrong, or no full cache.
  bool compare_table(const Table& table) {
    const auto full = std::find_if(table.rows.begin(), table.rows.end(),
                                   [](const Row& row) { return row.role == Role::kCeiling && row.untargeted; });
    if (full == table.rows.end()) return false;
    const std::vector<MetricSummary>& metrics = full->untargeted->metrics;
    if (metrics.empty() || !metrics[0].info.share || !metrics[0].info.higher_is_better) return false;
    const Questions known = questions_of(*full->untargeted);
    for (const Row& row : table.rows) {
      if (!wants(row)) continue;
      if (row.untargeted && filter_.targets.empty()) compare_cell(table, row, *row.untargeted, known);
      for (const auto& cell : row.cells) {
        if (cell && wants(cell->target)) compare_cell(table, row, *cell, known);
      }
    }
    return true;
  }

  void compare_cell(const Table& table, const Row& row, const CellSummary& cell, const Questions& known) {
    for (const auto& [key, value] : questions_of(cell)) {
      const auto full = known.find(key);
      if (full == known.end()) continue;
      ++flips_.n_compared;
      if (is_right(value.second) == is_right(full->second.second)) continue;
      Flip flip;
      flip.model = table.model_label;
      flip.dataset = table.dataset_label;
      flip.task = table.task_label;
      flip.method = row.method_label;
      flip.queries = row.queries_label;
      flip.target = cell.target;
      std::tie(flip.document, flip.seed, flip.question) = key;
      flip.full_value = full->second.second;
      flip.value = value.second;
      add_texts(cell, *full->second.first, flip);
      flips_.list.push_back(std::move(flip));
    }
  }

  const AnswerTexts::Answer* answer_of(const CellSummary& cell, const Flip& flip) const {
    for (const std::string& id : cell.cell_ids) {
      if (loaded_.texts.seed_of(id) == flip.seed) return loaded_.texts.find(id, flip.document, flip.question);
    }
    return nullptr;
  }

  std::string text(std::int32_t number) const { return number == AnswerTexts::kNone ? "" : loaded_.texts.text(number); }

  std::string reply_of(const AnswerTexts::Answer* answer) const {
    if (answer == nullptr) return "";
    return answer->said != AnswerTexts::kNone ? text(answer->said) : chosen_option(text(answer->details));
  }

  void add_texts(const CellSummary& cell, const CellSummary& full, Flip& flip) const {
    const AnswerTexts::Answer* const compact = answer_of(cell, flip);
    flip.full_reply = reply_of(answer_of(full, flip));
    flip.reply = reply_of(compact);
    if (compact == nullptr) return;
    flip.prompt = text(compact->prompt);
    flip.gold = text(compact->gold);
  }

  const LoadedReport& loaded_;
  const FlipFilter& filter_;
  Flips flips_;
};

// A text of a record under its name, wrapped beside it.
std::string named_text(const std::string& name, const std::string& text, size_t width) {
  constexpr size_t kName = 12;
  const std::string head = fmt::format("    {:<{}}", name, kName);
  const std::string margin(head.size(), ' ');
  const size_t first = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  std::string shown = printable_lines(std::string_view(text).substr(first), kShownBytes);
  if (shown.empty()) shown = text.empty() ? "(nothing in the record)" : "(white space)";
  if (text.size() > kShownBytes) shown += fmt::format(" ({} bytes; --json has all)", text.size());
  std::string result;
  for (size_t begin = 0; begin <= shown.size();) {
    const size_t end = std::min(shown.find('\n', begin), shown.size());
    const std::string lines = wrapped_text(shown.substr(begin, end - begin), width - std::min(width - 20, head.size()));
    for (size_t at = 0; at <= lines.size();) {
      const size_t stop = std::min(lines.find('\n', at), lines.size());
      result += (result.empty() ? head : margin) + lines.substr(at, stop - at) + "\n";
      at = stop + 1;
    }
    begin = end + 1;
  }
  return result;
}

std::string cell_of(const Flip& flip) {
  std::string text = flip.method;
  if (!flip.queries.empty()) text += ", " + flip.queries;
  if (!flip.target.is_null()) text += " at " + target_text(flip.target);
  return fmt::format("{}; {} on {}, {}", text, flip.task, flip.dataset, flip.model);
}

std::string counts_of(int64_t lost, int64_t gained) {
  return fmt::format("{} right to wrong, {} wrong to right", lost, gained);
}

}  // namespace

Flips find_flips(const LoadedReport& loaded, const FlipFilter& filter) {
  return Finder(loaded, filter).run();
}

std::string flips_text(const Flips& flips, const std::string& folder, size_t width) {
  std::map<std::string, std::pair<int64_t, int64_t>> counts;  // by cell: lost, gained
  std::pair<int64_t, int64_t> all;
  for (const Flip& flip : flips.list) {
    auto& [lost, gained] = counts[cell_of(flip)];
    ++(flip.gained() ? gained : lost);
    ++(flip.gained() ? all.second : all.first);
  }
  std::string text =
      wrapped_text(fmt::format("{}: {} of {} changed between the full cache and a compact one: {}", folder,
                               flips.list.size(), count(flips.n_compared, "answer"), counts_of(all.first, all.second)),
                   width) +
      "\n";
  std::string last;
  for (const Flip& flip : flips.list) {
    const std::string cell = cell_of(flip);
    if (cell != last) {
      const auto& [lost, gained] = counts.at(cell);
      text += "\n" + wrapped_text(fmt::format("{}: {}", cell, counts_of(lost, gained)), width) + "\n";
    }
    last = cell;
    text += fmt::format("\n  {}: document {}, question {}{}\n", flip.gained() ? "wrong to right" : "right to wrong",
                        printable(flip.document), printable(flip.question),
                        flip.seed.empty() || flip.seed == "null" ? "" : ", seed " + printable(flip.seed));
    text += named_text("question", flip.prompt, width);
    text += named_text("gold", flip.gold, width);
    text += named_text("full cache", flip.full_reply, width);
    text += named_text("compact", flip.reply, width);
  }
  return text;
}

std::string flips_json(const Flips& flips) {
  std::string lines;
  for (const Flip& flip : flips.list) {
    Json line = {{"model", flip.model},
                 {"dataset", flip.dataset},
                 {"task", flip.task},
                 {"method", flip.method},
                 {"queries", flip.queries},
                 {"target", flip.target},
                 {"document_id", flip.document},
                 {"question_id", flip.question},
                 {"change", flip.gained() ? "wrong_to_right" : "right_to_wrong"},
                 {"full_value", flip.full_value},
                 {"value", flip.value},
                 {"question", flip.prompt},
                 {"gold", flip.gold},
                 {"full_reply", flip.full_reply},
                 {"reply", flip.reply}};
    const Json seed = Json::parse(flip.seed, nullptr, /*allow_exceptions=*/false);
    if (!seed.is_discarded()) line["seed"] = seed;
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return lines;
}

}  // namespace kvc
