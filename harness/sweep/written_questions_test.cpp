#include "harness/sweep/written_questions.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "harness/api/read_document.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::vector<Question> wanted(int n) {
  std::vector<Question> questions;
  for (int i = 0; i < n; ++i) {
    Question question;
    question.id = fmt::format("q{}", i);
    question.text = "Write one question.";
    question.written_by_model = true;
    questions.push_back(question);
  }
  return questions;
}

std::vector<std::string> texts(const std::vector<Question>& questions) {
  std::vector<std::string> list;
  for (const Question& question : questions) list.push_back(question.text);
  return list;
}

class Kept final : public KeptAnswers {
 public:
  std::optional<Json> find(const Json& asked) override {
    const auto place = answers_.find(canonical_json(asked));
    return place == answers_.end() ? std::nullopt : std::optional(place->second);
  }
  void keep(const Json& asked, const Json& answer) override { answers_[canonical_json(asked)] = answer; }
  std::map<std::string, Json> answers_;
};

class WrittenQuestions : public ::testing::Test {
 protected:
  std::vector<Question> write(std::vector<Question> questions, std::uint64_t seed, KeptAnswers* kept = nullptr) const {
    const c10::InferenceMode inference;
    const Context context = make_context(model_, "a small text about a mill and its owner");
    const KvCache cache = model_.decoder().prefill(context.tokens);
    return write_questions(model_, cache, std::move(questions), seed, kept);
  }
  Model model_ = tiny_model(1, at::kFloat, 1024);
};

TEST_F(WrittenQuestions, AreTheModelsOwnAndDifferFromEachOther) {
  const std::vector<Question> made = write(wanted(3), 7);
  ASSERT_FALSE(made.empty());
  std::set<std::string> seen;
  for (const Question& question : made) {
    EXPECT_NE(question.text, "Write one question.");
    EXPECT_FALSE(question.text.empty());
    EXPECT_TRUE(seen.insert(question.text).second) << question.text;
    EXPECT_NO_THROW(Json(question.text).dump()) << "must be UTF-8";
  }
  EXPECT_EQ(texts(write(wanted(3), 7)), texts(made));
  EXPECT_NE(texts(write(wanted(3), 8)), texts(made));
}

TEST_F(WrittenQuestions, OthersStayAsTheyAre) {
  std::vector<Question> mixed = wanted(1);
  mixed.push_back({.id = "own", .text = "Who?", .gold_answer = "me"});
  const std::vector<Question> made = write(mixed, 7);
  EXPECT_EQ(made.back().text, "Who?");
  EXPECT_EQ(texts(write({mixed.back()}, 7)), std::vector<std::string>{"Who?"});
}

TEST_F(WrittenQuestions, AreKeptForLaterRuns) {
  Kept kept;
  const std::vector<Question> made = write(wanted(2), 7, &kept);
  ASSERT_EQ(kept.answers_.size(), 1);
  kept.answers_.begin()->second = {{"texts", {"kept one", ""}}};
  EXPECT_EQ(texts(write(wanted(2), 7, &kept)), std::vector<std::string>{"kept one"});  // an empty one is left out
  kept.answers_.begin()->second = {{"texts", {1, 2}}};                                 // damaged: written anew
  EXPECT_EQ(texts(write(wanted(2), 7, &kept)), texts(made));
  write(wanted(2), 8, &kept);
  EXPECT_EQ(kept.answers_.size(), 2);
}

// A folder without questions, from the sweep file to the records.
TEST(FolderSweep, RecordsMarkWhatTheModelWrote) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.file("texts"));
  std::ofstream(folder.file("texts/a.txt")) << "The mill was sold to a baker.\n";
  SweepConfig config = parse_sweep(
      ConfigText::from_string(fmt::format("sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: {{dataset: jsonl, path: {}}}\n"
                                          "task: [{{task: fidelity, max_new_tokens: 4}}, exact_match]\ntarget: [0.5]\n"
                                          "method: [full_cache, streaming_llm]\n",
                                          folder.file("texts/")),
                              "s.yaml"));
  EXPECT_EQ(config.datasets.front().at("path"), folder.file("texts/"));
  config.results = folder.file("results");
  RunOptions options;
  options.quiet = true;
  options.load_model = [](const ModelConfig&) { return tiny_model(1, at::kFloat, 1024); };
  const RunSummary summary = run_sweep(config, options);
  EXPECT_EQ(summary.failed, 0);
  EXPECT_EQ(summary.measured, 2);  // exact_match has nothing to ask
  std::vector<std::string> warnings;
  std::set<std::string> prompts;
  for (const Record& record : load_records(config.results, warnings)) {
    ASSERT_FALSE(record.answers.empty());
    for (const Json& answer : record.answers) {
      EXPECT_EQ(answer.at("extra"), Json({{"written_by", "model"}}));
      EXPECT_THAT(answer.at("prompt").get<std::string>(), ::testing::Not(HasSubstr("Write one question")));
      prompts.insert(answer.at("question_id").get<std::string>() + answer.at("prompt").get<std::string>());
    }
  }
  EXPECT_LE(prompts.size(), 3);  // every method is asked the same
  EXPECT_EQ(run_sweep(config, options).measured, 0);
}

}  // namespace
}  // namespace kvc
