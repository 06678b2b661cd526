#include "harness/tasks/judging/math_tokens.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace kvc {
namespace {

using Kind = MathToken::Kind;

std::string in_small_letters(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

// Signs outside of ASCII, as LaTeX writes them.
std::string in_ascii(std::string text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 35> kSigns = {{
      {"\u2212", "-"},         {"\u2013", "-"},          {"\u2014", "-"},       {"\u00D7", "\\times "},
      {"\u00B7", "\\cdot "},   {"\u22C5", "\\cdot "},    {"\u2217", "*"},       {"\u00F7", "/"},
      {"\u2044", "/"},         {"\u03C0", "\\pi "},      {"\u221A", "\\sqrt "}, {"\u221E", "\\infty "},
      {"\u00B0", "\\degree "}, {"\u00B2", "^2"},         {"\u00B3", "^3"},      {"\u00BD", " 1/2"},
      {"\u00BC", " 1/4"},      {"\u00BE", " 3/4"},       {"\u2264", "\\le "},   {"\u2265", "\\ge "},
      {"\u222A", "\\cup "},    {"\u2208", "\\in "},      {"\u00B1", "\\pm "},   {"\u2205", "\\emptyset "},
      {"\u00A0", " "},         {"\u202F", "\\,"},        {"\u2009", "\\,"},     {"\u2026", "..."},
      {"\u20AC", " \\euro "},  {"\u00A3", " \\pounds "}, {"\u00A2", " cents "}, {"\u03B8", "\\theta "},
      {"\u03B1", "\\alpha "},  {"\u2260", "\\ne "},      {"\u2019", "'"},
  }};
  for (const auto& [sign, ascii] : kSigns) {
    for (size_t at = text.find(sign); at != std::string::npos; at = text.find(sign, at + ascii.size()))
      text.replace(at, sign.size(), ascii);
  }
  return text;
}

const std::map<std::string, std::string>& units() {
  static const std::map<std::string, std::string> names = {
      {"centimeter", "cm"}, {"centimetre", "cm"}, {"meter", "m"},      {"metre", "m"},    {"millimeter", "mm"},
      {"millimetre", "mm"}, {"kilometer", "km"},  {"kilometre", "km"}, {"gram", "g"},     {"kilogram", "kg"},
      {"kilo", "kg"},       {"second", "s"},      {"sec", "s"},        {"minute", "min"}, {"hour", "h"},
      {"hr", "h"},          {"inch", "in"},       {"inche", "in"},     {"foot", "ft"},    {"feet", "ft"},
      {"mile", "mi"},       {"yard", "yd"},       {"liter", "l"},      {"litre", "l"},    {"milliliter", "ml"},
      {"millilitre", "ml"}, {"pound", "lb"},      {"ounce", "oz"},     {"percent", "%"},  {"buck", "dollar"},
      {"usd", "dollar"},    {"cent", "cent"},     {"deg", "degree"},   {"sq", "square"},  {"squared", "^2"},
      {"cubed", "^3"},      {"cm", "cm"},         {"mm", "mm"},        {"km", "km"},      {"kg", "kg"},
      {"mg", "mg"},         {"ml", "ml"},         {"ft", "ft"},        {"mph", "mph"},    {"lb", "lb"},
      {"oz", "oz"},         {"mi", "mi"},         {"yd", "yd"},        {"kph", "kph"},    {"min", "min"}};
  return names;
}

bool is_name_of_function(const std::string& run) {
  static const std::set<std::string> names = {"sqrt", "sin",    "cos",      "tan",    "cot", "sec",
                                              "csc",  "arcsin", "arccos",   "arctan", "log", "ln",
                                              "exp",  "pi",     "infinity", "inf",    "cbrt"};
  return names.contains(run);
}

bool is_small_word(const std::string& run) {
  static const std::set<std::string> words = {"or", "and", "to", "is", "of", "no", "if", "at", "am", "an", "by", "in"};
  return words.contains(run);
}

// A letter that stands for a unit behind a number and a blank: "5 m".
bool is_unit_letter(char c) {
  return std::string_view("mgshlLKNJWV").find(c) != std::string_view::npos;
}

class Lexer {
 public:
  explicit Lexer(const std::string& text) : text_(in_ascii(text)) {
    const auto plain = [&](size_t i) { return text_[i] == '$' && (i == 0 || text_[i - 1] != '\\'); };
    int64_t n_dollars = 0;
    for (size_t i = 0; i < text_.size(); ++i) n_dollars += plain(i) ? 1 : 0;
    odd_dollars_ = n_dollars % 2 == 1;
    mark_list_commas();
    letters_alone_ = std::all_of(text_.begin(), text_.end(), [](char c) { return is_ascii_letter(c) || is_blank(c); });
  }

  std::vector<MathToken> run() {
    while (at_ < text_.size()) step();
    return std::move(tokens_);
  }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  // Length of the bracket at `i` that opens (+) or closes (-) a list: ( [ \{ \langle; 0 for none.
  int bracket_at(size_t i) const {
    const std::string_view rest = std::string_view(text_).substr(i);
    for (const std::string_view open : {"\\langle", "\\lbrace", "\\lbrack", "\\{"}) {
      if (rest.starts_with(open)) return static_cast<int>(open.size());
    }
    for (const std::string_view close : {"\\rangle", "\\rbrace", "\\rbrack", "\\}"}) {
      if (rest.starts_with(close)) return -static_cast<int>(close.size());
    }
    return rest[0] == '(' || rest[0] == '[' ? 1 : rest[0] == ')' || rest[0] == ']' ? -1 : 0;
  }

  // Whether the pair of brackets from `begin` to before `end` is an operand: (1,000+2)/3.
  bool is_operand(size_t begin, size_t end) const {
    const auto operates = [](char c) {
      return is_digit(c) || std::string_view("+-*/^").find(c) != std::string_view::npos;
    };
    while (begin > 0 && is_blank(text_[begin - 1])) --begin;
    while (end < text_.size() && is_blank(text_[end])) ++end;
    return (begin > 0 && operates(text_[begin - 1])) || (end < text_.size() && operates(text_[end]));
  }

  // Commas inside a pair of brackets part a list: [0,500] has two numbers. Where one of them has a blank behind it,
  // (1,000, 2), those without may part thousands.
  void mark_list_commas() {
    struct Open {
      size_t at;
      std::vector<size_t> commas;
      bool spaced = false;
    };
    std::vector<Open> open;
    list_commas_.assign(text_.size(), false);
    for (size_t i = 0; i < text_.size(); ++i) {
      const int bracket = bracket_at(i);
      if (bracket > 0) open.push_back({i, {}});
      if (bracket < 0 && !open.empty()) {
        const Open pair = std::move(open.back());
        open.pop_back();
        const size_t end = i + static_cast<size_t>(-bracket);
        const bool parts = !pair.spaced && !is_operand(pair.at, end);
        for (const size_t comma : pair.commas) list_commas_[comma] = parts;
      }
      if (bracket != 0) {
        i += static_cast<size_t>(bracket > 0 ? bracket : -bracket) - 1;
      } else if (text_[i] == ',' && !open.empty()) {
        open.back().commas.push_back(i);
        open.back().spaced = open.back().spaced || (i + 1 < text_.size() && is_blank(text_[i + 1]));
      }
    }
  }

  char next(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), false}); }
  bool in_text() const { return !text_depths_.empty(); }

  void step() {
    const char c = next();
    if (is_blank(c) || c == '~') {
      blank_ = true;
      ++at_;
      return;
    }
    if (c == '\\') {
      command();
    } else if (is_digit(c) || (c == '.' && is_digit(next(1)))) {
      number();
    } else if (is_ascii_letter(c)) {
      letters();
    } else {
      mark(c);
    }
    blank_ = false;
  }

  void mark(char c) {
    ++at_;
    if (c == '$') {
      if (odd_dollars_ && (is_digit(next()) || next() == '.')) add(Kind::kWord, "dollar");
    } else if (c == '%') {
      add(Kind::kWord, "%");
    } else if (c == '{') {
      ++depth_;
      add(Kind::kMark, "{");
    } else if (c == '}') {
      if (in_text() && text_depths_.back() == depth_) {
        text_depths_.pop_back();
        blank_ = true;
      } else {
        add(Kind::kMark, "}");
      }
      --depth_;
    } else if (c == '.' && next() == '.' && next(1) == '.') {
      at_ += 2;
      add(Kind::kMark, "...");
    } else if (c == '<' || c == '>') {
      if (next() == '=') {
        ++at_;
        add(Kind::kSymbol, c == '<' ? "le" : "ge");
      } else {
        add(Kind::kMark, std::string(1, c));
      }
    } else if (c == '*' && next() == '*') {
      ++at_;
      add(Kind::kMark, "^");
    } else if (c != '"' && c != '`' && c != '\'' && c != '?') {
      add(Kind::kMark, std::string(1, c));  // an apostrophe in a word is nothing; f' reads as f and so as text
    } else if (c == '\'' && !in_text() && !tokens_.empty() && tokens_.back().kind == Kind::kSymbol) {
      add(Kind::kMark, "'");
    }
  }

  void number() {
    std::string digits;
    bool groups = false, commas = false, point = false;
    const auto three = [&](size_t ahead) {
      return is_digit(next(ahead)) && is_digit(next(ahead + 1)) && is_digit(next(ahead + 2)) &&
             !is_digit(next(ahead + 3));
    };
    while (at_ < text_.size()) {
      const size_t separator = thousands_separator();
      if (is_digit(next())) {
        digits += text_[at_++];
      } else if (separator > 0 && !point && !digits.empty() &&
                 (groups || (digits.size() <= 3 && digits.front() != '0')) && three(separator)) {
        groups = true;
        commas = commas || (next() == ',' && separator == 1);
        at_ += separator;
      } else if (next() == '.' && !point && is_digit(next(1))) {
        point = true;
        digits += text_[at_++];
      } else {
        break;
      }
    }
    if (power_of_ten(digits)) point = true;
    if (next() == '.' && next(1) != '.' && !point) ++at_;  // "70."
    if (digits.front() == '.') digits.insert(0, "0");
    tokens_.push_back({Kind::kNumber, std::move(digits), commas});
  }

  // "1e3" and "1.5E3" as digits. A sign is not read: 2e-1 may be 2e - 1.
  bool power_of_ten(std::string& digits) {
    if ((next() != 'e' && next() != 'E') || !is_digit(next(1))) return false;
    size_t end = 1;
    while (is_digit(next(end))) ++end;
    if (end > 3 || is_ascii_letter(next(end)) || next(end) == '.' || next(end) == '^') return false;
    size_t zeros = std::stoul(text_.substr(at_ + 1, end - 1));
    if (zeros > 50) return false;
    at_ += end;
    const size_t dot = std::min(digits.find('.'), digits.size());
    std::string decimals = digits.substr(std::min(dot + 1, digits.size()));
    digits.resize(dot);
    const size_t moved = std::min(zeros, decimals.size());
    digits += decimals.substr(0, moved) + std::string(zeros - moved, '0');
    if (moved < decimals.size()) digits += "." + decimals.substr(moved);
    return true;
  }

  // Bytes of "," "{,}" "\," "\!" ",\!" or a blank between groups of three digits; 0 for none.
  size_t thousands_separator() const {
    if (list_commas_[at_]) return 0;
    for (const std::string_view separator : {",\\! ", ",\\!", "{,}", "\\,", "\\!", "\\ ", ",", " "}) {
      if (std::string_view(text_).substr(at_).starts_with(separator)) return separator.size();
    }
    return 0;
  }

  void letters() {
    const size_t begin = at_;
    while (is_ascii_letter(next()) || (in_text() && next() == '-' && is_ascii_letter(next(1)))) ++at_;
    const std::string run = text_.substr(begin, at_ - begin);
    const std::string small = in_small_letters(run);
    const bool starts = begin == 0 || blank_;
    const bool behind_number = !tokens_.empty() && tokens_.back().kind == Kind::kNumber;
    const bool behind_degree = !tokens_.empty() && tokens_.back().is_word("degree");
    if (in_text() || behind_degree) {
      add(Kind::kWord, small);
    } else if (is_name_of_function(run)) {
      add(Kind::kSymbol, run.starts_with("inf") ? "infty" : run);
    } else if (run.size() == 1) {
      const bool last = text_.find_first_not_of(" \t\n.", at_) == std::string::npos;
      add(behind_number && blank_ && last && is_unit_letter(run[0]) ? Kind::kWord : Kind::kSymbol, run);
    } else if ((letters_alone_ && starts) || (starts && (run.size() >= 3 || is_small_word(small))) ||
               units().contains(small)) {
      add(Kind::kWord, small);
    } else {
      for (const char c : run) add(Kind::kSymbol, std::string(1, c));
    }
  }

  void command() {
    static const std::set<std::string> dropped = {
        "left",       "right",  "displaystyle", "textstyle", "quad",   "qquad",  "big",       "Big",
        "bigg",       "Bigg",   "bigl",         "bigr",      "limits", "mathbf", "mathbb",    "mathcal",
        "boldsymbol", "bm",     "mathit",       "mathsf",    "bf",     "rm",     "it",        "boxed",
        "fbox",       "hspace", "phantom",      "middle",    "Bigl",   "Bigr",   "ensuremath"};
    static const std::set<std::string> texts = {"text", "textbf", "textit", "textrm",       "textsf",
                                                "mbox", "hbox",   "mathrm", "operatorname", "texttt"};
    static const std::map<std::string, std::string> same = {
        {"dfrac", "frac"},          {"tfrac", "frac"},  {"cfrac", "frac"},   {"leq", "le"},       {"geq", "ge"},
        {"leqslant", "le"},         {"geqslant", "ge"}, {"dbinom", "binom"}, {"tbinom", "binom"}, {"neq", "ne"},
        {"varnothing", "emptyset"}, {"lt", "<"},        {"gt", ">"}};
    static const std::map<std::string, std::string> marks = {
        {"cdot", "*"},    {"times", "*"},  {"div", "/"},     {"lbrace", "\\{"}, {"rbrace", "\\}"},
        {"vert", "|"},    {"lvert", "|"},  {"rvert", "|"},   {"lbrack", "["},   {"rbrack", "]"},
        {"ldots", "..."}, {"dots", "..."}, {"cdots", "..."}, {"colon", ":"}};
    ++at_;
    if (!is_ascii_letter(next())) return escaped();
    const size_t begin = at_;
    while (is_ascii_letter(next())) ++at_;
    std::string name = text_.substr(begin, at_ - begin);
    if (dropped.contains(name)) return;
    if (texts.contains(name)) {
      while (is_blank(next())) ++at_;
      if (next() != '{') return;
      ++at_;
      text_depths_.push_back(++depth_);
      return;
    }
    if (const auto found = same.find(name); found != same.end()) name = found->second;
    if (const auto found = marks.find(name); found != marks.end()) return add(Kind::kMark, found->second);
    if (name == "<" || name == ">") return add(Kind::kMark, name);
    if (name == "circ" || name == "degree") return degree();
    if (name == "begin" || name == "end") return environment(name);
    if (name == "euro" || name == "pounds") return add(Kind::kWord, name == "euro" ? "euro" : "pound_sterling");
    add(Kind::kSymbol, name);
  }

  // What stands behind a backslash and is no letter.
  void escaped() {
    const char c = next();
    ++at_;
    if (c == '$') add(Kind::kWord, "dollar");
    if (c == '%') add(Kind::kWord, "%");
    if (c == '{' || c == '}') add(Kind::kMark, std::string("\\") + c);
    if (c == '\\') add(Kind::kMark, "\\\\");
    if (c == '|') add(Kind::kMark, "|");
    if (c == '&') add(Kind::kWord, "and");
  }

  // Takes back the "^" or "^{" before it, and the "}" behind.
  void degree() {
    const bool in_braces = !tokens_.empty() && tokens_.back().is_mark("{");
    if (in_braces) tokens_.pop_back();
    if (!tokens_.empty() && tokens_.back().is_mark("^")) tokens_.pop_back();
    if (in_braces) {
      while (is_blank(next())) ++at_;
      if (next() == '}') {
        ++at_;
        --depth_;
      }
    }
    add(Kind::kWord, "degree");
  }

  void environment(const std::string& name) {
    const size_t close = text_.find('}', at_);
    if (next() != '{' || close == std::string::npos) return add(Kind::kSymbol, name);
    add(Kind::kSymbol, name + "{" + text_.substr(at_ + 1, close - at_ - 1) + "}");
    at_ = close + 1;
    if (name != "begin" || next() != '{') return;
    const size_t columns = text_.find('}', at_);  // of an array: {cc}
    if (columns != std::string::npos) at_ = columns + 1;
  }

  std::string text_;
  size_t at_ = 0;
  int64_t depth_ = 0;
  std::vector<int64_t> text_depths_;  // braces in which words stand
  std::vector<bool> list_commas_;     // of each byte: a comma that parts the items of a list
  bool blank_ = false;
  bool odd_dollars_ = false;
  bool letters_alone_ = false;
  std::vector<MathToken> tokens_;
};

}  // namespace

std::vector<MathToken> math_tokens(const std::string& text) {
  return Lexer(text).run();
}

std::string unit_name(const std::string& word) {
  std::string name = word;
  if (name.size() > 3 && name.back() == 's' && name[name.size() - 2] != 's') name.pop_back();
  if (name == "hr" || name == "hrs") return "h";
  const auto found = units().find(name);
  return found == units().end() ? name : found->second;
}

}  // namespace kvc
