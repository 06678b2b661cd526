#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/api/dataset.h"
#include "harness/tasks/judging/kept_rule.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<Document> load(Json options, std::uint64_t seed = 1) {
  return Registry<Dataset>::instance().create("side_effects", options)->load({seed, [](std::string_view text) {
                                                                                return static_cast<int64_t>(
                                                                                    text.size() / 4);
                                                                              }});
}

TEST(SideEffectsData, EachKindHasItsRuleAndReplies) {
  for (const std::string kind : {"rule", "format", "absent", "present", "secret"}) {
    for (const Document& document : load({{"kind", kind}, {"documents", 6}})) {
      EXPECT_EQ(document.text.find("Rule for all answers: "), 0U) << document.text;
      EXPECT_NEAR(static_cast<double>(document.text.size()) / 4, 400, 40);
      for (const Question& question : document.questions) {
        EXPECT_EQ(question.extra.at("kind"), kind);
        EXPECT_EQ(question.options.size(), 2U);
        EXPECT_EQ(question.gold_option, 0);
        const std::string thing = kind == "secret" ? "" : question.text.substr(13, question.text.find(" belong") - 13);
        if (kind == "absent") {
          EXPECT_THAT(document.text, Not(HasSubstr("The " + thing + " belongs"))) << question.text;
          EXPECT_THAT(question.extra.at("never").get<std::string>(), HasSubstr("Anna Peter"));
        } else if (kind != "secret") {
          EXPECT_THAT(document.text,
                      HasSubstr("The " + thing + " belongs to " + question.extra.at("right").get<std::string>()));
        } else {
          EXPECT_THAT(document.text, HasSubstr("The pass phrase of the town hall is " +
                                               question.extra.at("check_text").get<std::string>() + "."));
        }
      }
    }
  }
}

// The options are model replies of the kinds that keep and break the rule.
TEST(SideEffectsData, TheGoldReplyKeepsTheRuleAndTheOtherBreaksIt) {
  for (const std::string kind : {"rule", "format", "absent", "present", "secret"}) {
    for (const Document& document : load({{"kind", kind}, {"documents", 6}})) {
      for (const Question& question : document.questions) {
        const auto text = [&](const char* name) { return question.extra.value(name, std::string()); };
        const KeptRule rule{text("check"), text("check_text"), text("right"), text("never")};
        EXPECT_TRUE(keeps_rule(rule, question.options[0], false)) << question.options[0];
        EXPECT_FALSE(keeps_rule(rule, question.options[1], false)) << question.options[1];
        EXPECT_FALSE(keeps_rule(rule, "", false)) << kind;
      }
    }
  }
}

TEST(SideEffectsData, TheRuleStandsWhereItIsAsked) {
  const std::string end = load({{"rule_depth", 100}, {"documents", 1}}).at(0).text;
  EXPECT_GT(end.find("Rule for all answers"), end.size() * 8 / 10);
  const std::string middle = load({{"rule_depth", 50}, {"documents", 1}}).at(0).text;
  EXPECT_NEAR(static_cast<double>(middle.find("Rule for all answers")) / static_cast<double>(middle.size()), 0.5, 0.15);
}

TEST(SideEffectsData, OptionsAreChecked) {
  EXPECT_THROW(load({{"kind", "ryle"}}), Error);
  EXPECT_THROW(load({{"tokens", 10}}), Error);
  EXPECT_THROW(load({{"rule_depth", 101}}), Error);
  EXPECT_NE(load({}, 1).at(0).text, load({}, 2).at(0).text);
}

}  // namespace
}  // namespace kvc
