#include "harness/tasks/judging/answer_words.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

namespace kvc {
namespace {

constexpr char32_t kThousandsBlank = 0xA0;

// Forms of one character that people and models use alike: curly and full-width ones.
char32_t plain(char32_t point) {
  static const std::map<char32_t, char32_t> forms = {{0x2018, '\''},
                                                     {0x2019, '\''},
                                                     {0x02BC, '\''},
                                                     {0x201C, '"'},
                                                     {0x201D, '"'},
                                                     {0x2010, '-'},
                                                     {0x2011, '-'},
                                                     {0x2013, '-'},
                                                     {0x2014, '-'},
                                                     {0x2212, '-'},
                                                     {0xFE63, '-'},
                                                     {0x3000, ' '},
                                                     {0x2007, kThousandsBlank},
                                                     {0x2009, kThousandsBlank},
                                                     {0x202F, kThousandsBlank}};
  if (point < 0x80) return point;
  if (point >= 0xFF01 && point <= 0xFF5E) return point - 0xFF01 + '!';
  const auto form = forms.find(point);
  return form == forms.end() ? point : form->second;
}

bool is_digit(char32_t point) {
  return point >= '0' && point <= '9';
}

bool is_word(char32_t point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;  // letters, marks, numbers
}

// Han, kana, Thai, Lao, Burmese, Khmer.
bool is_without_spaces(char32_t point) {
  if (point < 0x0E00) return false;
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x0E00, 0x0EFF}, {0x1000, 0x109F}, {0x1780, 0x17FF}, {0x3005, 0x3007}, {0x3040, 0x30FF},  {0x31F0, 0x31FF},
      {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF}, {0xFF66, 0xFF9F}, {0x20000, 0x3FFFF}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [&](const auto& range) { return point >= range.first && point <= range.second; });
}

bool starts_clause(char32_t point) {
  return !is_word(point) && !is_space(point) && std::u32string_view(U"-'\"*_`.$#%").find(point) == std::u32string::npos;
}

// Composed and case-folded, without what is not seen.
std::vector<char32_t> folded(const std::string& raw) {
  std::vector<char32_t> points = code_points(raw);
  if (std::all_of(points.begin(), points.end(), [](char32_t point) { return point < 0x80; })) {
    for (char32_t& point : points) point += point >= 'A' && point <= 'Z' ? 'a' - 'A' : 0;
    return points;
  }
  std::transform(points.begin(), points.end(), points.begin(), plain);
  const std::string text = from_code_points(points, 0, points.size());
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &made,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (size < 0) return points;
  return code_points(std::string(reinterpret_cast<const char*>(made), static_cast<size_t>(size)));
}

class WordReader {
 public:
  explicit WordReader(const std::string& text) : points_(folded(text)) {}

  std::vector<AnswerWord> read() {
    for (size_t i = 0; i < points_.size();) {
      if (is_word(points_[i]) || starts_number(i)) {
        read_word(i);
        continue;
      }
      const bool sentence_stop = points_[i] == '.' && (i + 1 == points_.size() || !is_word(points_[i + 1]));
      if (starts_clause(points_[i]) || points_[i] == '\n' || sentence_stop) ++clause_;
      ++i;
    }
    return std::move(words_);
  }

 private:
  char32_t at(size_t i) const { return i < points_.size() ? points_[i] : U' '; }
  char32_t before(size_t i, size_t n) const { return i >= n ? points_[i - n] : U' '; }

  // A sign or a decimal point with nothing before it: "-3", ".5", "-.5".
  bool starts_number(size_t i) const {
    const char32_t previous = before(i, 1);
    if (is_word(previous) || previous == '-' || previous == '.') return false;
    const bool point = at(i) == '.' || (at(i) == '-' && at(i + 1) == '.');
    return (at(i) == '-' || at(i) == '.') && is_digit(at(point && at(i) == '-' ? i + 2 : i + 1));
  }

  // Three digits behind the separator, and no fourth.
  bool is_thousands_separator(size_t i) const {
    return (at(i) == ',' || at(i) == kThousandsBlank) && is_digit(before(i, 1)) && is_digit(at(i + 1)) &&
           is_digit(at(i + 2)) && is_digit(at(i + 3)) && !is_digit(at(i + 4));
  }

  // The number that starts at `i`, with its sign; `i` is moved behind it.
  std::string read_number(size_t& i) const {
    std::string number;
    if (at(i) == '-') number += static_cast<char>(points_[i++]);
    bool point = false;
    if (at(i) == '.') number += '0';
    for (; i < points_.size(); ++i) {
      if (is_digit(points_[i])) {
        number += static_cast<char>(points_[i]);
      } else if (points_[i] == '.' && !point && is_digit(at(i + 1))) {
        point = true;
        number += '.';
      } else if (point || !is_thousands_separator(i)) {
        break;
      }
    }
    if (point) {
      while (number.back() == '0') number.pop_back();
      if (number.back() == '.') number.pop_back();
    }
    return number;
  }

  void read_word(size_t& i) {
    AnswerWord word;
    word.clause = clause_;
    const char32_t joint = before(i, 1);
    word.joined = is_digit(at(i)) && is_digit(before(i, 2)) &&
                  std::u32string_view(U"-.,/:").find(joint) != std::u32string_view::npos;
    if (is_without_spaces(at(i))) {
      word.text = word.stem = from_code_points(points_, i, i + 1);
      words_.push_back(std::move(word));
      ++i;
      return;
    }
    if (is_digit(at(i)) || !is_word(at(i))) word.text = read_number(i);
    size_t apostrophe = std::string::npos;
    for (; i < points_.size() && !is_without_spaces(points_[i]); ++i) {
      const bool inside = points_[i] == '\'' && i > 0 && is_word(points_[i - 1]) && is_word(at(i + 1));
      if (!is_word(points_[i]) && !inside) break;
      if (inside) {
        apostrophe = word.text.size();
      } else {
        word.text += from_code_points(points_, i, i + 1);
      }
    }
    const bool possessive = apostrophe != std::string::npos && word.text.substr(apostrophe) == "s";
    word.stem = possessive ? word.text.substr(0, apostrophe) : word.text;
    words_.push_back(std::move(word));
  }

  std::vector<char32_t> points_;
  std::vector<AnswerWord> words_;
  int clause_ = 0;
};

}  // namespace

std::vector<char32_t> code_points(const std::string& text) {
  std::vector<char32_t> points;
  points.reserve(text.size());
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t i = 0; i < size;) {
    if (bytes[i] < 0x80) {
      points.push_back(bytes[i++]);
      continue;
    }
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + i, size - i, &point);
    points.push_back(length > 0 ? static_cast<char32_t>(point) : char32_t{0xFFFD});
    i += std::max<utf8proc_ssize_t>(1, length);
  }
  return points;
}

std::string from_code_points(const std::vector<char32_t>& points, size_t begin, size_t end) {
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    if (points[i] < 0x80) {
      text += static_cast<char>(points[i]);
      continue;
    }
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(points[i]), bytes);
    text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
  }
  return text;
}

bool is_letter(char32_t point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_lower(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_LL;
}

bool is_upper(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_LU;
}

bool is_space(char32_t point) {
  return point == '\t' || point == '\n' || point == '\v' || point == '\f' || point == '\r' || point == 0x85 ||
         utf8proc_category(static_cast<utf8proc_int32_t>(point)) == UTF8PROC_CATEGORY_ZS || point == 0x2028 ||
         point == 0x2029;
}

bool holds_text(const std::string& text, const std::string& part) {
  const std::vector<char32_t> all = folded(text), wanted = folded(part);
  return std::search(all.begin(), all.end(), wanted.begin(), wanted.end()) != all.end();
}

std::vector<AnswerWord> answer_words(const std::string& text) {
  std::vector<AnswerWord> words = WordReader(text).read();
  const auto is_article = [](const AnswerWord& word) {
    return word.text == "a" || word.text == "an" || word.text == "the";
  };
  if (!std::all_of(words.begin(), words.end(), is_article)) std::erase_if(words, is_article);
  return words;
}

}  // namespace kvc
