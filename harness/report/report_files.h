// The pictures of a report, as files of its folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

using Files = std::vector<std::pair<std::string, std::string>>;  // name, text

Files plot_files(const Tabulated& tabulated);   // report.svg, or report_<model>.svg
Files depth_files(const Tabulated& tabulated);  // report_depth.svg, ...; none where no answer has a depth
Files head_files(const Tabulated& tabulated);   // report_heads.svg, ...; none without task head_errors

// "234 records: 230 done, 4 failed."
std::string counts_text(const Tabulated& tabulated);

}  // namespace kvc
