// What a running sweep tells: one line rewritten in place on a terminal, plain lines at intervals elsewhere, JSON lines
// for programs, and a log file beside either.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/stopwatch.h"

namespace kvc {

struct ProgressOptions {
  bool quiet = false;  // nothing on stderr
  bool json = false;   // JSON lines instead of text: in the log where there is one, else on stderr
  std::string log;     // file that every line is appended to, with its time; "": none
};

// Where the work stood when a record was on disk.
struct ProgressMark {
  double at_s = 0;       // since the work began
  int64_t done = 0;      // records
  double planned_s = 0;  // what these records were planned to take
};

class Progress {
 public:
  explicit Progress(bool quiet) : Progress(ProgressOptions{quiet, false, ""}) {}
  // Throws Error(kData) where the log cannot be opened.
  explicit Progress(const ProgressOptions& options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void note(const std::string& text);                    // a line that stays
  void failed(const std::string& text);                  // the same, of a record that failed
  void expect(int64_t n_records, double planned_s = 0);  // so many more records are to be measured, in so many seconds
  void begin();                                          // time left is reckoned from the first call on
  void stage(const std::string& what);                   // what is under way now
  void measured(double planned_s = 0);               // one record is on disk, for which so many seconds were planned
  void reached(int64_t n, const std::string& what);  // n of the expected are done: for work that counts otherwise
  void found(int64_t n);  // n of the expected were done before: they are counted, and say nothing of the time left
  void clear();           // takes the rewritten line away, before something else is printed
  // How it ended, to the log and to JSON only: what a terminal shows last is for the command to say.
  void end(bool good, const std::string& text);

  // For a signal handler, which may not format: where the log is written to (-1: nowhere), and the line that says that
  // a signal ended the work.
  int log_file() const;
  std::string line_of_interrupt() const;

 private:
  enum class Form : std::uint8_t { kTerminal, kPlain, kLog, kJson };
  struct Sink {
    std::FILE* file;
    Form form;
    double last_shown_s;
    bool line_open;
  };

  void tell(const char* event, const std::string& text);
  void show(bool at_once);
  void write(Sink& sink, const std::string& line);
  std::string json_line(const char* event, const std::string& text, const std::optional<double>& left) const;

  std::vector<Sink> sinks_;
  std::FILE* log_ = nullptr;
  int64_t expected_ = 0;
  int64_t measured_ = 0;
  int64_t failed_ = 0;
  double planned_s_ = 0, planned_done_s_ = 0;
  ProgressMark start_;  // what was found
  std::vector<ProgressMark> marks_;
  std::string stage_;
  Stopwatch clock_;  // since begin()
  bool begun_ = false;
};

// Seconds left, going by the last half of the records: a sweep that becomes slower says so. By the plan where there is
// one (`planned_s` > 0, of all records); nothing where nothing is known or nothing is left. `marks` in the order of
// time; `start`: what was done before the work began.
std::optional<double> time_left_s(const std::vector<ProgressMark>& marks, double now_s, int64_t expected,
                                  double planned_s, const ProgressMark& start = {});

// Seconds left of a plan, corrected by how the seconds so far compare with what was planned for them. A short time so
// far corrects little: a first record that was slow says nothing about the others.
double planned_time_left(double planned_s, double planned_done_s, double took_s);

// "40 s", "12 min", "3 h 05 min".
std::string duration_text(double seconds);

}  // namespace kvc
