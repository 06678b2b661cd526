// Free answers compared word by word, after SQuAD's evaluation (arXiv:1606.05250, section 6.1), with numbers read as
// numbers.
#pragma once

#include <string>
#include <vector>

namespace kvc {

// Words as they are compared:
// - ASCII letters in lower case; other letters as they are;
// - numbers without thousands separators and without zeros at the end behind a decimal point:
//   "4,821.50" is "4821.5", "-3" keeps its sign, "007" is "007";
// - other punctuation parts words as blanks do, but for an apostrophe inside a word, which goes: "dog's" is "dogs";
//   curly quotes count as straight ones;
// - "a", "an" and "the" go.
std::vector<std::string> normalised_words(const std::string& text);

// The first line of an answer that is not empty; the whole text of a gold answer is one line.
std::string first_line_of(const std::string& answer);

struct WordOverlap {
  bool exact = false;      // the words are the same
  bool contained = false;  // the gold's words stand in the answer, one after the other
  double f1 = 0;           // harmonic mean of precision and recall of words, each counted as often as it stands
};

// Two empty lists are exact; one empty list has nothing in common with the other.
WordOverlap word_overlap(const std::vector<std::string>& answer, const std::vector<std::string>& gold);

}  // namespace kvc
