#include "harness/core/build_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>

namespace kvc {
namespace {

std::string output_of(const std::string& command) {
  std::string text;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  std::array<char, 256> block{};
  while (std::fgets(block.data(), block.size(), pipe) != nullptr) text += block.data();
  ::pclose(pipe);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// The test was built just now from this checkout, so git must say the same.
TEST(BuildInfo, NamesTheCommitItWasBuiltFrom) {
  const std::string commit = output_of("git -C '" KVC_SOURCE_DIR "' rev-parse HEAD 2>/dev/null");
  if (commit.empty()) GTEST_SKIP() << "no git checkout";
  EXPECT_EQ(build_info().commit, commit);
}

TEST(BuildInfo, NamesCompilerAndLibraries) {
  const BuildInfo& info = build_info();
  EXPECT_EQ(info.version, KVC_VERSION);
  EXPECT_THAT(info.compiler, ::testing::MatchesRegex("[A-Za-z]+ [0-9.]+"));
  EXPECT_THAT(info.libtorch, ::testing::MatchesRegex("[0-9]+\\.[0-9.]+"));
  const Json json = build_info_json();
  EXPECT_EQ(json.at("version"), info.version);
  EXPECT_EQ(json.at("dirty"), info.dirty);
  EXPECT_EQ(json.at("cuda").is_null(), info.cuda.empty());
}

#if defined(__x86_64__)
TEST(BuildInfo, KnowsTheProcessor) {
  EXPECT_EQ(cpu_features().find("avx2") != std::string::npos, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu_features().find("avx512f") != std::string::npos, __builtin_cpu_supports("avx512f") != 0);
}
#endif

}  // namespace
}  // namespace kvc
