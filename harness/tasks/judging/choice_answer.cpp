#include "harness/tasks/judging/choice_answer.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

#include "harness/tasks/judging/pattern.h"

namespace kvc {
namespace {

// Something the text says about its choice, at `position`. Without an option: it names none, or several.
struct Statement {
  size_t position = 0;
  std::optional<int64_t> option;
};

// Marks that may stand before and behind a letter, and what must not follow it.
const std::string kOpen = R"([\s*_"'“‘`(\[{$]*(?:\\(?:text|textbf|mathrm|mathbf|mathit)\s*\{[\s(]*)?)";
const std::string kLetter = R"(([A-Za-z])(?![\p{L}\p{N}'’°/+&@=]|-[\p{L}\p{N}]))";
const std::string kNoun = R"((?:(?i:option|choice|letter|answer)[\s*_"]+)?)";

// Words that may follow the letter A or I without making it an article or a pronoun.
const Pattern& connectives() {
  static const Pattern pattern(
      R"(\A(?i:because|since|as|is|was|and|or|but|for|due|given|based|which|though|although|seems|with|not)\b)");
  return pattern;
}

std::string_view behind_marks(std::string_view rest) {
  const size_t first = rest.find_first_not_of("*_\"'`)]}$ \t");
  return first == std::string_view::npos ? std::string_view() : rest.substr(first);
}

bool is_small(char c) {
  return c >= 'a' && c <= 'z';
}

// Whether the letter at `at` is read as a letter and not as a word, or as a genus ("E. coli").
bool is_option_letter(std::string_view text, size_t at) {
  const char letter = text[at];
  const std::string_view rest = text.substr(at + 1, 80);
  static const Pattern species(
      R"(\A\.\s+(?:coli|diff|difficile|albicans|botulinum|tetani|faecalis|pneumoniae|aureus)\b)");
  if (species.is_in(rest)) return false;
  const bool blank_follows = !rest.empty() && (rest[0] == ' ' || rest[0] == '\t');
  if (!blank_follows) return true;
  const std::string_view word = behind_marks(rest);
  const bool word_follows = !word.empty() && ((word[0] >= 'A' && word[0] <= 'Z') || is_small(word[0]) || word[0] < 0);
  if (!word_follows || connectives().is_in(word)) return true;
  return !is_small(letter) && !(is_small(word[0]) && (letter == 'A' || letter == 'I'));
}

// "A or B", "A, B and C", "(A) and (B)": the letter does not stand alone.
bool is_one_of_several(std::string_view text, size_t at, int64_t n_options) {
  static const Pattern more(
      R"(\A[\s*_"')\].]*(?:,\s*(?i:or|and)?|\b(?i:or|and|and/or)\b|/|&)\s*(?i:option\s+|choice\s+)?[*_"'(\[]*([A-Z])(?=[\s*_"')\]]*(?:$|[.,;:!?)]|(?i:or|and)\b))(?![\p{L}\p{N}'’]))");
  for (const PatternMatch& match : more.all(text.substr(at + 1, 80))) {
    const char letter = text[at + 1 + match.group_begin];
    if (letter - 'A' < n_options) return true;
  }
  return false;
}

std::optional<int64_t> option_at(std::string_view text, size_t at, int64_t n_options) {
  const char letter = text[at];
  const int64_t option = is_small(letter) ? letter - 'a' : letter - 'A';
  return option < n_options && !is_one_of_several(text, at, n_options) ? std::optional(option) : std::nullopt;
}

void add_labelled(std::string_view text, int64_t n_options, std::vector<Statement>& found) {
  static const std::string is =
      R"((?:\s*(?:[:=]|(?i:is|was|would be|must be|should be|will be|has to be|seems to be|appears to be)\b)[\s*_":]*)+)"
      R"((?i:(?:therefore|thus|hence|clearly|definitely|most likely|likely|probably|simply|indeed|actually|in fact|not [A-Z],? but(?: rather)?)[,\s]+)*(?i:the\s+)?)";
  static const std::vector<Pattern> labels = {
      // "Answer: B", "The correct option is (c)", "final answer to the question is **D**".
      Pattern(
          R"(\b(?i:answer|option|choice|response)(?i: letter| choice| option)?(?i: (?:here|to (?:this|the) question))?[*_")\]]*)" +
          is + kNoun + kOpen + kLetter),
      // "I would choose D", "my guess is B", "I'll go with option A".
      Pattern(
          R"(\b(?i:i(?:['’]d| would| will|['’]ll| have to| must)?(?: have to)? (?:choose|pick|select|go with|guess|say)|)"
          R"(i(?:['’]m| am) going (?:with|to (?:guess|choose|pick|select|go with|say))|my (?:best )?(?:guess|choice|pick|selection)(?: is:?|:)|(?:choose|pick|select|guess|go with|(?:which|that|this) is|corresponds to|matches|match is)(?=\s+(?:option|choice)\b)))" +
          std::string(R"(\s+(?i:the\s+)?)") + kNoun + kOpen + kLetter),
  };
  // "Actually D", "it must be C.", "so (b)": only where the sentence ends behind the letter.
  static const Pattern corrections(
      R"(\b(?i:actually|no|wait|rather|it['’]?s|it is|it must be|that is|must be|therefore|thus|hence|so)[,:;]?[\s–—-]+)" +
      kNoun + kOpen + kLetter + R"((?=[\s*_"')\]}]*(?:$|[.!;,](?:\s|$)(?!\s*[a-z]))))");
  for (const Pattern& label : labels) {
    for (const PatternMatch& match : label.all(text)) {
      const size_t at = match.group_begin;
      if (is_option_letter(text, at)) found.push_back({at, option_at(text, at, n_options)});
    }
  }
  for (const PatternMatch& match : corrections.all(text)) {
    const size_t at = match.group_begin;
    if (is_option_letter(text, at)) found.push_back({at, option_at(text, at, n_options)});
  }
}

// "B is the correct answer", "Option (C) is right".
void add_approved(std::string_view text, int64_t n_options, std::vector<Statement>& found) {
  static const Pattern approved(
      R"((?<![\p{L}\p{N}'’/.+-])([A-Z])[)\]*_".']*\s+(?i:is|must be|would be|seems|appears to be)\s+(?i:(?:clearly|definitely|therefore|thus|probably|most likely|indeed|likely)\s+)?)"
      R"((?i:the\s+)?(?i:most\s+|only\s+|single\s+)?(?i:correct|right|answer|best (?:answer|option|choice|match|fit)|best\s*[.,;!\n])(?![\p{L}]))");
  static const Pattern denied(
      R"((?i:\bnot|\bneither|n['’]t|\bif|\bwhether|\bonly)(?i:\s+that)?\s+(?i:option\s+|choice\s+)?[(*"]*\z)");
  for (const PatternMatch& match : approved.all(text)) {
    const size_t at = match.group_begin;
    const size_t from = at > 40 ? at - 40 : 0;
    if (!denied.is_in(text.substr(from, at - from))) found.push_back({at, option_at(text, at, n_options)});
  }
}

void add_boxed(std::string_view text, int64_t n_options, std::vector<Statement>& found) {
  static const Pattern boxed(R"(\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\})");
  static const Pattern first(R"(\A(?:[\s(*{$]|\\[a-z]+\s*\{)*)" + kNoun + kOpen + kLetter);
  for (const PatternMatch& match : boxed.all(text)) {
    const std::string_view content = text.substr(match.group_begin, match.group_end - match.group_begin);
    const auto letters = first.all(content);
    if (letters.empty() || !is_option_letter(content, letters[0].group_begin)) continue;
    found.push_back({match.begin, option_at(content, letters[0].group_begin, n_options)});
  }
}

// A letter and nothing else on its line; a small one needs no brackets either.
void add_bare_lines(std::string_view text, int64_t n_options, std::vector<Statement>& found) {
  static const Pattern bare(
      R"(^[\s>*_#"'“(\[{$`-]*(?i:option\s+|choice\s+)?[*_"'(\[]*([A-Za-z])[ \t\r*_"'”)\]}.:$`!]*$)");
  for (const PatternMatch& match : bare.all(text)) {
    const size_t at = match.group_begin;
    const int64_t option = is_small(text[at]) ? text[at] - 'a' : text[at] - 'A';
    if (option < n_options) found.push_back({at, option});
  }
}

// Lines that begin with a letter.
std::vector<Statement> line_starts(std::string_view text, int64_t n_options) {
  static const Pattern start(
      R"(^[ \t>*_#"'“(\[]*(?i:option[ \t]+|choice[ \t]+)?[*_"'(\[]*(?:([A-Z])(?=[ \t)\].:,*_"'”-])(?!-[\p{L}\p{N}])(?!['’]\p{L})|([a-z])(?=\))))");
  static const Pattern rejected(
      R"(\A[)\].:*_"'\s]*(?i:(?:is|was|seems|looks)\s+(?:not\b|wrong|incorrect|false|ruled out)|wrong\b|incorrect\b))");
  std::vector<Statement> list;
  for (const PatternMatch& match : start.all(text)) {
    const size_t at = match.group_begin;
    if (!is_option_letter(text, at) || rejected.is_in(text.substr(at + 1, 60))) continue;
    const int64_t option = is_small(text[at]) ? text[at] - 'a' : text[at] - 'A';
    if (option < n_options) list.push_back({at, option_at(text, at, n_options)});
  }
  return list;
}

// One letter in all lines, or the letter of the last line where it is not the end of a list.
std::optional<int64_t> from_line_starts(std::string_view text, int64_t n_options) {
  const std::vector<Statement> lines = line_starts(text, n_options);
  if (lines.empty()) return std::nullopt;
  std::set<std::optional<int64_t>> distinct;
  for (const Statement& line : lines) distinct.insert(line.option);
  if (distinct.size() == 1) return lines.back().option;
  const size_t last_text = text.find_last_not_of(" \t\r\n");
  const bool ends_text = text.find('\n', lines.back().position) >= last_text;
  const std::optional<int64_t> previous = lines[lines.size() - 2].option;
  const bool goes_on_list = previous && lines.back().option && *previous + 1 == *lines.back().option;
  return ends_text && !goes_on_list ? lines.back().option : std::nullopt;
}

}  // namespace

std::optional<int64_t> choice_answer(const std::string& reply, int64_t n_options) {
  const std::string text = reply.size() <= kMostBytes ? reply : reply.substr(reply.size() - kMostBytes);
  std::vector<Statement> found;
  add_boxed(text, n_options, found);
  add_labelled(text, n_options, found);
  add_approved(text, n_options, found);
  add_bare_lines(text, n_options, found);
  if (found.empty()) return from_line_starts(text, n_options);
  return std::max_element(found.begin(), found.end(),
                          [](const Statement& a, const Statement& b) { return a.position < b.position; })
      ->option;
}

}  // namespace kvc
