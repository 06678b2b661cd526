// A table of texts, written as Markdown or for a terminal; and the project's way of writing numbers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

struct TextTable {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as long as the header
};

// First column (and every column of `n_left`) left-aligned, the others right-aligned. Widths are counted in code
// points.
std::string markdown_table(const TextTable& table, size_t n_left = 1);
std::string terminal_table(const TextTable& table, size_t n_left = 1);

std::string bytes_text(double bytes);                   // "1.5 MiB"
std::string seconds_text(std::optional<double> value);  // "0.123", "12.3"; "–" when there is none
std::string ratio_text(std::optional<double> ratio);    // "20.0x"

// What the reports have in common.
TextTable metric_table(const Table& table, size_t metric);      // mean and interval by row and target
TextTable retained_table(const Table& table, size_t metric);    // no rows when there is nothing to show
TextTable size_table(const std::vector<const Table*>& tables);  // of one model and data set
TextTable stage_table(const std::vector<StageCost>& stages);
std::string interval_note(const Table& table, size_t metric);  // which kinds of interval stand in metric_table

}  // namespace kvc
