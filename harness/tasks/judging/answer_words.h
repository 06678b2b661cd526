// The words of a text as answers are compared by them (answer_text.h), with what stands between them.
#pragma once

#include <string>
#include <vector>

namespace kvc {

struct AnswerWord {
  std::string text;
  std::string stem;     // without a possessive 's: "smith" of "smith's"; else the same as text
  bool joined = false;  // to the number before it, by one of - . , / : alone: the 21 of "12-21" or "4821,21"
  int clause = 0;       // grows with every comma, colon, bracket, full stop...; never with a hyphen
};

std::vector<AnswerWord> answer_words(const std::string& text);

// Whether `part` stands anywhere in the text, composed and case-folded; inside a word too, as in RULER's scoring.
bool holds_text(const std::string& text, const std::string& part);

// Code points of a text, U+FFFD for bytes that are no UTF-8.
std::vector<char32_t> code_points(const std::string& text);
std::string from_code_points(const std::vector<char32_t>& points, size_t begin, size_t end);

bool is_letter(char32_t point);
bool is_lower(char32_t point);
bool is_upper(char32_t point);
bool is_space(char32_t point);

}  // namespace kvc
