#include "harness/core/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

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
