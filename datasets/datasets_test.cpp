// What holds for every registered data set, on the samples that are shipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "harness/api/dataset.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

class EveryDataset : public ::testing::TestWithParam<std::string> {
 protected:
  static DatasetRequest request(std::uint64_t seed) {
    return {seed, [](std::string_view text) { return static_cast<int64_t>(text.size() / 4); }};
  }
  static std::unique_ptr<Dataset> make() { return Registry<Dataset>::instance().create(GetParam(), {}); }
};

TEST_P(EveryDataset, HasDistinctIdsAndNoEmptyText) {
  std::set<std::string> documents, questions;
  for (const Document& document : make()->load(request(1))) {
    EXPECT_FALSE(document.id.empty());
    EXPECT_FALSE(document.title.empty());
    EXPECT_FALSE(document.text.empty());
    EXPECT_TRUE(documents.insert(document.id).second) << document.id;
    EXPECT_FALSE(document.questions.empty());
    for (const Question& question : document.questions) {
      EXPECT_FALSE(question.id.empty());
      EXPECT_FALSE(question.text.empty());
      EXPECT_TRUE(questions.insert(question.id).second) << question.id;
    }
  }
  EXPECT_FALSE(documents.empty());
}

TEST_P(EveryDataset, EveryQuestionHasItsGold) {
  for (const Document& document : make()->load(request(1))) {
    for (const Question& question : document.questions) {
      EXPECT_EQ(question.gold_option.has_value(), !question.options.empty()) << question.id;
      EXPECT_EQ(question.gold_answer.empty(), !question.options.empty()) << question.id;
      if (question.gold_option) {
        EXPECT_GE(*question.gold_option, 0);
        EXPECT_LT(*question.gold_option, static_cast<int64_t>(question.options.size()));
      }
      EXPECT_EQ(std::set<std::string>(question.options.begin(), question.options.end()).size(),
                question.options.size());
      EXPECT_TRUE(question.extra.is_object());
    }
  }
}

std::string fingerprint(const std::vector<Document>& documents) {
  std::string text;
  for (const Document& document : documents) {
    text += document.id + '\n' + document.title + '\n' + document.text + '\n';
    for (const Question& question : document.questions) {
      text += question.id + '\n' + question.text + '\n' + question.gold_answer + '\n' + question.answer_prefix + '\n' +
              canonical_json(question.extra) + std::to_string(question.gold_option.value_or(-1)) + '\n';
      for (const std::string& option : question.options) text += option + '\n';
    }
  }
  return text;
}

TEST_P(EveryDataset, SameRequestSameDocuments) {
  EXPECT_EQ(fingerprint(make()->load(request(3))), fingerprint(make()->load(request(3))));
  EXPECT_EQ(canonical_json(make()->identity()), canonical_json(make()->identity()));
  EXPECT_TRUE(make()->identity().contains("content_hash"));
}

TEST_P(EveryDataset, SaysWhatItsOptionsMean) {
  const auto* entry = Registry<Dataset>::instance().find(GetParam());
  EXPECT_FALSE(entry->source.empty());
  for (const OptionInfo& option : entry->options) EXPECT_FALSE(option.help.empty()) << option.name;
}

TEST(Datasets, AreRegistered) {
  EXPECT_THAT(Registry<Dataset>::instance().names(), ::testing::IsSupersetOf({"needle", "quality"}));
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryDataset, ::testing::ValuesIn(Registry<Dataset>::instance().names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace kvc
