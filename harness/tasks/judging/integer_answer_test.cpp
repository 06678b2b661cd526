#include "harness/tasks/judging/integer_answer.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

TEST(IntegerAnswer, RulesAndEdgeCases) {
  const std::string forced = "\nI need to respond with the answer.\n</think>Final Answer: ";
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
      {"it is 12345, or 0042", 42},  // no short number; the last run worth 0 to 999
      {"x12", 12},                   // not alone, but in range
      {"x12 and 5", 5},
      {"5 and x12", 5},  // a short number goes before runs beside letters
      {"3.14", 14},
      {"99999999999999999999999999", std::nullopt},
      // Behind the end of the thought.
      {"so 7</think>12", 12},
      {"so 7</think>none", std::nullopt},
      {"a</think>1</think>2", 2},
      {"so \\boxed{7}</think>Final Answer: 12", 7},
      {"so \\boxed{7} or \\boxed{x}</think>Final Answer: 12", 7},
      {"so \\boxed{1234}</think>Final Answer: 12", 12},
      {"so \\boxed{\\frac{3}{4}}</think>12", 4},
      {"so \\boxed{7</think>12", 7},  // never closed: to the end of the thought
      {"so \\boxed{x</think>5", 5},
      {"5</think>\\boxed{8}", 8},  // a box behind the thought is part of the tail
      {"\\boxed{5}</think>", 5},
      {"\\boxed{5} and 6", 6},  // without an end of thought boxes mean nothing
      // The forced end.
      {"so \\boxed{7}" + forced + "12 or 13", 12},
      {"so 7" + forced, std::nullopt},
      {"so 7" + forced + "none", std::nullopt},
      {"so 7" + forced + "12345 0042", 42},
      {"a" + forced + "1" + forced + "2", 2},
  };
  for (const auto& c : cases) EXPECT_EQ(parse_integer(c.text), c.value) << c.text;
}

}  // namespace
}  // namespace kvc
