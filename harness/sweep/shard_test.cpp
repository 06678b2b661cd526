#include "harness/sweep/shard.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "harness/sweep/sweep_plugins_test.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

Shard parse(const std::string& text, const Variables& variables = {}) {
  return parse_shard(text, [&](const char* name) -> const char* {
    const auto place = variables.find(name);
    return place == variables.end() ? nullptr : place->second.c_str();
  });
}

TEST(Shard, IsReadFromText) {
  EXPECT_EQ(parse("3/16"), (Shard{3, 16}));
  EXPECT_EQ(parse("1/1").name(), "1-of-1");
  EXPECT_EQ(parse("16/16").text(), "16/16");
  for (const auto& [text, message] : {std::pair{"0/4", "the shard must be 1 to 4; got 0"},
                                      {"5/4", "the shard must be 1 to 4; got 5"},
                                      {"-1/4", "the shard must be 1 to 4; got -1"},
                                      {"1/0", "the number of shards must be 1 to 100000; got 0"},
                                      {"a/b", "a shard must be INDEX/COUNT; got 'a/b'"},
                                      {"a/4", "a shard must be INDEX/COUNT; got 'a/4'"},
                                      {"3", "a shard must be INDEX/COUNT; got '3'"},
                                      {"", "a shard must be INDEX/COUNT; got ''"},
                                      {"3/16x", "a shard must be INDEX/COUNT"},
                                      {"3 / 16", "a shard must be INDEX/COUNT"},
                                      {"1.5/4", "a shard must be INDEX/COUNT"},
                                      {"1/99999999999999999999", "a shard must be INDEX/COUNT"},
                                      {"auto/0", "the number of shards must be"}}) {
    const std::string error = error_of([&] { parse(text); });
    EXPECT_THAT(error, HasSubstr(message)) << text;
    EXPECT_THAT(error, HasSubstr("mend:  write --shard 3/16")) << text;
  }
}

TEST(Shard, IsTakenFromASlurmArray) {
  const Variables array = {{"SLURM_ARRAY_TASK_ID", "7"},
                           {"SLURM_ARRAY_TASK_COUNT", "4"},
                           {"SLURM_ARRAY_TASK_MIN", "5"},
                           {"SLURM_ARRAY_TASK_MAX", "8"}};
  EXPECT_EQ(parse("auto", array), (Shard{3, 4}));
  EXPECT_EQ(parse("auto/4", array), (Shard{3, 4}));
  EXPECT_THAT(error_of([&] { parse("auto/16", array); }),
              HasSubstr("the scheduler runs 4 tasks, but 16 shards were asked for"));
  EXPECT_THAT(error_of([&] {
                parse("auto", {{"SLURM_ARRAY_TASK_ID", "7"}});
              }),
              HasSubstr("SLURM_ARRAY_TASK_COUNT or SLURM_ARRAY_TASK_MIN is not"));
  Variables holes = array;
  holes["SLURM_ARRAY_TASK_MAX"] = "12";  // --array=5,7,9,12
  EXPECT_THAT(error_of([&] { parse("auto", holes); }), HasSubstr("4 tasks between 5 and 12: it has holes"));
  Variables broken = array;
  broken["SLURM_ARRAY_TASK_ID"] = "x";
  EXPECT_THAT(error_of([&] { parse("auto", broken); }),
              HasSubstr("SLURM_ARRAY_TASK_ID must be a whole number from 0; got 'x'"));
}

TEST(Shard, IsTakenFromOtherSchedulers) {
  EXPECT_EQ(parse("auto/8", {{"JOB_COMPLETION_INDEX", "0"}}), (Shard{1, 8}));
  EXPECT_THAT(error_of([&] {
                parse("auto", {{"JOB_COMPLETION_INDEX", "0"}});
              }),
              HasSubstr("but the shard count is not"));
  EXPECT_THAT(error_of([&] {
                parse("auto/8", {{"JOB_COMPLETION_INDEX", "8"}});
              }),
              HasSubstr("JOB_COMPLETION_INDEX makes this shard 9 of 8"));
  EXPECT_EQ(parse("auto", {{"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}}), (Shard{4, 4}));
  EXPECT_EQ(parse("auto", {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), (Shard{2, 2}));
  EXPECT_THAT(error_of([&] { parse("auto"); }), HasSubstr("no scheduler says which shard this is"));
}

// Which shard a unit belongs to must never change: shards measured by different builds are merged.
TEST(Shard, OfAUnitIsFixed) {
  const Json model = {{"name", "m"}, {"dtype", "float32"}}, dataset = {{"name", "quality"}, {"articles", "all"}};
  std::string found;
  for (int i = 0; i < 12; ++i)
    found += fmt::format("{} ", shard_of(model, dataset, 7, fmt::format("{}", 20000 + i), 16));
  EXPECT_EQ(found, "9 1 7 2 6 13 3 7 4 16 1 6 ");
  const Json other_order = {{"dtype", "float32"}, {"name", "m"}};
  EXPECT_EQ(shard_of(other_order, dataset, 7, "20001", 1000), shard_of(model, dataset, 7, "20001", 1000));
  Json elsewhere = dataset;
  elsewhere["path"] = "/mnt/data/quality.jsonl";
  EXPECT_EQ(shard_of(model, elsewhere, 7, "20001", 1000), shard_of(model, dataset, 7, "20001", 1000));
}

TEST(Shard, UnitsAreSpreadEvenly) {
  for (const int count : {2, 7, 16}) {
    std::vector<double> n(static_cast<size_t>(count), 0);
    constexpr int kUnits = 8000;
    for (int i = 0; i < kUnits; ++i) {
      ++n[static_cast<size_t>(shard_of(Json{{"name", "m"}}, Json{{"name", "d"}}, 7, fmt::format("doc-{}", i), count) -
                              1)];
    }
    const double mean = static_cast<double>(kUnits) / count;
    for (const double shard : n) EXPECT_LT(std::abs(shard - mean), 5 * std::sqrt(mean)) << count;
  }
}

}  // namespace
}  // namespace kvc
