#include "harness/core/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

namespace kvc {
namespace {

// The exit code of a child that does `what` and returns; -1 when a signal ended it.
template <class What>
int exit_code_of(const What& what) {
  const pid_t child = ::fork();
  if (child == 0) {
    what();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Interrupt, EachSignalHasItsExitCode) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const auto interrupted = [&] {
      ::signal(SIGHUP, SIG_DFL);  // the tests may run under nohup
      const InterruptGuard guard("interrupted");
      ::raise(signal);
    };
    EXPECT_EQ(exit_code_of(interrupted), 128 + signal);
  }
}

TEST(Interrupt, TheLogSaysIt) {
  std::array<int, 2> ends = {-1, -1};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const auto interrupted = [&] {
    const InterruptGuard guard("interrupted", ends[1], "ended by a signal\n");
    ::raise(SIGTERM);
  };
  EXPECT_EQ(exit_code_of(interrupted), 143);
  std::array<char, 64> text = {};
  EXPECT_EQ(::read(ends[0], text.data(), text.size()), 18);
  EXPECT_STREQ(text.data(), "ended by a signal\n");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(Interrupt, SaysTheLatestMessage) {
  for (const int n_messages : {0, 1, 2, 3}) {
    std::array<int, 2> ends = {-1, -1};
    ASSERT_EQ(::pipe(ends.data()), 0);
    const auto interrupted = [&] {
      ::dup2(ends[1], STDERR_FILENO);
      InterruptGuard guard("message 0");
      for (int i = 1; i <= n_messages; ++i) guard.say("message " + std::to_string(i));
      ::raise(SIGINT);
    };
    EXPECT_EQ(exit_code_of(interrupted), 130);
    std::array<char, 64> text = {};
    EXPECT_EQ(::read(ends[0], text.data(), text.size()), 11);
    EXPECT_EQ(text.data(), "\nmessage " + std::to_string(n_messages) + "\n");
    ::close(ends[0]);
    ::close(ends[1]);
  }
}

TEST(Interrupt, TheFirstSignalDuringAWriteDecides) {
  const auto interrupted = [] {
    const InterruptGuard guard("interrupted");
    const UninterruptedWrite write;
    ::raise(SIGTERM);
    ::raise(SIGINT);
  };
  EXPECT_EQ(exit_code_of(interrupted), 143);
}

TEST(Interrupt, UnderNohupAClosedTerminalIsIgnored) {
  const auto closed = [] {
    ::signal(SIGHUP, SIG_IGN);
    const InterruptGuard guard("interrupted");
    ::raise(SIGHUP);
    ::_exit(7);
  };
  EXPECT_EQ(exit_code_of(closed), 7);
}

}  // namespace
}  // namespace kvc
