#include "harness/report/flips.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "harness/core/stable_hash.h"
#include "harness/report/text_table.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Json written(const std::string& id, const std::string& text, const std::string& prompt = "Which code?") {
  return {{"question_id", id}, {"prompt", prompt}, {"gold_answer", "7"}, {"text", text}, {"stop_reason", "end"}};
}

Json scored(const std::string& id, int best) {
  Json scores = {-30.0, -30.0, -30.0};
  scores[static_cast<size_t>(best)] = -5.0;
  return {{"question_id", id}, {"prompt", "Which?"},         {"gold_option", 1},
          {"n_options", 3},    {"option_tokens", {5, 5, 5}}, {"option_log_likelihood", scores}};
}

Record record(const std::string& task, const std::string& method, const Json& target, std::vector<Json> answers,
              int seed = 7) {
  Record r;
  r.cell = Json{{"model", {{"name", "m"}}},
                {"dataset", {{"name", "s"}}},
                {"task", {{"name", task}}},
                {"queries", nullptr},
                {"method", {{"name", method}}},
                {"target", target},
                {"seed", seed}};
  r.cell_id = stable_hash(canonical_json(r.cell));
  r.document_id = "doc";
  r.status = "done";
  r.answers = std::move(answers);
  return r;
}

LoadedReport loaded(const std::vector<Record>& records) {
  return {"x", tabulate(records), AnswerTexts(records)};
}

// a: right, then wrong at 0.1; b: wrong, right at 0.1; c: right throughout; d: wrong throughout, with other words.
std::vector<Record> sweep() {
  return {
      record("exact_match", "full_cache", nullptr,
             {written("a", "7"), written("b", "8"), written("c", "7"), written("d", "9")}),
      record("exact_match", "h2o", 0.5, {written("a", "7"), written("b", "8"), written("c", "7"), written("d", "10")}),
      record("exact_match", "h2o", 0.1,
             {written("a", "five"), written("b", "7"), written("c", "7"), written("d", "11")}),
      record("exact_match", "tova", 0.1, {written("a", "7"), written("b", "8"), written("c", "6"), written("d", "9")}),
      record("exact_match", "no_context", nullptr,
             {written("a", "?"), written("b", "?"), written("c", "?"), written("d", "?")})};
}

std::vector<std::string> ids(const Flips& flips) {
  std::vector<std::string> list;
  for (const Flip& flip : flips.list)
    list.push_back(flip.method + " " + flip.question + (flip.gained() ? " gained" : " lost"));
  return list;
}

TEST(Flips, AreTheAnswersThatChangeSides) {
  const LoadedReport report = loaded(sweep());
  const Flips flips = find_flips(report, {});
  EXPECT_THAT(ids(flips), ElementsAre("h2o a lost", "h2o b gained", "tova c lost"));
  EXPECT_EQ(flips.n_compared, 12);
  EXPECT_EQ(flips.list[0].full_reply, "7");
  EXPECT_EQ(flips.list[0].reply, "five");
  EXPECT_EQ(flips.list[0].gold, "7");
  EXPECT_EQ(flips.list[0].prompt, "Which code?");
  EXPECT_EQ(flips.list[0].document, "doc");
  EXPECT_EQ(flips.list[0].target, 0.1);
}

TEST(Flips, AreChosenByMethodAndTarget) {
  const LoadedReport report = loaded(sweep());
  EXPECT_THAT(ids(find_flips(report, {{"tova"}, {}})), ElementsAre("tova c lost"));
  EXPECT_THAT(ids(find_flips(report, {{"h2o"}, {"0.10"}})), ElementsAre("h2o a lost", "h2o b gained"));
  EXPECT_EQ(find_flips(report, {{}, {"0.5"}}).n_compared, 4);
  EXPECT_THAT(ids(find_flips(report, {{}, {"0.5"}})), ElementsAre());
  EXPECT_THAT(ids(find_flips(report, {{"no_context"}, {}})), ElementsAre("no_context a lost", "no_context c lost"));
}

std::string error_of(const LoadedReport& report, const FlipFilter& filter, ErrorKind kind) {
  return kvc::error_of(kind, [&] { find_flips(report, filter); });
}

TEST(Flips, WhatIsNotThereIsSaid) {
  const LoadedReport report = loaded(sweep());
  EXPECT_THAT(error_of(report, {{"h20"}, {}}, ErrorKind::kUsage),
              AllOf(HasSubstr("no method 'h20'"), HasSubstr("did you mean 'h2o'?")));
  EXPECT_THAT(error_of(report, {{}, {"0.2"}}, ErrorKind::kUsage),
              AllOf(HasSubstr("no target '0.2'"), HasSubstr("0.1, 0.5")));
  std::vector<Record> alone = sweep();
  alone.erase(alone.begin());
  EXPECT_THAT(error_of(loaded(alone), {}, ErrorKind::kData), HasSubstr("measure full_cache in the same sweep"));
  const Json kl = {
      {"question_id", "a"}, {"n_tokens", 1}, {"kl_sum", 0.1}, {"log_likelihood_sum", -1}, {"top_agreement", 1}};
  EXPECT_THAT(error_of(loaded({record("fidelity", "full_cache", nullptr, {kl}), record("fidelity", "h2o", 0.1, {kl})}),
                       {}, ErrorKind::kData),
              HasSubstr("nothing to compare"));
}

TEST(Flips, OfOptionsShowTheOneThatWasChosen) {
  const LoadedReport report = loaded({record("likelihood", "full_cache", nullptr, {scored("a", 1)}),
                                      record("likelihood", "h2o", 0.1, {scored("a", 2)})});
  const Flips flips = find_flips(report, {});
  ASSERT_EQ(flips.list.size(), 1);
  EXPECT_EQ(flips.list[0].gold, "option 2 (B) of 3");
  EXPECT_EQ(flips.list[0].full_reply, "option 2 (B), by likelihood");
  EXPECT_EQ(flips.list[0].reply, "option 3 (C), by likelihood");
}

TEST(Flips, EachSeedIsComparedWithItsOwn) {
  const LoadedReport report = loaded({record("exact_match", "full_cache", nullptr, {written("a", "7")}, 7),
                                      record("exact_match", "full_cache", nullptr, {written("a", "8 8")}, 8),
                                      record("exact_match", "h2o", 0.1, {written("a", "wrong")}, 7),
                                      record("exact_match", "h2o", 0.1, {written("a", "7")}, 8)});
  const Flips flips = find_flips(report, {});
  ASSERT_EQ(flips.list.size(), 2);
  EXPECT_EQ(flips.list[0].seed, "7");
  EXPECT_EQ(flips.list[0].reply, "wrong");
  EXPECT_EQ(flips.list[1].seed, "8");
  EXPECT_EQ(flips.list[1].full_reply, "8 8");
}

TEST(Flips, AreReadableInATerminalAndWholeAsJson) {
  const std::string hostile = "evil \x1b[2J\xC2\x9B\xE2\x80\xAE\nnext\xFF " + std::string(3000, 'w');
  const LoadedReport report =
      loaded({record("exact_match", "full_cache", nullptr, {written("a", "7", std::string(30, 'q') + " " + hostile)}),
              record("exact_match", "h2o", 0.1, {written("a", hostile)})});
  const Flips flips = find_flips(report, {});
  const std::string text = flips_text(flips, "results/x", 60);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(text_width(line), 60) << line;
  EXPECT_THAT(text, AllOf(HasSubstr("1 of 1 answer changed"), HasSubstr("right to wrong: document doc, question a"),
                          HasSubstr("\\x1b[2J\\xc2\\x9b\\xe2\\x80\\xae"), HasSubstr("next\\xff"),
                          HasSubstr("--json has all"), Not(HasSubstr("\x1b")), Not(HasSubstr("\xC2\x9B"))));
  const Json line = Json::parse(flips_json(flips));
  EXPECT_EQ(line.at("change"), "right_to_wrong");
  EXPECT_EQ(line.at("full_value"), 1.0);
  EXPECT_EQ(line.at("seed"), 7);
  EXPECT_THAT(line.at("reply").get<std::string>(), HasSubstr(std::string(3000, 'w')));
}

}  // namespace
}  // namespace kvc
