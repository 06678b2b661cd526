// Free answers compared with the right one as a careful reader would: words by their letters, numbers by their value.
// Words and F1 after SQuAD's evaluation (arXiv:1606.05250, section 6.1), widened from ASCII to Unicode.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/tasks/judging/answer_words.h"

namespace kvc {

// Words as they are compared:
// - composed (NFC), letters case-folded ("STRASSE" is "straße"), invisible characters left out, full-width forms as
//   plain ones;
// - numbers without thousands separators (commas, or no-break and thin spaces) and without zeros at the end behind a
//   decimal point: "4,821.50" is "4821.5"; "-3" keeps its sign, whichever minus is written; "007" is "007";
// - other punctuation separates words as blanks do, but for an apostrophe inside a word, which is dropped: "dog's" is
//   "dogs", with straight and curly apostrophes alike;
// - "a", "an" and "the" are dropped, unless there is nothing else;
// - in scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) every character is a
// word.
std::vector<std::string> normalised_words(const std::string& text);

// The first line of an answer that is not empty, joined with the next one where it ends in a colon ("The code is:").
std::string first_line_of(const std::string& answer);

// The text without what stands behind its first `n` sentences. A sentence ends at a full stop, question or exclamation
// mark of any script; not behind a title, an initial, "No." before a number and the like ("St. Louis", "J. Smith"), a
// list's number at the start ("1. Paris"), or where a small letter follows.
std::string first_sentences(const std::string& text, int64_t n);
int64_t count_sentences(const std::string& text);

// True when the words of `gold` stand, one after the other, in the first sentence of the answer's first line (the first
// n, if the gold has n). "4821" is found in "It is 4,821." and "4821.0"; not in "14821", "4821.5", "-4821", "12-4821",
// and not where it is denied: "not 4821", "4821 is wrong". Thoughts must have been left out before (thought.h).
bool exact_match(const std::string& answer, const std::string& gold);

// The two sides of exact_match, each read once where many are compared with many:
// exact_match(answer, gold) is WrittenAnswer(answer).gives(GoldAnswer(gold)).
class GoldAnswer {
 public:
  explicit GoldAnswer(const std::string& text);
  bool same_words(const GoldAnswer& other) const;  // equal normalised_words

 private:
  friend class WrittenAnswer;
  std::vector<AnswerWord> words_;
  int64_t n_sentences_;
};

class WrittenAnswer {
 public:
  explicit WrittenAnswer(const std::string& text);
  bool gives(const GoldAnswer& gold);

 private:
  std::string line_;
  int64_t n_read_ = 0;  // sentences whose words are in words_
  std::vector<AnswerWord> words_;
};

struct WordOverlap {
  bool exact = false;      // the words are the same
  bool contained = false;  // the gold's words stand in the answer, one after the other
  double f1 = 0;           // harmonic mean of precision and recall of words, each counted as often as it stands
};

// Two empty lists are exact; one empty list has nothing in common with the other.
WordOverlap word_overlap(const std::vector<std::string>& answer, const std::vector<std::string>& gold);

}  // namespace kvc
