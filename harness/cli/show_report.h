// What `kvc run` and `kvc report` end with: the report's files written, its table on stdout.
#pragma once

#include <cstddef>
#include <string>

namespace kvc {

// Of the terminal that is written to, at least 60; what COLUMNS says, or a usual width, where there is none.
size_t terminal_width();

void show_report(const std::string& folder, bool html = true);

}  // namespace kvc
