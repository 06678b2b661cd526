// The runner and a rule that is plain to see: which records it asks for, and what it leaves behind.
#include "harness/sweep/stop_rule.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "harness/core/config_text.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/known_blocks.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

// A cell of target 0.1 wants two documents, one of 0.25 four, the others all.
class CountingRule final : public StopRule {
 public:
  explicit CountingRule(const RuledBlock& block) : block_(block) {}
  void add(const Record& record) override { done_[record.cell_id].insert(record.document_id); }
  bool wants(const std::string& cell_id, const std::string& document_id) override {
    for (size_t i = 0; i < block_.documents.size(); ++i) {
      if (block_.documents[i].id == document_id) return i < limit(cell_id);
    }
    ADD_FAILURE() << document_id;
    return false;
  }
  Json stopped() override {
    Json list = Json::object();
    for (const RuledCell& cell : block_.cells) {
      if (done_[cell.id].size() >= limit(cell.id) && limit(cell.id) < 100)
        list[cell.id] = {{"state", "outside"}, {"documents", done_[cell.id].size()}};
    }
    return list;
  }

 private:
  size_t limit(const std::string& cell_id) const {
    const auto cell =
        std::find_if(block_.cells.begin(), block_.cells.end(), [&](const RuledCell& one) { return one.id == cell_id; });
    const Json target = cell->cell.at("target");
    return target == 0.1 ? 2 : target == 0.25 ? 4 : 100;
  }
  RuledBlock block_;
  std::map<std::string, std::set<std::string>> done_;
};

class StoppingSweep : public ::testing::Test {
 protected:
  static constexpr int64_t kRecords = 6 + 6 + 4 + 2;  // full cache, targets 0.5, 0.25, 0.1
  void SetUp() override {
    at::set_num_threads(1);
    calls() = Calls();
    options_.quiet = options_.skip_proof = true;
    std::ofstream(folder_.file("tiny.gguf")) << "weights 1";
    options_.load_model = [](const ModelConfig&) {
      ++calls().loads;
      return tiny_model(1);
    };
    options_.stop_rule = [](const RuledBlock& block) { return std::make_unique<CountingRule>(block); };
  }
  SweepConfig config() const {
    SweepConfig config = parse_sweep(ConfigText::from_string(
        "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: {dataset: test_notes, documents: 6}\ntask: test_probe\n"
        "target: [0.5, 0.25, 0.1]\nmethod: [test_full, test_keep_first]\nstop_when: decided\n",
        "s.yaml"));
    config.results = folder_.file("results");
    for (SweepModel& model : config.models) model.config.path = folder_.file(model.config.path);
    return config;
  }
  std::vector<Record> records() const {
    std::vector<std::string> warnings;
    return load_records(folder_.file("results"), warnings);
  }

  TemporaryFolder folder_;
  RunOptions options_;
};

TEST_F(StoppingSweep, MeasuresWhatTheRuleWantsInAShuffledOrder) {
  std::vector<std::string> order;
  options_.after_record = [&](const Record& record) {
    if (order.empty() || order.back() != record.document_id) order.push_back(record.document_id);
  };
  const RunSummary summary = run_sweep(config(), options_);
  EXPECT_EQ(summary.measured, kRecords);
  std::vector<std::string> ids = {"note-0", "note-1", "note-2", "note-3", "note-4", "note-5"};
  EXPECT_EQ(order, shuffled_documents(ids, 7));
  EXPECT_NE(order, ids);
  std::reverse(ids.begin(), ids.end());
  EXPECT_EQ(order, shuffled_documents(ids, 7));
  EXPECT_NE(order, shuffled_documents(ids, 8));
  EXPECT_EQ(stopped_cells(folder_.file("results")).size(), 2U);
  const Coverage coverage = coverage_of(folder_.file("results"));
  EXPECT_TRUE(coverage.complete());  // what nobody asks for is no gap
  EXPECT_EQ(coverage.expected, kRecords);
}

TEST_F(StoppingSweep, AFinishedSweepLoadsNoModel) {
  run_sweep(config(), options_);
  const RunSummary again = run_sweep(config(), options_);
  EXPECT_EQ(again.measured, 0);
  EXPECT_EQ(calls().loads, 1);
  EXPECT_EQ(stopped_cells(folder_.file("results")).size(), 2U);
  EXPECT_TRUE(models_to_load(config(), {}, options_.stop_rule).empty());
  EXPECT_EQ(models_to_load(config(), {}, {}).size(), 1U);  // without the rule every document is wanted
}

TEST_F(StoppingSweep, GoesOnWhereItWasLeftAndLosesNothing) {
  struct Ended {};
  for (int after = 1; after < kRecords; after += 4) {
    std::filesystem::remove_all(folder_.file("results"));
    int n = 0;
    options_.after_record = [&](const Record&) {
      if (++n == after) throw Ended();
    };
    EXPECT_THROW(run_sweep(config(), options_), Ended);
    options_.after_record = {};
    EXPECT_EQ(run_sweep(config(), options_).measured, kRecords - after);
    EXPECT_EQ(records().size(), static_cast<size_t>(kRecords));
  }
}

TEST_F(StoppingSweep, WithoutTheRuleEverythingIsMeasuredAndNothingCountsAsStopped) {
  run_sweep(config(), options_);
  SweepConfig whole = config();
  whole.stop_when.reset();
  options_.stop_rule = {};
  EXPECT_EQ(run_sweep(whole, options_).measured, 6 * 4 - kRecords);
  EXPECT_TRUE(stopped_cells(folder_.file("results")).empty());
}

TEST_F(StoppingSweep, EndsBetweenDocumentsWhenTheTimeIsOver) {
  options_.within_s = 1e-9;
  const RunSummary none = run_sweep(config(), options_);
  EXPECT_EQ(none.measured, 0);
  EXPECT_TRUE(none.out_of_time);
  EXPECT_FALSE(coverage_of(folder_.file("results")).complete());
  options_.within_s = 3600;
  const RunSummary rest = run_sweep(config(), options_);
  EXPECT_EQ(rest.measured, kRecords);
  EXPECT_FALSE(rest.out_of_time);
}

TEST_F(StoppingSweep, IsNotDividedAndNotRunWithoutItsRule) {
  options_.shard = Shard{1, 2};
  EXPECT_THAT(error_of([&] { run_sweep(config(), options_); }), HasSubstr("cannot be divided into shards"));
  options_.shard.reset();
  options_.stop_rule = {};
  EXPECT_THAT(error_of([&] { run_sweep(config(), options_); }), HasSubstr("gave no rule for it"));
}

TEST_F(StoppingSweep, AStoppedFileThatIsNoneIsNamed) {
  std::ofstream(folder_.file("stopped.json")) << "[1]";
  EXPECT_THAT(error_of([&] { stopped_cells(folder_.file("")); }), HasSubstr("must be an object of objects"));
}

}  // namespace
}  // namespace kvc
