// What the raw answers of a record are worth: one value per question, then (statistics.h) a mean. Nothing here needs a
// model, so a new metric or a mended answer parser is a new report over old records.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

struct MetricInfo {
  std::string name;   // "accuracy"
  std::string title;  // "accuracy (mean log-likelihood per token)"
  bool share;         // values are 0 or 1, or means of such over several askings of a question
  bool higher_is_better;
};

// The metrics of a task, the primary one first; empty for a task that has none.
//   likelihood       accuracy, accuracy_raw, accuracy_calibrated
//   exact_match      accuracy, exact, contained, f1, length_limit_rate
//   multiple_choice  accuracy, parse_rate, length_limit_rate
//   fidelity         kl, log_perplexity, top_agreement
//   head_errors      output_error, cosine, mass_error
//   reasoning        accuracy, parse_rate, length_limit_rate, compactions, thought_tokens
const std::vector<MetricInfo>& metrics_of_task(const std::string& task);

struct QuestionValues {
  std::string question_id;
  std::vector<double> values;              // in the order of metrics_of_task; NaN: this answer has none
  std::optional<double> depth_fraction{};  // where in the document the answer stands, if extra.depth_fraction says so
};

// One entry per answer of a "done" record, except fidelity answers of no reference token, which have no value per
// token.
//
// likelihood:
// - accuracy: 1 if argmax_o log_likelihood[o] / tokens[o] is gold_option (the first of equals is taken)
// - accuracy_raw: the same without the division
// - accuracy_calibrated: 1 if argmax_o log_likelihood[o] - log_likelihood_neutral[o] is gold_option; none in records
//   of older programs
//
// exact_match:
// - accuracy: 1 if exact_match(text, gold_answer)
// - exact, f1: word_overlap of the text's first line and gold_answer (answer_text.h); contained: of the whole text
// - length_limit_rate: 1 if stop_reason is "length"
//
// multiple_choice:
// - accuracy: 1 if parse_choice(text, n_options) is gold_option
// - parse_rate: 1 if a choice could be read
// - length_limit_rate: 1 if stop_reason is "length"
// each the mean over `rotations` where the question was asked in several orders of its options, what was chosen mapped
// back by (choice + shift) mod n_options
//
// fidelity, over the n_tokens reference tokens:
// - kl: kl_sum / n_tokens, nats
// - log_perplexity: -log_likelihood_sum / n_tokens, nats
// - top_agreement: count / n_tokens
//
// reasoning, means over `samples`:
// - accuracy: 1 if parse_integer(text) is gold_answer; parse_rate: 1 if it is a number
// - length_limit_rate: 1 if stop_reason is "limit" or "length": the answer was forced
// - compactions: their number; thought_tokens
//
// head_errors: output_relative, cosine, mass_relative as they stand
//
// Throws Error(kData) naming record and field when a field is missing, of a wrong type, not finite or out of range.
std::vector<QuestionValues> question_values(const Record& record);

}  // namespace kvc
