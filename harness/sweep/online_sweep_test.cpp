#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

// A sweep whose task compacts while the model writes, from the file to the records.
class OnlineSweep : public ::testing::Test {
 protected:
  RunSummary run(const std::string& methods) {
    RunOptions options;
    options.quiet = true;
    options.load_model = [this](const ModelConfig&) {
      ++n_loads_;
      return tiny_model(1, at::kFloat, 1024);
    };
    SweepConfig config = parse_sweep(ConfigText::from_string(
        fmt::format(
            "sweep: t\nseed: 7\nmodel: tiny.gguf\n"
            "dataset: [{{dataset: aime, path: {}/datasets/samples/aime_like.jsonl, problems: 2}}]\n"
            "task: [{{task: reasoning, limit: 480, compactions: 1, samples: 2, sampling: own, temperature: 1.0, "
            "answer_tokens: 4}}]\ntarget: [0.5]\nmethod: [{}]\n",
            KVC_SOURCE_DIR, methods),
        "s.yaml"));
    config.results = folder_.file("results");
    return run_sweep(config, options);
  }

  TemporaryFolder folder_;
  int n_loads_ = 0;
};

TEST_F(OnlineSweep, MeasuresEachMethodWhileTheModelWrites) {
  EXPECT_EQ(run("full_cache, random_keys").measured, 4);
  std::vector<std::string> warnings;
  for (const Record& record : load_records(folder_.file("results"), warnings)) {
    ASSERT_EQ(record.status, "done") << record.error;
    const bool compacts = record.cell["method"]["name"] == "random_keys";
    ASSERT_EQ(record.answers.size(), 1U);
    EXPECT_EQ(record.answers[0]["question_id"], record.document_id + "_q");
    EXPECT_TRUE(record.answers[0].contains("gold_answer"));
    ASSERT_EQ(record.answers[0]["samples"].size(), 2U);
    EXPECT_LE(record.sizes["head_len_max"].get<double>(), 480);
    EXPECT_EQ(record.sizes["context_tokens"], record.answers[0]["prompt_tokens"].get<double>());
    for (const Json& sample : record.answers[0]["samples"]) {
      if (sample["stop_reason"] != "limit") continue;
      EXPECT_EQ(sample["compactions"].size(), compacts ? 1U : 0U);
      EXPECT_EQ(sample["next_position"] > 480, compacts);
    }
    EXPECT_EQ(record.sizes["kept_fraction"] == 1.0, record.seconds["compaction_s"] == 0.0);
    EXPECT_EQ(record.seconds["compaction_s"] > 0.0, record.seconds["drift_s"] > 0.0);
    EXPECT_GT(record.seconds["ask_s"].get<double>(), 0.0);
    EXPECT_FALSE(record.seconds.contains("prefill_s"));  // each text reads its own prompt
    EXPECT_TRUE(compacts || record.sizes["kept_fraction"] == 1.0);
  }
  const RunSummary again = run("full_cache, random_keys");
  EXPECT_EQ(again.measured, 0);
  EXPECT_EQ(again.already_done, 4);
}

TEST_F(OnlineSweep, RefusesMethodsOnTheTextBeforeAModelIsLoaded) {
  try {
    run("full_cache, no_context");
    FAIL() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_THAT(e.what(),
                HasSubstr("method 'no_context' works on a text before it is read; task 'reasoning' compacts"));
    EXPECT_THAT(e.what(), HasSubstr("where: s.yaml"));
  }
  EXPECT_EQ(n_loads_, 0);
}

}  // namespace
}  // namespace kvc
