#include "harness/tasks/judging/choice_answer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "harness/tasks/judging/thought.h"

namespace kvc {
namespace {

std::string letter(const std::optional<int64_t>& option) {
  return option ? std::string(1, static_cast<char>('A' + *option)) : "none";
}

// choice_cases.jsonl: answers of the forms that models write, and what a careful reader reads. Those with a "source"
// are real ones, from data/reference_answers_cache of github.com/adamzweiger/compaction (commit 2e59cc89, MIT licence).
TEST(ChoiceAnswer, ReadsWhatACarefulReaderWould) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/tasks/judging/choice_cases.jsonl");
  ASSERT_TRUE(file);
  int64_t n = 0;
  for (std::string line; std::getline(file, line); ++n) {
    const nlohmann::json fields = nlohmann::json::parse(line);
    const std::string text = fields.at("text");
    const std::string expected = fields.at("option").is_null() ? "none" : fields.at("option").get<std::string>();
    EXPECT_EQ(letter(choice_answer(without_thoughts(text, false), fields.at("n_options"))), expected) << text;
  }
  EXPECT_GE(n, 250);
}

TEST(ChoiceAnswer, HostileTextsEnd) {
  for (const char* piece : {"{", "\\boxed{", "(", "A or ", "answer is ", "*", "\xFF", "A. x\n", "a "}) {
    std::string text;
    while (text.size() < 200'000) text += piece;
    choice_answer(text, 26);
  }
}

}  // namespace
}  // namespace kvc
