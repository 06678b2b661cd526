#include "harness/core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

namespace kvc {
namespace {

// A signal handler may touch lock-free atomics and plain memory written before it was installed, nothing more.
std::array<char, 1024> message_text{};
size_t message_size = 0;
std::atomic<bool> writing{false};
std::atomic<bool> pending{false};
struct sigaction old_interrupt {};
struct sigaction old_terminate {};

[[noreturn]] void end_process() {
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, message_text.data(), message_size);
  ::_exit(kInterruptedExitCode);
}

void on_signal(int) {
  if (writing.load()) {
    pending.store(true);
  } else {
    end_process();
  }
}

}  // namespace

InterruptGuard::InterruptGuard(const std::string& message) {
  const std::string text = "\n" + message + "\n";
  message_size = std::min(text.size(), message_text.size());
  std::memcpy(message_text.data(), text.data(), message_size);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &old_interrupt);
  ::sigaction(SIGTERM, &action, &old_terminate);
}

InterruptGuard::~InterruptGuard() {
  ::sigaction(SIGINT, &old_interrupt, nullptr);
  ::sigaction(SIGTERM, &old_terminate, nullptr);
}

UninterruptedWrite::UninterruptedWrite() {
  writing.store(true);
}

UninterruptedWrite::~UninterruptedWrite() {
  writing.store(false);
  if (pending.load()) end_process();
}

}  // namespace kvc
