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
struct Message {
  std::array<char, 1024> text{};
  size_t size = 0;
};
std::array<Message, 2> messages;  // one is printed, the other may be written
std::atomic<size_t> message_shown{0};
std::array<char, 256> log_text{};
size_t log_size = 0;
int log_file = -1;
std::atomic<bool> writing{false};
std::atomic<int> pending{0};  // the first signal that came while writing
constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
std::array<struct sigaction, kSignals.size()> old_actions{};

[[noreturn]] void end_process(int signal) {
  const Message& message = messages[message_shown.load()];
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, message.text.data(), message.size);
  if (log_file >= 0) {
    [[maybe_unused]] const ssize_t m = ::write(log_file, log_text.data(), log_size);
  }
  ::_exit(128 + signal);
}

void on_signal(int signal) {
  if (!writing.load()) end_process(signal);
  int none = 0;
  pending.compare_exchange_strong(none, signal);
}

}  // namespace

InterruptGuard::InterruptGuard(const std::string& message, int log, const std::string& log_line) {
  say(message);
  log_file = log;
  log_size = std::min(log_line.size(), log_text.size());
  std::memcpy(log_text.data(), log_line.data(), log_size);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &old_actions[i]);
    const bool under_nohup = kSignals[i] == SIGHUP && old_actions[i].sa_handler == SIG_IGN;
    if (!under_nohup) ::sigaction(kSignals[i], &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &old_actions[i], nullptr);
}

void InterruptGuard::say(const std::string& message) {
  const std::string text = "\n" + message + "\n";
  const size_t other = 1 - message_shown.load();
  messages[other].size = std::min(text.size(), messages[other].text.size());
  std::memcpy(messages[other].text.data(), text.data(), messages[other].size);
  message_shown.store(other);
}

UninterruptedWrite::UninterruptedWrite() {
  writing.store(true);
}

UninterruptedWrite::~UninterruptedWrite() {
  writing.store(false);
  if (const int signal = pending.load(); signal != 0) end_process(signal);
}

}  // namespace kvc
