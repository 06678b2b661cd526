// What `kvc run` and `kvc report` end with: the report's files written, its table on stdout.
#pragma once

#include <string>

namespace kvc {

// Throws Error(kUsage) when the folder holds a report.json, .md, .csv or .html that kvc did not write.
void check_report_files(const std::string& folder);

// A folder that cannot be written to is a warning on stderr; its table is shown all the same.
void show_report(const std::string& folder);

}  // namespace kvc
