#include "harness/tasks/judging/math_answer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace kvc {
namespace {

std::vector<nlohmann::json> lines_of(const char* name) {
  std::ifstream file(std::string(KVC_SOURCE_DIR "/harness/tasks/judging/") + name);
  EXPECT_TRUE(file) << name;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// math_cases.jsonl: pairs of our own, equal and unequal.
TEST(MathAnswer, ComparesAsACarefulReaderWould) {
  const std::vector<nlohmann::json> cases = lines_of("math_cases.jsonl");
  EXPECT_GE(cases.size(), 300U);
  for (const nlohmann::json& c : cases) {
    const std::string answer = c.at("answer"), gold = c.at("gold");
    EXPECT_EQ(same_math_answer(answer, gold), c.at("same").get<bool>()) << answer << "  and  " << gold;
    EXPECT_EQ(same_math_answer(gold, answer), c.at("same").get<bool>()) << gold << "  and  " << answer;
  }
}

TEST(MathAnswer, EveryAnswerIsItself) {
  for (const nlohmann::json& c : lines_of("math_cases.jsonl")) {
    for (const char* side : {"answer", "gold"}) {
      const std::string text = c.at(side);
      EXPECT_EQ(same_math_answer(text, text), !text.empty()) << text;
    }
  }
}

// math_replies.jsonl: what a text's final answer is.
TEST(MathAnswer, FindsTheFinalAnswer) {
  for (const nlohmann::json& c : lines_of("math_replies.jsonl")) {
    const std::string reply = c.at("reply"), gold = c.at("gold");
    const bool cut = c.value("cut", false);
    EXPECT_EQ(gives_math_answer(reply, gold, cut), c.at("right").get<bool>())
        << reply << "\n  gold " << gold << ", read " << final_math_answer(reply, cut).value_or("(nothing)");
  }
}

TEST(MathAnswer, HostileTextsEnd) {
  for (const char* piece : {"(",    "{",       "\\frac",   "\\sqrt{", "1,", "^",
                            "9^9^", "99!",     "\\boxed{", "-",       "|",  "\\begin{pmatrix}",
                            "&",    "\\text{", "$",        "\xFF",    "x_", "\\binom{300}{150}",
                            "1/",   "=",       "\\pm",     "\\cup",   "9"}) {
    for (const size_t bytes : {size_t{40}, size_t{1990}, size_t{100'000}}) {
      std::string text;
      while (text.size() < bytes) text += piece;
      same_math_answer(text, "5");
      same_math_answer(text, text);
      gives_math_answer(text, "5");
    }
  }
}

}  // namespace
}  // namespace kvc
