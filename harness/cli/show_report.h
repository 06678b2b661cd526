// What `kvc run` and `kvc report` end with: the report's files written, its table on stdout.
#pragma once

#include <cstddef>
#include <string>

namespace kvc {

// Throws Error(kUsage) when the folder holds a report.json, .md, .csv or .html that kvc did not write.
void check_report_files(const std::string& folder);

// Of the terminal that is written to, at least 60; what COLUMNS says, or a usual width, where there is none.
size_t terminal_width();

// A folder that cannot be written to is a warning on stderr; its table is shown all the same.
void show_report(const std::string& folder, bool html = true);

}  // namespace kvc
