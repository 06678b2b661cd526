#include "harness/tasks/judging/rouge.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "harness/tasks/judging/answer_words.h"

namespace kvc {
namespace {

using Words = std::vector<std::string>;

// Words at white space.
Words words_of(const std::vector<char32_t>& points, size_t begin, size_t end) {
  Words words;
  for (size_t i = begin; i < end;) {
    if (is_space(points[i])) {
      ++i;
      continue;
    }
    const size_t from = i;
    while (i < end && !is_space(points[i])) ++i;
    words.push_back(from_code_points(points, from, i));
  }
  return words;
}

// A sentence of blanks has one word, which is empty: so the package splits it.
std::vector<Words> sentences_of(const std::string& text) {
  const std::vector<char32_t> points = code_points(text);
  std::vector<Words> sentences;
  for (size_t begin = 0; begin <= points.size();) {
    const size_t end = static_cast<size_t>(
        std::find(points.begin() + static_cast<std::ptrdiff_t>(begin), points.end(), U'.') - points.begin());
    if (end > begin) {
      sentences.push_back(words_of(points, begin, end));
      if (sentences.back().empty()) sentences.back().push_back("");
    }
    begin = end + 1;
  }
  return sentences;
}

// Lengths of the longest common subsequences of all beginnings, row by row of x.
class LcsTable {
 public:
  LcsTable(const Words& x, const Words& y) : columns_(y.size() + 1), lengths_((x.size() + 1) * columns_, 0) {
    for (size_t i = 1; i <= x.size(); ++i) {
      for (size_t j = 1; j <= y.size(); ++j) {
        lengths_[i * columns_ + j] = x[i - 1] == y[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
      }
    }
  }
  std::uint32_t at(size_t i, size_t j) const { return lengths_[i * columns_ + j]; }

 private:
  size_t columns_;
  std::vector<std::uint32_t> lengths_;
};

// Places in x of one longest common subsequence. Where two ways are alike `rouge` steps back in y and `rouge-score` in
// x: which words are found depends on it.
std::vector<size_t> common_subsequence(const Words& x, const Words& y, bool ties_in_x) {
  const LcsTable table(x, y);
  std::vector<size_t> places;
  size_t i = x.size(), j = y.size();
  while (i > 0 && j > 0) {
    if (x[i - 1] == y[j - 1]) {
      places.push_back(--i);
      --j;
    } else if (ties_in_x ? table.at(i, j - 1) > table.at(i - 1, j) : table.at(i - 1, j) <= table.at(i, j - 1)) {
      --j;
    } else {
      --i;
    }
  }
  return places;
}

std::vector<Words> lines_of(const std::string& text) {
  std::vector<Words> lines(1);
  std::string word;
  const auto close = [&] {
    if (!word.empty()) lines.back().push_back(word);
    word.clear();
  };
  for (char c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += c;
      continue;
    }
    close();
    if (c == '\n') lines.emplace_back();
  }
  close();
  return lines;
}

size_t count_words(const std::vector<Words>& lines) {
  size_t n = 0;
  for (const Words& line : lines) n += line.size();
  return n;
}

std::map<std::string, int64_t> counts_of(const std::vector<Words>& lines) {
  std::map<std::string, int64_t> counts;
  for (const Words& line : lines) {
    for (const std::string& word : line) ++counts[word];
  }
  return counts;
}

}  // namespace

RougeScore rouge_l(const std::string& answer, const std::string& reference) {
  const std::vector<Words> written = sentences_of(answer), wanted = sentences_of(reference);
  if (written.empty() || wanted.empty()) return {};
  const auto distinct = [](const std::vector<Words>& sentences) {
    std::set<std::string> words;
    for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
    return static_cast<double>(words.size());
  };
  std::set<std::string> found;
  for (const Words& sentence : wanted) {
    for (const Words& other : written) {
      for (const size_t place : common_subsequence(sentence, other, false)) found.insert(sentence[place]);
    }
  }
  const auto n = static_cast<double>(found.size());
  RougeScore score{n / distinct(written), n / distinct(wanted), 0};
  score.f = 2 * (score.precision * score.recall) / (score.precision + score.recall + 1e-8);
  return score;
}

RougeScore rouge_l_sum(const std::string& answer, const std::string& reference) {
  const std::vector<Words> written = lines_of(answer), wanted = lines_of(reference);
  const size_t n = count_words(written), m = count_words(wanted);
  if (n == 0 || m == 0) return {};
  auto left_written = counts_of(written), left_wanted = counts_of(wanted);
  int64_t hits = 0;
  for (const Words& line : wanted) {
    std::set<size_t> places;
    for (const Words& other : written) {
      for (const size_t place : common_subsequence(line, other, true)) places.insert(place);
    }
    for (const size_t place : places) {
      int64_t &in_written = left_written[line[place]], &in_wanted = left_wanted[line[place]];
      if (in_written <= 0 || in_wanted <= 0) continue;
      ++hits;
      --in_written;
      --in_wanted;
    }
  }
  RougeScore score{static_cast<double>(hits) / static_cast<double>(n),
                   static_cast<double>(hits) / static_cast<double>(m), 0};
  if (hits > 0) score.f = 2 * score.precision * score.recall / (score.precision + score.recall);
  return score;
}

}  // namespace kvc
