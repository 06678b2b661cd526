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

size_t terminal_width() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return std::max<size_t>(60, size.ws_col);
  const char* const columns = std::getenv("COLUMNS");
  const int64_t wanted = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
  return wanted >= 60 && wanted <= 10000 ? static_cast<size_t>(wanted) : kTerminalWidth;
}

void show_report(const std::string& folder, bool html) {
  fmt::print("{}", write_report(folder, option_defaults(), {terminal_width(), html}));
  std::fflush(stdout);
}

}  // namespace kvc
