// The user turn of a multiple-choice question, as Attention Matching's evaluation writes it (arXiv:2602.16284).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/api/dataset.h"

namespace kvc {

// "A, B, C, or D"; two options: "A or B". n_options in [2, 26].
std::string option_letters(int64_t n_options);

// How the answer is to be given, which differs by the model's architecture ("llama", "qwen3") and, for one,
// its name.
std::string choice_instruction(const std::string& architecture, const std::string& model_name, int64_t n_options);

// Question, blank line, "A. option" lines, blank line, instruction.
std::string choice_prompt(const Question& question, const std::string& architecture, const std::string& model_name);

// Whether an option names others by letter or place ("B and C", "all of the above"), so that it means something else in
// another order, or without the others.
bool options_name_each_other(const Question& question);

// The options with the right one's text, in order; empty for a question without a right option.
std::vector<int64_t> equal_options(const Question& question);

}  // namespace kvc
