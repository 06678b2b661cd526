#include "harness/cli/show_report.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "harness/cli/list.h"
#include "harness/cli/model_options.h"
#include "harness/core/output_file.h"
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

void check_report_files(const std::string& folder) {
  const std::string json = folder + "/report.json";
  std::error_code none;
  // A sweep's folder whose report was taken away.
  if (!std::filesystem::exists(json, none) && std::filesystem::exists(folder + "/config.json", none)) return;
  for (const char* name : {"report.json", "report.md", "report.csv", "report.html"}) {
    const std::string path = folder + "/" + name;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored) || has_format("kvcompact.report")(json)) continue;
    throw Error(ErrorKind::kUsage, "the report would replace a file that kvc did not write", path,
                "move it away, or choose another folder");
  }
}

void show_report(const std::string& folder, bool html) {
  check_report_files(folder);
  try {
    print_out(write_report(folder, option_defaults(), {terminal_width(), html}));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    // Records that cannot be read fail here again; a folder that cannot be written to does not.
    print_out(report_terminal(load_report(folder, option_defaults(), false).tabulated, terminal_width()));
    fmt::print(stderr, "warning: the report's files were not written: {}\n", error.what());
  }
}

}  // namespace kvc
