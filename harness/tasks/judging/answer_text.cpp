#include "harness/tasks/judging/answer_text.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string_view>

namespace kvc {
namespace {

using Points = std::vector<char32_t>;

bool is_one_of(char32_t point, std::u32string_view set) {
  return set.find(point) != std::u32string_view::npos;
}

// The word before the full stop at `stop`, ASCII letters in lower case, inner full stops included.
std::string word_before(const Points& text, size_t stop) {
  size_t begin = stop;
  while (begin > 0 && !is_space(text[begin - 1]) && !is_one_of(text[begin - 1], U"([{\"'*_")) --begin;
  std::string word = from_code_points(text, begin, stop);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return word;
}

// Whether the full stop at `stop` belongs to its word; `next` is what follows the blanks behind it.
bool is_abbreviation(const Points& text, size_t stop, char32_t next) {
  static const std::set<std::string> titles = {
      "mr",  "mrs", "ms",   "dr",  "prof", "st",  "ste", "sr",   "jr",  "mt",  "ft", "gen",    "col", "lt",  "capt",
      "sgt", "maj", "cmdr", "adm", "rev",  "hon", "gov", "pres", "sen", "rep", "vs", "messrs", "mme", "mlle"};
  static const std::set<std::string> before_numbers = {"no",  "nos", "fig",  "p",   "pp",  "vol", "ch",
                                                       "sec", "jan", "feb",  "mar", "apr", "jun", "jul",
                                                       "aug", "sep", "sept", "oct", "nov", "dec"};
  const std::string word = word_before(text, stop);
  const bool number_follows = next >= '0' && next <= '9';
  const bool initial = stop > 0 && is_upper(text[stop - 1]) && (stop < 2 || !is_letter(text[stop - 2]));
  const bool list_number =
      word.size() <= 2 && !word.empty() &&
      std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
      std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(stop - word.size()), is_space);
  return titles.count(word) > 0 || (number_follows && before_numbers.count(word) > 0) || initial || list_number;
}

// Behind the sentence that starts at `begin`.
size_t sentence_end(const Points& text, size_t begin) {
  for (size_t i = begin; i < text.size(); ++i) {
    if (text[i] < 0x80 && text[i] != '.' && text[i] != '!' && text[i] != '?') continue;
    if (is_one_of(text[i], U"\u3002\uFF01\uFF1F\uFF61")) return i + 1;
    if (!is_one_of(text[i], U".!?\u2026\u061F\u06D4\u0964\u0589\u1362")) continue;
    size_t behind = i + 1;
    while (behind < text.size() && is_one_of(text[behind], U"\"')]}*_\u2019\u201D\u00BB")) ++behind;
    if (behind == text.size()) return behind;
    if (!is_space(text[behind])) continue;
    size_t next = behind;
    while (next < text.size() && is_space(text[next])) ++next;
    if (next == text.size()) return next;
    if (is_lower(text[next]) || (text[i] == '.' && is_abbreviation(text, i, text[next]))) continue;
    return behind;
  }
  return text.size();
}

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r\v\f") == std::string::npos;
}

// The next line from `begin` on that is not blank, and where it ends; nothing at the text's end.
std::optional<std::pair<std::string, size_t>> next_line(const std::string& text, size_t begin) {
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (!is_blank(line)) return std::pair(std::move(line), end + 1);
    begin = end + 1;
  }
  return std::nullopt;
}

bool is_in(const std::string& word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// "not", "isn't", "rather than", with small words between it and the words from `first` on.
bool denied_before(const std::vector<AnswerWord>& words, size_t first) {
  for (size_t i = first; i-- > 0 && words[i].clause == words[first].clause;) {
    const std::string& word = words[i].text;
    if (is_in(word, {"not", "never", "isnt", "wasnt", "arent", "werent", "cannot", "cant", "dont", "doesnt", "didnt",
                     "nor", "neither"})) {
      return true;
    }
    if (word == "than" && i > 0 && is_in(words[i - 1].text, {"rather", "other"})) return true;
    if (word == "of" && i > 0 && words[i - 1].text == "instead") return true;
    if (!is_in(word, {"is",       "was",   "be",      "it",    "its",    "that",   "this",   "really",
                      "actually", "quite", "exactly", "even",  "number", "code",   "answer", "secret",
                      "equal",    "to",    "called",  "named", "think",  "believe"})) {
      return false;
    }
  }
  return false;
}

// "4821 is not ...", "4821 is wrong".
bool denied_behind(const std::vector<AnswerWord>& words, size_t last) {
  const auto word = [&](size_t i) {
    return i < words.size() && words[i].clause == words[last - 1].clause ? words[i].text : std::string();
  };
  if (is_in(word(last), {"isnt", "wasnt", "cannot"})) return true;
  return is_in(word(last), {"is", "was"}) && is_in(word(last + 1), {"not", "wrong", "incorrect", "false", "never"});
}

// The gold's words as they stand at `first`, no part of a longer number.
bool stands_at(const std::vector<AnswerWord>& words, size_t first, const std::vector<AnswerWord>& gold) {
  const size_t last = first + gold.size();
  if (last > words.size() || (words[first].joined && !gold.front().joined)) return false;
  if (last < words.size() && words[last].joined) return false;
  for (size_t i = 0; i < gold.size(); ++i) {
    const bool same = words[first + i].text == gold[i].text;
    if (!same && (i + 1 < gold.size() || words[first + i].stem != gold[i].text)) return false;
  }
  return true;
}

}  // namespace

std::vector<std::string> normalised_words(const std::string& text) {
  std::vector<std::string> list;
  for (AnswerWord& word : answer_words(text)) list.push_back(std::move(word.text));
  return list;
}

std::string first_line_of(const std::string& answer) {
  const auto line = next_line(answer, 0);
  if (!line) return "";
  const size_t last = line->first.find_last_not_of(" \t\r\v\f*_");
  if (last == std::string::npos || line->first[last] != ':') return line->first;
  const auto next = next_line(answer, line->second);
  return next ? line->first + " " + next->first : line->first;
}

std::string first_sentences(const std::string& text, int64_t n) {
  const Points points = code_points(text);
  size_t end = 0;
  for (int64_t i = 0; i < n && end < points.size(); ++i) end = sentence_end(points, end);
  return from_code_points(points, 0, end);
}

int64_t count_sentences(const std::string& text) {
  const Points points = code_points(text);
  int64_t n = 0;
  for (size_t end = 0; end < points.size(); ++n) end = sentence_end(points, end);
  return n;
}

GoldAnswer::GoldAnswer(const std::string& text)
    : words_(answer_words(text)), n_sentences_(std::max<int64_t>(1, count_sentences(text))) {}

bool GoldAnswer::same_words(const GoldAnswer& other) const {
  return std::equal(words_.begin(), words_.end(), other.words_.begin(), other.words_.end(),
                    [](const AnswerWord& a, const AnswerWord& b) { return a.text == b.text; });
}

WrittenAnswer::WrittenAnswer(const std::string& text) : line_(first_line_of(text)) {}

bool WrittenAnswer::gives(const GoldAnswer& gold) {
  if (gold.words_.empty()) return false;
  if (n_read_ != gold.n_sentences_) {
    words_ = answer_words(first_sentences(line_, gold.n_sentences_));
    n_read_ = gold.n_sentences_;
  }
  for (size_t first = 0; first < words_.size(); ++first) {
    if (stands_at(words_, first, gold.words_) && !denied_before(words_, first) &&
        !denied_behind(words_, first + gold.words_.size()))
      return true;
  }
  return false;
}

bool exact_match(const std::string& answer, const std::string& gold) {
  return WrittenAnswer(answer).gives(GoldAnswer(gold));
}

WordOverlap word_overlap(const std::vector<std::string>& answer, const std::vector<std::string>& gold) {
  WordOverlap overlap;
  overlap.exact = answer == gold;
  if (answer.empty() || gold.empty()) {
    overlap.contained = overlap.exact;
    overlap.f1 = overlap.exact ? 1 : 0;
    return overlap;
  }
  overlap.contained = std::search(answer.begin(), answer.end(), gold.begin(), gold.end()) != answer.end();
  std::map<std::string, int> left;
  for (const std::string& word : gold) ++left[word];
  int same = 0;
  for (const std::string& word : answer) {
    const auto place = left.find(word);
    if (place == left.end() || place->second == 0) continue;
    --place->second;
    ++same;
  }
  overlap.f1 = 2.0 * same / static_cast<double>(answer.size() + gold.size());  // 2 P R / (P + R)
  return overlap;
}

}  // namespace kvc
