#include "harness/text/jinja/expression_parser.h"

#include <algorithm>
#include <string_view>

namespace kvc::jinja {

namespace {

constexpr int kMaxChain = 200;

}  // namespace

ExpressionPtr ExpressionParser::make(Op op, int line, std::vector<ExpressionPtr> parts) const {
  auto made = std::make_unique<Expression>();
  made->op = op;
  made->line = line;
  made->parts = std::move(parts);
  return measured(std::move(made));
}

ExpressionPtr ExpressionParser::measured(ExpressionPtr made) const {
  made->depth = 1;
  const auto add = [&](const ExpressionPtr& part) {
    if (part != nullptr) made->depth = std::max(made->depth, part->depth + 1);
  };
  for (const ExpressionPtr& part : made->parts) add(part);
  for (const auto& [name, part] : made->keywords) add(part);
  if (made->depth > kMaxChain) wrong("an expression chains more than 200 operations");
  return made;
}

ExpressionPtr ExpressionParser::tuple(bool with_choice, bool may_be_empty) {
  const int line = now().line;
  std::vector<ExpressionPtr> items;
  bool has_comma = false;
  const auto ends = [&] { return is_sign(")") || now().kind == Kind::kTagEnd || now().kind == Kind::kOutputEnd; };
  while (!ends()) {
    items.push_back(with_choice ? expression() : any());
    if (!take_sign(",")) break;
    has_comma = true;
  }
  if (items.size() == 1 && !has_comma) return std::move(items.front());
  if (items.empty() && !may_be_empty) unexpected("an expression");
  return make(Op::kTuple, line, std::move(items));
}

ExpressionPtr ExpressionParser::expression() {
  const Nest nest(*this);
  ExpressionPtr result = any();
  while (is_word("if")) {
    const int line = next().line;
    ExpressionPtr test = any();
    ExpressionPtr otherwise = take_word("else") ? expression() : nullptr;
    result = make(Op::kChoice, line, list(std::move(test), std::move(result), std::move(otherwise)));
  }
  return result;
}

ExpressionPtr ExpressionParser::any() {
  return joined("or", Op::kOr, [this] { return all(); });
}

ExpressionPtr ExpressionParser::all() {
  return joined("and", Op::kAnd, [this] { return negation(); });
}

ExpressionPtr ExpressionParser::negation() {
  if (!is_word("not")) return comparison();
  const Nest nest(*this);
  const int line = next().line;
  return make(Op::kNot, line, list(negation()));
}

bool ExpressionParser::take_comparison(std::string& sign) {
  static constexpr std::string_view kSigns[] = {"==", "!=", "<", "<=", ">", ">="};
  for (const std::string_view known : kSigns) {
    if (is_sign(known)) sign = known;
  }
  if (is_word("in")) sign = "in";
  if (is_word("not") && following().kind == Kind::kName && following().text == "in") {
    next();
    sign = "not in";
  }
  return !sign.empty() && (next(), true);
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = now().line;
  std::vector<ExpressionPtr> parts = list(sum());
  std::vector<std::string> signs;
  for (std::string sign; take_comparison(sign); sign.clear()) {
    signs.push_back(sign);
    parts.push_back(sum());
  }
  if (signs.empty()) return std::move(parts.front());
  ExpressionPtr made = make(Op::kCompare, line, std::move(parts));
  made->signs = std::move(signs);
  return made;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (is_sign("+") || is_sign("-")) {
    const Op op = is_sign("+") ? Op::kAdd : Op::kSubtract;
    const int line = next().line;
    ExpressionPtr right = concatenation();
    left = make(op, line, list(std::move(left), std::move(right)));
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = now().line;
  std::vector<ExpressionPtr> parts = list(product());
  while (take_sign("~")) parts.push_back(product());
  return parts.size() == 1 ? std::move(parts.front()) : make(Op::kConcat, line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  for (;;) {
    Op op = Op::kMultiply;
    if (is_sign("/")) op = Op::kDivide;
    if (is_sign("//")) op = Op::kFloorDivide;
    if (is_sign("%")) op = Op::kRemainder;
    if (op == Op::kMultiply && !is_sign("*")) return left;
    const int line = next().line;
    ExpressionPtr right = power();
    left = make(op, line, list(std::move(left), std::move(right)));
  }
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(true);
  while (is_sign("**")) {
    const int line = next().line;
    ExpressionPtr right = unary(true);
    left = make(Op::kPower, line, list(std::move(left), std::move(right)));
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Nest nest(*this);
  ExpressionPtr result;
  if (is_sign("-") || is_sign("+")) {
    const Op op = is_sign("-") ? Op::kNegative : Op::kPositive;
    const int line = next().line;
    result = make(op, line, list(unary(false)));
  } else {
    result = primary();
  }
  result = postfix(std::move(result));
  return with_filters ? filters(std::move(result)) : std::move(result);
}

ExpressionPtr ExpressionParser::constant(Value value, int line) const {
  ExpressionPtr made = make(Op::kConstant, line);
  made->constant = std::move(value);
  return made;
}

ExpressionPtr ExpressionParser::primary() {
  const Token& token = now();
  switch (token.kind) {
    case Kind::kName:
      next();
      return word(token);
    case Kind::kString: {
      std::string value;
      while (now().kind == Kind::kString) value += next().text;
      return constant(Text(std::move(value), true), token.line);
    }
    case Kind::kInteger:
      next();
      return constant(token.integer, token.line);
    case Kind::kReal:
      next();
      return constant(token.real, token.line);
    default:
      break;
  }
  if (take_sign("(")) {
    ExpressionPtr inner = tuple(true, true);
    want_sign(")");
    return inner;
  }
  if (take_sign("[")) return sequence();
  if (take_sign("{")) return dict();
  unexpected("an expression");
}

ExpressionPtr ExpressionParser::word(const Token& token) const {
  if (token.text == "true" || token.text == "True") return constant(true, token.line);
  if (token.text == "false" || token.text == "False") return constant(false, token.line);
  if (token.text == "none" || token.text == "None") return constant(nullptr, token.line);
  ExpressionPtr made = make(Op::kName, token.line);
  made->name = token.text;
  return made;
}

ExpressionPtr ExpressionParser::sequence() {
  const int line = now().line;
  std::vector<ExpressionPtr> items;
  while (!take_sign("]")) {
    if (!items.empty()) want_sign(",");
    if (take_sign("]")) break;
    items.push_back(expression());
  }
  return make(Op::kList, line, std::move(items));
}

ExpressionPtr ExpressionParser::dict() {
  const int line = now().line;
  std::vector<ExpressionPtr> items;
  while (!take_sign("}")) {
    if (!items.empty()) want_sign(",");
    if (take_sign("}")) break;
    items.push_back(expression());
    want_sign(":");
    items.push_back(expression());
  }
  return make(Op::kDict, line, std::move(items));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  for (;;) {
    const int line = now().line;
    if (take_sign(".")) {
      if (now().kind == Kind::kInteger) {
        ExpressionPtr index = constant(next().integer, line);
        value = make(Op::kItem, line, list(std::move(value), std::move(index)));
        continue;
      }
      value = make(Op::kAttribute, line, list(std::move(value)));
      value->name = want_name();
    } else if (take_sign("[")) {
      value = subscript(std::move(value), line);
    } else if (take_sign("(")) {
      value = call(std::move(value), line);
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr value, int line) {
  std::vector<ExpressionPtr> parts = list(std::move(value));
  bool slice = false;
  if (!is_sign(":")) parts.push_back(expression());
  while (take_sign(":")) {
    if (!slice) parts.resize(2);
    slice = true;
    parts.push_back(is_sign(":") || is_sign("]") ? nullptr : expression());
    if (parts.size() > 4) wrong("a slice has more than three parts");
  }
  if (is_sign(",")) wrong("a tuple as an index is not supported");
  want_sign("]");
  if (slice) parts.resize(4);
  return make(slice ? Op::kSlice : Op::kItem, line, std::move(parts));
}

ExpressionPtr ExpressionParser::call(ExpressionPtr value, int line) {
  ExpressionPtr made = make(Op::kCall, line, list(std::move(value)));
  arguments(*made);
  return measured(std::move(made));
}

void ExpressionParser::arguments(Expression& made) {
  for (bool first = true; !take_sign(")"); first = false) {
    if (!first) want_sign(",");
    if (take_sign(")")) return;
    if (is_sign("*") || is_sign("**")) wrong("arguments given as '*' or '**' are not supported");
    if (now().kind == Kind::kName && following().kind == Kind::kSign && following().text == "=") {
      std::string name = next().text;
      next();
      made.keywords.emplace_back(std::move(name), expression());
    } else {
      if (!made.keywords.empty()) wrong("an argument without a name follows one with a name");
      made.parts.push_back(expression());
    }
  }
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr value) {
  for (;;) {
    const int line = now().line;
    if (take_sign("|")) {
      value = filter(std::move(value));
    } else if (is_word("is")) {
      next();
      value = test(std::move(value));
    } else if (take_sign("(")) {
      value = call(std::move(value), line);
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr value) {
  ExpressionPtr made = make(Op::kFilter, now().line, list(std::move(value)));
  made->name = want_name();
  if (take_sign("(")) arguments(*made);
  return measured(std::move(made));
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value) {
  const int line = now().line;
  const bool negated = take_word("not");
  ExpressionPtr made = make(Op::kTest, line, list(std::move(value)));
  made->name = want_name();
  const bool has_argument = now().kind == Kind::kName || now().kind == Kind::kString || now().kind == Kind::kInteger ||
                            now().kind == Kind::kReal || is_sign("[") || is_sign("{");
  if (take_sign("(")) {
    arguments(*made);
  } else if (has_argument && !is_word({"else", "or", "and"})) {
    if (is_word("is")) wrong("tests cannot be chained");
    if (!is_word({"if", "in", "not", "recursive"})) {
      const Nest nest(*this);
      made->parts.push_back(postfix(primary()));
    }
  }
  made = measured(std::move(made));
  return negated ? make(Op::kNot, line, list(std::move(made))) : std::move(made);
}

}  // namespace kvc::jinja
