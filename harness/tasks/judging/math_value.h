// The parts of a mathematical answer: numbers, lists, tuples, intervals, matrices, equations. Private to math_answer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/tasks/judging/math_expression.h"

namespace kvc {

struct MathValue {
  enum class Kind { kText, kExpression, kList, kTuple, kUnion, kMatrix, kEquation };
  Kind kind = Kind::kText;
  std::string text;     // all of it, plainly: no case, blanks, articles
  std::string spelled;  // all of it, token by token
  std::optional<MathExpression> expression;
  std::string unit;  // of an expression; "" for none
  std::string
      brackets;  // of a tuple or interval: "()" "[)" "(]" "[]" "<>"; of a ratio ":", "::" where it may be a time
  size_t n_columns = 0;          // of a matrix
  std::vector<MathValue> items;  // of a list, tuple, union, matrix (row by row), equation (left, right)
};

// `commas_part`: a number written "1,234" is the list 1, 234.
MathValue math_value(const std::vector<MathToken>& tokens, bool commas_part);
bool same_value(const MathValue& a, const MathValue& b);

}  // namespace kvc
