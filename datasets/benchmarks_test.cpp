#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/api/dataset.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<Document> load(const std::string& name, const Json& options) {
  return Registry<Dataset>::instance().create(name, options)->load({1, {}});
}

class Benchmarks : public ::testing::Test {
 protected:
  std::string error_of(const std::string& dataset, const std::string& content, Json options = Json::object(),
                       const std::string& file = "file.jsonl") const {
    options["path"] = folder_.write(file, content);
    return kvc::error_of(ErrorKind::kData, [&] { load(dataset, options); });
  }

  TemporaryFolder folder_;
};

TEST_F(Benchmarks, LongBenchGivesEachLineItsScore) {
  const std::vector<Document> documents = load("longbench", {});
  ASSERT_EQ(documents.size(), 7U);  // nine lines, two texts asked twice
  EXPECT_EQ(documents[0].questions.size(), 2U);
  const Question& first = documents[0].questions[0];
  EXPECT_EQ(first.id, "own01");
  EXPECT_EQ(first.gold_answer, "Anna Berg");
  EXPECT_THAT(first.text, AllOf(HasSubstr("unanswerable"), HasSubstr("Question: Who bought the mill?")));
  EXPECT_EQ(first.extra.at("score_rule"), "f1");
  EXPECT_EQ(first.extra.at("references"), (Json{"Anna Berg", "a widow"}));
  EXPECT_EQ(first.extra.at("max_new_tokens"), 128);
  const auto extra_of = [&](const std::string& subset) {
    for (const Document& document : documents) {
      for (const Question& question : document.questions) {
        if (question.extra.at("subset") == subset) return question.extra;
      }
    }
    return Json();
  };
  EXPECT_EQ(extra_of("trec").at("classes").size(), 3U);
  EXPECT_EQ(extra_of("trec").at("first_line"), true);
  EXPECT_EQ(extra_of("lcc").at("score_rule"), "code_edit");
  EXPECT_EQ(extra_of("lcc").at("references"),
            Json{"        return sum(price for _, price in self.items)"});  // indentation counts, as published
  EXPECT_EQ(extra_of("multi_news").at("max_new_tokens"), 512);
  EXPECT_EQ(load("longbench", {{"lines", 2}}).size(), 1U);
}

TEST_F(Benchmarks, LongBenchExplainsBrokenFiles) {
  const auto with = [&](const std::string& fields) {
    return error_of("longbench", R"({"context":"c","input":"i","_id":"x",)" + fields + "}");
  };
  EXPECT_EQ(with(R"("answers":["a"],"dataset":"hotpotqa_e")"), "no error");
  EXPECT_THAT(with(R"("answers":["a"],"dataset":"hotpot")"),
              AllOf(HasSubstr("'hotpot' is none of LongBench's data sets"), HasSubstr("hotpotqa")));
  for (const std::string subset : {"multifieldqa_zh", "dureader", "vcsum"}) {
    EXPECT_THAT(with(R"("answers":["a"],"dataset":")" + subset + "\""),
                AllOf(HasSubstr("'" + subset + "' is not supported"), HasSubstr("jieba")));
  }
  EXPECT_THAT(with(R"("answers":[],"dataset":"qasper")"), HasSubstr("'answers' is an empty list"));
  EXPECT_THAT(with(R"("dataset":"qasper")"), HasSubstr("'answers' is missing"));
  EXPECT_THAT(
      with(R"("answers":[null,3],"dataset":"qasper")"),
      AllOf(HasSubstr("'answers[0]' must be text or a number; got null"), HasSubstr("file.jsonl:1, answers[0]")));
  EXPECT_THAT(with(R"("answers":["a"],"all_classes":null,"dataset":"trec")"),
              HasSubstr("'all_classes' must be text or a number; got null"));
  EXPECT_THAT(with(R"("answers":["a"],"all_classes":["a","b","a"],"dataset":"trec")"),
              HasSubstr("1 of the 3 classes are there twice"));
  EXPECT_THAT(with(R"("answers":[1e999],"dataset":"qasper")"), HasSubstr("the line has a number that is too large"));
  EXPECT_THAT(with(R"("answers":["a"],"dataset":"trec")"), HasSubstr("'all_classes' is missing"));
  EXPECT_THAT(error_of("longbench", "[1]"), HasSubstr("the line must be a JSON object"));
}

// Rows that no reply could answer rightly are refused where they stand.
TEST_F(Benchmarks, RowsThatCanNeverBeRightAreRefused) {
  const auto longbench = [&](const std::string& fields) {
    return error_of("longbench", R"({"context":"c","_id":"x",)" + fields + "}");
  };
  for (const std::string input : {R"("input":"",)", R"("input":null,)", R"("input":"  ",)", ""}) {
    EXPECT_THAT(longbench(input + R"("answers":["a"],"dataset":"hotpotqa")"),
                AllOf(HasSubstr("file.jsonl:1, input"), HasSubstr("hotpotqa asks about it")));
    for (const std::string whole : {"gov_report", "multi_news", "lcc"})
      EXPECT_EQ(longbench(input + R"("answers":["a"],"dataset":")" + whole + "\""), "no error");
  }
  EXPECT_EQ(longbench(R"("answers":["3"],"dataset":"passage_count")"), "no error");
  EXPECT_THAT(longbench(R"("answers":["three"],"dataset":"passage_count")"),
              HasSubstr("must be a number; got 'three'"));
  EXPECT_THAT(longbench(R"("input":"i","answers":["one"],"dataset":"passage_retrieval_en")"),
              HasSubstr("must hold a number; got 'one'"));
  EXPECT_EQ(longbench(R"("input":"i","answers":["Paragraph 3"],"dataset":"passage_retrieval_en")"), "no error");
  EXPECT_THAT(longbench(R"("input":"i","answers":["Food"],"all_classes":["Date","City"],"dataset":"trec")"),
              AllOf(HasSubstr("file.jsonl:1, answers"), HasSubstr("the class 'Food' is not in 'all_classes'")));
  EXPECT_EQ(longbench(R"("input":"i","answers":["City"],"all_classes":["Date","City"],"dataset":"trec")"), "no error");

  const auto infinite = [&](const std::string& subset, const std::string& answer, const std::string& input = "i") {
    return error_of("infinitebench", R"({"context":"c","input":")" + input + R"(","answer":)" + answer + "}",
                    {{"subset", subset}});
  };
  EXPECT_THAT(infinite("longbook_qa_eng", "\"a\"", ""), HasSubstr("'input' is missing or empty"));
  EXPECT_EQ(infinite("longbook_sum_eng", "\"a\"", ""), "no error");
  EXPECT_THAT(infinite("passkey", "\"none\""), HasSubstr("the answer of passkey must be a whole number; got 'none'"));
  EXPECT_THAT(infinite("code_run", "\"1.5\""), HasSubstr("must be a whole number"));
  EXPECT_EQ(infinite("code_run", "-9"), "no error");
  EXPECT_EQ(infinite("math_find", "2.5"), "no error");
  EXPECT_THAT(infinite("math_find", "\"many\""), HasSubstr("must be a number"));
  EXPECT_THAT(infinite("math_calc", "[1, \"x\"]"), HasSubstr("must be a number; got 'x'"));
  EXPECT_THAT(infinite("math_calc", "99999999999999999999999"),
              AllOf(HasSubstr("more digits than JSON numbers keep"), HasSubstr("in quotes")));
  EXPECT_EQ(infinite("math_calc", "\"99999999999999999999999\""), "no error");
  const std::string same = R"({"id":3,"context":"c","input":"i","answer":"a"})";
  EXPECT_THAT(error_of("infinitebench", same + "\n" + same, {{"subset", "longbook_qa_eng"}}),
              HasSubstr("duplicate question id '3', first in line 1"));

  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":[{"Q":"<mask-0> sat","A":{"<mask-0>":""}}]})"),
              HasSubstr("the text for '<mask-0>' must be a string"));
  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":[{"Q":"<mask-0> met <mask-1>","A":{"<mask-0>":"Bob"}}]})"),
              HasSubstr("'<mask-1>' is in the text of 'Q' and has no name in 'A'"));
  EXPECT_EQ(error_of("loogle", R"({"input":"t","qa_pairs":[{"Q":"<mask-0> met <mask-0>","A":{"<mask-0>":"Bob"}}]})"),
            "no error");
  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":[{"Q":" ","A":"a"}]})"), HasSubstr("'Q' is empty"));
  EXPECT_THAT(error_of("math500", R"({"problem":"p","answer":"\\frac{1"})"), HasSubstr("do not match"));
  EXPECT_EQ(error_of("math500", R"({"problem":"p","answer":"\\{1,2\\}"})"), "no error");
  EXPECT_THAT(error_of("gsm8k", R"({"question":"","answer":"#### 3"})"), HasSubstr("'question' is empty"));
  EXPECT_THAT(error_of("gsm8k", R"({"question":"q","answer":"three"})"), HasSubstr("must end in"));
}

// The first of several answers is shown; all of them count.
TEST_F(Benchmarks, SeveralAnswersAreKept) {
  const Question question = load("longbench", {}).at(0).questions.at(0);
  EXPECT_EQ(question.other_answers, std::vector<std::string>{"a widow"});
  const auto own = [&](const std::string& answer) {
    const std::string line = R"({"context":"c","questions":[{"question":"q","answer":)" + answer + "}]}";
    return load("jsonl", {{"path", folder_.write("own.jsonl", line)}}).at(0).questions.at(0);
  };
  const Question several = own(R"(["NYC", " New York ", "NYC", "the Big Apple"])");
  EXPECT_EQ(several.gold_answer, "NYC");
  EXPECT_EQ(several.other_answers, (std::vector<std::string>{"New York", "the Big Apple"}));
  EXPECT_TRUE(own("\"NYC\"").other_answers.empty());
  EXPECT_THAT(error_of("jsonl", R"({"context":"c","questions":[{"question":"q","answer":[]}]})"),
              AllOf(HasSubstr("file.jsonl:1, questions[0].answer"), HasSubstr("empty list")));
  EXPECT_THAT(error_of("jsonl", R"({"context":"c","questions":[{"question":"q","answer":["a", 3]}]})"),
              AllOf(HasSubstr("questions[0].answer[1]"), HasSubstr("must be text; got 3")));
}

TEST_F(Benchmarks, LongBenchV2IsMultipleChoice) {
  const std::vector<Document> documents = load("longbench_v2", {});
  ASSERT_EQ(documents.size(), 2U);
  const Question& question = documents[0].questions.at(1);
  EXPECT_EQ(question.options.size(), 4U);
  EXPECT_EQ(question.options.at(static_cast<size_t>(question.gold_option.value())), "Ice in the river");
  EXPECT_EQ(question.extra, (Json{{"difficulty", "hard"}, {"length", "short"}, {"domain", "Single-Document QA"}}));
  EXPECT_EQ(load("longbench_v2", {{"difficulties", {"hard"}}}).at(0).questions.size(), 1U);
  EXPECT_EQ(load("longbench_v2", {{"questions", 1}}).at(0).questions.size(), 1U);
}

TEST_F(Benchmarks, LongBenchV2ReadsTheListToo) {
  const std::string question =
      R"({"_id":"1","question":"q","choice_A":"a","choice_B":"b","choice_C":"c","choice_D":"d","answer":"B","context":"t"})";
  EXPECT_EQ(load("longbench_v2", {{"path", folder_.write("data.json", "[" + question + "]")}}).size(), 1U);
  EXPECT_THAT(error_of("longbench_v2", "[" + question + "," + question + "]"), HasSubstr("duplicate question id '1'"));
  EXPECT_THAT(error_of("longbench_v2", "[" + question), HasSubstr("the file is not valid JSON"));
  EXPECT_THAT(error_of("longbench_v2", "[7]"), HasSubstr("question 1 of the list must be an object"));
  std::string wrong = question;
  wrong.replace(wrong.find("\"B\""), 3, "\"E\"");
  EXPECT_THAT(error_of("longbench_v2", wrong), HasSubstr("'answer' must be A, B, C or D; got 'E'"));
  EXPECT_THAT(error_of("longbench_v2", question, {{"lengths", {"long"}}}), HasSubstr("nothing with 'long'"));
  // What is misspelt is named; a file of another form is one problem, not eight.
  std::string hard = question;
  hard.insert(1, R"("difficulty":"hard",)");
  EXPECT_THAT(
      error_of("longbench_v2", hard, {{"difficulties", {"hard", "hrad"}}}),
      AllOf(HasSubstr("the file has nothing with 'hrad'"), HasSubstr("option 'difficulties'"), HasSubstr("'hard'")));
  EXPECT_EQ(error_of("longbench_v2", hard, {{"difficulties", {"hard"}}}), "no error");
  EXPECT_THAT(error_of("longbench_v2", "[]"), HasSubstr("the list of questions is empty"));
  const std::string other = error_of("longbench_v2", R"({"data":[1]})");
  EXPECT_THAT(other, AllOf(HasSubstr("the fields 'question', 'choice_A' and 'context' are missing"),
                           Not(HasSubstr("problems"))));
  std::string equal = question;
  equal.replace(equal.find("\"c\""), 3, "\"b\"");
  EXPECT_THAT(error_of("longbench_v2", equal),
              AllOf(HasSubstr("another choice is the same as the right one"), HasSubstr("choice_B")));
}

TEST_F(Benchmarks, InfiniteBenchIsKnownByTheFilesName) {
  const auto only = [&](const std::string& file, const std::string& line) {
    return load("infinitebench", {{"path", folder_.write(file + ".jsonl", line)}}).at(0).questions.at(0);
  };
  const Question passkey = only("passkey", R"({"context":"c","input":"What is the pass key?","answer":"71432"})");
  EXPECT_EQ(passkey.answer_prefix, "The pass key is");
  EXPECT_EQ(passkey.extra.at("score_rule"), "first_integer");
  EXPECT_EQ(passkey.extra.at("max_new_tokens"), 6);
  const Question run =
      only("code_run",
           R"({"context":"c","input":"Please give me the return value of func_3(-5). Be concise.","answer":-9})");
  EXPECT_THAT(run.text, HasSubstr("what func_3(-5) returns"));
  EXPECT_EQ(run.gold_answer, "-9");
  const Question calc = only("math_calc", R"({"context":"1 + 3 + 4","input":"","answer":[1,4,8]})");
  EXPECT_EQ(calc.extra.at("references"), Json{"1, 4, 8"});
  const Question choice =
      only("longbook_choice_eng", R"({"context":"c","input":"Who?","answer":["Bo"],"options":["Al","Bo","Cy","Di"]})");
  EXPECT_EQ(choice.gold_option, 1);
  EXPECT_EQ(only("longbook_qa_chn", R"({"context":"c","input":"谁？","answer":["安娜"]})").extra.at("score_rule"),
            "f1_characters");
  EXPECT_EQ(load("infinitebench", {}).at(0).questions.size(), 2U);  // one book, asked twice
}

TEST_F(Benchmarks, InfiniteBenchExplainsBrokenFiles) {
  const std::string line = R"({"context":"c","input":"i","answer":"a"})";
  EXPECT_THAT(error_of("infinitebench", line), AllOf(HasSubstr("'file' is none of InfiniteBench's tasks"),
                                                     HasSubstr("name the file's task as `subset`")));
  EXPECT_EQ(error_of("infinitebench", line, {{"subset", "kv_retrieval"}}), "no error");
  EXPECT_THAT(error_of("infinitebench", R"({"context":"c","answer":"a"})", {{"subset", "passkey"}}),
              HasSubstr("'input' is missing"));
  EXPECT_THAT(error_of("infinitebench", R"({"context":"c","input":"i","answer":"z","options":["a","b","c","d"]})",
                       {{"subset", "code_debug"}}),
              HasSubstr("the answer 'z' is none of the options"));
}

TEST_F(Benchmarks, LoogleReadsListsBlanksAndSummaries) {
  const std::vector<Document> documents = load("loogle", {});
  ASSERT_EQ(documents.size(), 3U);
  EXPECT_EQ(documents[0].questions.at(0).extra.at("subset"), "shortdep_qa");  // a list that Python wrote
  EXPECT_EQ(documents[0].questions.at(0).gold_answer, "Anna Berg, the mill's owner, had it mended.");
  EXPECT_EQ(documents[1].questions.at(0).extra.at("type"), "Multiple information retrieval");
  EXPECT_EQ(documents[1].questions.at(1).extra.at("score_rule"), "cloze");
  EXPECT_EQ(Json::parse(documents[1].questions.at(1).gold_answer).at("<mask-1>"), "Lund");
  EXPECT_EQ(documents[2].questions.at(0).extra.at("subset"), "summarization");
  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":"[{'Q': 'q'"})"), HasSubstr("'qa_pairs' must be a list"));
  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":[{"Q":"q"}]})"), HasSubstr("'A' is missing"));
  EXPECT_THAT(error_of("loogle", R"({"input":"t","qa_pairs":[]})"), HasSubstr("'qa_pairs' must be a list"));
}

}  // namespace
}  // namespace kvc
