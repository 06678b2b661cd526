#include "harness/cli/show_report.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "harness/cli/list.h"
#include "harness/report/report.h"

namespace kvc {
namespace {

// Of the terminal that is written to, at least 60; what COLUMNS says, or a usual width, where there is none.
size_t terminal_width() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return std::max<size_t>(60, size.ws_col);
  const char* const columns = std::getenv("COLUMNS");
  const int64_t wanted = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
  return wanted >= 60 && wanted <= 10000 ? static_cast<size_t>(wanted) : kTerminalWidth;
}

}  // namespace

void show_report(const std::string& folder) {
  const Json defaults = option_defaults();
  write_report(folder, defaults);
  fmt::print("{}", report_table(folder, defaults, terminal_width()));
  std::fflush(stdout);
}

}  // namespace kvc
