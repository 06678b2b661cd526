#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "harness/tasks/judging/math_node.h"

namespace kvc {

Rational rational_of(const std::string& decimal) {
  const size_t point = decimal.find('.');
  std::string digits = decimal;
  Integer scale = 1;
  if (point != std::string::npos) {
    digits.erase(point, 1);
    for (size_t i = point + 1; i < decimal.size(); ++i) scale *= 10;
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));  // a leading 0 would mean octal
  return Rational(Integer(digits), scale);
}

namespace {

using Node = MathExpression::Node;
using Op = Node::Op;
using Kind = MathToken::Kind;

MathNode node_of(Rational number) {
  return std::make_shared<const Node>(Node{Op::kNumber, std::move(number)});
}
MathNode function_of(std::string name, std::vector<MathNode> arguments) {
  return std::make_shared<const Node>(Node{Op::kFunction, 0, std::move(name), std::move(arguments)});
}

constexpr int kDeepestExpression = 60;
constexpr size_t kMostDigits = 60;

class Reader {
 public:
  Reader(const std::vector<MathToken>& tokens, size_t begin, size_t end) : tokens_(tokens), at_(begin), end_(end) {}

  MathNode sum() {
    const Depth depth(depth_);
    if (depth_ > kDeepestExpression) return nullptr;
    bool negative = false;
    while (mark("-") || mark("+")) negative = negative != take("-");
    MathNode value = product();
    if (value && negative) value = node_of(Op::kNegate, {value});
    while (value && (mark("+") || mark("-"))) {
      const size_t before = at_;
      const bool minus = mark("-");
      ++at_;
      MathNode next = product();
      if (!next) {
        at_ = before;
        return value;
      }
      if (minus) next = node_of(Op::kNegate, {next});
      value = node_of(Op::kAdd, {value, next});
    }
    return value;
  }

  size_t at() const { return at_; }

 private:
  struct Depth {
    explicit Depth(int& count) : depth(count) { ++depth; }
    ~Depth() { --depth; }
    int& depth;
  };

  bool more() const { return at_ < end_; }
  const MathToken& token() const { return tokens_[at_]; }
  bool mark(const char* text) const { return more() && token().is_mark(text); }
  bool symbol(const char* text) const { return more() && token().is_symbol(text); }
  // Steps over the mark, or over one other token; true for the mark.
  bool take(const char* text) {
    const bool is = mark(text);
    ++at_;
    return is;
  }

  MathNode product() {
    MathNode value = signed_power();
    while (value && more()) {
      const size_t before = at_;
      MathNode next;
      const bool divide = mark("/");
      if (mark("*") || divide) {
        ++at_;
        next = signed_power();
      } else if (token().kind != Kind::kNumber && begins_atom()) {
        next = power();
      }
      if (!next) {
        at_ = before;
        return value;
      }
      value = node_of(divide ? Op::kDivide : Op::kMultiply, {value, next});
    }
    return value;
  }

  MathNode signed_power() {
    const Depth depth(depth_);
    if (depth_ > kDeepestExpression) return nullptr;
    if (!mark("-") && !mark("+")) return power();
    const bool minus = take("-");
    MathNode value = signed_power();
    return value && minus ? node_of(Op::kNegate, {value}) : value;
  }

  bool begins_atom() const {
    if (token().kind == Kind::kNumber) return true;
    if (token().kind == Kind::kMark) return mark("(") || mark("{") || mark("[");
    static const std::set<std::string> none = {"le",    "ge",   "ne",   "in",     "cup",      "cap",
                                               "pm",    "mp",   "to",   "approx", "mid",      "overline",
                                               "equiv", "pmod", "bmod", "mod",    "setminus", "subset"};
    return token().kind == Kind::kSymbol && !none.contains(token().text) && token().text.find('{') == std::string::npos;
  }

  MathNode power() {
    MathNode value = atom();
    while (value && more()) {
      if (mark("!")) {
        ++at_;
        value = function_of("factorial", {value});
      } else if (mark("^")) {
        const size_t before = at_;
        ++at_;
        const MathNode exponent = signed_power_argument();
        if (!exponent) {
          at_ = before;
          return value;
        }
        value = node_of(Op::kPower, {value, exponent});
      } else {
        return value;
      }
    }
    return value;
  }

  MathNode signed_power_argument() {
    if (!mark("-")) return argument(/*digit_by_digit=*/false);
    ++at_;
    const MathNode value = argument(false);
    return value ? node_of(Op::kNegate, {value}) : nullptr;
  }

  MathNode enclosed(const char* close) {
    const size_t before = at_;
    ++at_;
    MathNode value = sum();
    if (value && mark(close)) {
      ++at_;
      return value;
    }
    at_ = before;
    return nullptr;
  }

  // In braces, or one token; of a number after \frac one digit: \frac12.
  MathNode argument(bool digit_by_digit) {
    if (!more()) return nullptr;
    if (mark("{")) return enclosed("}");
    if (token().kind != Kind::kNumber || !digit_by_digit) return atom();
    const std::string& digits = token().text;
    MathNode value = node_of(rational_of(digits.substr(digit_, 1)));
    if (++digit_ == digits.size() || digits.find('.') != std::string::npos) {
      digit_ = 0;
      ++at_;
    }
    return value;
  }

  MathNode atom() {
    const Depth depth(depth_);
    if (!more() || depth_ > kDeepestExpression) return nullptr;
    if (token().kind == Kind::kNumber) return number();
    if (mark("(")) return enclosed(")");
    if (mark("{")) return enclosed("}");
    if (mark("[")) return enclosed("]");
    if (mark("|")) {
      MathNode value = enclosed("|");
      return value ? function_of("abs", {value}) : nullptr;
    }
    return token().kind == Kind::kSymbol && begins_atom() ? named() : nullptr;
  }

  MathNode number() {
    const std::string text = token().text;
    if (text.size() > kMostDigits) return nullptr;
    ++at_;
    if (mark("_")) {  // digits of another base
      const std::string base = subscript();
      return base.empty() ? nullptr : variable("base " + base + ": " + text);
    }
    Rational value = rational_of(text);
    if (symbol("overline")) return repeating(text);
    const bool whole = text.find('.') == std::string::npos;
    if (whole && symbol("frac")) {
      const size_t before = at_;
      MathNode fraction = named();
      if (const auto part = proper_fraction(fraction)) return node_of(value + *part);
      at_ = before;
    }
    if (whole && at_ + 2 < end_ && token().kind == Kind::kNumber && tokens_[at_ + 1].is_mark("/") &&
        tokens_[at_ + 2].kind == Kind::kNumber) {
      const Rational below = rational_of(tokens_[at_ + 2].text);
      if (below == 0 || rational_of(token().text) >= below) return nullptr;
      value += rational_of(token().text) / below;
      at_ += 3;
    }
    return node_of(value);
  }

  static std::optional<Rational> proper_fraction(const MathNode& node) {
    if (!node || node->op != Op::kDivide || node->parts[0]->op != Op::kNumber || node->parts[1]->op != Op::kNumber)
      return std::nullopt;
    const Rational &above = node->parts[0]->number, &below = node->parts[1]->number;
    if (!is_whole(above) || !is_whole(below) || above >= below) return std::nullopt;
    return Rational(above / below);
  }

  // 0.1\overline{6}
  MathNode repeating(const std::string& text) {
    ++at_;
    if (text.find('.') == std::string::npos && !text.empty() && text.back() != '.') return repeating_digits(text + ".");
    return repeating_digits(text);
  }
  MathNode repeating_digits(const std::string& before) {
    if (!mark("{") || at_ + 2 >= end_ || tokens_[at_ + 1].kind != Kind::kNumber || !tokens_[at_ + 2].is_mark("}"))
      return nullptr;
    const std::string digits = tokens_[at_ + 1].text;
    if (digits.size() > kMostDigits || digits.find('.') != std::string::npos) return nullptr;
    at_ += 3;
    Integer scale = 1, nines = 1;
    for (size_t i = before.find('.') + 1; i < before.size(); ++i) scale *= 10;
    for (size_t i = 0; i < digits.size(); ++i) nines *= 10;
    const std::string whole = before.back() == '.' ? before + "0" : before;
    return node_of(rational_of(whole) + rational_of(digits) / Rational(scale * (nines - 1)));
  }

  // "1" of x_1 and x_{1}; "" where there is none.
  std::string subscript() {
    ++at_;
    if (!more()) return "";
    if (!mark("{")) return tokens_[at_++].text;
    std::string text;
    for (++at_; more() && !mark("}"); ++at_) text += token().text + " ";
    if (!more()) return "";
    ++at_;
    if (!text.empty()) text.pop_back();
    return text;
  }

  static MathNode variable(std::string name) {
    return std::make_shared<const Node>(Node{Op::kVariable, 0, std::move(name)});
  }

  MathNode named() {
    const std::string name = token().text;
    ++at_;
    if (name == "frac" || name == "binom") {
      MathNode above = argument(true);
      MathNode below = above ? argument(true) : nullptr;
      if (digit_ != 0) {  // \frac123 is 1/2 times 3: nobody means that
        digit_ = 0;
        return nullptr;
      }
      if (!below) return nullptr;
      return name == "frac" ? node_of(Op::kDivide, {above, below}) : function_of("binom", {above, below});
    }
    if (name == "sqrt" || name == "cbrt") return root(name == "cbrt");
    static const std::set<std::string> functions = {"sin", "cos",    "tan",    "cot",    "sec", "csc",
                                                    "log", "arcsin", "arccos", "arctan", "ln",  "exp"};
    if (functions.contains(name)) return applied(name);
    if (!mark("_")) return variable(name);
    const std::string index = subscript();
    return index.empty() ? nullptr : variable(name + "_" + index);
  }

  MathNode root(bool cube) {
    MathNode degree = node_of(Rational(cube ? 3 : 2));
    if (mark("[")) {
      degree = enclosed("]");
      if (!degree) return nullptr;
    }
    MathNode value = argument(false);
    return value ? node_of(Op::kPower, {value, node_of(Op::kDivide, {node_of(Rational(1)), degree})}) : nullptr;
  }

  MathNode applied(const std::string& name) {
    MathNode base, exponent;
    while (mark("_") || mark("^")) {
      const bool below = take("_");
      MathNode& place = below ? base : exponent;
      place = signed_power_argument();
      if (!place) return nullptr;
    }
    MathNode value = power();
    const bool in_brackets = value && tokens_[at_ - 1].is_mark(")");
    while (value && more() && !in_brackets && token().kind == Kind::kSymbol && begins_atom()) {
      MathNode next = power();
      if (!next) break;
      value = node_of(Op::kMultiply, {value, next});
    }
    if (!value) return nullptr;
    MathNode node = function_of(name, {value});
    if (base) node = node_of(Op::kDivide, {node, function_of(name, {base})});
    return exponent ? node_of(Op::kPower, {node, exponent}) : node;
  }

  const std::vector<MathToken>& tokens_;
  size_t at_, end_;
  size_t digit_ = 0;  // digits of the number at hand that \frac has taken
  int depth_ = 0;
};

}  // namespace

std::optional<MathExpression> MathExpression::read(const std::vector<MathToken>& tokens, size_t begin, size_t end,
                                                   size_t& used) {
  Reader reader(tokens, begin, end);
  MathNode node = reader.sum();
  if (!node) return std::nullopt;
  used = reader.at() - begin;
  return MathExpression(std::move(node));
}

}  // namespace kvc
