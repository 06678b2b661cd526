// report.md: every table, for people.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "harness/core/byte_size.h"
#include "harness/core/count.h"
#include "harness/report/cause_table.h"
#include "harness/report/conclusions.h"
#include "harness/report/report.h"
#include "harness/report/report_files.h"
#include "harness/report/report_tables.h"
#include "harness/report/together.h"

namespace kvc {
namespace {

std::string heading(const Table& table, bool with_model) {
  return fmt::format("{}{}, {}", with_model ? table.model_label + ": " : "", table.dataset_label, table.task_label);
}

bool several_models(const Tabulated& tabulated) {
  std::set<std::string> models;
  for (const Table& table : tabulated.tables) models.insert(table.model_label);
  return models.size() > 1;
}

bool has_byte_targets(const Table& table) {
  return std::any_of(table.targets.begin(), table.targets.end(), [](const Json& target) {
    return target.is_string() && parse_bytes(target.get<std::string>()).has_value();
  });
}

// Tables of one model and data set, in order.
std::vector<std::vector<const Table*>> by_dataset(const Tabulated& tabulated) {
  std::vector<std::vector<const Table*>> groups;
  for (const Table& table : tabulated.tables) {
    if (!table.parts.empty()) continue;
    const bool same = !groups.empty() && groups.back().front()->model == table.model &&
                      groups.back().front()->dataset == table.dataset;
    if (!same) groups.emplace_back();
    groups.back().push_back(&table);
  }
  return groups;
}

std::vector<std::vector<StageCost>> stages_by_model(const Tabulated& tabulated) {
  std::vector<std::vector<StageCost>> groups;
  for (const StageCost& cost : tabulated.stages) {
    if (groups.empty() || groups.back().front().model_label != cost.model_label) groups.emplace_back();
    groups.back().push_back(cost);
  }
  return groups;
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::string markdown_heading(int level, const std::string& text) {
  return fmt::format("\n{} {}\n\n", std::string(static_cast<size_t>(level), '#'), text);
}

std::string paragraph(const std::string& text) {
  return text.empty() ? "" : "\n" + text + "\n";
}

std::string titled(const std::string& title, const TextTable& text, const std::string& note) {
  if (text.rows.empty()) return "";
  return markdown_heading(3, title) + markdown_table(text, 2) + paragraph(note);
}

// What follows from the primary metric: retained accuracy, who is better, which answers could be judged.
std::string conclusions_part(const Table& table) {
  std::string text = titled("retained: (method - no_context) / (full_cache - no_context)", retained_table(table, 0),
                            retained_note(table, 0));
  text += titled("against the full cache: difference [95 % interval]", versus_full_table(table, 0),
                 versus_full_note(table, 0));
  if (const std::optional<size_t>& reference = table.comparison.reference) {
    const bool share = metrics_of_task(table.task.value("name", "")).front().share;
    text += titled(fmt::format("against {}: {} (wins/losses/ties by question)", table.rows[*reference].label(),
                               share ? "difference [95 % interval]" : "how many times as large, or difference"),
                   versus_reference_table(table), versus_reference_note(table));
  }
  text += titled("ranks", rank_table(table), rank_note(table));
  if (!table.comparison.pairs.empty()) text += paragraph("Every pair is in report_pairs.csv.");
  text += titled("left early", stopped_table(table), stopped_note(table));
  return text + titled("answers that could not be read, answers cut off by the length limit", answers_table(table), "");
}

bool has_values(const Table& table, size_t metric) {
  const auto there = [&](const std::optional<CellSummary>& cell) {
    return cell && cell->metrics[metric].estimate.n_questions > 0;
  };
  return std::any_of(table.rows.begin(), table.rows.end(), [&](const Row& row) {
    return there(row.untargeted) || std::any_of(row.cells.begin(), row.cells.end(), there);
  });
}

std::string metric_part(const Table& table, bool with_model) {
  const auto& metrics = metrics_of_task(table.task.value("name", ""));
  std::string text;
  for (size_t i = 0; i < metrics.size(); ++i) {
    if (i > 0 && is_answer_check(metrics[i])) continue;
    if (i > 0 && !has_values(table, i)) continue;  // records of an older program
    const std::string what =
        fmt::format("{}{}", metrics[i].title, metrics[i].higher_is_better ? "" : " (lower is better)");
    if (i == 0) {
      text += markdown_heading(2, fmt::format("{}: {}", heading(table, with_model), what));
      text += paragraph(fmt::format(
          "{}, {}; columns: the target asked, as kept fraction{}.", count(std::ssize(table.documents), "document"),
          count(most_questions(table), "question"),
          has_byte_targets(table) ? ", entries per head or bytes of the whole cache" : " or entries per head"));
      text += paragraph(parts_note(table));
      text += "\n";
    } else {
      text += markdown_heading(3, what);
    }
    text += markdown_table(metric_table(table, i), 2) + paragraph(interval_note(table, i));
    if (metrics[i].name == "log_perplexity")  // what papers print, where documents have different numbers of questions
      text += titled(metrics[i].title + ", mean of the documents' means", by_document_table(table, i), "");
    if (i == 0) text += conclusions_part(table);
  }
  return text;
}

std::string failures_part(const Tabulated& tabulated) {
  std::string text;
  if (!tabulated.failures.empty()) {
    constexpr size_t kShown = 20;
    TextTable table{{"cell", "document", "error"}, {}};
    for (const Failure& failure : tabulated.failures) {
      if (table.rows.size() < kShown)
        table.rows.push_back({failure.label, failure.document_id, first_line(failure.error)});
    }
    text += markdown_heading(2, fmt::format("{} failed", tabulated.failures.size())) + markdown_table(table, 3);
    if (tabulated.failures.size() > kShown)
      text += paragraph(fmt::format("The first {}; all are in report.json.", kShown));
  }
  for (const std::string& warning : tabulated.warnings) text += paragraph("Warning: " + warning);
  return text;
}

std::string compose(const Tabulated& tabulated, const std::vector<Explanation>& explanations) {
  const bool with_model = several_models(tabulated);
  std::string text;
  for (const Table& table : tabulated.tables) {
    text += metric_part(table, with_model);
    text += titled("why answers were lost", cause_table(table, explanations),
                   "Of the answers that the full cache has right and the method has not, those that `kvc explain` "
                   "looked into. The text that was missing stands with each question in report.html.");
  }
  for (const auto& tables : by_dataset(tabulated)) {
    const std::string title =
        fmt::format("{}{}: size and seconds of compaction, per document",
                    with_model ? tables.front()->model_label + ": " : "", tables.front()->dataset_label);
    text += markdown_heading(2, title) + markdown_table(size_table(tables), 3);
  }
  for (const auto& stages : stages_by_model(tabulated)) {
    const std::string title = fmt::format("{}seconds per document, whole grid (shared stages once)",
                                          with_model ? stages.front().model_label + ": " : "");
    text += markdown_heading(2, title) + markdown_table(stage_table(stages), 1);
  }
  return text + failures_part(tabulated);
}

}  // namespace

std::string counts_text(const Tabulated& t) {
  std::string text = fmt::format("{}: {} done", count(t.n_records, "record"), t.n_done);
  if (t.n_failed > 0) text += fmt::format(", {} failed", t.n_failed);
  if (t.n_missing > 0) text += fmt::format(", {} missing", t.n_missing);
  if (t.n_stopped > 0) text += fmt::format("; {} left early as decided", count(t.n_stopped, "cell"));
  text += ".";
  if (t.n_references > 0)
    text += fmt::format(" {}, {} of them kept from before.", count(t.n_references, "reference answer"),
                        t.n_references_kept);
  return text;
}

std::string report_markdown(const Tabulated& tabulated, const std::string& name,
                            const std::vector<Explanation>& explanations) {
  std::string text = fmt::format("# {}\n\n{}\n", name, counts_text(tabulated));
  if (!several_models(tabulated) && !tabulated.tables.empty())
    text += fmt::format("Model: {}.\n", tabulated.tables.front().model_label);
  for (const std::string& line : conclusions(tabulated)) text += "\n- " + line;
  text += "\n\nEverything to look at, question by question: [report.html](report.html).\n";
  for (const auto& [file, svg] : plot_files(tabulated))
    text += fmt::format("\n![accuracy against kept cache]({})\n", file);
  for (const auto& [file, svg] : depth_files(tabulated))
    text += fmt::format("\n![accuracy by depth and ratio]({})\n", file);
  for (const auto& [file, svg] : head_files(tabulated))
    text += fmt::format("\n![error of every head's output]({})\n", file);
  return text + compose(tabulated, explanations);
}

}  // namespace kvc
