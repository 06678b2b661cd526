#include "harness/sweep/sweep_plan.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "harness/core/progress.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/shard.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

Cell cell(const std::string& method, const Json& target, const std::string& task = "fidelity") {
  Cell cell;
  cell.model = Json{{"name", "m"}};
  cell.dataset = Json{{"name", "d"}};
  cell.task = Json{{"name", task}};
  cell.queries = method == "full_cache" ? Json(nullptr) : Json{{"name", "repeat_prefill"}};
  cell.method = Json{{"name", method}};
  Problems problems;
  if (!target.is_null()) cell.target = TargetSize::from_json(target, "", problems);
  cell.seed = 7;
  return cell;
}

// Seconds as the laws have them: prefill and the rest of a document of T tokens, q questions.
Record measured(const Cell& cell, double tokens, int questions) {
  Record record;
  record.status = "done";
  record.cell = cell.to_json();
  const double fraction = cell.target ? cell.target->fraction : 1;
  record.sizes =
      Json{{"context_tokens", tokens}, {"head_len_mean", fraction * tokens}, {"peak_bytes", 1e8 + 1e5 * tokens}};
  record.seconds = Json{{"prefill_s", 1e-5 * std::pow(tokens, 1.5)},
                        {"queries_s", 3e-5 * std::pow(tokens, 1.2)},
                        {"compaction_shared_s", 2e-4 * tokens},
                        {"compaction_s", !cell.target ? 0 : 1e-6 * std::pow(tokens, 2) * fraction},
                        {"reference_s", questions * 0.5},
                        {"ask_s", questions * (0.1 + 1e-4 * fraction * tokens)}};
  for (int i = 0; i < questions; ++i) record.answers.push_back(Json{{"question_id", "q"}});
  return record;
}

TEST(StageRates, FollowTheLawsOfTwoSizes) {
  StageRates rates;
  const Cell full = cell("full_cache", nullptr), large = cell("snapkv", 0.5), small = cell("snapkv", 0.1);
  for (const double tokens : {300.0, 900.0}) {
    for (const Cell& known : {full, large, small}) rates.add(measured(known, tokens, 4));
  }
  const Cell between = cell("snapkv", 0.2);  // was not measured
  const auto seconds = rates.predict({{&full, 4000, 10}, {&between, 4000, 10}, {&between, 4000, 10}});
  ASSERT_EQ(seconds.size(), 3U);
  EXPECT_NEAR(seconds[0].prefill, 1e-5 * std::pow(4000, 1.5), 1e-6);
  EXPECT_EQ(seconds[0].queries, 0);
  EXPECT_NEAR(seconds[0].reference, 5, 1e-6);
  EXPECT_NEAR(seconds[0].ask, 10 * (0.1 + 1e-4 * 4000), 1e-6);
  EXPECT_EQ(seconds[1].prefill, 0);  // paid
  EXPECT_NEAR(seconds[1].queries, 3e-5 * std::pow(4000, 1.2), 1e-6);
  EXPECT_NEAR(seconds[1].compaction, 2e-4 * 4000 + 1e-6 * 4000 * 4000 * 0.2, 1e-6);
  EXPECT_EQ(seconds[1].reference, 0);
  EXPECT_NEAR(seconds[1].ask, 10 * (0.1 + 1e-4 * 800), 1e-6);
  EXPECT_EQ(seconds[2].compaction + seconds[2].queries, 0);
  EXPECT_NEAR(rates.peak_bytes(4000), 1e8 + 4e8, 1);
}

// A second that every prefill takes hides its growth between small documents: it grows with the tokens all the same.
TEST(StageRates, AFixedCostOfSmallDocumentsDoesNotHideGrowth) {
  StageRates rates;
  const Cell full = cell("full_cache", nullptr);
  for (const double tokens : {100.0, 300.0}) {
    Record record = measured(full, tokens, 4);
    record.seconds["prefill_s"] = 1 + 1e-2 * tokens;
    rates.add(record);
  }
  EXPECT_NEAR(rates.predict({{&full, 3000, 1}})[0].prefill, 10 * 4.0, 1e-9);
}

// 100 bytes a token: 40 kB are a tenth of 4,000 tokens.
TEST(StageRates, UnderstandTargetsInBytes) {
  StageRates rates;
  for (const double tokens : {300.0, 900.0}) {
    for (const double target : {0.5, 0.1}) {
      Record record = measured(cell("snapkv", target), tokens, 4);
      record.sizes["bytes_before"] = 100 * tokens;
      rates.add(record);
    }
  }
  Cell bytes = cell("snapkv", "40000 B"), share = cell("snapkv", 0.1);
  const auto in_bytes = rates.predict({{&bytes, 4000, 10}}), in_shares = rates.predict({{&share, 4000, 10}});
  EXPECT_NEAR(in_bytes[0].ask, in_shares[0].ask, 1e-9);
  EXPECT_NEAR(in_bytes[0].compaction, in_shares[0].compaction, 1e-9);
  // Measured in bytes: the same places.
  Record record = measured(cell("h2o", 0.1), 4000, 4);
  record.sizes["bytes_before"] = 400000;
  record.cell["target"] = "40000 B";
  rates.add(record);
  const Cell other = cell("h2o", 0.1);
  EXPECT_NEAR(rates.predict({{&other, 4000, 10}})[0].compaction, 2e-4 * 4000 + 1e-6 * 4000 * 4000 * 0.1, 1e-6);
}

// A cache asked in a batch with others costs what such caches cost; the only one of its method what one alone does.
TEST(StageRates, CachesAskedTogetherAreOfTheirOwnRate) {
  StageRates rates;
  const Cell full = cell("full_cache", nullptr), large = cell("snapkv", 0.5), small = cell("snapkv", 0.1);
  rates.add(measured(full, 900, 4));
  for (const Cell& known : {large, small}) {
    Record record = measured(known, 900, 4);
    record.seconds["ask_s"] = 4 * 0.02;
    record.seconds["asked_together"] = 2;
    rates.add(record);
  }
  const auto seconds = rates.predict({{&full, 900, 10}, {&large, 900, 10}, {&small, 900, 10}});
  EXPECT_NEAR(seconds[0].ask, 10 * (0.1 + 1e-4 * 900), 1e-6);
  EXPECT_NEAR(seconds[1].ask, 10 * 0.02, 1e-6);
  EXPECT_NEAR(seconds[2].ask, 10 * 0.02, 1e-6);
  // Without records of its own kind: the other's.
  EXPECT_NEAR(rates.predict({{&small, 900, 10}})[0].ask, 10 * (0.1 + 1e-4 * 900), 1e-6);
  StageRates alone;
  alone.add(measured(full, 900, 4));
  EXPECT_NEAR(alone.predict({{&large, 900, 10}, {&small, 900, 10}})[0].ask, 10 * (0.1 + 1e-4 * 900), 1e-6);
}

// What compacts while it writes has no prefill of its own; a question takes what it took before.
TEST(StageRates, KnowTasksThatCompactOnlineByTheirRecords) {
  StageRates rates;
  const Cell known = cell("r_kv", 0.5, "reasoning"), other = cell("r_kv", 0.1, "reasoning");
  Record record = measured(known, 50, 3);
  record.seconds = Json{{"ask_s", 6.0}, {"compaction_s", 2.0}, {"drift_s", 1.0}};
  rates.add(record);
  EXPECT_TRUE(rates.knows(known));
  EXPECT_FALSE(rates.knows(other));
  EXPECT_NEAR(rates.predict({{&known, 60, 10}})[0].total(), 30, 1e-9);
}

TEST(StageRates, SayWhatTheyDoNotKnow) {
  StageRates rates;
  EXPECT_FALSE(rates.knows(cell("snapkv", 0.5)));
  Record failed = measured(cell("snapkv", 0.5), 300, 4);
  failed.status = "failed";
  rates.add(failed);
  EXPECT_FALSE(rates.knows(cell("snapkv", 0.5)));
  rates.add_compaction(measured(cell("snapkv", 0.5), 300, 1));
  EXPECT_TRUE(rates.knows_compaction(cell("snapkv", 0.1)));
  EXPECT_FALSE(rates.knows_ask(cell("snapkv", 0.5)));
  rates.add(measured(cell("full_cache", nullptr), 300, 4));
  EXPECT_TRUE(rates.knows(cell("snapkv", 0.5)));  // asking costs the same whoever compacted
  EXPECT_FALSE(rates.knows(cell("h2o", 0.5)));
  EXPECT_FALSE(rates.knows(cell("snapkv", 0.5, "likelihood")));
}

TEST(Plan, FindsTheFewestShards) {
  Plan plan;
  plan.load_s = 5;
  for (int i = 0; i < 40; ++i) {
    UnitPlan unit;
    unit.document_id = fmt::format("d{}", i);
    unit.model = Json{{"name", "m"}};
    unit.seconds = 100 + i;
    plan.units.push_back(unit);
  }
  const auto shards = plan.shards_within(900);
  ASSERT_TRUE(shards.has_value());
  EXPECT_LE(plan.slowest_shard(*shards), 900);
  for (int64_t fewer = 1; fewer < *shards; ++fewer) EXPECT_GT(plan.slowest_shard(fewer), 900);
  EXPECT_EQ(plan.shards_within(143), std::nullopt);  // the longest document and loading take 144 s
  EXPECT_EQ(plan.shards_within(1e9), 1);
}

TEST(Plan, ReadsDurations) {
  EXPECT_EQ(parse_duration("6h"), 6 * 3600);
  EXPECT_EQ(parse_duration("1h30m"), 5400);
  EXPECT_EQ(parse_duration("45 min"), 2700);
  EXPECT_EQ(parse_duration("2.5h"), 9000);
  EXPECT_EQ(parse_duration("90s"), 90);
  for (const char* text : {"", "6", "h", "6x", "0h", "-1h", "1..5h", "6h later"}) {
    EXPECT_THAT(error_of([&] { parse_duration(text); }), HasSubstr("a time must be like 6h, 90m or 1h30m")) << text;
  }
}

TEST(Plan, TimeLeftFollowsThePace) {
  EXPECT_DOUBLE_EQ(planned_time_left(600, 0, 0), 600);
  EXPECT_NEAR(planned_time_left(600, 300, 300), 300, 1e-9);  // as planned
  EXPECT_NEAR(planned_time_left(600, 300, 600), 300.0 * 630 / 330, 1e-9);
  EXPECT_LT(planned_time_left(600, 1, 20), 1000);  // one slow record says little
  EXPECT_EQ(planned_time_left(600, 600, 700), 0);
}

class PlannedSweep : public ::testing::Test {
 protected:
  SweepConfig config() const {
    SweepConfig config = parse_sweep(ConfigText::from_string(
        "sweep: p\nseed: [7, 8]\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 3, letters: 120}]\n"
        "task: [{task: fidelity, max_new_tokens: 4}, test_choice]\nqueries: context_prefill\ntarget: [0.5, 0.3, 0.2]\n"
        "method: [full_cache, no_context, snapkv]\n",
        "s.yaml"));
    config.results = folder_.file("results");
    return config;
  }
  TemporaryFolder folder_;
};

// What is counted is what is measured; nothing is written.
TEST_F(PlannedSweep, CountsWhatIsMeasured) {
  PlanOptions options;
  options.quiet = true;
  options.load_model = [](const ModelConfig&) { return tiny_model(1); };
  const Plan plan = plan_sweep(config(), options);
  EXPECT_FALSE(std::filesystem::exists(folder_.file("results")));
  EXPECT_EQ(plan.cells, 2 * 2 * (1 + 1 + 3));
  EXPECT_EQ(plan.documents, 6);
  EXPECT_EQ(plan.questions, 12);
  EXPECT_EQ(plan.records, 6 * 5);
  EXPECT_EQ(plan.found, 0);
  EXPECT_EQ(plan.answers, 6 * 5 * 2);
  EXPECT_EQ(plan.units.size(), 6U);
  EXPECT_EQ(plan.earlier_records, 0);
  EXPECT_GT(plan.stages.prefill, 0);
  EXPECT_GT(plan.stages.queries, 0);
  EXPECT_GT(plan.stages.compaction, 0);
  EXPECT_GT(plan.stages.reference, 0);
  EXPECT_GT(plan.stages.ask, 0);
  EXPECT_THAT(plan.unknown, ::testing::IsEmpty());
  const std::string text = plan_text(plan, 3600);
  EXPECT_THAT(text, HasSubstr("20 cells, 6 documents"));
  EXPECT_THAT(text, HasSubstr("30 of 30 records to be measured"));
  EXPECT_THAT(text, HasSubstr("by a calibration of "));
  EXPECT_THAT(text, HasSubstr("within 60 min: 1 shard, the slowest "));

  RunOptions run_options;
  run_options.quiet = true;
  run_options.plan = true;
  run_options.load_model = options.load_model;
  const RunSummary summary = run_sweep(config(), run_options);
  EXPECT_EQ(summary.measured, plan.records);
  EXPECT_GT(summary.planned_s, 0);
  EXPECT_TRUE(summary.planned_all);
  EXPECT_GT(summary.took_s, 0);
  const Plan after = plan_sweep(config(), options);
  EXPECT_EQ(after.found, plan.records);
  EXPECT_EQ(after.earlier_records, plan.records);
  EXPECT_THAT(after.units, ::testing::IsEmpty());
  EXPECT_EQ(after.stages.total(), 0);
}

}  // namespace
}  // namespace kvc
