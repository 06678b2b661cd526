#include "harness/tasks/judging/integer_answer.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

TEST(IntegerAnswer, RulesAndEdgeCases) {
  const struct {
    std::string text;
    std::optional<int64_t> value;
  } cases[] = {
      {"", std::nullopt},
      {"no number", std::nullopt},
      {"The answer is 42.", 42},
      {"7, then 8, then 9", 9},
      {"the answer: 033", 33},
      {"0", 0},
      {"999", 999},
      {"1000", std::nullopt},
      {"99999999999999999999999999", std::nullopt},
      {"it is 12345, or 0042", 42},
      {"x12", std::nullopt},
      {"x12 and 5", 5},
      {"5 and x12", 5},
      // What is no integer is no answer.
      {"3.14", std::nullopt},
      {"70.5", std::nullopt},
      {"70.0", 70},
      {"70.", 70},
      {"-70", std::nullopt},
      {"\u221270", std::nullopt},
      {"3/7", std::nullopt},
      {"x = -70", std::nullopt},
      {"1,024", std::nullopt},
      {"1{,}024", std::nullopt},
      {"12,345", std::nullopt},
      {"pages 12-15", 15},
      {"2^5", std::nullopt},
      // Boxes decide, wherever they stand; the last one with a number.
      {"Thus $\\boxed{204}$. This is AIME 2024 problem 1.", 204},
      {"The answer is \\boxed{16}. (see step 3)", 16},
      {"\\boxed{1} \\pmod{9}", 1},
      {"\\boxed{1 \\pmod{9}}", 1},
      {"\\boxed{5} and 6", 5},
      {"\\boxed{5}, no, \\boxed{6}", 6},
      {"\\boxed{7} or \\boxed{x}", 7},
      {"\\boxed{}", std::nullopt},
      {"\\boxed{7", 7},  // never closed: no box, but still the last number
      {"\\boxed{\\text{204}}", 204},
      {"\\boxed{\\mathbf{204}}", 204},
      {"\\boxed{\\textbf{204}}.", 204},
      {"\\boxed{{{204}}}", 204},
      {"\\boxed{204 \\text{ units}}", 204},
      {"\\boxed{204\\text{ cm}}", 204},
      {"\\boxed{204^\\circ}", 204},
      {"\\boxed{204^{\\circ}}", 204},
      {"\\boxed{\\$204}", 204},
      {"\\boxed{\\left(204\\right)}", 204},
      {"\\boxed{m + n = 204}", 204},
      {"\\boxed{N=033}", 33},
      {"\\boxed{+5}", 5},
      {"\\boxed{70.0}", 70},
      {"\\fbox{204}", 204},
      {"\\boxed{12,345}", std::nullopt},
      {"\\boxed{1{,}024}", std::nullopt},
      {"\\boxed{1\\,024}", std::nullopt},
      {"\\boxed{-25}", std::nullopt},
      {"\\boxed{2.5}", std::nullopt},
      {"\\boxed{\\frac{3}{4}}", std::nullopt},
      {"\\boxed{\\dfrac34}", std::nullopt},
      {"\\boxed{3/4}", std::nullopt},
      {"\\boxed{2^{10}}", std::nullopt},
      {"\\boxed{5\\sqrt{3}}", std::nullopt},
      {"\\boxed{3, 4}", std::nullopt},
      {"\\boxed{100-1}", std::nullopt},
      // A label, then the first number behind it.
      {"Final Answer: 12 or 13", 12},
      {"Final Answer: 033, I think 5", 33},
      {"The answer is 42. It took 3 steps.", 42},
      {"The answer is 41. No: the answer is 42, from 3 steps.", 42},
      {"Answer:\n42", 42},
      {"Final Answer: **204**", 204},
      {"Final Answer: none", std::nullopt},
      {"Final Answer: -7, or 5", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(parse_integer(c.text), c.value) << c.text;
}

TEST(IntegerAnswer, ANumberAtACutMayLackDigits) {
  EXPECT_EQ(parse_integer("Final Answer: 20", true), std::nullopt);
  EXPECT_EQ(parse_integer("Final Answer: 204 is", true), 204);
  EXPECT_EQ(parse_integer("Final Answer: \\boxed{204}", true), 204);
}

}  // namespace
}  // namespace kvc
