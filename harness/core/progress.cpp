#include "harness/core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace kvc {
namespace {

constexpr double kPlainInterval_s = 20;
constexpr double kTerminalInterval_s = 0.1;
constexpr size_t kUnknownColumns = 118;

// A line that reaches the terminal's last column wraps and can no longer be rewritten.
size_t terminal_columns() {
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return kUnknownColumns;
  return size.ws_col - 1U;
}

// The first characters of UTF-8 text, each taken to be one column wide.
std::string first_columns(const std::string& text, size_t columns) {
  size_t end = 0;
  for (size_t shown = 0; end < text.size(); ++end) {
    const bool starts = (static_cast<unsigned char>(text[end]) & 0xC0U) != 0x80U;
    if (starts && shown++ == columns) break;
  }
  return text.substr(0, end);
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 90) return fmt::format("{} s", whole);
  const int64_t minutes = (whole + 30) / 60;
  if (minutes < 90) return fmt::format("{} min", minutes);
  return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
}

double planned_time_left(double planned_s, double planned_done_s, double took_s) {
  constexpr double kTrust_s = 30;
  const double pace = (std::max(took_s, planned_done_s / 4) + kTrust_s) / (planned_done_s + kTrust_s);
  return std::max(0.0, planned_s - planned_done_s) * pace;
}

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (line_open_) fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
}

void Progress::note(const std::string& text) {
  if (quiet_) return;
  if (line_open_) fmt::print(stderr, "\r\033[K");
  line_open_ = false;
  fmt::print(stderr, "{}\n", text);
  std::fflush(stderr);
}

void Progress::expect(int64_t n_records, double planned_s) {
  expected_ += n_records;
  planned_s_ += planned_s;
}

void Progress::begin() {
  if (!begun_) clock_ = Stopwatch();
  if (!begun_) last_shown_s_ = -1e9;
  begun_ = true;
}

void Progress::stage(const std::string& what) {
  stage_ = what;
  show(false);
}

void Progress::measured(double planned_s) {
  ++measured_;
  planned_done_s_ += planned_s;
  show(measured_ == expected_ && !terminal_);
}

void Progress::reached(int64_t n, const std::string& what) {
  measured_ = n;
  stage(what);
}

std::string Progress::time_left() const {
  if (!begun_ || measured_ >= expected_) return "";
  if (planned_s_ > 0) {
    return ", " + duration_text(planned_time_left(planned_s_, planned_done_s_, clock_.seconds())) + " left";
  }
  if (measured_ == 0) return "";
  const double rate = clock_.seconds() / static_cast<double>(measured_);
  return ", " + duration_text(rate * static_cast<double>(expected_ - measured_)) + " left";
}

void Progress::show(bool at_once) {
  const double now = clock_.seconds();
  if (quiet_ || (!at_once && now - last_shown_s_ < (terminal_ ? kTerminalInterval_s : kPlainInterval_s))) return;
  last_shown_s_ = now;
  const std::string line = fmt::format("[{}/{}{}] {}", measured_, expected_, time_left(), stage_);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", line);
  } else {
    fmt::print(stderr, "\r\033[K{}", first_columns(line, terminal_columns()));
    line_open_ = true;
  }
  std::fflush(stderr);
}

}  // namespace kvc
