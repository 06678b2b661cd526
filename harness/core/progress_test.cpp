// What people see on stderr, on a terminal and elsewhere.
#include "harness/core/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <array>

namespace kvc {
namespace {

// Standard error is a terminal of so many columns while this object lives.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) {
    winsize size = {};
    size.ws_row = 10;
    size.ws_col = columns;
    int slave = -1;
    if (::openpty(&master_, &slave, nullptr, nullptr, &size) != 0) throw std::runtime_error("openpty");
    saved_ = ::dup(STDERR_FILENO);
    ::dup2(slave, STDERR_FILENO);
    ::close(slave);
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
  }
  ~Terminal() {
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
    ::close(master_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // What was written since the last call.
  std::string text() const {
    std::string all;
    std::array<char, 4096> buffer;
    for (ssize_t n = 0; (n = ::read(master_, buffer.data(), buffer.size())) > 0;) {
      all.append(buffer.data(), static_cast<size_t>(n));
    }
    return all;
  }

 private:
  int master_ = -1;
  int saved_ = -1;
};

TEST(Progress, PlainLinesWhereThereIsNoTerminal) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress(/*quiet=*/false);
    progress.note("loading");
    progress.expect(2);
    progress.begin();
    progress.stage("prefill");
    progress.measured();
    progress.stage("ask");  // too soon after the last line
    progress.measured();
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(text, "loading\n[0/2] prefill\n[2/2] ask\n");
}

TEST(Progress, OneLineThatFitsTheTerminal) {
  const Terminal terminal(20);
  std::string text;
  {
    Progress progress(/*quiet=*/false);
    progress.expect(10);
    progress.begin();
    progress.reached(5,
                     "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"
                     "\u00e4\u00e4\u00e4\u00e4");
    text = terminal.text();
    EXPECT_EQ(text, "\r\033[K[5/10, 0 s left] \u00e4\u00e4");  // 19 of 20 columns
    progress.note("a line that stays");
    EXPECT_EQ(terminal.text(), "\r\033[Ka line that stays\r\n");
  }
  EXPECT_EQ(terminal.text(), "");  // no line is open any more
}

TEST(Progress, QuietSaysNothing) {
  ::testing::internal::CaptureStderr();
  Progress progress(/*quiet=*/true);
  progress.expect(1);
  progress.begin();
  progress.note("x");
  progress.stage("y");
  progress.measured();
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, DurationsForPeople) {
  EXPECT_EQ(duration_text(-3), "0 s");
  EXPECT_EQ(duration_text(89.4), "89 s");
  EXPECT_EQ(duration_text(90), "2 min");
  EXPECT_EQ(duration_text(3600 * 3 + 5 * 60), "3 h 05 min");
}

}  // namespace
}  // namespace kvc
