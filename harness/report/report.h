// Records of a results folder -> report.json, report.md, report.csv and plots beside them. Nothing is measured here and
// no time of day is written: the same records give the same bytes.
#pragma once

#include <string>

#include "harness/report/tabulate.h"

namespace kvc {

// Writes report.json (schema: results/README.md), report.md, report.csv and report.svg (report_<model>.svg when there
// are several models) into the folder, each atomically. `defaults` as in tabulate.h: with them, labels also show
// options that differ from their default. Throws Error(kData) when the folder or its records cannot be read or the
// files cannot be written.
void write_report(const std::string& results_folder, const Json& defaults = nullptr);

// The tables as printed to a terminal.
std::string report_table(const std::string& results_folder, const Json& defaults = nullptr);

// The files' texts, from what tabulate() made.
Json report_json(const Tabulated& tabulated);
std::string report_markdown(const Tabulated& tabulated, const std::string& name);
std::string report_csv(const Tabulated& tabulated);
std::string report_terminal(const Tabulated& tabulated);

}  // namespace kvc
