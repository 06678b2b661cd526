// The tree of an expression; what reads it and what finds its value share it. Private to math_expression.
#pragma once

#include <boost/multiprecision/cpp_int.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/tasks/judging/math_expression.h"

namespace kvc {

using Rational = boost::multiprecision::cpp_rational;
using Integer = boost::multiprecision::cpp_int;

struct MathExpression::Node {
  enum class Op { kNumber, kVariable, kAdd, kMultiply, kDivide, kPower, kNegate, kFunction };
  Op op = Op::kNumber;
  Rational number = 0;
  std::string name = {};  // of a variable or a function
  std::vector<std::shared_ptr<const Node>> parts = {};
};

using MathNode = std::shared_ptr<const MathExpression::Node>;

inline MathNode node_of(MathExpression::Node::Op op, std::vector<MathNode> parts) {
  return std::make_shared<const MathExpression::Node>(MathExpression::Node{op, 0, "", std::move(parts)});
}

inline bool is_whole(const Rational& number) {
  return denominator(number) == 1;
}

// "12.50" as a fraction.
Rational rational_of(const std::string& decimal);

}  // namespace kvc
