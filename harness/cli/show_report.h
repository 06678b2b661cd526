// What `kvc run` and `kvc report` end with: the report's files written, its table on stdout.
#pragma once

#include <string>

namespace kvc {

void show_report(const std::string& folder);

}  // namespace kvc
