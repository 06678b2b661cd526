// Parses expressions; the statements of parser.cpp build on it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/text/jinja/syntax.h"
#include "harness/text/jinja/token_reader.h"

namespace kvc::jinja {

// Grammar and precedence are those of Jinja 3.1.
class ExpressionParser : protected TokenReader {
 protected:
  using TokenReader::TokenReader;

  ExpressionPtr make(Op op, int line, std::vector<ExpressionPtr> parts = {}) const;
  // Expressions with commas are a tuple.
  ExpressionPtr tuple(bool with_choice = true, bool may_be_empty = false);
  ExpressionPtr expression();
  ExpressionPtr filters(ExpressionPtr value);
  ExpressionPtr filter(ExpressionPtr value);
  // Stands for what a block's body writes: the variable without a name.
  ExpressionPtr body_text() const { return make(Op::kName, now().line); }

 private:
  // Nodes are freed and computed by functions that call themselves, so no tree gets deep.
  ExpressionPtr measured(ExpressionPtr made) const;
  template <typename... Parts>
  static std::vector<ExpressionPtr> list(Parts... parts) {
    std::vector<ExpressionPtr> result;
    (result.push_back(std::move(parts)), ...);
    return result;
  }
  ExpressionPtr any();
  ExpressionPtr all();
  template <typename Part>
  ExpressionPtr joined(std::string_view word, Op op, const Part& part) {
    const int line = now().line;
    std::vector<ExpressionPtr> parts = list(part());
    while (take_word(word)) parts.push_back(part());
    return parts.size() == 1 ? std::move(parts.front()) : make(op, line, std::move(parts));
  }
  ExpressionPtr negation();
  bool take_comparison(std::string& sign);
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr constant(Value value, int line) const;
  ExpressionPtr primary();
  ExpressionPtr word(const Token& token) const;
  ExpressionPtr sequence();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr subscript(ExpressionPtr value, int line);
  ExpressionPtr call(ExpressionPtr value, int line);
  // Behind the opening bracket, to the closing one.
  void arguments(Expression& made);
  ExpressionPtr test(ExpressionPtr value);
};

}  // namespace kvc::jinja
