#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/report/metric.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json sample(const std::string& text, const std::string& stop_reason, int64_t n_compactions) {
  Json steps = Json::array();
  for (int64_t i = 0; i < n_compactions; ++i) steps.push_back(Json::object());
  return {{"text", text},
          {"stop_reason", stop_reason},
          {"forced", stop_reason == "limit"},
          {"thought_tokens", 100},
          {"compactions", std::move(steps)}};
}

Record record_of(Json samples) {
  Record record;
  record.cell_id = "c";
  record.document_id = "aime_1";
  record.cell = Json{{"task", {{"name", "reasoning"}}}};
  record.answers = {
      Json{{"question_id", "aime_1_q"}, {"gold_answer", "33"}, {"samples", std::move(samples)}, {"limit", 256}}};
  return record;
}

constexpr const char* kForced = "so\nI need to respond with the answer.\n</think>Final Answer: ";

TEST(ReasoningMetrics, AreMeansOverTheSamples) {
  const auto values = question_values(record_of({sample("It is 33.", "end", 0), sample("It is 34.", "end", 0),
                                                 sample(std::string(kForced) + "033, I think 5", "limit", 3),
                                                 sample(std::string(kForced) + "none", "limit", 3)}));
  ASSERT_EQ(values.size(), 1U);
  EXPECT_EQ(values[0].question_id, "aime_1_q");
  // accuracy, parse_rate, length_limit_rate, compactions, thought_tokens
  EXPECT_THAT(values[0].values, ElementsAre(0.5, 0.75, 0.5, 1.5, 100.0));
  EXPECT_EQ(metrics_of_task("reasoning").size(), values[0].values.size());
  EXPECT_EQ(metrics_of_task("reasoning").front().name, "accuracy");
}

TEST(ReasoningMetrics, MathematicalAnswersAreComparedByValue) {
  Record record = record_of({sample("So \\boxed{\\frac{1}{2}}.", "end", 0), sample("The answer is 0.5.", "end", 0),
                             sample("It is 1/3.", "end", 0), sample("", "end", 0)});
  record.answers[0]["gold_answer"] = "\\dfrac12";
  record.answers[0]["answer_form"] = "math";
  const auto values = question_values(record);
  EXPECT_THAT(std::vector(values.at(0).values.begin(), values.at(0).values.begin() + 2), ElementsAre(0.5, 0.75));
  record.answers[0]["answer_form"] = "rhyme";
  EXPECT_THROW(question_values(record), Error);
}

TEST(ReasoningMetrics, NameTheFieldThatIsWrong) {
  const auto refusal = [](const Record& record) { return error_of([&] { question_values(record); }); };
  EXPECT_THAT(refusal(record_of(Json::array())), HasSubstr("field 'samples' of answer 0"));
  Json broken = sample("33", "end", 0);
  broken.erase("compactions");
  EXPECT_THAT(refusal(record_of({broken})), HasSubstr("field 'compactions' of answer 0 is missing"));
  broken["compactions"] = 3;
  EXPECT_THAT(refusal(record_of({broken})), HasSubstr("field 'compactions' of answer 0 must be a list"));
  Record record = record_of({sample("33", "end", 0)});
  record.answers[0]["gold_answer"] = "four";
  EXPECT_THAT(refusal(record), HasSubstr("field 'gold_answer' of answer 0 must be an integer from 0 to 999"));
}

}  // namespace
}  // namespace kvc
