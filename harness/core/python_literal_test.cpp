#include "harness/core/python_literal.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

std::optional<Json> read(std::string_view text) {
  size_t used = 0;
  return read_python_literal(text, used);
}

TEST(PythonLiteral, ReadsWhatReprWrites) {
  EXPECT_EQ(read(R"([{'Q': "It's", 'A': 'a "b"', 'S': ['x', 'y\n'], 'n': -1.5, 'none': None}])"),
            (Json::array({{{"Q", "It's"}, {"A", "a \"b\""}, {"S", {"x", "y\n"}}, {"n", -1.5}, {"none", nullptr}}})));
  EXPECT_EQ(read(R"(('\u00e9', '\x41', '\U0001F600', True, False,))"),
            Json({"\u00e9", "A", "\U0001F600", true, false}));
  EXPECT_EQ(read("  {}"), Json::object());
  EXPECT_EQ(read("'a\\\nb'"), Json("ab"));
}

TEST(PythonLiteral, SaysWhereItEnds) {
  size_t used = 0;
  EXPECT_EQ(read_python_literal("{'a': 1} and more", used), Json({{"a", 1}}));
  EXPECT_EQ(used, 8U);
}

TEST(PythonLiteral, RefusesWhatIsNone) {
  for (const char* text :
       {"", "x", "[1, 2", "{'a' 1}", "{1: 2}", "'open", "{'a': }", "[1 2]", "'\\x4'", "'\\U00110000'"}) {
    EXPECT_FALSE(read(text).has_value()) << text;
  }
  EXPECT_FALSE(read(std::string(1'000'000, '[')).has_value());
}

}  // namespace
}  // namespace kvc
