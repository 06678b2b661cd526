#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "harness/api/dataset.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::vector<Document> load(const std::string& name, const Json& options, std::uint64_t seed = 1) {
  return Registry<Dataset>::instance().create(name, options)->load({seed, {}});
}

// What load() says about a file of this content.
std::string error_of(const std::string& name, const std::string& content) {
  const TemporaryFolder folder;
  return kvc::error_of(ErrorKind::kData, [&] { load(name, {{"path", folder.write("file", content)}}); });
}

TEST(LongHealth, ReadsTheRealPatients) {
  const std::vector<Document> documents = load("longhealth", {});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].id, "patient_01");
  EXPECT_EQ(documents[1].id, "patient_03");
  EXPECT_EQ(documents[0].questions.size(), 20u);
  EXPECT_EQ(documents[1].questions.size(), 20u);
  EXPECT_EQ(occurrences(documents[0].text, "\n</text_"), 2u);
  EXPECT_EQ(occurrences(documents[1].text, "\n</text_"), 10u);
  EXPECT_EQ(documents[0].text.substr(0, 9), "<text_0>\n");
  const Question& first = documents[0].questions[0];
  EXPECT_EQ(first.id, "patient_01_q0");
  EXPECT_EQ(first.options.size(), 5u);
  EXPECT_EQ(first.options.at(static_cast<size_t>(first.gold_option.value())), "Vincristine");
}

TEST(LongHealth, SeveralPatientsAreNamedInQuestionsAndMarkedInTheText) {
  const std::vector<Document> documents = load("longhealth", {{"patients_per_context", 5}});
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].id, "patient_01_to_patient_03");
  EXPECT_EQ(documents[0].questions.size(), 40u);
  EXPECT_EQ(occurrences(documents[0].text, "<text_0>\n"), 2u);  // one for each patient
  EXPECT_THAT(documents[0].questions[0].text,
              ::testing::StartsWith("Please answer the question below about the following patient: ID patient_01, "
                                    "Name: Anna Sample, Birthday: 1970-01-01 00:00:00, Diagnosis: DLBCL\n\nWhich of "));
}

TEST(LongHealth, AsksAboutAbsentPatients) {
  const std::vector<Document> documents = load("longhealth", {{"absent", true}, {"max_questions", 3}});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_THAT(documents[0].text, HasSubstr("Anna Sample"));
  ASSERT_EQ(documents[0].questions.size(), 3u);
  for (const Question& question : documents[0].questions) {
    EXPECT_EQ(question.extra.at("patient"), "patient_03");
    EXPECT_EQ(question.gold_option, 5);
    EXPECT_THAT(question.options.at(5), HasSubstr("cannot be answered"));
    EXPECT_THAT(question.text, HasSubstr("Name: John Williams"));
  }
  EXPECT_THROW(load("longhealth", {{"absent", true}, {"patients_per_context", 2}}), Error);
}

// Its control names the patient too: the name must not tell which questions cannot be answered.
TEST(LongHealth, TheControlOfAbsentNamesThePatientToo) {
  const auto documents = load("longhealth", {{"unanswerable_option", true}, {"max_questions", 1}});
  EXPECT_THAT(documents.at(0).questions.at(0).text, HasSubstr("Name: Anna Sample"));
  const auto plain = load("longhealth", {{"max_questions", 1}});
  EXPECT_THAT(plain.at(0).questions.at(0).text, ::testing::Not(HasSubstr("Name: Anna Sample")));
}

TEST(LongHealth, TakesWholeNotesAndShufflesThemWithTheSeed) {
  const Json some = {{"patients", Json::array({"patient_03"})}, {"notes", 4}};
  Json shuffled = some;
  shuffled["shuffle"] = true;
  const std::string text = load("longhealth", some)[0].text;
  EXPECT_EQ(occurrences(text, "\n</text_"), 4u);
  std::set<std::string> orders;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const std::string other = load("longhealth", shuffled, seed)[0].text;
    EXPECT_EQ(other.size(), text.size());
    EXPECT_EQ(other.substr(0, 9), "<text_0>\n");
    EXPECT_EQ(other, load("longhealth", shuffled, seed)[0].text);
    orders.insert(other);
  }
  EXPECT_GT(orders.size(), 3u);
}

TEST(LongHealth, ExplainsBrokenFiles) {
  const std::string questions =
      R"("questions":[{"question":"q","answer_a":"a","answer_b":"b","answer_c":"c","answer_d":"d","answer_e":"e",)";
  const std::string head = R"({"p1":{"name":"n","birthday":"b","diagnosis":"d",)";
  const std::string texts = R"("texts":{"text_0":"t"},)";
  EXPECT_EQ(error_of("longhealth", head + texts + questions + R"("correct":"a "}]}})"), "no error");
  EXPECT_THAT(error_of("longhealth", head + texts + questions + R"("correct":"x"}]}})"),
              HasSubstr("the gold answer must be one of the five options; got 'x'\n  where: "));
  EXPECT_THAT(error_of("longhealth", head + texts + questions + R"("correct":"x"}]}})"),
              HasSubstr(", p1.questions[0].correct\n  mend:  "));
  EXPECT_THAT(error_of("longhealth", head + questions + R"("correct":"a"}]}})"), HasSubstr("'texts' is missing"));
  EXPECT_THAT(error_of("longhealth", head + R"("texts":{"text_0":7},)" + questions + R"("correct":"a"}]}})"),
              HasSubstr("'text_0' must be text; got 7"));
  EXPECT_THAT(error_of("longhealth", head + texts + texts + questions + R"("correct":"a"}]}})"),
              HasSubstr("duplicate key 'texts'"));
  EXPECT_THAT(error_of("longhealth", R"({"p1":7})"), HasSubstr("patient 'p1' must be an object; got 7"));
  EXPECT_THAT(error_of("longhealth", "[]"), HasSubstr("the file has no patients"));
  EXPECT_THAT(error_of("longhealth", "{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("longhealth", std::string(100000, '[')), HasSubstr("not valid JSON"));
}

TEST(Jsonl, ReadsTheDocumentedSchema) {
  const std::vector<Document> documents = load("jsonl", {});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].questions.at(0).gold_option, 1);
  EXPECT_EQ(documents[0].questions.at(1).gold_option, 0);
  EXPECT_EQ(documents[1].id, "line_2");
  EXPECT_EQ(documents[1].questions.at(0).id, "line_2_1");
  EXPECT_EQ(documents[1].questions.at(0).gold_answer, "nine");
  EXPECT_EQ(documents[1].questions.at(0).answer_prefix, "It closes at");
}

TEST(Jsonl, ExplainsBrokenFiles) {
  const auto with = [](const std::string& question) {
    return error_of("jsonl", R"({"id":"d","context":"c","questions":[{"question":"q",)" + question + "}]}");
  };
  EXPECT_EQ(with(R"("answer":"a")"), "no error");
  EXPECT_THAT(with(R"("options":["a","b"],"gold":3)"), HasSubstr("gold 3 of 2 options"));
  EXPECT_THAT(with(R"("options":["a","b"],"gold":18446744073709551615)"), HasSubstr("of 2 options"));
  EXPECT_THAT(with(R"("options":["a","b"],"gold":0)"), HasSubstr("gold 0 of 2 options"));
  EXPECT_THAT(with(R"("options":["a","b"],"gold":"c")"), HasSubstr("gold must be one of the options; got \"c\""));
  EXPECT_THAT(with(R"("options":["a","a"],"gold":1)"), HasSubstr("duplicate option 'a'"));
  EXPECT_THAT(with(R"("options":["a","b"],"answer":"a")"), HasSubstr("has a free answer too"));
  EXPECT_THAT(with(R"("gold":1)"), HasSubstr("'gold' needs options"));
  EXPECT_THAT(with(R"("answer":"a","extra":3)"), HasSubstr("'extra' must be an object; got 3"));
  EXPECT_THAT(with(R"("other":1)"), HasSubstr(":1, questions[0].answer\n"));
  const std::string line = R"({"id":"d","context":"c","questions":[{"id":"q","question":"q","answer":"a"}]})";
  EXPECT_THAT(error_of("jsonl", line + "\n" + line), HasSubstr("duplicate document id 'd', first in line 1"));
  EXPECT_THAT(error_of("jsonl", line + "\n" + line), HasSubstr("duplicate question id 'q', first in line 1"));
  EXPECT_THAT(error_of("jsonl", R"({"context":" ","questions":[]})"), HasSubstr("'context' is empty"));
  EXPECT_THAT(error_of("jsonl", R"({"context":"c","context":"d","questions":[{"question":"q","answer":"a"}]})"),
              HasSubstr("duplicate key 'context'"));
  EXPECT_THAT(error_of("jsonl", "{\"context\":\"caf\xE9 noir\",\"questions\":[]}"),
              HasSubstr("not UTF-8: byte 0xe9 at offset 15; it seems to be Latin-1"));
  EXPECT_THAT(error_of("jsonl", "7"), HasSubstr("the line must be a JSON object"));
  EXPECT_THAT(error_of("jsonl", "\n"), HasSubstr("the file has no line of data"));
}

TEST(Aime, ARepeatedProblemNamesBothLines) {
  const std::string line = R"({"problem":"p","answer":1})";
  EXPECT_THAT(error_of("aime", line + "\n" + line), HasSubstr("duplicate problem 'p', first in line 1"));
  EXPECT_THAT(error_of("aime", line + "\n" + line), HasSubstr("mend:  remove one of the two lines"));
}

TEST(Aime, ReadsPublishedForms) {
  const std::vector<Document> documents = load("aime", {});
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].questions.at(0).gold_answer, "33");  // "033"
  EXPECT_EQ(documents[1].questions.at(0).gold_answer, "0");
  EXPECT_EQ(documents[2].questions.at(0).gold_answer, "999");
  EXPECT_THAT(documents[0].questions.at(0).text, HasSubstr("an integer from 0 to 999"));
  EXPECT_EQ(load("aime", {{"problems", 2}}).size(), 2u);
}

TEST(Aime, ExplainsBrokenFiles) {
  for (const std::string answer : {"1000", "-1", "1.5", "\"336^\\\\circ\"", "\"\"", "null", "18446744073709551615"}) {
    EXPECT_THAT(error_of("aime", "{\"problem\":\"p\",\"answer\":" + answer + "}"),
                HasSubstr("answer must be an integer from 0 to 999; got "));
  }
  EXPECT_THAT(error_of("aime", R"({"problem":"p"})"), HasSubstr("'answer' is missing"));
  EXPECT_THAT(error_of("aime", R"({"answer":1})"), HasSubstr("'question' is missing"));
  const std::string line = R"({"problem":"p","answer":1})";
  EXPECT_THAT(error_of("aime", line + "\n" + line), HasSubstr(":2, problem\n"));
}

}  // namespace
}  // namespace kvc
