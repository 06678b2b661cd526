// Ctrl-C, kill and a closed terminal (SIGINT, SIGTERM, SIGHUP): the process ends at once with exit code 128 + signal
// (130, 143, 129) and a line that says how to go on. A record that is being written is finished first; everything else
// under way is given up.
#pragma once

#include <string>

namespace kvc {

// While one lives, these signals print `message` on stderr, write `log_line` to the open file `log` (-1: none), and end
// the process. Under nohup, SIGHUP stays ignored. One at a time.
class InterruptGuard {
 public:
  explicit InterruptGuard(const std::string& message, int log = -1, const std::string& log_line = "");
  ~InterruptGuard();
  // Another message from now on; a signal that comes meanwhile prints the one or the other.
  void say(const std::string& message);
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

// While one lives, the end is put off until it is gone.
class UninterruptedWrite {
 public:
  UninterruptedWrite();
  ~UninterruptedWrite();
  UninterruptedWrite(const UninterruptedWrite&) = delete;
  UninterruptedWrite& operator=(const UninterruptedWrite&) = delete;
};

}  // namespace kvc
