// Loops on all cores, and the long files that are parsed on them.
#include "harness/core/parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>

#include "harness/core/json_lines.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

TEST(Parallel, EachPlaceOnce) {
  std::vector<int> visited(10000, 0);
  parallel_for(visited.size(), [&](size_t i) { ++visited[i]; });
  EXPECT_EQ(std::accumulate(visited.begin(), visited.end(), 0), 10000);
  EXPECT_THAT(visited, ::testing::Each(1));
  parallel_for(0, [](size_t) { FAIL(); });
}

TEST(Parallel, AnExceptionArrives) {
  const auto fail = [](size_t i) {
    if (i == 77) throw std::runtime_error("seventy-seven");
  };
  EXPECT_THROW(parallel_for(100, fail), std::runtime_error);
}

// Longer than the pieces that are read at a time, with a line that is longer than a piece, blank and broken lines, and
// no newline at the end.
TEST(JsonLines, LongFilesKeepTheirOrder) {
  const TemporaryFolder folder;
  const std::string path = folder.file("long.jsonl");
  constexpr int64_t kLines = 3000;
  {
    std::ofstream file(path, std::ios::binary);
    for (int64_t n = 0; n < kLines; ++n) {
      const size_t size = n == 100 ? size_t{20} << 20U : n % 7 == 0 ? 30000 : 9000;
      file << R"({"n": )" << n << R"(, "text": ")" << std::string(size, 'x') << (n == 2000 ? "" : "\"}");
      if (n == 5) file << "\r";
      if (n + 1 < kLines) file << "\n" << (n == 7 ? " \n" : "");
    }
  }
  std::vector<int64_t> seen;
  const std::vector<int64_t> broken =
      for_each_json_line(path, [&](Json&& value) { seen.push_back(value.at("n").get<int64_t>()); });
  EXPECT_THAT(broken, ::testing::ElementsAre(2002));  // line 9 is blank, and lines are counted from 1
  ASSERT_EQ(seen.size(), static_cast<size_t>(kLines - 1));
  for (size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(seen[i], static_cast<int64_t>(i) + (i >= 2000 ? 1 : 0));
}

}  // namespace
}  // namespace kvc
