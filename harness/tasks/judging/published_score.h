// Answers scored as long-context benchmarks publish it: each rule is the benchmark's own, quirks included, so that
// numbers can be set beside published ones.
#pragma once

#include <string>
#include <vector>

namespace kvc {

// Rules, each a number from 0 to 1 for an answer and the references of a question:
//
// LongBench (arXiv:2308.14508) and others, the best over the references:
//   f1              of words: small letters, without ASCII punctuation, "a", "an", "the" (SQuAD's)
//   f1_characters   of characters: the same with Chinese punctuation too and without blanks (InfiniteBench's Zh.QA)
//   rouge_l         F of rouge.h's rouge_l()
//   classification  1 / number of class names in the answer, if the right one is among them; a name that is part of the
//                   right one does not count
//   code_edit       alikeness in hundredths (sequence_ratio.h) of the first line without ` # or //
//   count           share of the answer's numbers that are the reference
//   retrieval       the same with the number of a reference such as "Paragraph 12"
// InfiniteBench (arXiv:2402.13718), the best over the references:
//   first_integer   1 if the first run of digits is the reference (PassKey, Number)
//   first_number    1 if the first number is the reference by value (Math.Find)
//   last_integer    1 if the last word is the reference as a number (Code.Run)
//   word            1 if the reference is one of the words (Retrieve.KV)
//   capitals        1 if it is one of the words in capitals; the first reference alone (En.Dia)
//   leading_numbers share of the reference's numbers that the answer's first ones match (Math.Calc)
//   rouge_l_sum     F of rouge.h's rouge_l_sum() (En.Sum)
// LooGLE (arXiv:2311.04939):
//   rouge_l_recall  recall of rouge_l()
//   cloze           share of the blanks of the reference, {"<mask-0>": "Bob"}, that the first {...} of the answer fills
//                   with the same text
bool is_score_rule(const std::string& rule);

// `classes` are the names of all classes, for classification. `first_line`: the answer is its first line behind leading
// line ends (LongBench's few-shot tasks). No references: 0. Throws Error(kInternal) for another rule.
double published_score(const std::string& rule, std::string answer, const std::vector<std::string>& references,
                       const std::vector<std::string>& classes = {}, bool first_line = false);

}  // namespace kvc
