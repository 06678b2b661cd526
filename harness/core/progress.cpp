#include "harness/core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>

#include "harness/core/config_text.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

constexpr double kPlainInterval_s = 20;
constexpr double kTerminalInterval_s = 0.1;
constexpr double kJsonInterval_s = 1;
constexpr double kLongAgo_s = -1e9;
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

// "2026-03-01T09:30:00Z"
std::string time_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  ::gmtime_r(&now, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// Open for appending, at the start of a line: a killed run may have left half of one.
std::FILE* open_log(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "a+e");
  if (file == nullptr) {
    throw Error(ErrorKind::kData, fmt::format("cannot open the log: {}", std::strerror(errno)), "--log " + path,
                "name a file in a folder you may write to");
  }
  std::fseek(file, -1, SEEK_END);
  const int last = std::fgetc(file);
  if (last != EOF && last != '\n') std::fputc('\n', file);
  return file;
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

std::optional<double> time_left_s(const std::vector<ProgressMark>& marks, double now_s, int64_t expected,
                                  double planned_s, const ProgressMark& start) {
  constexpr size_t kFew = 20;
  const ProgressMark last = marks.empty() ? start : marks.back();
  const ProgressMark since = marks.size() < kFew ? start : marks[marks.size() / 2 - 1];
  if (last.done >= expected) return std::nullopt;
  if (planned_s > 0)
    return planned_time_left(planned_s - since.planned_s, last.planned_s - since.planned_s, now_s - since.at_s);
  if (last.done <= since.done) return std::nullopt;
  return (now_s - since.at_s) / static_cast<double>(last.done - since.done) * static_cast<double>(expected - last.done);
}

Progress::Progress(const ProgressOptions& options) {
  const bool json_here = options.json && options.log.empty();
  const Form form = json_here ? Form::kJson : ::isatty(STDERR_FILENO) == 1 ? Form::kTerminal : Form::kPlain;
  if (!options.quiet) sinks_.push_back({stderr, form, kLongAgo_s, false});
  if (options.log.empty()) return;
  log_ = open_log(options.log);
  sinks_.push_back({log_, options.json ? Form::kJson : Form::kLog, kLongAgo_s, false});
}

Progress::~Progress() {
  clear();
  if (log_ != nullptr) std::fclose(log_);
}

void Progress::clear() {
  for (Sink& sink : sinks_) {
    if (sink.line_open) fmt::print(sink.file, "\r\033[K");
    sink.line_open = false;
    std::fflush(sink.file);
  }
}

void Progress::note(const std::string& text) {
  tell("note", text);
}

void Progress::failed(const std::string& text) {
  ++failed_;
  tell("failed", "failed: " + text);
}

void Progress::expect(int64_t n_records, double planned_s) {
  expected_ += n_records;
  planned_s_ += planned_s;
}

void Progress::begin() {
  if (begun_) return;
  clock_ = Stopwatch();
  begun_ = true;
  for (Sink& sink : sinks_) sink.last_shown_s = kLongAgo_s;
}

void Progress::stage(const std::string& what) {
  stage_ = what;
  show(false);
}

void Progress::measured(double planned_s) {
  ++measured_;
  planned_done_s_ += planned_s;
  marks_.push_back({clock_.seconds(), measured_, planned_done_s_});
  show(measured_ == expected_);
}

void Progress::reached(int64_t n, const std::string& what) {
  measured_ = n;
  marks_.push_back({clock_.seconds(), measured_, planned_done_s_});
  stage(what);
}

void Progress::found(int64_t n) {
  measured_ = n;
  start_ = {0, n, planned_done_s_};
}

void Progress::end(bool good, const std::string& text) {
  for (Sink& sink : sinks_) {
    if (sink.form == Form::kJson) write(sink, json_line(good ? "done" : "error", text, std::nullopt));
    if (sink.form == Form::kLog) write(sink, time_text() + " " + text);
  }
}

int Progress::log_file() const {
  return log_ == nullptr ? -1 : ::fileno(log_);
}

std::string Progress::line_of_interrupt() const {
  const std::string text = "ended by a signal; the same command goes on";
  if (sinks_.empty() || sinks_.back().form != Form::kJson) return text + "\n";
  return Json{{"event", "interrupted"}, {"text", text}}.dump() + "\n";
}

void Progress::tell(const char* event, const std::string& text) {
  for (Sink& sink : sinks_) {
    if (sink.form == Form::kJson) {
      write(sink, json_line(event, text, std::nullopt));
    } else {
      write(sink, sink.form == Form::kLog ? time_text() + " " + text : text);
    }
  }
}

void Progress::show(bool at_once) {
  const double now = clock_.seconds();
  const std::optional<double> left = begun_ ? time_left_s(marks_, now, expected_, planned_s_, start_) : std::nullopt;
  const std::string line =
      fmt::format("[{}/{}{}] {}", measured_, expected_, left ? ", " + duration_text(*left) + " left" : "", stage_);
  for (Sink& sink : sinks_) {
    const bool terminal = sink.form == Form::kTerminal;
    const double interval = terminal                   ? kTerminalInterval_s
                            : sink.form == Form::kJson ? kJsonInterval_s
                                                       : kPlainInterval_s;
    if (now - sink.last_shown_s < interval && (terminal || !at_once)) continue;
    sink.last_shown_s = now;
    if (terminal) {
      fmt::print(sink.file, "\r\033[K{}", first_columns(line, terminal_columns()));
      sink.line_open = true;
      std::fflush(sink.file);
    } else if (sink.form == Form::kJson) {
      write(sink, json_line("progress", stage_, left));
    } else {
      write(sink, sink.form == Form::kLog ? time_text() + " " + line : line);
    }
  }
}

// A line that stays, on disk or on the screen at once.
void Progress::write(Sink& sink, const std::string& line) {
  fmt::print(sink.file, "{}{}\n", sink.line_open ? "\r\033[K" : "", line);
  sink.line_open = false;
  std::fflush(sink.file);
}

std::string Progress::json_line(const char* event, const std::string& text, const std::optional<double>& left) const {
  Json line = Json{{"time", time_text()},
                   {"event", event},
                   {"done", measured_},
                   {"failed", failed_},
                   {"expected", expected_},
                   {"elapsed_s", begun_ ? std::round(clock_.seconds() * 10) / 10 : 0.0},
                   {"left_s", left ? Json(std::round(*left * 10) / 10) : Json(nullptr)}};
  line[event == std::string_view("progress") ? "stage" : "text"] = text;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace kvc
