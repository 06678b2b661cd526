#include "harness/sweep/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace kvc {
namespace {

constexpr double kPlainInterval_s = 20;
constexpr double kTerminalInterval_s = 0.1;
constexpr size_t kTerminalColumns = 118;

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 90) return fmt::format("{} s", whole);
  const int64_t minutes = (whole + 30) / 60;
  if (minutes < 90) return fmt::format("{} min", minutes);
  return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
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

void Progress::expect(int64_t n_records) {
  expected_ += n_records;
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

void Progress::measured() {
  ++measured_;
  show(measured_ == expected_ && !terminal_);
}

void Progress::reached(int64_t n, const std::string& what) {
  measured_ = n;
  stage(what);
}

std::string Progress::time_left() const {
  if (!begun_ || measured_ == 0 || measured_ >= expected_) return "";
  const double rate = clock_.seconds() / static_cast<double>(measured_);
  return ", " + duration_text(rate * static_cast<double>(expected_ - measured_)) + " left";
}

void Progress::show(bool at_once) {
  const double now = clock_.seconds();
  if (quiet_ || (!at_once && now - last_shown_s_ < (terminal_ ? kTerminalInterval_s : kPlainInterval_s))) return;
  last_shown_s_ = now;
  std::string line = fmt::format("[{}/{}{}] {}", measured_, expected_, time_left(), stage_);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", line);
  } else {
    if (line.size() > kTerminalColumns) line.resize(kTerminalColumns);
    fmt::print(stderr, "\r\033[K{}", line);
    line_open_ = true;
  }
  std::fflush(stderr);
}

}  // namespace kvc
