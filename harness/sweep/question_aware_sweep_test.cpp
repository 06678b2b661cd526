#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

// A sweep whose caches are made knowing the question, from the file to the records.
class QuestionAwareSweep : public ::testing::Test {
 protected:
  std::vector<Record> run(int64_t questions, const std::string& target = "0.3") {
    const std::string name = fmt::format("results-{}-{}", questions, target);
    RunOptions options;
    options.quiet = true;
    options.skip_proof = true;
    options.load_model = [](const ModelConfig&) { return tiny_model(1, at::kFloat, 1024); };
    SweepConfig config = parse_sweep(
        ConfigText::from_string(fmt::format("sweep: t\nseed: 7\nmodel: tiny.gguf\n"
                                            "dataset: [{{dataset: test_notes, questions: {}}}]\n"
                                            "task: [{{task: exact_match, max_new_tokens: 12}}, fidelity]\n"
                                            "target: [\"{}\"]\n"
                                            "method: [{{method: h2o, queries: [question, context_prefill]}}]\n",
                                            questions, target),
                                "s.yaml"));
    config.results = folder_.file(name);
    std::ofstream(folder_.file("tiny.gguf")) << "weights";
    for (SweepModel& model : config.models) model.config.path = folder_.file(model.config.path);
    const RunSummary summary = run_sweep(config, options);
    EXPECT_EQ(summary.failed, 0);
    std::vector<std::string> warnings;
    return load_records(folder_.file(name), warnings);
  }

  TemporaryFolder folder_;
};

bool knew(const Record& record) {
  return record.cell["queries"]["name"] == "question";
}

// A question's answer is that of its own cache: it does not depend on what else is asked of the document.
TEST_F(QuestionAwareSweep, EveryQuestionHasACacheOfItsOwn) {
  std::map<std::string, Json> alone;
  for (const Record& record : run(1)) {
    if (knew(record)) alone[record.document_id + record.cell["task"].dump()] = record.answers.at(0);
  }
  ASSERT_EQ(alone.size(), 4U);
  int n_seen = 0;
  for (const Record& record : run(3)) {
    ASSERT_EQ(record.status, "done") << record.error;
    ASSERT_EQ(record.answers.size(), 3U);
    EXPECT_EQ(record.notes.contains("question_aware"), knew(record));
    EXPECT_NEAR(record.sizes["kept_fraction"].get<double>(), 0.3, 0.01);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(record.answers[i]["question_id"], fmt::format("{}/q{}", record.document_id, i));
    }
    if (!knew(record)) continue;
    EXPECT_EQ(record.answers[0], alone.at(record.document_id + record.cell["task"].dump()));
    EXPECT_GT(record.seconds["compaction_s"].get<double>(), 0.0);
    ++n_seen;
  }
  EXPECT_EQ(n_seen, 4);
}

// A template of 95 tokens and 60 letters, at 2 layers of 2 heads of 16 numbers: an entry takes 128 bytes.
TEST_F(QuestionAwareSweep, TargetsInBytesAreMetToOneEntry) {
  for (const Record& record : run(2, "64 KiB")) {
    ASSERT_EQ(record.status, "done") << record.error;
    EXPECT_EQ(record.cell["target"], "64 KiB");
    EXPECT_LE(record.sizes["bytes_after"].get<double>(), 64 * 1024);
    EXPECT_GT(record.sizes["bytes_after"].get<double>(), 64 * 1024 - 128);
  }
}

}  // namespace
}  // namespace kvc
