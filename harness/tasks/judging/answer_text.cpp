#include "harness/tasks/judging/answer_text.h"

#include <algorithm>
#include <map>
#include <string_view>

namespace kvc {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
// Bytes of letters outside ASCII count as letters.
bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
}

// U+2018, U+2019 as ', U+201C, U+201D as ", U+2013, U+2014 and U+2212 as - (a dash between words parts them).
std::string straightened(const std::string& text) {
  static constexpr std::pair<std::string_view, char> kForms[] = {
      {"\xE2\x80\x98", '\''}, {"\xE2\x80\x99", '\''}, {"\xE2\x80\x9C", '"'}, {"\xE2\x80\x9D", '"'},
      {"\xE2\x80\x93", '-'},  {"\xE2\x80\x94", '-'},  {"\xE2\x88\x92", '-'}, {"\xC2\xA0", ' '}};
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                    [&](const auto& f) { return text.compare(i, f.first.size(), f.first) == 0; });
    result += form == std::end(kForms) ? text[i] : form->second;
    i += form == std::end(kForms) ? 1 : form->first.size();
  }
  return result;
}

// "1,234,567" from `i` on: three digits behind each comma, and no fourth.
bool is_thousands_comma(const std::string& text, size_t i) {
  if (text[i] != ',' || i == 0 || !is_digit(text[i - 1]) || i + 3 >= text.size()) return false;
  return is_digit(text[i + 1]) && is_digit(text[i + 2]) && is_digit(text[i + 3]) &&
         (i + 4 >= text.size() || !is_digit(text[i + 4]));
}

// The number that starts at `i` (a digit), `i` moved behind it.
std::string read_number(const std::string& text, size_t& i) {
  std::string number;
  bool point = false;
  for (; i < text.size(); ++i) {
    const bool decimal = text[i] == '.' && !point && i + 1 < text.size() && is_digit(text[i + 1]);
    if (is_digit(text[i])) {
      number += text[i];
    } else if (decimal) {
      point = true;
      number += '.';
    } else if (point || !is_thousands_comma(text, i)) {
      break;
    }
  }
  if (point) {
    while (number.back() == '0') number.pop_back();
    if (number.back() == '.') number.pop_back();
  }
  return number;
}

}  // namespace

std::vector<std::string> normalised_words(const std::string& raw) {
  const std::string text = straightened(raw);
  std::vector<std::string> words;
  for (size_t i = 0; i < text.size();) {
    const bool starts = i == 0 || !is_word(text[i - 1]);
    const bool negative =
        text[i] == '-' && starts && i + 1 < text.size() && is_digit(text[i + 1]) && (i == 0 || text[i - 1] != '-');
    if (!negative && !is_word(text[i])) {
      ++i;
      continue;
    }
    std::string word;
    if (negative) word += text[i++];
    if (is_digit(text[i])) word += read_number(text, i);
    for (; i < text.size() && (is_word(text[i]) || (text[i] == '\'' && i + 1 < text.size() && is_word(text[i + 1])));
         ++i) {
      if (text[i] != '\'') word += text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
    }
    if (word != "a" && word != "an" && word != "the") words.push_back(std::move(word));
  }
  return words;
}

std::string first_line_of(const std::string& answer) {
  size_t begin = 0;
  while (begin < answer.size()) {
    const size_t end = std::min(answer.find('\n', begin), answer.size());
    const std::string line = answer.substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r\v\f") != std::string::npos) return line;
    begin = end + 1;
  }
  return "";
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
