// The caches of a method asked in one batch: records as of caches asked one by one, and failures that stay with their
// own cell.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "harness/api/task.h"
#include "harness/sweep/document_run.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plan.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

// Answers with the entries that a cache has left; cannot ask one of `refuse` entries, nor a batch with one.
struct TestTogether final : Task {
  struct Options {
    int64_t refuse = -1;
    void fields(auto&& visit) { visit("refuse", refuse, "entries of a cache that cannot be asked"); }
  };
  explicit TestTogether(Options o) : options(o) {}
  bool accepts(const Question& /*question*/) const override { return true; }
  Batch batch(const Model& /*model*/, const std::vector<Question>& questions) const override {
    return {static_cast<int64_t>(questions.size()), 1};
  }
  std::vector<Json> ask(const AskRequest& request) const override {
    if (request.cache.n_entries() == options.refuse) throw Error(ErrorKind::kData, "this cache is refused", "", "");
    std::vector<Json> answers;
    for (const Question& question : request.questions)
      answers.push_back({{"question_id", question.id}, {"entries", request.cache.n_entries()}});
    (*request.notes)["asked"] = answers.size();
    return answers;
  }
  std::vector<std::vector<Json>> ask_together(const std::vector<AskRequest>& requests) const override {
    batches().push_back(requests.size());
    return Task::ask_together(requests);
  }
  static std::vector<size_t>& batches() {
    static std::vector<size_t> sizes;
    return sizes;
  }
  Options options;
};
KVC_REGISTER_TASK(TestTogether, "test_together", "test");

class AskTogetherSweep : public ::testing::Test {
 protected:
  void SetUp() override {
    TestTogether::batches().clear();
    options_.quiet = true;
    options_.skip_proof = true;
    options_.load_model = [](const ModelConfig&) { return tiny_model(1, at::kFloat, 2048); };
  }

  // All but times and memory, by cell and document; how many caches each was asked with goes to asked_with_.
  std::map<std::string, Json> run(const std::string& text, int64_t ask_together) {
    SweepConfig config = parse_sweep(ConfigText::from_string(text, "s.yaml"));
    config.results = folder_.file(fmt::format("results-{}", ++n_runs_));
    config.ask_together = ask_together;
    summary_ = run_sweep(config, options_);
    asked_with_.clear();
    std::map<std::string, Json> all;
    std::vector<std::string> warnings;
    for (const Record& record : load_records(config.results, warnings)) {
      asked_with_.push_back(record.seconds.value("asked_together", 1));
      Json json = record.to_json();
      json.erase("seconds");
      json["provenance"].erase("started_at");
      if (json.contains("sizes") && json["sizes"].is_object()) {
        for (const char* name : {"peak_bytes", "reference_peak_bytes", "peak_of_process"}) json["sizes"].erase(name);
      }
      all.emplace(record.cell_id + record.document_id, json);
    }
    return all;
  }

  void expect_the_same(const std::string& text, const std::vector<int64_t>& together, int64_t n_records) {
    const std::map<std::string, Json> alone = run(text, 1);
    EXPECT_EQ(summary_.failed, 0);
    EXPECT_EQ(static_cast<int64_t>(alone.size()), n_records);
    EXPECT_EQ(*std::max_element(asked_with_.begin(), asked_with_.end()), 1);
    for (const int64_t caches : together) {
      const std::map<std::string, Json> batched = run(text, caches);
      EXPECT_GT(*std::max_element(asked_with_.begin(), asked_with_.end()), 1) << caches;
      ASSERT_EQ(batched.size(), alone.size());
      for (const auto& [key, record] : alone) EXPECT_EQ(batched.at(key), record) << record["cell"].dump();
    }
  }

  std::string choices_file() const {
    std::ofstream file(folder_.file("choices.jsonl"));
    file << R"({"context": "A lighthouse stands on the cliff. Its keeper counts the ships.", "questions": [)"
         << R"({"question": "Where is it?", "options": ["cliff", "pier", "hill"], "gold": 1},)"
         << R"({"question": "Who counts?", "options": ["nobody", "the keeper"], "gold": 2}]})"
         << "\n";
    return folder_.file("choices.jsonl");
  }

  TemporaryFolder folder_;
  RunOptions options_;
  RunSummary summary_;
  std::vector<int64_t> asked_with_;
  int n_runs_ = 0;
};

TEST_F(AskTogetherSweep, RecordsAreThoseOfCachesAskedOneByOne) {
  expect_the_same(
      "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, questions: 3, documents: 2}]\n"
      "task: [{task: exact_match, max_new_tokens: 40}, {task: turns, max_new_tokens: 5}, string_match, "
      "{task: fidelity, max_new_tokens: 4}]\nqueries: repeat_prefill\ntarget: [0.8, 0.4, 0.2, 0.1]\n"
      "method: [full_cache, no_context, {method: kvzip, budget: [uniform, {budget: adaptive, scope: all, "
      "floor_fraction: 0}]}, {method: am_highest_attention, target: [0.5, 0.25]}]\n",
      {0, 3}, 2 * 4 * (2 + 8 + 2));
}

TEST_F(AskTogetherSweep, SampledAnswersKeepTheirSeeds) {
  expect_the_same(
      fmt::format(
          "sweep: t\nseed: 7\nmodel: tiny.gguf\n"
          "dataset: [{{dataset: jsonl, path: {}}}]\n"
          "task: [{{task: multiple_choice, max_new_tokens: 20, sampling: own, temperature: 1.2, rotations: 2}}]\n"
          "target: [0.5, 0.3, 0.1]\nmethod: [full_cache, streaming_llm]\n",
          choices_file()),
      {0}, 4);
}

TEST_F(AskTogetherSweep, TheDemoModelWritesTheSame) {
  const std::string model = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << model << " is not there";
  options_.load_model = Model::load;
  expect_the_same(
      fmt::format("sweep: t\nseed: 7\nmodel: [{{path: {}, dtype: float32}}]\n"
                  "dataset: [{{dataset: needle, path: {}/datasets/samples/quality_excerpts.jsonl, documents: 1, "
                  "tokens: 250}}]\ntask: exact_match\nqueries: repeat_prefill\ntarget: [0.5, 0.2, 0.05]\n"
                  "method: [{{method: kvzip, budget: {{budget: adaptive, scope: all, floor_fraction: 0}}}}, "
                  "am_highest_attention]\n",
                  model, KVC_SOURCE_DIR),
      {0}, 6);
}

TEST_F(AskTogetherSweep, AFailureStaysWithItsOwnCell) {
  const auto text = [](int64_t refuse) {
    return fmt::format(
        "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [{{dataset: test_notes, documents: 1, questions: 5}}]\n"
        "task: [{{task: test_together, refuse: {}}}]\ntarget: [0.8, 0.6, 0.4, 0.2]\nmethod: [test_keep_first]\n",
        refuse);
  };
  std::vector<int64_t> entries;
  for (const auto& [key, record] : run(text(-1), 0)) entries.push_back(record["answers"][0]["entries"]);
  EXPECT_EQ(TestTogether::batches(), (std::vector<size_t>{4}));
  ASSERT_EQ(entries.size(), 4U);
  const auto records = run(text(entries[1]), 0);
  EXPECT_EQ(summary_.measured, 3);
  EXPECT_EQ(summary_.failed, 1);
  for (const auto& [key, record] : records) {
    if (record["status"] == "done") {
      EXPECT_NE(record["answers"][0]["entries"], entries[1]);
      EXPECT_EQ(record["task_notes"]["asked"], 5);
    } else {
      EXPECT_THAT(record["error"].get<std::string>(), HasSubstr("this cache is refused"));
    }
  }
}

TEST_F(AskTogetherSweep, BatchesAreOfLikeSizeAndNoLargerThanAsked) {
  const std::string text =
      "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 1, questions: 8}]\n"
      "task: test_together\ntarget: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]\nmethod: [test_keep_first]\n";
  run(text, 0);  // 32 rows are four caches of eight questions
  EXPECT_EQ(TestTogether::batches(), (std::vector<size_t>{3, 3}));
  TestTogether::batches().clear();
  run(text, 5);
  EXPECT_EQ(TestTogether::batches(), (std::vector<size_t>{3, 3}));
  TestTogether::batches().clear();
  run(text, 6);
  EXPECT_EQ(TestTogether::batches(), (std::vector<size_t>{6}));
  TestTogether::batches().clear();
  run(text, 1);
  EXPECT_TRUE(TestTogether::batches().empty());
}

TEST_F(AskTogetherSweep, ThePlanIsCalibratedAsTheSweepAsks) {
  SweepConfig config = parse_sweep(ConfigText::from_string(
      "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 1, questions: 2}]\n"
      "task: test_together\ntarget: [0.9, 0.6, 0.4]\nmethod: [test_keep_first]\n",
      "s.yaml"));
  config.results = folder_.file("results-plan");
  PlanOptions options;
  options.quiet = true;
  options.load_model = options_.load_model;
  config.ask_together = 1;
  plan_sweep(config, options);
  EXPECT_TRUE(TestTogether::batches().empty());
  config.ask_together = 3;
  plan_sweep(config, options);
  EXPECT_THAT(TestTogether::batches(), ::testing::Contains(3U));
}

TEST(AskTogetherTest, BatchesAreFewAndOfLikeSize) {
  using Runs = std::vector<std::pair<size_t, size_t>>;
  EXPECT_EQ(batches_of(0, 3), Runs());
  EXPECT_EQ(batches_of(3, 3), (Runs{{0, 3}}));
  EXPECT_EQ(batches_of(4, 3), (Runs{{0, 2}, {2, 4}}));
  EXPECT_EQ(batches_of(7, 3), (Runs{{0, 2}, {2, 4}, {4, 7}}));
}

TEST(AskTogetherTest, HoldsItsBounds) {
  const Model model = tiny_model(1);
  const DecoderSpec& spec = model.spec();
  EXPECT_EQ(AskTogether{}.at_once(model, {6, 40}), 5);
  EXPECT_EQ(AskTogether{}.at_once(model, {0, 0}), 1);    // the task cannot
  EXPECT_EQ(AskTogether{}.at_once(model, {17, 40}), 1);  // two would be more rows than are independent
  EXPECT_EQ(AskTogether{9}.at_once(model, {17, 40}), 9);
  EXPECT_EQ(AskTogether{1}.at_once(model, {6, 40}), 1);
  const int64_t token_bytes = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * 4;
  const int64_t third = AskTogether::kMaxTailBytes / (3 * token_bytes);
  EXPECT_EQ(AskTogether{}.at_once(model, {1, third}), 3);
  EXPECT_EQ(AskTogether{9}.at_once(model, {2, third}), 1);
  const Model half = tiny_model(1, at::kBFloat16);
  EXPECT_EQ(AskTogether{}.at_once(half, {1, 40}), half.decoder().independent_rows());
}

}  // namespace
}  // namespace kvc
