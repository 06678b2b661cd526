// A template's tokens as a parser takes them, with its errors.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/lexer.h"

namespace kvc::jinja {

class TokenReader {
 protected:
  TokenReader(const std::string& source, const std::string& where)
      : where_(where), tokens_(cut_tokens(source, where)) {}

  using Kind = Token::Kind;
  using Words = std::initializer_list<std::string_view>;

  // Counts how deep the parser calls itself.
  class Nest {
   public:
    explicit Nest(TokenReader& reader) : reader_(reader) {
      if (++reader_.nesting_ > kMaxNesting) reader_.wrong("the template nests deeper than 100 levels");
    }
    ~Nest() { --reader_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    TokenReader& reader_;
  };

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
  // The token behind this one, or the last.
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const std::string& where() const { return where_; }

 private:
  static constexpr int kMaxNesting = 100;

  const std::string& where_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace kvc::jinja
