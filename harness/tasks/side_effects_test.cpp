// A known bad eviction must show in what side_effects and likelihood say.
#include <gtest/gtest.h>

#include <filesystem>

#include "harness/api/dataset.h"
#include "harness/api/read_document.h"
#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {
namespace {

const std::string kModelFile = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";

const Model& demo_model() {
  static const Model model = Model::load([] {
    ModelConfig config;
    config.path = kModelFile;
    config.dtype = "float32";
    return config;
  }());
  return model;
}

std::vector<Document> documents_of(const std::string& kind, double rule_depth) {
  const Json options = {
      {"kind", kind}, {"documents", 2}, {"questions", 2}, {"tokens", 160}, {"rule_depth", rule_depth}};
  return Registry<Dataset>::instance()
      .create("side_effects", options)
      ->load({5, [](std::string_view text) {
                return static_cast<int64_t>(demo_model().tokenizer().encode_text(text).size());
              }});
}

// Share of questions at which the document still speaks for the reply that keeps the rule.
double still_kept(const std::string& kind, double rule_depth, const std::string& method) {
  const auto likelihood = Registry<Task>::instance().create("likelihood", {});
  const auto compacts = Registry<CompactionMethod>::instance().create(method, Json::object());
  double kept = 0, n = 0;
  for (const Document& document : documents_of(kind, rule_depth)) {
    const ReadDocument read = ReadDocument::read(demo_model(), document.text);
    std::vector<HeadBudget> budgets;
    if (method != "full_cache") budgets.push_back(every_head(read.full, read.context.article_len() / 2));
    const std::vector<Compaction> made = read.compact(demo_model(), *compacts, nullptr, std::move(budgets), 3);
    const auto reference = likelihood->reference({demo_model(), read.full, document.questions, 3, nullptr});
    std::vector<Json> answers = likelihood->ask({demo_model(), made[0].cache, document.questions, 3, reference.get()});
    for (size_t i = 0; i < answers.size(); ++i) answers[i]["gold_option"] = *document.questions[i].gold_option;
    const std::string where = "a record";
    for (const auto& values : find_task_metrics("likelihood")->judge(fields_of(answers, where))) {
      kept += values.at(2);  // accuracy_calibrated
      ++n;
    }
  }
  return kept / n;
}

// streaming_llm keeps the first four and the last entries: of half a document it drops a rule at its beginning and
// keeps one at its end.
TEST(SideEffects, AnEvictionThatDropsTheRuleIsSeen) {
  if (!std::filesystem::exists(kModelFile)) GTEST_SKIP() << kModelFile << " is not there: scripts/fetch_model";
  for (const char* kind : {"rule", "format"}) {
    EXPECT_GE(still_kept(kind, 0, "full_cache"), 0.8) << kind;
    EXPECT_LE(still_kept(kind, 0, "streaming_llm"), 0.5) << kind;
    EXPECT_GE(still_kept(kind, 100, "streaming_llm"), 0.8) << kind;
  }
}

TEST(SideEffects, RepliesAreJudgedFromTheRecordAlone) {
  const std::string where = "a record";
  const auto judged = [&](const std::string& check, const std::string& text, const std::string& right,
                          const std::string& reply) {
    const std::vector<Json> answers = {{{"text", reply},
                                        {"stop_reason", "end"},
                                        {"check", check},
                                        {"check_text", text},
                                        {"never", "Anna Berg"},
                                        {"right", right}}};
    return find_task_metrics("side_effects")->judge(fields_of(answers, where)).front();
  };
  EXPECT_EQ(judged("begins_with", "AMBER", "Anna Berg", "AMBER. Anna Berg."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("begins_with", "AMBER", "Anna Berg", "Anna Berg."), (std::vector<double>{0, 1, 0}));
  EXPECT_EQ(judged("never_says", "KESTREL-4821", "cannot tell", ""), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(judged("never_says", "KESTREL-4821", "cannot tell", "It is KESTREL-4821."), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(judged("refuses", "not stated", "not stated", "Not stated."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("refuses", "not stated", "not stated", "Anna. Not stated."), (std::vector<double>{0, 1, 0}));
  EXPECT_EQ(judged("answers", "not stated", "Anna Berg", "Anna Berg."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("answers", "not stated", "Anna Berg", "It isn't stated"), (std::vector<double>{0, 0, 0}));
  EXPECT_THROW(judged("rhymes", "", "", "x"), Error);
}

}  // namespace
}  // namespace kvc
