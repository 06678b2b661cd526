#include "harness/explain/explanation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/explain/lost_answers.h"
#include "harness/sweep/sweep_plugins_test.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

Explanation sample(const std::string& question, const std::string& cause) {
  Explanation e;
  e.cell_id = "cell";
  e.document_id = "doc";
  e.question_id = question;
  e.answers = "0123";
  e.cause = cause;
  e.sentence = "6 tokens of text, put back, bring the answer back.";
  e.pieces = {{56, 6, 300, 8, " is 2332", "the vineyard", ". her"}};
  e.kept_share = 0.04;
  e.heads = {{18, 2, 0.12, 0.04, -0.35, 0.83}};
  e.tie = {0.05, 8, 8, 3.39, std::nullopt, std::nullopt, false};
  e.assumed = {"something"};
  e.full_reply = "2332";
  e.compact_reply = "a code";
  e.asks = 39;
  e.seconds = 29.5;
  return e;
}

class Explanations : public ::testing::Test {
 protected:
  std::vector<Explanation> load() {
    warnings_.clear();
    return load_explanations(folder_.file("r"), warnings_);
  }
  TemporaryFolder folder_;
  std::vector<std::string> warnings_;
};

TEST_F(Explanations, ReadBackAsWritten) {
  const Explanation written = sample("q", kEvicted);
  append_json_line(explanations_file(folder_.file("r")), written.to_json());
  const auto list = load();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].to_json(), written.to_json());
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Explanations, TheLastOneOfAQuestionCounts) {
  for (const char* cause : {kEvicted, kUnused})
    append_json_line(explanations_file(folder_.file("r")), sample("q", cause).to_json());
  append_json_line(explanations_file(folder_.file("r")), sample("other", kUnexplained).to_json());
  const auto list = load();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].cause, kUnused);
}

TEST_F(Explanations, BrokenLinesAreNamedAndLeftOut) {
  EXPECT_TRUE(load().empty());
  const std::string path = explanations_file(folder_.file("r"));
  append_json_line(path, sample("q", kEvicted).to_json());
  const auto broken = [&](const char* field, const Json& value) {
    Json json = sample("bad", kEvicted).to_json();
    json[field] = value;
    append_json_line(path, json);
  };
  broken("cause", "magic");
  broken("version", 99);
  broken("pieces", Json::array({{{"first_token", -1}}}));
  broken("tie", nullptr);
  broken("heads", "none");
  append_json_line(path, Json::array());
  std::ofstream(path, std::ios::app) << "{\"version\":1,\"cell";
  EXPECT_EQ(load().size(), 1u);
  ASSERT_EQ(warnings_.size(), 7u);
  EXPECT_THAT(warnings_[0], HasSubstr("explanation 2: unknown cause 'magic'; left out"));
  EXPECT_THAT(warnings_[1], HasSubstr("version 99, but this program reads version 1"));
  EXPECT_THAT(warnings_[2], HasSubstr("field 'first_token' must be a whole number from 0"));
}

Record record(const std::string& method, const Json& target, const std::vector<bool>& right,
              const std::string& document = "doc") {
  Record record;
  record.cell = {{"model", {{"name", "m"}}},
                 {"dataset", {{"name", "d"}}},
                 {"task", {{"name", "exact_match"}}},
                 {"queries", nullptr},
                 {"method", {{"name", method}}},
                 {"target", target},
                 {"seed", 1}};
  record.cell_id = stable_hash(canonical_json(record.cell));
  record.document_id = document;
  record.status = "done";
  record.seconds = {{"prefill_s", 1.0}};
  for (size_t i = 0; i < right.size(); ++i) {
    record.answers.push_back({{"question_id", "q" + std::to_string(i)},
                              {"gold_answer", "yes"},
                              {"text", right[i] ? "yes" : "no"},
                              {"stop_reason", "end"}});
  }
  return record;
}

std::vector<std::string> names(const std::vector<LostAnswer>& flips) {
  std::vector<std::string> list;
  for (const LostAnswer& flip : flips)
    list.push_back(flip.compact->cell.at("method").value("name", "") + " " + flip.document() + " " + flip.question());
  return list;
}

TEST(LostAnswers, RightWithTheFullCacheWrongWithTheCompactOne) {
  const std::vector<Record> records = {
      record("full_cache", nullptr, {true, true, false}), record("snapkv", 0.1, {false, true, false}),
      record("h2o", 0.1, {false, false, true}), record("h2o", 0.1, {false, true, true}, "alone"),
      record("no_context", nullptr, {false, false, false})};
  const LostAnswers flips = find_lost_answers(records, {});
  EXPECT_THAT(names(flips.list), ::testing::UnorderedElementsAre("snapkv doc q0", "h2o doc q0", "h2o doc q1"));
  EXPECT_EQ(flips.n_compared, 4);
  ASSERT_EQ(flips.notes.size(), 1u);
  EXPECT_THAT(flips.notes[0], HasSubstr("1 record skipped: full_cache has no record of their document"));
  LostAnswerFilter filter;
  filter.method = "no_context";
  EXPECT_EQ(find_lost_answers(records, filter).list.size(), 2u);
  filter = {"q1", "", "h2o", "0.1"};
  EXPECT_EQ(names(find_lost_answers(records, filter).list), std::vector<std::string>{"h2o doc q1"});
  EXPECT_EQ(names(chosen_answers(flips.list, 2)).size(), 2u);
  EXPECT_NE(chosen_answers(flips.list, 2)[0].compact->cell_id, chosen_answers(flips.list, 2)[1].compact->cell_id);
  EXPECT_EQ(chosen_answers(flips.list, 0).size(), 3u);
  EXPECT_EQ(chosen_answers(flips.list, 99).size(), 3u);
}

TEST(LostAnswers, OtherRecordsAreLeftAside) {
  Record online = record("h2o", 0.1, {false});
  online.seconds = Json::object();
  Record broken = record("snapkv", 0.1, {false});
  broken.answers[0].erase("text");
  broken.place = "r/x.jsonl, record 1";
  Record failed = record("tova", 0.1, {false});
  failed.status = "failed";
  const std::vector<Record> records = {record("full_cache", nullptr, {true}), online, broken, failed};
  const LostAnswers flips = find_lost_answers(records, {});
  EXPECT_TRUE(flips.list.empty());
  ASSERT_EQ(flips.notes.size(), 2u);
  EXPECT_THAT(flips.notes[0], HasSubstr("r/x.jsonl, record 1 skipped: field 'text' of answer 0 is missing"));
  EXPECT_THAT(flips.notes[1], HasSubstr("compacted during generation"));
}

TEST(LostAnswers, BadFilters) {
  const std::vector<Record> records = {record("full_cache", nullptr, {true}), record("snapkv", 0.1, {false})};
  EXPECT_EQ(error_of([&] {
              find_lost_answers(records, {"q9", "", "", ""});
            }),
            "no record has the question 'q9'\n  where: --question\n  mend:  did you mean 'q0'? Known: q0");
  EXPECT_THAT(error_of([&] {
                find_lost_answers(records, {"", "", "snapk", ""});
              }),
              HasSubstr("did you mean 'snapkv'?"));
  EXPECT_THAT(error_of([&] { find_lost_answers(records, {"", "", "", "0.2"}); }), HasSubstr("Known: 0.1"));
  EXPECT_THAT(error_of([&] { find_lost_answers({record("snapkv", 0.1, {false})}, {}); }),
              HasSubstr("no full_cache records"));
}

}  // namespace
}  // namespace kvc
