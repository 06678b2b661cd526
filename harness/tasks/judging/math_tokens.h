// A mathematical answer, plain or LaTeX, cut into tokens: what math_expression.h and math_answer.h read.
#pragma once

#include <string>
#include <vector>

namespace kvc {

struct MathToken {
  enum class Kind {
    kNumber,  // digits, at most one decimal point; thousands separators are gone
    kSymbol,  // a variable ("x"), a constant or function ("pi", "sqrt"), a LaTeX command without its backslash
    kWord,    // a word of plain text in small letters, a unit ("cm", "degree", "%", "dollar")
    kMark,    // one of ( ) [ ] { } | , ; : = < > + - * / ^ _ ! & and "\{", "\}", "\\" (a row's end), "..."
  };
  Kind kind;
  std::string text;
  bool comma_groups = false;  // a number written with commas: "1,234", which may also be a list

  bool is(Kind of_kind, const char* of_text) const { return kind == of_kind && text == of_text; }
  bool is_mark(const char* mark) const { return is(Kind::kMark, mark); }
  bool is_symbol(const char* symbol) const { return is(Kind::kSymbol, symbol); }
  bool is_word(const char* word) const { return is(Kind::kWord, word); }
};

// Spacing, sizes and fonts are dropped: \left, \right, \!, \displaystyle, $...$, \mathbf{}. \dfrac and \tfrac are
// "frac"; \cdot, \times and their signs are "*"; ^\circ and the degree sign are the word "degree"; \% is "%"; a
// currency sign is a word. Letters inside \text{} are words. Elsewhere a run of letters is a word where it stands alone
// or has three letters or more behind a blank ("5 apples"), else a product of variables ("5xy").
std::vector<MathToken> math_tokens(const std::string& text);

// "degree", "cm", "m"...: one name for all the ways to write a unit; other words without a plural's s.
std::string unit_name(const std::string& word);

}  // namespace kvc
