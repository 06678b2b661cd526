// What people see on stderr, on a terminal and elsewhere.
#include "harness/core/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <regex>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

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

// What was done before says nothing of the time that the rest takes.
TEST(Progress, WhatWasFoundIsNoPace) {
  {
    const Terminal terminal(80);
    Progress progress(/*quiet=*/false);
    progress.expect(10);
    progress.begin();
    progress.found(6);
    progress.stage("gates");
    EXPECT_EQ(terminal.text(), "\r\033[K[6/10] gates");
  }
  EXPECT_EQ(time_left_s({}, 3, 20, 0, {0, 10, 0}), std::nullopt);
  EXPECT_DOUBLE_EQ(time_left_s({{4, 11, 0}, {10, 12, 0}}, 10, 20, 0, {0, 10, 0}).value(), 8 * 5);
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

// A file in the temporary folder, deleted at the end.
class LogFile {
 public:
  std::string path() const { return folder_.file("progress.log"); }
  std::vector<std::string> lines() const {
    std::vector<std::string> list;
    std::ifstream file(path());
    for (std::string line; std::getline(file, line);) list.push_back(line);
    return list;
  }

 private:
  TemporaryFolder folder_;
};

TEST(Progress, JsonLinesOnStderr) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress(ProgressOptions{false, /*json=*/true, ""});
    progress.note("loading \"m\"");
    progress.expect(2, 10);
    progress.begin();
    progress.stage("prefill");
    progress.failed("no");
    progress.measured(5);
    progress.measured(5);
    progress.end(false, "1 failed");
  }
  std::vector<Json> lines;
  std::istringstream text(::testing::internal::GetCapturedStderr());
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[0].at("event"), "note");
  EXPECT_EQ(lines[0].at("text"), "loading \"m\"");
  EXPECT_EQ(lines[1].at("event"), "progress");
  EXPECT_EQ(lines[1].at("stage"), "prefill");
  EXPECT_EQ(lines[1].at("expected"), 2);
  EXPECT_EQ(lines[1].at("left_s"), 10);  // as planned
  EXPECT_EQ(lines[2].at("event"), "failed");
  EXPECT_EQ(lines[3].at("event"), "progress");  // the last record is told at once, the one before came too soon
  EXPECT_EQ(lines[3].at("done"), 2);
  EXPECT_EQ(lines[3].at("failed"), 1);
  EXPECT_TRUE(lines[3].at("left_s").is_null());
  EXPECT_EQ(lines[4].at("event"), "error");
  for (const Json& line : lines)
    EXPECT_TRUE(std::regex_match(line.at("time").get<std::string>(), std::regex("\\d{4}-\\d\\d-\\d\\dT[\\d:]{8}Z")));
}

TEST(Progress, ALogHasEveryLineWithItsTimeAndGoesOn) {
  const LogFile log;
  std::ofstream(log.path()) << "2026-01-01T00:00:00Z loadi";  // a run that was killed
  ::testing::internal::CaptureStderr();
  {
    Progress progress(ProgressOptions{/*quiet=*/true, false, log.path()});
    progress.expect(1);
    progress.begin();
    progress.note("loading");
    progress.stage("prefill");
    progress.measured();
    progress.end(true, "1 record measured");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  const std::vector<std::string> lines = log.lines();
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[0], "2026-01-01T00:00:00Z loadi");
  const char* const expected[] = {" loading", " [0/1] prefill", " [1/1] prefill", " 1 record measured"};
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(lines[i + 1].substr(20), expected[i]);
}

TEST(Progress, JsonGoesToTheLogAndStderrStaysForPeople) {
  const LogFile log;
  ::testing::internal::CaptureStderr();
  {
    Progress progress(ProgressOptions{false, /*json=*/true, log.path()});
    progress.note("loading");
    EXPECT_THAT(progress.line_of_interrupt(), ::testing::HasSubstr("\"event\":\"interrupted\""));
    EXPECT_GE(progress.log_file(), 0);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "loading\n");
  ASSERT_EQ(log.lines().size(), 1U);
  EXPECT_EQ(Json::parse(log.lines()[0]).at("text"), "loading");
}

TEST(Progress, ALogThatCannotBeOpenedIsNamed) {
  EXPECT_THAT(error_of([&] {
                Progress progress(ProgressOptions{false, false, "/nowhere/run.log"});
              }),
              ::testing::HasSubstr("--log /nowhere/run.log"));
}

// Records of 1 s each, then of 3 s: the second half tells what the others will take.
TEST(Progress, TimeLeftGoesByTheLastHalf) {
  std::vector<ProgressMark> marks;
  double at = 0;
  for (int64_t i = 1; i <= 40; ++i) marks.push_back({at += i <= 20 ? 1 : 3, i, static_cast<double>(i)});
  EXPECT_DOUBLE_EQ(*time_left_s(marks, at, 100, 0), 3 * 60);
  // By the plan (1 s a record): 20 s took 60 s, doubted by 30 s on both sides.
  EXPECT_DOUBLE_EQ(*time_left_s(marks, at, 100, 100), 60 * (60. + 30) / (20 + 30));
  EXPECT_FALSE(time_left_s(marks, at, 40, 100).has_value());
  EXPECT_FALSE(time_left_s({}, 5, 40, 0).has_value());
  marks.resize(2);  // so few go by the whole
  EXPECT_DOUBLE_EQ(*time_left_s(marks, 2, 10, 0), 8);
}

TEST(Progress, DurationsForPeople) {
  EXPECT_EQ(duration_text(-3), "0 s");
  EXPECT_EQ(duration_text(89.4), "89 s");
  EXPECT_EQ(duration_text(90), "2 min");
  EXPECT_EQ(duration_text(3600 * 3 + 5 * 60), "3 h 05 min");
}

}  // namespace
}  // namespace kvc
