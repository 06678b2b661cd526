#include "harness/tasks/judging/math_expression.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <string>
#include <utility>

#include "harness/tasks/judging/math_node.h"

namespace kvc {
namespace {

using Node = MathExpression::Node;
using Op = Node::Op;
using Complex = std::complex<long double>;

constexpr unsigned kMostBits = 20'000;

unsigned bits_of(const Rational& number) {
  const auto bits = [](const Integer& part) { return part == 0 ? 0U : static_cast<unsigned>(msb(abs(part))) + 1; };
  return bits(numerator(number)) + bits(denominator(number));
}

// The whole number whose `degree`-th power it is, for a number from 0.
std::optional<Integer> whole_root(const Integer& number, unsigned degree) {
  Integer low = 0, high = 1;
  while (pow(high, degree) < number) high *= 2;
  while (low < high) {
    const Integer middle = (low + high) / 2;
    if (pow(middle, degree) < number) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return pow(low, degree) == number ? std::optional(low) : std::nullopt;
}

std::optional<Rational> exact_power(Rational base, const Rational& exponent) {
  if (bits_of(exponent) > 24) return std::nullopt;
  const auto degree = static_cast<unsigned>(denominator(exponent));
  if (degree > 12 || bits_of(base) > 1000) return std::nullopt;
  if (degree > 1) {
    const bool negative = base < 0;
    if (negative && degree % 2 == 0) return std::nullopt;
    const auto above = whole_root(abs(numerator(base)), degree), below = whole_root(denominator(base), degree);
    if (!above || !below) return std::nullopt;
    base = Rational(negative ? Integer(-*above) : *above, *below);
  }
  const auto times = static_cast<int64_t>(numerator(exponent));
  const auto n = static_cast<unsigned>(times < 0 ? -times : times);
  if (static_cast<uint64_t>(bits_of(base)) * n > kMostBits || (times < 0 && base == 0)) return std::nullopt;
  const Rational value(pow(numerator(base), n), pow(denominator(base), n));
  return times < 0 ? Rational(1 / value) : value;
}

std::optional<Rational> exact_function(const std::string& name, const std::vector<Rational>& values) {
  if (name == "abs") return abs(values[0]);
  const bool small = std::all_of(values.begin(), values.end(),
                                 [](const Rational& value) { return is_whole(value) && value >= 0 && value <= 300; });
  if (!small) return std::nullopt;
  const auto product = [](int64_t from, int64_t to) {
    Integer value = 1;
    for (int64_t i = from; i <= to; ++i) value *= i;
    return value;
  };
  const auto n = static_cast<int64_t>(numerator(values[0]));
  if (name == "factorial") return Rational(product(1, n));
  if (name != "binom") return std::nullopt;
  const auto k = static_cast<int64_t>(numerator(values[1]));
  return k > n ? Rational(0) : Rational(product(n - k + 1, n), product(1, k));
}

// Nothing where the value is no rational number, or was not recognised as one.
std::optional<Rational> exact(const Node& node) {
  if (node.op == Op::kNumber) return node.number;
  if (node.op == Op::kVariable) return std::nullopt;
  std::vector<Rational> values;
  for (const MathNode& part : node.parts) {
    const auto value = exact(*part);
    if (!value || bits_of(*value) > kMostBits) return std::nullopt;
    values.push_back(*value);
  }
  switch (node.op) {
    case Op::kAdd:
      return Rational(values[0] + values[1]);
    case Op::kMultiply:
      return Rational(values[0] * values[1]);
    case Op::kDivide:
      return values[1] == 0 ? std::nullopt : std::optional<Rational>(values[0] / values[1]);
    case Op::kPower:
      return exact_power(values[0], values[1]);
    case Op::kNegate:
      return Rational(-values[0]);
    default:
      return exact_function(node.name, values);
  }
}

// A number that stands for a variable at one of the points: neither a constant of any problem nor near another's.
Complex place_of(const std::string& name, int point) {
  std::uint64_t hash = 0xCBF29CE484222325ULL + static_cast<std::uint64_t>(point) * 0x9E3779B97F4A7C15ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  hash ^= hash >> 31;
  hash *= 0xBF58476D1CE4E5B9ULL;
  const auto part = [&](int shift) { return static_cast<long double>((hash >> shift) & 0xFFFFFF) / 0x1000000; };
  return {0.6L + part(0), 0.2L + part(30) / 2};
}

Complex function_at(const std::string& name, const std::vector<Complex>& values) {
  const Complex& x = values[0];
  if (name == "sin") return std::sin(x);
  if (name == "cos") return std::cos(x);
  if (name == "tan") return std::tan(x);
  if (name == "cot") return 1.0L / std::tan(x);
  if (name == "sec") return 1.0L / std::cos(x);
  if (name == "csc") return 1.0L / std::sin(x);
  if (name == "arcsin") return std::asin(x);
  if (name == "arccos") return std::acos(x);
  if (name == "arctan") return std::atan(x);
  if (name == "ln") return std::log(x);
  if (name == "log") return std::log(x) / std::numbers::ln10_v<long double>;
  if (name == "exp") return std::exp(x);
  if (name == "abs") return std::abs(x);
  // x! of a number that is no small whole one, and binomials of such: any function of all its arguments would do.
  Complex value = std::sin(x * 1.37L) + 2.0L;
  for (size_t i = 1; i < values.size(); ++i) value = value * 1.7L + std::cos(values[i] * 0.73L);
  return value;
}

Complex value_at(const Node& node, int point) {
  if (node.op == Op::kNumber) return static_cast<long double>(node.number);
  if (node.op == Op::kVariable) {
    if (node.name == "pi") return std::numbers::pi_v<long double>;
    if (node.name == "e") return std::numbers::e_v<long double>;
    if (node.name == "i") return {0, 1};
    return place_of(node.name, point);
  }
  if (const auto number = exact(node)) return static_cast<long double>(*number);
  std::vector<Complex> values;
  for (const MathNode& part : node.parts) values.push_back(value_at(*part, point));
  switch (node.op) {
    case Op::kAdd:
      return values[0] + values[1];
    case Op::kMultiply:
      return values[0] * values[1];
    case Op::kDivide:
      return values[0] / values[1];
    case Op::kPower:
      return std::pow(values[0], values[1]);
    case Op::kNegate:
      return -values[0];
    default:
      return function_at(node.name, values);
  }
}

constexpr int kPoints = 3;
constexpr long double kTolerance = 1e-13L;
constexpr long double kToleranceToRational = 1e-17L;  // a decimal of 16 digits is no root and not pi

bool near(const Complex& a, const Complex& b, long double tolerance) {
  if (!std::isfinite(std::abs(a)) || !std::isfinite(std::abs(b))) return false;
  return std::abs(a - b) <= tolerance * std::max({1.0L, std::abs(a), std::abs(b)});
}

bool any_variable(const Node& node) {
  if (node.op == Op::kVariable) return node.name != "pi" && node.name != "e" && node.name != "i";
  return std::any_of(node.parts.begin(), node.parts.end(), [](const MathNode& part) { return any_variable(*part); });
}

}  // namespace

bool MathExpression::same_value(const MathExpression& other) const {
  const auto mine = exact(*node_), others = exact(*other.node_);
  if (mine && others) return *mine == *others;
  const long double tolerance = mine || others ? kToleranceToRational : kTolerance;
  for (int point = 0; point < kPoints; ++point) {
    if (!near(value_at(*node_, point), value_at(*other.node_, point), tolerance)) return false;
  }
  return true;
}

bool MathExpression::proportional(const MathExpression& other) const {
  std::optional<Complex> ratio;
  for (int point = 0; point < kPoints; ++point) {
    const Complex a = value_at(*node_, point), b = value_at(*other.node_, point);
    if (!std::isfinite(std::abs(a / b)) || std::abs(a / b) < 1e-12L) return false;
    if (ratio && !near(*ratio, a / b, kTolerance)) return false;
    ratio = a / b;
  }
  return true;
}

bool MathExpression::is_rational() const {
  return exact(*node_).has_value();
}

std::optional<std::string> MathExpression::single_variable() const {
  return node_->op == Op::kVariable && any_variable(*node_) ? std::optional(node_->name) : std::nullopt;
}

MathExpression MathExpression::times(const char* decimal) const {
  return MathExpression(
      node_of(Op::kMultiply, {node_, std::make_shared<const Node>(Node{Op::kNumber, rational_of(decimal)})}));
}

MathExpression MathExpression::minus(const MathExpression& other) const {
  return MathExpression(node_of(Op::kAdd, {node_, node_of(Op::kNegate, {other.node_})}));
}

}  // namespace kvc
