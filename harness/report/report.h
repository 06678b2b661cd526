// Records of a results folder -> report.json, report.md, report.csv and plots beside them. Nothing is measured here and
// no time of day is written: the same records give the same bytes.
#pragma once

#include <string>

#include "harness/explain/explanation.h"
#include "harness/report/answer_texts.h"
#include "harness/report/tabulate.h"
#include "harness/report/text_table.h"

namespace kvc {

constexpr int kReportVersion = 3;       // of report.json
constexpr size_t kTerminalWidth = 100;  // where nobody says how wide it is

struct LoadedReport {
  std::string name;  // of the folder
  Tabulated tabulated;
  AnswerTexts texts;                      // empty unless asked for
  std::vector<Explanation> explanations;  // that `kvc explain` left in the folder
};

// Reads the records of a results folder. `defaults` as in tabulate.h: with them, labels also show options that differ
// from their default. Throws Error(kData) when the folder or its records cannot be read.
LoadedReport load_report(const std::string& results_folder, const Json& defaults = nullptr, bool with_texts = true);

struct ReportOptions {
  size_t width = kTerminalWidth;  // of what is printed
  bool html = true;               // write report.html
};

// Writes report.html (html_report.h), report.json (fields: results/records.md), report.md, report.csv,
// report_pairs.csv, report.svg and, where answers have a depth, report_depth.svg (report_<model>.svg,
// report_depth_<model>.svg when there are several models), report_heads.svg for task head_errors
// (report_heads_<model>_<dataset>.svg when there are several tables) into the folder, each atomically. Returns the
// report as printed to a terminal. Throws as load_report, and when the files cannot be written.
std::string write_report(const std::string& results_folder, const Json& defaults = nullptr,
                         const ReportOptions& options = {});

// The stored answers judged anew, no model needed: one JSON line per question and cell, {model, dataset, task, method,
// queries, target, seed, document_id, question_id, values: {METRIC: number}[, depth_fraction]}. Records that cannot be
// judged are in `failures`, three-part messages with their cells. Throws as write_report.
std::string score_answers(const std::string& results_folder, std::vector<Failure>& failures,
                          const Json& defaults = nullptr);

// The files' texts, from what tabulate() made.
Json report_json(const Tabulated& tabulated, const std::vector<Explanation>& explanations = {});
std::string report_markdown(const Tabulated& tabulated, const std::string& name,
                            const std::vector<Explanation>& explanations = {});
std::string report_csv(const Tabulated& tabulated);
std::string report_pairs_csv(const Tabulated& tabulated);
std::string report_terminal(const Tabulated& tabulated, size_t width = kTerminalWidth);
std::string score_lines(const Tabulated& tabulated);

}  // namespace kvc
