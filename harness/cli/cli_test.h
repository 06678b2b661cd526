// The program run as a user runs it: arguments in, exit code, stdout and stderr out.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "harness/cli/cli.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {

inline const std::string kRoot = KVC_SOURCE_DIR;
inline const std::string kModel = kRoot + "/models/smollm2-135m-instruct.gguf";

struct Outcome {
  int code = 0;
  std::string out, err;
};

inline Outcome kvc(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"kvc"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.code = run_cli(static_cast<int>(argv.size()), argv.data());
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

class Cli : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const { return folder_.write(name, text); }
  std::string path(const std::string& name) const { return folder_.file(name); }

 private:
  TemporaryFolder folder_;
};

}  // namespace kvc
