// What a running sweep tells on stderr: one line rewritten in place on a terminal, plain lines at intervals elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "harness/core/stopwatch.h"

namespace kvc {

class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void note(const std::string& text);                    // a line that stays
  void expect(int64_t n_records, double planned_s = 0);  // so many more records are to be measured, in so many seconds
  void begin();                                          // time left is reckoned from the first call on
  void stage(const std::string& what);                   // what is under way now
  void measured(double planned_s = 0);               // one record is on disk, for which so many seconds were planned
  void reached(int64_t n, const std::string& what);  // n of the expected are done: for work that counts otherwise

 private:
  void show(bool at_once);
  std::string time_left() const;

  bool quiet_;
  bool terminal_;
  bool line_open_ = false;
  int64_t expected_ = 0;
  int64_t measured_ = 0;
  double planned_s_ = 0, planned_done_s_ = 0;
  std::string stage_;
  Stopwatch clock_;  // since begin()
  bool begun_ = false;
  double last_shown_s_ = -1e9;
};

// Seconds left of a plan, corrected by how the seconds so far compare with what was planned for them. A short time so
// far corrects little: a first record that was slow says nothing about the others.
double planned_time_left(double planned_s, double planned_done_s, double took_s);

// "40 s", "12 min", "3 h 05 min".
std::string duration_text(double seconds);

}  // namespace kvc
