// Grammar and precedence are those of Jinja 3.1.
#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/lexer.h"
#include "harness/text/jinja/syntax.h"

namespace kvc::jinja {
namespace {

constexpr int kMaxNesting = 100;
constexpr int kMaxChain = 200;

class Parser {
 public:
  Parser(const std::string& source, const std::string& where) : where_(where), tokens_(cut_tokens(source, where)) {}

  Block run() { return block({}, "the template"); }

 private:
  using Kind = Token::Kind;
  using Words = std::initializer_list<std::string_view>;

  // Counts how deep the parser calls itself.
  class Nest {
   public:
    explicit Nest(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.wrong("the template nests deeper than 100 levels");
    }
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    Parser& parser_;
  };

  // --- tokens -------------------------------------------------------------------------------------------------------

  const Token& now() const { return tokens_[at_]; }
  const Token& next() { return tokens_[now().kind == Kind::kEnd ? at_ : at_++]; }
  bool is_sign(std::string_view sign) const { return now().kind == Kind::kSign && now().text == sign; }
  bool is_word(std::string_view word) const { return now().kind == Kind::kName && now().text == word; }
  bool is_word(Words words) const {
    return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return is_word(word); });
  }
  bool take_sign(std::string_view sign) { return is_sign(sign) && (next(), true); }
  bool take_word(std::string_view word) { return is_word(word) && (next(), true); }

  [[noreturn]] void wrong(const std::string& fact) const { fail(fact, where_, now().line); }
  [[noreturn]] void unexpected(std::string_view wanted) const {
    std::string seen = now().kind == Kind::kEnd         ? "the end of the template"
                       : now().kind == Kind::kTagEnd    ? "the end of the tag"
                       : now().kind == Kind::kOutputEnd ? "'}}'"
                                                        : "'" + excerpt(now().text) + "'";
    if (now().kind == Kind::kInteger || now().kind == Kind::kReal) seen = "a number";
    wrong(fmt::format("{} is expected, not {}", wanted, seen));
  }
  void want_sign(std::string_view sign) {
    if (!take_sign(sign)) unexpected(fmt::format("'{}'", sign));
  }
  void want_word(std::string_view word) {
    if (!take_word(word)) unexpected(fmt::format("'{}'", word));
  }
  void want(Kind kind, std::string_view wanted) {
    if (now().kind != kind) unexpected(wanted);
    next();
  }
  std::string want_name() {
    if (now().kind != Kind::kName) unexpected("a name");
    return next().text;
  }

  // --- statements ---------------------------------------------------------------------------------------------------

  // Up to a tag that begins with one of `ends`, which is left standing at its word; without ends to the template's end.
  Block block(Words ends, std::string_view opened_by) {
    const Nest nest(*this);
    const int line = now().line;
    Block statements;
    for (;;) {
      auto statement = std::make_unique<Statement>();
      statement->line = now().line;
      if (now().kind == Kind::kText) {
        statement->kind = Statement::Kind::kText;
        statement->text = Text(next().text, true);
      } else if (now().kind == Kind::kOutputBegin) {
        next();
        statement->kind = Statement::Kind::kOutput;
        statement->expression = tuple();
        want(Kind::kOutputEnd, "'}}'");
      } else if (now().kind == Kind::kTagBegin) {
        next();
        if (is_word(ends)) return statements;
        tag(*statement);
      } else {
        if (ends.size() == 0) return statements;
        fail(fmt::format("{} is not closed: '{}' is missing", opened_by, *(ends.end() - 1)), where_, line);
      }
      statements.push_back(std::move(statement));
    }
  }

  void end_tag(std::string_view word) {
    want_word(word);
    want(Kind::kTagEnd, "the end of the tag");
  }
  void tag_end() { want(Kind::kTagEnd, "the end of the tag"); }

  void tag(Statement& statement) {
    const std::string word = want_name();
    if (word == "if") return if_tag(statement);
    if (word == "for") return for_tag(statement);
    if (word == "set") return set_tag(statement);
    if (word == "macro") return macro_tag(statement);
    if (word == "with") return with_tag(statement);
    if (word == "filter") return filter_tag(statement);
    if (word == "break" || word == "continue") {
      if (loops_ == 0) wrong(fmt::format("'{}' outside a loop", word));
      statement.kind = word == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
      return tag_end();
    }
    if (word == "generation") {  // marks what a model is trained on; prints its body
      statement.kind = Statement::Kind::kScope;
      tag_end();
      statement.body = own_block("endgeneration", "'generation'");
      return;
    }
    wrong(fmt::format("the statement '{}' is not supported", excerpt(word)));
  }

  // A body that a loop outside cannot be left from.
  Block own_block(std::string_view end, std::string_view opened_by) {
    const int loops = loops_;
    loops_ = 0;
    Block body = block({end}, opened_by);
    loops_ = loops;
    end_tag(end);
    return body;
  }

  void if_tag(Statement& statement) {
    statement.kind = Statement::Kind::kIf;
    do {
      ExpressionPtr test = tuple(false);
      tag_end();
      Block body = block({"elif", "else", "endif"}, "'if'");
      statement.branches.emplace_back(std::move(test), std::move(body));
    } while (take_word("elif"));
    if (take_word("else")) {
      tag_end();
      statement.otherwise = block({"endif"}, "'else'");
    }
    end_tag("endif");
  }

  void for_tag(Statement& statement) {
    statement.kind = Statement::Kind::kFor;
    statement.target = target(false);
    want_word("in");
    statement.expression = tuple(false);
    if (take_word("if")) statement.test = expression();
    if (is_word("recursive")) wrong("a recursive loop is not supported");
    tag_end();
    ++loops_;
    statement.body = block({"else", "endfor"}, "'for'");
    --loops_;
    if (take_word("else")) {
      tag_end();
      statement.otherwise = block({"endfor"}, "'else'");
    }
    end_tag("endfor");
  }

  void set_tag(Statement& statement) {
    statement.target = target(true);
    if (take_sign("=")) {
      statement.kind = Statement::Kind::kSet;
      statement.expression = tuple();
      return tag_end();
    }
    statement.kind = Statement::Kind::kSetBlock;
    if (is_sign("|")) statement.expression = filters(body_text());
    tag_end();
    statement.body = own_block("endset", "'set'");
  }

  void macro_tag(Statement& statement) {
    statement.kind = Statement::Kind::kMacro;
    statement.macro.name = want_name();
    want_sign("(");
    while (!take_sign(")")) {
      if (!statement.macro.parameters.empty()) want_sign(",");
      std::string name = want_name();
      ExpressionPtr fallback;
      if (take_sign("=")) {
        fallback = expression();
      } else if (!statement.macro.parameters.empty() && statement.macro.parameters.back().second != nullptr) {
        wrong("a parameter without a default follows one with a default");
      }
      statement.macro.parameters.emplace_back(std::move(name), std::move(fallback));
    }
    tag_end();
    statement.body = own_block("endmacro", "'macro'");
  }

  void with_tag(Statement& statement) {
    statement.kind = Statement::Kind::kWith;
    while (now().kind != Kind::kTagEnd) {
      if (!statement.settings.empty()) want_sign(",");
      Target name = target(false);
      want_sign("=");
      statement.settings.emplace_back(std::move(name), expression());
    }
    tag_end();
    statement.body = block({"endwith"}, "'with'");
    end_tag("endwith");
  }

  // Stands for what the body writes: the variable without a name.
  ExpressionPtr body_text() const { return make(Op::kName, now().line); }

  void filter_tag(Statement& statement) {
    statement.kind = Statement::Kind::kFilterBlock;
    statement.expression = filters(filter(body_text()));
    tag_end();
    statement.body = own_block("endfilter", "'filter'");
  }

  // --- targets ------------------------------------------------------------------------------------------------------

  Target target(bool allows_attribute) {
    Target first = target_part(allows_attribute);
    if (!is_sign(",")) return first;
    Target all;
    all.parts.push_back(std::move(first));
    while (take_sign(",")) {
      if (now().kind != Kind::kName && !is_sign("(")) break;
      if (is_word("in")) break;
      all.parts.push_back(target_part(allows_attribute));
    }
    return all;
  }

  Target target_part(bool allows_attribute) {
    const Nest nest(*this);
    Target result;
    if (take_sign("(")) {
      result = target(allows_attribute);
      want_sign(")");
      return result;
    }
    result.name = want_name();
    static constexpr std::string_view kNotNames[] = {"true", "false", "none", "True", "False", "None"};
    if (std::find(std::begin(kNotNames), std::end(kNotNames), result.name) != std::end(kNotNames)) {
      wrong(fmt::format("'{}' cannot be assigned to", result.name));
    }
    if (allows_attribute && take_sign(".")) result.attribute = want_name();
    return result;
  }

  // --- expressions --------------------------------------------------------------------------------------------------

  ExpressionPtr make(Op op, int line, std::vector<ExpressionPtr> parts = {}) const {
    auto made = std::make_unique<Expression>();
    made->op = op;
    made->line = line;
    made->parts = std::move(parts);
    return measured(std::move(made));
  }

  // Nodes are freed and computed by functions that call themselves, so no tree gets deep.
  ExpressionPtr measured(ExpressionPtr made) const {
    made->depth = 1;
    const auto add = [&](const ExpressionPtr& part) {
      if (part != nullptr) made->depth = std::max(made->depth, part->depth + 1);
    };
    for (const ExpressionPtr& part : made->parts) add(part);
    for (const auto& [name, part] : made->keywords) add(part);
    if (made->depth > kMaxChain) wrong("an expression chains more than 200 operations");
    return made;
  }

  template <typename... Parts>
  static std::vector<ExpressionPtr> list(Parts... parts) {
    std::vector<ExpressionPtr> result;
    (result.push_back(std::move(parts)), ...);
    return result;
  }

  // Expressions with commas are a tuple.
  ExpressionPtr tuple(bool with_choice = true, bool may_be_empty = false) {
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

  ExpressionPtr expression() {
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

  ExpressionPtr any() {
    return joined("or", Op::kOr, [this] { return all(); });
  }
  ExpressionPtr all() {
    return joined("and", Op::kAnd, [this] { return negation(); });
  }

  template <typename Part>
  ExpressionPtr joined(std::string_view word, Op op, const Part& part) {
    const int line = now().line;
    std::vector<ExpressionPtr> parts = list(part());
    while (take_word(word)) parts.push_back(part());
    return parts.size() == 1 ? std::move(parts.front()) : make(op, line, std::move(parts));
  }

  ExpressionPtr negation() {
    if (!is_word("not")) return comparison();
    const Nest nest(*this);
    const int line = next().line;
    return make(Op::kNot, line, list(negation()));
  }

  bool take_comparison(std::string& sign) {
    static constexpr std::string_view kSigns[] = {"==", "!=", "<", "<=", ">", ">="};
    for (const std::string_view known : kSigns) {
      if (is_sign(known)) sign = known;
    }
    if (is_word("in")) sign = "in";
    if (is_word("not") && tokens_[at_ + 1].kind == Kind::kName && tokens_[at_ + 1].text == "in") {
      next();
      sign = "not in";
    }
    return !sign.empty() && (next(), true);
  }

  ExpressionPtr comparison() {
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

  ExpressionPtr sum() {
    ExpressionPtr left = concatenation();
    while (is_sign("+") || is_sign("-")) {
      const Op op = is_sign("+") ? Op::kAdd : Op::kSubtract;
      const int line = next().line;
      ExpressionPtr right = concatenation();
      left = make(op, line, list(std::move(left), std::move(right)));
    }
    return left;
  }

  ExpressionPtr concatenation() {
    const int line = now().line;
    std::vector<ExpressionPtr> parts = list(product());
    while (take_sign("~")) parts.push_back(product());
    return parts.size() == 1 ? std::move(parts.front()) : make(Op::kConcat, line, std::move(parts));
  }

  ExpressionPtr product() {
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

  ExpressionPtr power() {
    ExpressionPtr left = unary(true);
    while (is_sign("**")) {
      const int line = next().line;
      ExpressionPtr right = unary(true);
      left = make(Op::kPower, line, list(std::move(left), std::move(right)));
    }
    return left;
  }

  ExpressionPtr unary(bool with_filters) {
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

  ExpressionPtr constant(Value value, int line) const {
    ExpressionPtr made = make(Op::kConstant, line);
    made->constant = std::move(value);
    return made;
  }

  ExpressionPtr primary() {
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

  ExpressionPtr word(const Token& token) const {
    if (token.text == "true" || token.text == "True") return constant(true, token.line);
    if (token.text == "false" || token.text == "False") return constant(false, token.line);
    if (token.text == "none" || token.text == "None") return constant(nullptr, token.line);
    ExpressionPtr made = make(Op::kName, token.line);
    made->name = token.text;
    return made;
  }

  ExpressionPtr sequence() {
    const int line = now().line;
    std::vector<ExpressionPtr> items;
    while (!take_sign("]")) {
      if (!items.empty()) want_sign(",");
      if (take_sign("]")) break;
      items.push_back(expression());
    }
    return make(Op::kList, line, std::move(items));
  }

  ExpressionPtr dict() {
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

  ExpressionPtr postfix(ExpressionPtr value) {
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

  ExpressionPtr subscript(ExpressionPtr value, int line) {
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

  ExpressionPtr call(ExpressionPtr value, int line) {
    ExpressionPtr made = make(Op::kCall, line, list(std::move(value)));
    arguments(*made);
    return measured(std::move(made));
  }

  // Behind the opening bracket, to the closing one.
  void arguments(Expression& made) {
    for (bool first = true; !take_sign(")"); first = false) {
      if (!first) want_sign(",");
      if (take_sign(")")) return;
      if (is_sign("*") || is_sign("**")) wrong("arguments given as '*' or '**' are not supported");
      const Token& following = tokens_[std::min(at_ + 1, tokens_.size() - 1)];
      if (now().kind == Kind::kName && following.kind == Kind::kSign && following.text == "=") {
        std::string name = next().text;
        next();
        made.keywords.emplace_back(std::move(name), expression());
      } else {
        if (!made.keywords.empty()) wrong("an argument without a name follows one with a name");
        made.parts.push_back(expression());
      }
    }
  }

  ExpressionPtr filters(ExpressionPtr value) {
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

  ExpressionPtr filter(ExpressionPtr value) {
    ExpressionPtr made = make(Op::kFilter, now().line, list(std::move(value)));
    made->name = want_name();
    if (take_sign("(")) arguments(*made);
    return measured(std::move(made));
  }

  ExpressionPtr test(ExpressionPtr value) {
    const int line = now().line;
    const bool negated = take_word("not");
    ExpressionPtr made = make(Op::kTest, line, list(std::move(value)));
    made->name = want_name();
    const bool has_argument = now().kind == Kind::kName || now().kind == Kind::kString ||
                              now().kind == Kind::kInteger || now().kind == Kind::kReal || is_sign("[") || is_sign("{");
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

  const std::string& where_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(const std::string& source, const std::string& where) {
  return Parser(source, where).run();
}

}  // namespace kvc::jinja
