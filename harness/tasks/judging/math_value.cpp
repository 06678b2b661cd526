#include "harness/tasks/judging/math_value.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace kvc {
namespace {

using ValueKind = MathValue::Kind;
using Tokens = std::vector<MathToken>;
using TokenKind = MathToken::Kind;

constexpr int kDeepestValue = 8;
constexpr size_t kMostItems = 200;

bool opens(const MathToken& token) {
  return token.is_mark("(") || token.is_mark("[") || token.is_mark("{") || token.is_mark("\\{") ||
         token.is_symbol("langle") || (token.kind == TokenKind::kSymbol && token.text.starts_with("begin{"));
}
bool closes(const MathToken& token) {
  return token.is_mark(")") || token.is_mark("]") || token.is_mark("}") || token.is_mark("\\}") ||
         token.is_symbol("rangle") || (token.kind == TokenKind::kSymbol && token.text.starts_with("end{"));
}

// Cut at the tokens outside of all brackets for which `at` is true; the pieces may be empty.
template <class Test>
std::vector<Tokens> split(const Tokens& tokens, Test at) {
  std::vector<Tokens> pieces(1);
  int64_t depth = 0;
  for (const MathToken& token : tokens) {
    if (depth == 0 && at(token)) {
      pieces.emplace_back();
      continue;
    }
    depth += opens(token) ? 1 : closes(token) ? -1 : 0;
    pieces.back().push_back(token);
  }
  return pieces;
}

bool is_text_at_all(const MathToken& token) {
  return token.kind != TokenKind::kMark;
}

std::string plain_text(const Tokens& tokens) {
  const auto is_article = [](const MathToken& token) {
    return token.is_word("the") || token.is_word("a") || token.is_word("an");
  };
  const auto is_brace = [](const MathToken& token) { return token.is_mark("{") || token.is_mark("}"); };
  // \text{(A)} is a choice, not an article.
  const bool articles_count = std::all_of(tokens.begin(), tokens.end(), [&](const MathToken& token) {
    return is_article(token) || !is_text_at_all(token);
  });
  std::string text;
  bool behind_number = false;
  for (const MathToken& token : tokens) {
    if (is_brace(token) || (is_article(token) && !articles_count)) continue;
    const bool is_number = token.kind == TokenKind::kNumber;
    if (is_number && behind_number) text += ' ';  // 3 4 is not 34
    behind_number = is_number;
    text += token.text;
  }
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

bool is_comma(const MathToken& token) {
  return token.is_mark(",") || token.is_mark(";");
}
bool is_comparison(const MathToken& token) {
  return token.is_mark("<") || token.is_mark(">") || token.is_symbol("le") || token.is_symbol("ge");
}

Tokens trimmed(Tokens tokens) {
  const auto idle = [](const MathToken& token) {
    return token.is_mark(".") || is_comma(token) || token.is_mark(":") || token.is_mark("\\\\");
  };
  while (!tokens.empty() && idle(tokens.back())) tokens.pop_back();
  while (!tokens.empty() && (idle(tokens.front()) || tokens.front().is_word("and"))) tokens.erase(tokens.begin());
  return tokens;
}

// The pair of brackets around all of the tokens; "" where there is none.
std::string brackets_around(const Tokens& tokens) {
  if (tokens.size() < 2 || !opens(tokens.front()) || !closes(tokens.back())) return "";
  int64_t depth = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    depth += opens(tokens[i]) ? 1 : closes(tokens[i]) ? -1 : 0;
    if (depth == 0) return "";
  }
  return tokens.front().text + tokens.back().text;
}

Tokens inner(const Tokens& tokens) {
  return {tokens.begin() + 1, tokens.end() - 1};
}

class Builder {
 public:
  MathValue value(Tokens tokens, int depth) const {
    tokens = trimmed(std::move(tokens));
    MathValue made;
    made.text = plain_text(tokens);
    for (const MathToken& token : tokens) made.spelled += token.text + ' ';
    if (depth > kDeepestValue || tokens.empty() || tokens.size() > 600) return made;
    if (plus_minus(tokens, depth, made)) return made;
    const auto pieces = split(
        tokens, [](const MathToken& token) { return is_comma(token) || token.is_word("and") || token.is_word("or"); });
    if (pieces.size() > 1) return items(ValueKind::kList, pieces, depth, made);
    const auto sets = split(tokens, [](const MathToken& token) { return token.is_symbol("cup"); });
    if (sets.size() > 1) return items(ValueKind::kUnion, sets, depth, made);
    if (bracketed(tokens, depth, made) || related(tokens, depth, made) || expression(tokens, made)) return made;
    made.kind = ValueKind::kText;
    return made;
  }

 private:
  MathValue items(ValueKind kind, const std::vector<Tokens>& pieces, int depth, MathValue made) const {
    for (const Tokens& piece : pieces) {
      if (piece.empty()) continue;  // ", and"
      if (made.items.size() == kMostItems) return MathValue{.text = made.text};
      made.items.push_back(value(piece, depth + 1));
    }
    if (made.items.size() == 1) return made.items.front();
    made.kind = made.items.empty() ? ValueKind::kText : kind;
    return made;
  }

  // a \pm b: the list of both.
  bool plus_minus(const Tokens& tokens, int depth, MathValue& made) const {
    const auto is_it = [](const MathToken& token) { return token.is_symbol("pm") || token.is_symbol("mp"); };
    if (std::none_of(tokens.begin(), tokens.end(), is_it)) return false;
    std::vector<Tokens> both(2, tokens);
    for (size_t side = 0; side < 2; ++side) {
      for (MathToken& token : both[side]) {
        if (is_it(token)) token = {TokenKind::kMark, (token.text == "pm") == (side == 0) ? "+" : "-"};
      }
    }
    std::vector<Tokens> pieces;
    for (const Tokens& one : both) pieces.push_back(one);
    made = items(ValueKind::kList, pieces, depth, made);
    // "1 \pm 2, 7" is a list of lists: one list.
    std::vector<MathValue> flat;
    for (MathValue& item : made.items) {
      if (item.kind == ValueKind::kList) {
        for (MathValue& part : item.items) {
          if (std::none_of(flat.begin(), flat.end(), [&](const MathValue& known) { return same_value(known, part); }))
            flat.push_back(std::move(part));
        }
      } else {
        flat.push_back(std::move(item));
      }
    }
    made.items = std::move(flat);
    return true;
  }

  // An element counts once.
  MathValue set(const std::vector<Tokens>& pieces, int depth, MathValue made) const {
    made = items(ValueKind::kList, pieces, depth, made);
    if (made.kind == ValueKind::kText && made.items.empty() && pieces.size() == 1 && pieces[0].empty())
      made.text = made.spelled = "emptyset";
    if (made.kind != ValueKind::kList) return made;
    std::vector<MathValue> once;
    for (MathValue& item : made.items) {
      if (std::none_of(once.begin(), once.end(), [&](const MathValue& known) { return same_value(known, item); }))
        once.push_back(std::move(item));
    }
    made.items = std::move(once);
    return made.items.size() == 1 ? MathValue(made.items.front()) : made;
  }

  // 3:4, which is 6:8: the quotient.
  bool ratio(const Tokens& tokens, int depth, MathValue& made) const {
    const auto sides = split(tokens, [](const MathToken& token) { return token.is_mark(":"); });
    if (sides.size() != 2 || sides[0].empty() || sides[1].empty()) return false;
    for (const Tokens& side : sides) {
      const MathValue part = value(side, depth + 1);
      if (!part.expression || !part.unit.empty() || !part.expression->is_rational()) return false;
    }
    Tokens quotient = {{TokenKind::kMark, "("}};
    quotient.insert(quotient.end(), sides[0].begin(), sides[0].end());
    for (const char* mark : {")", "/", "("}) quotient.push_back({TokenKind::kMark, mark});
    quotient.insert(quotient.end(), sides[1].begin(), sides[1].end());
    quotient.push_back({TokenKind::kMark, ")"});
    made.items = {value(quotient, depth + 1)};
    made.kind = ValueKind::kTuple;
    made.brackets = sides[1].size() == 1 && sides[1][0].text.size() == 2 ? "::" : ":";
    return true;
  }

  bool bracketed(const Tokens& tokens, int depth, MathValue& made) const {
    const std::string around = brackets_around(tokens);
    if (around.empty()) return false;
    if (around.starts_with("begin{")) return matrix(tokens, depth, made);
    const Tokens inside = inner(tokens);
    const auto pieces = split(inside, is_comma);
    if (around == "\\{\\}") {
      made = set(pieces, depth, made);
      return true;
    }
    if (pieces.size() == 1) {
      if (around != "()" && around != "{}") return false;
      made = value(inside, depth + 1);
      return true;
    }
    static const std::map<std::string, std::string> kinds = {
        {"()", "()"}, {"[]", "[]"}, {"(]", "(]"}, {"[)", "[)"}, {"langlerangle", "<>"}};
    const auto found = kinds.find(around);
    if (found == kinds.end()) return false;
    made.brackets = found->second;
    for (const Tokens& piece : pieces) made.items.push_back(value(piece, depth + 1));
    made.kind = ValueKind::kTuple;
    return true;
  }

  bool matrix(const Tokens& tokens, int depth, MathValue& made) const {
    static const std::set<std::string> kinds = {"begin{pmatrix}", "begin{bmatrix}", "begin{matrix}",
                                                "begin{array}",   "begin{Bmatrix}", "begin{smallmatrix}"};
    if (!kinds.contains(tokens.front().text)) return false;
    const Tokens inside = trimmed(inner(tokens));
    for (const Tokens& row : split(inside, [](const MathToken& token) { return token.is_mark("\\\\"); })) {
      const auto cells = split(row, [](const MathToken& token) { return token.is_mark("&"); });
      if (made.n_columns != 0 && made.n_columns != cells.size()) return false;
      made.n_columns = cells.size();
      for (const Tokens& cell : cells) made.items.push_back(value(cell, depth + 1));
    }
    made.kind = ValueKind::kMatrix;
    return true;
  }

  bool related(const Tokens& tokens, int depth, MathValue& made) const {
    const auto members = split(tokens, [](const MathToken& token) { return token.is_symbol("in"); });
    if (members.size() == 2 && !members[1].empty()) {
      made = value(members[1], depth + 1);
      return true;
    }
    const auto sides = split(tokens, [](const MathToken& token) { return token.is_mark("="); });
    if (sides.size() > 1) {
      made.items = {value(sides.front(), depth + 1), value(sides.back(), depth + 1)};
      made.kind = ValueKind::kEquation;
      return true;
    }
    return ratio(tokens, depth, made) || compared(tokens, depth, made);
  }

  // a < x <= b and x > a as intervals.
  bool compared(const Tokens& tokens, int depth, MathValue& made) const {
    const auto parts = split(tokens, is_comparison);
    if (parts.size() < 2 || parts.size() > 3) return false;
    std::vector<const MathToken*> signs;
    for (const MathToken& token : tokens) {
      if (is_comparison(token)) signs.push_back(&token);
    }
    if (signs.size() + 1 != parts.size()) return false;
    const auto grows = [](const MathToken& sign) { return sign.is_mark("<") || sign.is_symbol("le"); };
    const auto strict = [](const MathToken& sign) { return sign.kind == TokenKind::kMark; };
    std::vector<MathValue> values;
    for (const Tokens& part : parts) values.push_back(value(part, depth + 1));
    const auto is_variable = [](const MathValue& v) { return v.expression && v.expression->single_variable(); };
    const MathValue infinity = value({{TokenKind::kSymbol, "infty"}}, depth + 1);
    const MathValue minus_infinity = value({{TokenKind::kMark, "-"}, {TokenKind::kSymbol, "infty"}}, depth + 1);
    MathValue low = minus_infinity, high = infinity;
    bool open_low = true, open_high = true;
    const auto bound = [&](const MathValue& value, const MathToken& sign, bool below) {
      (below ? low : high) = value;
      (below ? open_low : open_high) = strict(sign);
    };
    if (parts.size() == 3) {
      if (!is_variable(values[1]) || grows(*signs[0]) != grows(*signs[1])) return false;
      bound(values[0], *signs[0], grows(*signs[0]));
      bound(values[2], *signs[1], !grows(*signs[1]));
    } else if (is_variable(values[0])) {
      bound(values[1], *signs[0], !grows(*signs[0]));
    } else if (is_variable(values[1])) {
      bound(values[0], *signs[0], grows(*signs[0]));
    } else {
      return false;
    }
    made.kind = ValueKind::kTuple;
    made.brackets = std::string(open_low ? "(" : "[") + (open_high ? ")" : "]");
    made.items = {low, high};
    return true;
  }

  bool expression(Tokens tokens, MathValue& made) const {
    const size_t sign = tokens.front().is_mark("-") || tokens.front().is_mark("+") ? 1 : 0;
    if (tokens.size() > sign + 1 && is_currency(tokens[sign])) {
      made.unit = unit_name(tokens[sign].text);
      tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(sign));
    }
    size_t used = 0;
    made.expression = MathExpression::read(tokens, 0, tokens.size(), used);
    if (!made.expression) return false;
    if (used < tokens.size() && scaled(tokens[used], made)) ++used;
    std::string unit;
    if (!unit_of(tokens, used, unit)) {
      made.expression.reset();
      made.unit.clear();
      return false;
    }
    if (made.unit.empty()) made.unit = unit;
    made.kind = ValueKind::kExpression;
    return true;
  }

  static bool is_currency(const MathToken& token) {
    return token.is_word("dollar") || token.is_word("euro") || token.is_word("pound_sterling");
  }

  static bool scaled(const MathToken& token, MathValue& made) {
    static const std::map<std::string, const char*> scales = {{"dozen", "12"},           {"hundred", "100"},
                                                              {"thousand", "1000"},      {"million", "1000000"},
                                                              {"billion", "1000000000"}, {"trillion", "1000000000000"}};
    const auto found = token.kind == TokenKind::kWord ? scales.find(token.text) : scales.end();
    if (found == scales.end()) return false;
    made.expression = made.expression->times(found->second);
    return true;
  }

  // Words, and numbers as powers of them: "cm^{2}", "miles per hour", "m/s^2". False where more stands there.
  static bool unit_of(const Tokens& tokens, size_t begin, std::string& unit) {
    bool words = false;
    for (size_t i = begin; i < tokens.size(); ++i) {
      const MathToken& token = tokens[i];
      if (token.kind == TokenKind::kWord) {
        words = true;
        if (token.text == "of" || token.text == "the" || token.text == "a") continue;
        unit += token.text == "per" || token.text == "an" ? "/" : unit_name(token.text) + " ";
      } else if (token.kind == TokenKind::kNumber && words) {
        unit += token.text;
      } else if (token.is_mark("^") || token.is_mark("/")) {
        unit += token.text;
      } else if (!token.is_mark("{") && !token.is_mark("}") && !token.is_mark(".") && !token.is_mark("(") &&
                 !token.is_mark(")")) {
        return false;
      }
    }
    unit.erase(std::remove(unit.begin(), unit.end(), ' '), unit.end());
    return words || begin == tokens.size();
  }
};

// 1,234 as 1 , 234; a part that begins with a zero is no item of a list.
Tokens with_commas_apart(const Tokens& tokens) {
  Tokens apart;
  for (const MathToken& token : tokens) {
    if (!token.comma_groups || token.text.find('.') != std::string::npos) {
      apart.push_back(token);
      continue;
    }
    const size_t first = (token.text.size() - 1) % 3 + 1;
    for (size_t at = 0; at < token.text.size(); at = at == 0 ? first : at + 3) {
      const std::string part = token.text.substr(at, at == 0 ? first : 3);
      if (at > 0 && part[0] == '0') return tokens;
      if (at > 0) apart.push_back({TokenKind::kMark, ","});
      apart.push_back({TokenKind::kNumber, part});
    }
  }
  return apart;
}

bool same_unit(const MathValue& a, const MathValue& b) {
  return a.unit.empty() || b.unit.empty() || a.unit == b.unit;
}

bool same_number(const MathValue& a, const MathValue& b) {
  const MathExpression &x = *a.expression, &y = *b.expression;
  if (!same_unit(a, b)) {
    // 50% of something is no other unit: 50% and "50 percent of the class".
    return a.unit.starts_with("%") && b.unit.starts_with("%") && x.same_value(y);
  }
  if (x.same_value(y)) return true;
  if (a.unit == "%" && b.unit.empty()) return x.times("0.01").same_value(y);
  if (b.unit == "%" && a.unit.empty()) return y.times("0.01").same_value(x);
  return false;
}

bool all_same(const std::vector<MathValue>& a, const std::vector<MathValue>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_value);
}

bool same_in_any_order(const std::vector<MathValue>& a, const std::vector<MathValue>& b) {
  if (a.size() != b.size()) return false;
  std::vector<bool> taken(b.size(), false);
  for (const MathValue& item : a) {
    size_t match = 0;
    while (match < b.size() && (taken[match] || !same_value(item, b[match]))) ++match;
    if (match == b.size()) return false;
    taken[match] = true;
  }
  return true;
}

// 2:30 and 1:15 may be times of the day: two of that form must be the same.
bool same_ratio(const MathValue& a, const MathValue& b) {
  if (a.brackets == "::" && b.brackets == "::") return a.text == b.text;
  return all_same(a.items, b.items);
}

bool same_equation(const MathValue& a, const MathValue& b) {
  const auto has_numbers = [](const MathValue& v) { return v.items[0].expression && v.items[1].expression; };
  if (!has_numbers(a) || !has_numbers(b)) return all_same(a.items, b.items);
  const auto difference = [](const MathValue& v) { return v.items[0].expression->minus(*v.items[1].expression); };
  return difference(a).proportional(difference(b));
}

// x, f(x), AB, "perimeter": what stands before an equals sign only to name the value.
bool names_the_value(const MathValue& left) {
  if (left.kind == ValueKind::kText) return true;
  return left.expression.has_value() && left.text.find_first_of("0123456789+-*/^") == std::string::npos;
}

}  // namespace

MathValue math_value(const std::vector<MathToken>& tokens, bool commas_part) {
  return Builder().value(commas_part ? with_commas_apart(tokens) : tokens, 0);
}

bool same_value(const MathValue& a, const MathValue& b) {
  if (a.kind == b.kind) {
    switch (a.kind) {
      case ValueKind::kText:
        return a.text == b.text && !a.text.empty();
      case ValueKind::kExpression:
        return same_number(a, b) || a.spelled == b.spelled;  // 1/0
      case ValueKind::kList:
      case ValueKind::kUnion:
        return same_in_any_order(a.items, b.items);
      case ValueKind::kTuple:
        if (a.brackets.starts_with(":") && b.brackets.starts_with(":")) return same_ratio(a, b);
        return a.brackets == b.brackets && all_same(a.items, b.items);
      case ValueKind::kMatrix:
        return a.n_columns == b.n_columns && all_same(a.items, b.items);
      case ValueKind::kEquation:
        return same_equation(a, b);
    }
  }
  if (a.kind == ValueKind::kEquation) return names_the_value(a.items[0]) && same_value(a.items[1], b);
  if (b.kind == ValueKind::kEquation) return names_the_value(b.items[0]) && same_value(a, b.items[1]);
  return !a.text.empty() && a.text == b.text;
}

}  // namespace kvc
