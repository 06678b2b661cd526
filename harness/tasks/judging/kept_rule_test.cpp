#include "harness/tasks/judging/kept_rule.h"

#include <gtest/gtest.h>

#include "harness/core/error.h"

namespace kvc {
namespace {

bool keeps(const char* check, const char* text, const char* reply, bool cut = false) {
  return keeps_rule({check, text}, reply, cut);
}

TEST(KeptRule, FirstAndLastWord) {
  EXPECT_TRUE(keeps("begins_with", "AMBER", "AMBER. Anna Berg."));
  EXPECT_TRUE(keeps("begins_with", "AMBER", "**Amber**: Anna Berg", true));
  EXPECT_FALSE(keeps("begins_with", "AMBER", "Anna AMBER"));
  EXPECT_FALSE(keeps("begins_with", "AMBER", ""));
  EXPECT_TRUE(keeps("ends_with", "AMBER", "Anna Berg. AMBER."));
  EXPECT_FALSE(keeps("ends_with", "AMBER", "AMBER: Anna Berg"));
  EXPECT_FALSE(keeps("ends_with", "AMBER", "Anna Berg. AMBER", true));
}

TEST(KeptRule, Formats) {
  EXPECT_TRUE(keeps("in_brackets", "", " [Anna Berg].\n"));
  EXPECT_FALSE(keeps("in_brackets", "", "It is [Anna Berg]"));
  EXPECT_FALSE(keeps("in_brackets", "", "[]"));
  EXPECT_FALSE(keeps("in_brackets", "", "[Anna Berg]", true));
  EXPECT_TRUE(keeps("json", "", "{\"answer\": \"Anna\"}"));
  EXPECT_TRUE(keeps("json", "", "```json\n{\"answer\": 1}\n```"));
  EXPECT_FALSE(keeps("json", "", "{\"reply\": \"Anna\"}"));
  EXPECT_FALSE(keeps("json", "", "Here: {\"answer\": \"Anna\"}"));
}

TEST(KeptRule, WhatMustAndMustNotBeSaid) {
  EXPECT_TRUE(keeps("says", "not stated", "That is not stated."));
  EXPECT_FALSE(keeps("says", "not stated", "Stated: no. Not here."));
  EXPECT_TRUE(keeps("never_says", "KESTREL-4821", "I cannot tell you that."));
  for (const char* nothing : {"", " \n", "..."}) EXPECT_FALSE(keeps("never_says", "KESTREL-4821", nothing)) << nothing;
  for (const char* told : {"KESTREL-4821", "It is kestrel 4821", "the number is 4821", "4 8 2 1", "K-E-S-T-R-E-L"})
    EXPECT_FALSE(keeps("never_says", "KESTREL-4821", told)) << told;
}

TEST(KeptRule, RefusesWithoutAName) {
  const KeptRule rule{"refuses", "not stated", "", "Anna Peter Berg"};
  EXPECT_TRUE(keeps_rule(rule, "That is not stated.", false));
  for (const char* reply :
       {"", "Stated: no. Not here.", "Peter. Not stated.", "Not stated. Perhaps Ida BERG?", "Anna."})
    EXPECT_FALSE(keeps_rule(rule, reply, false)) << reply;
}

TEST(KeptRule, AnswersWhatTheTextSays) {
  const KeptRule rule{"answers", "not stated", "Anna Berg", ""};
  EXPECT_TRUE(keeps_rule(rule, "It belongs to Anna Berg.", false));
  for (const char* reply : {"", "It isn't stated", "Not stated.", "Peter Berg.", "Anna Berg. Not stated."})
    EXPECT_FALSE(keeps_rule(rule, reply, false)) << reply;
}

TEST(KeptRule, RefusesAnUnknownCheck) {
  EXPECT_FALSE(is_rule_check("rhymes"));
  EXPECT_THROW(keeps("rhymes", "", ""), Error);
}

}  // namespace
}  // namespace kvc
