#include "harness/report/report.h"

#include <fmt/format.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>

#include "harness/core/json_lines.h"
#include "harness/report/heat_map.h"
#include "harness/report/plot.h"
#include "harness/report/report_tables.h"

namespace kvc {
namespace {

// What the sweep file of this folder says about its report; nothing where there is none.
ComparisonSettings settings_of(const std::string& folder, std::vector<std::string>& warnings) {
  ComparisonSettings settings;
  std::ifstream file(folder + "/config.json");
  if (!file) return settings;
  const Json config = Json::parse(file, nullptr, false);
  if (!config.is_object()) {
    warnings.push_back("config.json is no JSON object: its compare_to and equivalence are not applied");
    return settings;
  }
  if (config.contains("compare_to") && config.at("compare_to").is_string())
    settings.compare_to = config.at("compare_to").get<std::string>();
  const Json margins = config.value("equivalence", Json());
  if (!margins.is_object()) return settings;
  for (const auto& [metric, margin] : margins.items()) {
    if (margin.is_number()) settings.margin[metric] = margin.get<double>();
  }
  return settings;
}

Tabulated load(const std::string& folder, const Json& defaults) {
  std::vector<std::string> warnings;
  std::vector<Record> records = load_records(folder, warnings);
  if (records.empty()) {
    throw Error(ErrorKind::kData, "there are no records in the results folder", folder,
                "run the sweep first: kvc run CONFIG");
  }
  const ComparisonSettings settings = settings_of(folder, warnings);
  Tabulated tabulated = tabulate(std::move(records), defaults, settings);
  for (std::string& warning : warnings) {  // a report does not depend on where its folder lies
    for (const std::string& prefix : {folder + "/", folder}) {
      if (warning.rfind(prefix, 0) == 0) warning.erase(0, prefix.size());
    }
  }
  tabulated.warnings.insert(tabulated.warnings.begin(), warnings.begin(), warnings.end());
  return tabulated;
}

// Letters, digits, dots, dashes and underscores stay.
std::string file_part(const std::string& label) {
  std::string text;
  for (const char c : label)
    text += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ? c : '_';
  return text;
}

std::vector<std::pair<std::string, std::string>> plot_files(const Tabulated& tabulated) {
  const auto plots = plots_of(tabulated);
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& [model, plot] : plots) {
    files.emplace_back(plots.size() == 1 ? "report.svg" : "report_" + file_part(model) + ".svg", render_svg(plot));
  }
  return files;
}

std::vector<std::pair<std::string, std::string>> depth_files(const Tabulated& tabulated) {
  const auto maps = heat_maps_of(tabulated);
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& [model, map] : maps) {
    files.emplace_back(maps.size() == 1 ? "report_depth.svg" : "report_depth_" + file_part(model) + ".svg",
                       render_heat_map(map));
  }
  return files;
}

std::vector<std::pair<std::string, std::string>> head_files(const Tabulated& tabulated) {
  auto files = head_maps_of(tabulated);
  for (auto& [name, svg] : files)
    name = files.size() == 1 ? "report_heads.svg" : "report_heads_" + file_part(name) + ".svg";
  return files;
}

std::string heading(const Table& table, bool with_model) {
  return fmt::format("{}{}, {}", with_model ? table.model_label + ": " : "", table.dataset_label, table.task_label);
}

bool several_models(const Tabulated& tabulated) {
  std::set<std::string> models;
  for (const Table& table : tabulated.tables) models.insert(table.model_label);
  return models.size() > 1;
}

// Tables of one model and data set, in order.
std::vector<std::vector<const Table*>> by_dataset(const Tabulated& tabulated) {
  std::vector<std::vector<const Table*>> groups;
  for (const Table& table : tabulated.tables) {
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

std::string counts_text(const Tabulated& t) {
  std::string text = fmt::format("{} records: {} done", t.n_records, t.n_done);
  if (t.n_failed > 0) text += fmt::format(", {} failed", t.n_failed);
  if (t.n_missing > 0) text += fmt::format(", {} missing", t.n_missing);
  text += ".";
  if (t.n_references > 0)
    text += fmt::format(" {} reference answers, {} of them kept from before.", t.n_references, t.n_references_kept);
  return text;
}

// Both forms have the same parts; they differ in how a heading and a table are written.
struct Form {
  bool markdown;
  size_t width = kTerminalWidth;
  std::string heading(int level, const std::string& text) const {
    if (markdown) return fmt::format("\n{} {}\n\n", std::string(static_cast<size_t>(level), '#'), text);
    return fmt::format("\n{}\n", wrapped_text(text, width));
  }
  std::string table(const TextTable& text, size_t n_left) const {
    return markdown ? markdown_table(text, n_left) : terminal_table(text, n_left, width);
  }
  std::string paragraph(const std::string& text) const {
    if (text.empty()) return "";
    return markdown ? "\n" + text + "\n" : wrapped_text(text, width) + "\n";
  }
};

std::string titled(const std::string& title, const TextTable& text, const std::string& note, const Form& form) {
  if (text.rows.empty()) return "";
  return form.heading(3, title) + form.table(text, 2) + form.paragraph(note);
}

// What follows from the primary metric: retained accuracy, who is better, which answers could be judged.
std::string conclusions_part(const Table& table, const Form& form) {
  std::string text = titled("retained: (method - no_context) / (full_cache - no_context)", retained_table(table, 0),
                            retained_note(table, 0), form);
  if (form.markdown)
    text += titled("against the full cache: difference [95 % interval]", versus_full_table(table, 0),
                   versus_full_note(table, 0), form);
  if (const std::optional<size_t>& reference = table.comparison.reference) {
    const std::string counts = metrics_of_task(table.task.value("name", "")).front().share
                                   ? ": difference [95 % interval] (wins/losses/ties by question)"
                                   : ": how many times as large, or difference (wins/losses/ties by question)";
    text += titled("against " + table.rows[*reference].label() + (form.markdown ? counts : ""),
                   versus_reference_table(table), versus_reference_note(table), form);
  }
  text += titled("ranks", rank_table(table), rank_note(table), form);
  if (form.markdown && !table.comparison.pairs.empty()) text += form.paragraph("Every pair is in report_pairs.csv.");
  return text +
         titled("answers that could not be read, answers cut off by the length limit", answers_table(table), "", form);
}

bool has_values(const Table& table, size_t metric) {
  const auto there = [&](const std::optional<CellSummary>& cell) {
    return cell && cell->metrics[metric].estimate.n_questions > 0;
  };
  return std::any_of(table.rows.begin(), table.rows.end(), [&](const Row& row) {
    return there(row.untargeted) || std::any_of(row.cells.begin(), row.cells.end(), there);
  });
}

std::string metric_part(const Table& table, bool with_model, const Form& form) {
  const auto& metrics = metrics_of_task(table.task.value("name", ""));
  std::string text;
  for (size_t i = 0; i < metrics.size(); ++i) {
    if (i > 0 && (!form.markdown || is_answer_check(metrics[i]))) continue;  // a terminal gets the primary metric
    if (i > 0 && !has_values(table, i)) continue;                            // records of an older program
    const std::string what =
        fmt::format("{}{}", metrics[i].title, metrics[i].higher_is_better ? "" : " (lower is better)");
    if (i == 0) {
      text += form.heading(2, fmt::format("{}: {}", heading(table, with_model), what));
      text += form.paragraph(
          fmt::format("{} documents, {} questions; columns: the target asked, as kept fraction or entries per head.",
                      table.documents.size(), most_questions(table)));
      if (form.markdown) text += "\n";
    } else {
      text += form.heading(3, what);
    }
    text += form.table(metric_table(table, i), 2) + form.paragraph(interval_note(table, i));
    if (metrics[i].name == "log_perplexity")  // what papers print, where documents have different numbers of questions
      text += titled(metrics[i].title + ", mean of the documents' means", by_document_table(table, i), "", form);
    if (i == 0) text += conclusions_part(table, form);
  }
  return text;
}

std::string failures_part(const Tabulated& tabulated, const Form& form) {
  std::string text;
  if (!tabulated.failures.empty()) {
    constexpr size_t kShown = 20;
    TextTable table{{"cell", "document", "error"}, {}};
    for (const Failure& failure : tabulated.failures) {
      if (table.rows.size() < kShown)
        table.rows.push_back({failure.label, failure.document_id, first_line(failure.error)});
    }
    text += form.heading(2, fmt::format("{} failed", tabulated.failures.size())) + form.table(table, 3);
    if (tabulated.failures.size() > kShown)
      text += form.paragraph(fmt::format("The first {}; all are in report.json.", kShown));
  }
  for (const std::string& warning : tabulated.warnings) text += form.paragraph("Warning: " + warning);
  return text;
}

std::string compose(const Tabulated& tabulated, const Form& form) {
  const bool with_model = several_models(tabulated);
  std::string text;
  for (const Table& table : tabulated.tables) text += metric_part(table, with_model, form);
  for (const auto& tables : by_dataset(tabulated)) {
    const std::string title =
        fmt::format("{}{}: size and seconds of compaction, per document",
                    with_model ? tables.front()->model_label + ": " : "", tables.front()->dataset_label);
    text += form.heading(2, title) + form.table(size_table(tables), 3);
  }
  for (const auto& stages : stages_by_model(tabulated)) {
    const std::string title = fmt::format("{}seconds per document, whole grid (shared stages once)",
                                          with_model ? stages.front().model_label + ": " : "");
    text += form.heading(2, title) + form.table(stage_table(stages), 1);
  }
  return text + failures_part(tabulated, form);
}

}  // namespace

std::string report_markdown(const Tabulated& tabulated, const std::string& name) {
  std::string text = fmt::format("# {}\n\n{}\n", name, counts_text(tabulated));
  if (!several_models(tabulated) && !tabulated.tables.empty())
    text += fmt::format("Model: {}.\n", tabulated.tables.front().model_label);
  for (const auto& [file, svg] : plot_files(tabulated))
    text += fmt::format("\n![accuracy against kept cache]({})\n", file);
  for (const auto& [file, svg] : depth_files(tabulated))
    text += fmt::format("\n![accuracy by depth and ratio]({})\n", file);
  for (const auto& [file, svg] : head_files(tabulated))
    text += fmt::format("\n![error of every head's output]({})\n", file);
  return text + compose(tabulated, Form{true});
}

std::string report_terminal(const Tabulated& tabulated, size_t width) {
  const std::string text = compose(tabulated, Form{false, width});
  return text.substr(text.find_first_not_of('\n')) + "\n" + counts_text(tabulated) + "\n";
}

void write_report(const std::string& results_folder, const Json& defaults) {
  const std::filesystem::path folder = std::filesystem::path(results_folder).lexically_normal();
  const Tabulated tabulated = load(folder.string(), defaults);
  const std::string name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  for (const auto& [file, svg] : plot_files(tabulated)) write_file_atomically((folder / file).string(), svg);
  for (const auto& [file, svg] : depth_files(tabulated)) write_file_atomically((folder / file).string(), svg);
  for (const auto& [file, svg] : head_files(tabulated)) write_file_atomically((folder / file).string(), svg);
  write_file_atomically((folder / "report.csv").string(), report_csv(tabulated));
  write_file_atomically((folder / "report_pairs.csv").string(), report_pairs_csv(tabulated));
  write_file_atomically((folder / "report.md").string(), report_markdown(tabulated, name));
  write_file_atomically((folder / "report.json").string(),
                        report_json(tabulated).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string report_table(const std::string& results_folder, const Json& defaults, size_t width) {
  return report_terminal(load(std::filesystem::path(results_folder).lexically_normal().string(), defaults), width);
}

std::string score_answers(const std::string& results_folder, std::vector<Failure>& failures, const Json& defaults) {
  const Tabulated tabulated = load(std::filesystem::path(results_folder).lexically_normal().string(), defaults);
  failures = tabulated.failures;
  return score_lines(tabulated);
}

}  // namespace kvc
