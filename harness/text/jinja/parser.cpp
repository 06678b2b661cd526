// Statements and blocks; grammar and precedence are those of Jinja 3.1.
#include <algorithm>
#include <string_view>

#include "harness/text/jinja/expression_parser.h"
#include "harness/text/jinja/syntax.h"

namespace kvc::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  Parser(const std::string& source, const std::string& where) : ExpressionParser(source, where) {}

  Block run() { return block({}, "the template"); }

 private:
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
        fail(fmt::format("{} is not closed: '{}' is missing", opened_by, *(ends.end() - 1)), where(), line);
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

  void filter_tag(Statement& statement) {
    statement.kind = Statement::Kind::kFilterBlock;
    statement.expression = filters(filter(body_text()));
    tag_end();
    statement.body = own_block("endfilter", "'filter'");
  }

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

  int loops_ = 0;
};

}  // namespace

Block parse_template(const std::string& source, const std::string& where) {
  return Parser(source, where).run();
}

}  // namespace kvc::jinja
