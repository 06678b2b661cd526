// Ctrl-C and kill: the process ends at once with exit code 130 and a line that says how to go on. A record that is
// being written is written to its end first; everything else that is under way is given up.
#pragma once

#include <string>

namespace kvc {

// While one lives, SIGINT and SIGTERM print `message` on stderr and end the process. One at a time.
class InterruptGuard {
 public:
  explicit InterruptGuard(const std::string& message);
  ~InterruptGuard();
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

constexpr int kInterruptedExitCode = 130;

}  // namespace kvc
