// The value of an arithmetic or algebraic expression: exact where it is a rational number, else compared numerically.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/tasks/judging/math_tokens.h"

namespace kvc {

class MathExpression {
 public:
  struct Node;

  // The longest expression at the beginning of tokens[begin, end); `used` is how many tokens it took. Nothing where
  // there is none, or where it is nested deeper than 60 levels.
  // Read are + - * / ^ !, products without a sign, \frac, \sqrt, \binom, mixed numbers (2 1/2, 2\frac{1}{2}), repeating
  // decimals (0.\overline{3}), functions, |x|, subscripts (x_1) and numbers of another base (101_2, equal to the same
  // digits in the same base alone).
  static std::optional<MathExpression> read(const std::vector<MathToken>& tokens, size_t begin, size_t end,
                                            size_t& used);

  // Rational numbers are compared exactly: 0.33 is not 1/3. All else at three points of complex numbers in long double,
  // to 13 digits (17 beside a rational number): sqrt(8) is 2 sqrt(2), (x+1)^2 is x^2+2x+1.
  bool same_value(const MathExpression& other) const;
  // Whether one is the other times a number that is not 0: of both sides' differences, the same equation.
  bool proportional(const MathExpression& other) const;

  bool is_rational() const;
  // The variable's name where the expression is one variable and nothing else.
  std::optional<std::string> single_variable() const;
  MathExpression times(const char* decimal) const;
  MathExpression minus(const MathExpression& other) const;

  explicit MathExpression(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

 private:
  std::shared_ptr<const Node> node_;
};

}  // namespace kvc
