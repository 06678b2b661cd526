#include "harness/tasks/judging/published_score.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string_view>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/core/python_literal.h"
#include "harness/tasks/judging/answer_words.h"
#include "harness/tasks/judging/pattern.h"
#include "harness/tasks/judging/rouge.h"
#include "harness/tasks/judging/sequence_ratio.h"

namespace kvc {
namespace {

bool is_ascii_punctuation(char32_t point) {
  return point < 0x80 && std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(static_cast<char>(point)) !=
                             std::string_view::npos;
}

// The Chinese punctuation that InfiniteBench leaves out.
bool is_chinese_punctuation(char32_t point) {
  static constexpr std::u32string_view kMarks =
      U"！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝"
      U"〞〟〰〾〿–—‘’‛“”„‟…‧﹏";
  return kMarks.find(point) != std::u32string_view::npos;
}

// In small letters and without punctuation.
std::vector<char32_t> bare(const std::string& text, bool chinese) {
  std::vector<char32_t> points;
  for (const char32_t point : code_points(text)) {
    if (is_ascii_punctuation(point) || (chinese && is_chinese_punctuation(point))) continue;
    points.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
  }
  return points;
}

std::vector<std::string> words_at_blanks(const std::string& text) {
  const std::vector<char32_t> points = code_points(text);
  std::vector<std::string> words;
  for (size_t i = 0; i < points.size();) {
    const size_t from = i;
    while (i < points.size() && !is_space(points[i])) ++i;
    if (i > from) words.push_back(from_code_points(points, from, i));
    while (i < points.size() && is_space(points[i])) ++i;
  }
  return words;
}

std::vector<std::string> compared_words(const std::string& text) {
  static const Pattern article(R"(\b(?:a|an|the)\b)");
  const std::vector<char32_t> points = bare(text, false);
  const std::string plain = from_code_points(points, 0, points.size());
  std::string kept;
  size_t from = 0;
  for (const PatternMatch& match : article.all(plain)) {
    kept += plain.substr(from, match.begin - from) + ' ';
    from = match.end;
  }
  return words_at_blanks(kept + plain.substr(from));
}

std::vector<std::string> compared_characters(const std::string& text) {
  const std::vector<char32_t> points = bare(text, true);
  std::vector<std::string> characters;
  for (size_t i = 0; i < points.size(); ++i) {
    if (!is_space(points[i])) characters.push_back(from_code_points(points, i, i + 1));
  }
  return characters;
}

double f1(const std::vector<std::string>& answer, const std::vector<std::string>& reference) {
  std::map<std::string, int64_t> left;
  for (const std::string& word : reference) ++left[word];
  double common = 0;
  for (const std::string& word : answer) {
    if (auto found = left.find(word); found != left.end() && found->second-- > 0) ++common;
  }
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(answer.size());
  const double recall = common / static_cast<double>(reference.size());
  return 2 * precision * recall / (precision + recall);
}

std::vector<std::string> runs_of_digits(const std::string& text) {
  std::vector<std::string> runs(1);
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      runs.back() += c;
    } else if (!runs.back().empty()) {
      runs.emplace_back();
    }
  }
  if (runs.back().empty()) runs.pop_back();
  return runs;
}

double share_of_numbers(const std::string& answer, const std::string& number) {
  const std::vector<std::string> numbers = runs_of_digits(answer);
  if (numbers.empty()) return 0;
  return static_cast<double>(std::count(numbers.begin(), numbers.end(), number)) / static_cast<double>(numbers.size());
}

double classification(const std::string& answer, const std::string& reference,
                      const std::vector<std::string>& classes) {
  std::vector<std::string> named;
  for (const std::string& name : classes) {
    if (answer.find(name) != std::string::npos) named.push_back(name);
  }
  // As published, where the list shrinks while it is walked through: the name behind one that is taken out is not
  // looked at.
  for (size_t i = 0; i < named.size(); ++i) {
    const std::string name = named[i];
    if (name == reference || reference.find(name) == std::string::npos) continue;
    named.erase(std::find(named.begin(), named.end(), name));
  }
  const bool right = std::find(named.begin(), named.end(), reference) != named.end();
  return right ? 1.0 / static_cast<double>(named.size()) : 0.0;
}

double code_edit(const std::string& answer, const std::string& reference) {
  std::string line;
  for (size_t begin = answer.find_first_not_of('\n'); begin < answer.size();) {
    const size_t end = std::min(answer.find('\n', begin), answer.size());
    const std::string candidate = answer.substr(begin, end - begin);
    if (candidate.find_first_of("`#") == std::string::npos && candidate.find("//") == std::string::npos) {
      line = candidate;
      break;
    }
    begin = end + 1;
  }
  if (line == reference) return 1;
  if (line.empty() || reference.empty()) return 0;
  return std::nearbyint(100 * sequence_ratio(line, reference)) / 100;
}

std::string with_blanks_for(std::string text, std::string_view marks) {
  for (char& c : text) c = marks.find(c) == std::string_view::npos ? c : ' ';
  return text;
}

constexpr std::string_view kMarksInDialogue = "\n:\"'.,?!{}";

double first_number(const std::string& answer, const std::string& reference) {
  static const Pattern number(R"([0-9]+\.[0-9]+|[0-9]+)");
  const auto matches = number.all(answer);
  if (matches.empty()) return 0;
  const std::string first = answer.substr(matches.front().begin, matches.front().end - matches.front().begin);
  const bool whole = reference.find('.') == std::string::npos;
  if (whole && first.find('.') != std::string::npos) return 0;
  return std::strtod(first.c_str(), nullptr) == std::strtod(reference.c_str(), nullptr) ? 1 : 0;
}

// Without "+" and zeros in front; "" for what is no integer.
std::string plain_integer(std::string text) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.erase(0, 1);
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return "";
  text.erase(0, std::min(text.find_first_not_of('0'), text.size() - 1));
  return negative && text != "0" ? "-" + text : text;
}

double last_integer(const std::string& answer, const std::string& reference) {
  const std::vector<std::string> words = words_at_blanks(with_blanks_for(answer, "\n.`'\":"));
  if (words.empty()) return 0;
  const std::string last = plain_integer(words.back());
  return !last.empty() && last == plain_integer(reference) ? 1 : 0;
}

double leading_numbers(const std::string& answer, const std::string& reference) {
  const std::vector<std::string> written = runs_of_digits(answer), wanted = runs_of_digits(reference);
  if (wanted.empty()) return 0;
  size_t same = 0;
  while (same < std::min(written.size(), wanted.size()) && plain_integer(written[same]) == plain_integer(wanted[same]))
    ++same;
  return static_cast<double>(same) / static_cast<double>(wanted.size());
}

double holds_word(const std::string& answer, const std::string& reference, bool capitals) {
  std::vector<std::string> words = words_at_blanks(with_blanks_for(answer, kMarksInDialogue));
  if (capitals) {
    for (std::string& word : words) {
      std::vector<char32_t> points = code_points(word);
      for (char32_t& point : points)
        point = static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(point)));
      word = from_code_points(points, 0, points.size());
    }
  }
  return std::find(words.begin(), words.end(), reference) == words.end() ? 0 : 1;
}

double cloze(const std::string& answer, const std::string& reference) {
  const Json wanted = Json::parse(reference, nullptr, false);
  const size_t begin = answer.find('{');
  if (!wanted.is_object() || wanted.empty() || begin == std::string::npos) return 0;
  size_t used = 0;
  const auto written = read_python_literal(std::string_view(answer).substr(begin), used);
  if (!written || !written->is_object()) return 0;
  double filled = 0;
  for (const auto& [blank, text] : wanted.items()) filled += written->contains(blank) && written->at(blank) == text;
  return filled / static_cast<double>(wanted.size());
}

using Rule = double (*)(const std::string& answer, const std::string& reference,
                        const std::vector<std::string>& classes);

const std::map<std::string, Rule>& rules() {
  using Text = const std::string&;
  using Classes = const std::vector<std::string>&;
  static const std::map<std::string, Rule> all = {
      {"f1", [](Text a, Text r, Classes) { return f1(compared_words(a), compared_words(r)); }},
      {"f1_characters", [](Text a, Text r, Classes) { return f1(compared_characters(a), compared_characters(r)); }},
      {"rouge_l", [](Text a, Text r, Classes) { return rouge_l(a, r).f; }},
      {"rouge_l_recall", [](Text a, Text r, Classes) { return rouge_l(a, r).recall; }},
      {"rouge_l_sum", [](Text a, Text r, Classes) { return rouge_l_sum(a, r).f; }},
      {"classification", [](Text a, Text r, Classes c) { return classification(a, r, c); }},
      {"code_edit", [](Text a, Text r, Classes) { return code_edit(a, r); }},
      {"count", [](Text a, Text r, Classes) { return share_of_numbers(a, r); }},
      {"retrieval",
       [](Text a, Text r, Classes) {
         const auto numbers = runs_of_digits(r);
         return numbers.empty() ? 0 : share_of_numbers(a, numbers.front());
       }},
      {"first_integer",
       [](Text a, Text r, Classes) {
         const auto numbers = runs_of_digits(a);
         return !numbers.empty() && numbers.front() == r ? 1.0 : 0.0;
       }},
      {"first_number", [](Text a, Text r, Classes) { return first_number(a, r); }},
      {"last_integer", [](Text a, Text r, Classes) { return last_integer(a, r); }},
      {"word", [](Text a, Text r, Classes) { return holds_word(a, r, false); }},
      {"capitals", [](Text a, Text r, Classes) { return holds_word(a, r, true); }},
      {"leading_numbers", [](Text a, Text r, Classes) { return leading_numbers(a, r); }},
      {"cloze", [](Text a, Text r, Classes) { return cloze(a, r); }},
  };
  return all;
}

}  // namespace

bool is_score_rule(const std::string& rule) {
  return rules().contains(rule);
}

double published_score(const std::string& rule, std::string answer, const std::vector<std::string>& references,
                       const std::vector<std::string>& classes, bool first_line) {
  const auto found = rules().find(rule);
  if (found == rules().end()) throw Error(ErrorKind::kInternal, "no such score: '" + rule + "'", "", "");
  if (first_line) {
    answer.erase(0, std::min(answer.find_first_not_of('\n'), answer.size()));
    answer = answer.substr(0, answer.find('\n'));
  }
  double best = 0;
  for (const std::string& reference : references) {
    best = std::max(best, found->second(answer, reference, classes));
    if (rule == "capitals") break;
  }
  return best;
}

}  // namespace kvc
