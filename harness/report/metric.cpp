#include "harness/report/metric.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/tasks/judging/answer_parser.h"
#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/integer_answer.h"

namespace kvc {
namespace {

// Checked access to the fields of one answer.
class Fields {
 public:
  Fields(const Record& record, size_t index) : Fields(record, index, record.answers[index]) {}
  // Of a part of the answer.
  Fields(const Record& record, size_t index, const Json& answer) : record_(record), index_(index), answer_(answer) {}

  bool has(const char* name) const { return answer_.is_object() && answer_.contains(name); }
  std::vector<Fields> parts(const char* name) const {
    const Json& value = at(name);
    if (!value.is_array() || value.empty()) fail(name, "is no list");
    std::vector<Fields> list;
    for (const Json& item : value) list.emplace_back(record_, index_, item);
    return list;
  }

  std::string text(const char* name) const {
    const Json& value = at(name);
    if (!value.is_string()) fail(name, "is no text");
    return value.get<std::string>();
  }
  double number(const char* name) const { return as_number(at(name), name); }
  int64_t integer(const char* name, int64_t least) const {
    const Json& value = at(name);
    if (!value.is_number_integer()) fail(name, "is no integer");
    if (value.get<int64_t>() < least) fail(name, fmt::format("is {}, less than {}", value.dump(), least));
    return value.get<int64_t>();
  }
  // Of a list, which may be empty.
  int64_t count(const char* name) const {
    const Json& value = at(name);
    if (!value.is_array()) fail(name, "is no list");
    return static_cast<int64_t>(value.size());
  }
  std::vector<double> numbers(const char* name) const {
    const Json& value = at(name);
    if (!value.is_array() || value.empty()) fail(name, "is no list of numbers");
    std::vector<double> list;
    for (const Json& item : value) list.push_back(as_number(item, name));
    return list;
  }
  int64_t gold_option(size_t n_options) const {
    const int64_t gold = integer("gold_option", 0);
    if (gold >= static_cast<int64_t>(n_options))
      fail("gold_option", fmt::format("is {} of {} options", gold, n_options));
    return gold;
  }
  bool cut_by_length() const {
    const std::string stop = text("stop_reason");
    if (stop != "end" && stop != "length") fail("stop_reason", "is '" + stop + "', neither 'end' nor 'length'");
    return stop == "length";
  }
  // The question's own, which data sets may leave out.
  std::optional<double> depth_fraction() const {
    if (!answer_.contains("extra") || !answer_.at("extra").is_object()) return std::nullopt;
    const Json depth = answer_.at("extra").value("depth_fraction", Json());
    if (!depth.is_number()) return std::nullopt;
    const double value = depth.get<double>();
    return value >= 0 && value <= 1 ? std::optional(value) : std::nullopt;
  }

  [[noreturn]] void fail(const char* name, const std::string& fact) const {
    throw Error(ErrorKind::kData, fmt::format("field '{}' of answer {} {}", name, index_, fact),
                fmt::format("record of cell {}, document '{}'", record_.cell_id, record_.document_id),
                "delete the record's line and run the sweep again; if it comes back, the task writes wrong answers");
  }

 private:
  const Json& at(const char* name) const {
    if (!answer_.is_object() || !answer_.contains(name)) fail(name, "is missing");
    return answer_.at(name);
  }
  double as_number(const Json& value, const char* name) const {
    if (!value.is_number() || !std::isfinite(value.get<double>()))
      fail(name, "holds " + value.dump() + ", no finite number");
    return value.get<double>();
  }

  const Record& record_;
  size_t index_;
  const Json& answer_;
};

double is_true(bool value) {
  return value ? 1.0 : 0.0;
}

int64_t best_of(const std::vector<double>& scores) {
  return std::max_element(scores.begin(), scores.end()) - scores.begin();
}

std::vector<double> likelihood(const Fields& fields) {
  const std::vector<double> raw = fields.numbers("option_log_likelihood");
  const std::vector<double> tokens = fields.numbers("option_tokens");
  if (tokens.size() != raw.size())
    fields.fail("option_tokens", fmt::format("has {} entries for {} options", tokens.size(), raw.size()));
  std::vector<double> per_token;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (tokens[i] < 1) fields.fail("option_tokens", fmt::format("counts {} tokens", tokens[i]));
    per_token.push_back(raw[i] / tokens[i]);
  }
  const int64_t gold = fields.gold_option(raw.size());
  double calibrated = std::numeric_limits<double>::quiet_NaN();
  if (fields.has("option_log_likelihood_neutral")) {
    const std::vector<double> neutral = fields.numbers("option_log_likelihood_neutral");
    if (neutral.size() != raw.size()) {
      fields.fail("option_log_likelihood_neutral",
                  fmt::format("has {} entries for {} options", neutral.size(), raw.size()));
    }
    std::vector<double> gain;
    for (size_t i = 0; i < raw.size(); ++i) gain.push_back(raw[i] - neutral[i]);
    calibrated = is_true(best_of(gain) == gold);
  }
  return {is_true(best_of(per_token) == gold), is_true(best_of(raw) == gold), calibrated};
}

std::vector<double> exact(const Fields& fields) {
  const std::string text = fields.text("text");
  const std::string gold = fields.text("gold_answer");
  const std::vector<std::string> gold_words = normalised_words(gold);
  const WordOverlap line = word_overlap(normalised_words(first_line_of(text)), gold_words);
  const WordOverlap all = word_overlap(normalised_words(text), gold_words);
  return {is_true(exact_match(text, gold)), is_true(line.exact), is_true(all.contained), line.f1,
          is_true(fields.cut_by_length())};
}

// An order of the options; `shift` as the task documents it.
std::vector<double> one_choice(const Fields& written, int64_t shift, int64_t n_options, int64_t gold) {
  auto choice = parse_choice(written.text("text"), n_options);
  const bool cut = written.cut_by_length();
  if (choice) *choice = (*choice + shift) % n_options;
  return {is_true(choice && *choice == gold), is_true(choice.has_value()), is_true(cut)};
}

std::vector<double> multiple_choice(const Fields& fields) {
  const int64_t n_options = fields.integer("n_options", 1);
  const int64_t gold = fields.gold_option(static_cast<size_t>(n_options));
  if (!fields.has("rotations")) return one_choice(fields, 0, n_options, gold);
  const std::vector<Fields> rotations = fields.parts("rotations");
  std::vector<double> means(3, 0.0);
  for (const Fields& rotation : rotations) {
    const int64_t shift = rotation.integer("shift", 0);
    if (shift >= n_options) rotation.fail("shift", fmt::format("is {} with {} options", shift, n_options));
    const std::vector<double> values = one_choice(rotation, shift, n_options, gold);
    for (size_t i = 0; i < means.size(); ++i) means[i] += values[i] / static_cast<double>(rotations.size());
  }
  return means;
}

std::vector<double> fidelity(const Fields& fields) {
  const auto n = static_cast<double>(fields.integer("n_tokens", 0));
  const double kl = fields.number("kl_sum");
  const double log_likelihood = fields.number("log_likelihood_sum");
  const double agreement = fields.number("top_agreement");
  if (agreement < 0 || agreement > n) fields.fail("top_agreement", fmt::format("is {} of {} tokens", agreement, n));
  if (n == 0) return {};
  return {kl / n, -log_likelihood / n, agreement / n};
}

// avg@k: means over the samples of a problem.
std::vector<double> reasoning(const Fields& fields) {
  const auto gold = parse_integer(fields.text("gold_answer"));
  if (!gold) fields.fail("gold_answer", "is no integer from 0 to 999");
  const std::vector<Fields> samples = fields.parts("samples");
  std::vector<double> means(5, 0.0);
  for (const Fields& sample : samples) {
    const auto number = parse_integer(sample.text("text"));
    const std::string stop = sample.text("stop_reason");
    const std::vector<double> values = {
        is_true(number == gold), is_true(number.has_value()), is_true(stop == "limit" || stop == "length"),
        static_cast<double>(sample.count("compactions")), static_cast<double>(sample.integer("thought_tokens", 0))};
    for (size_t i = 0; i < means.size(); ++i) means[i] += values[i] / static_cast<double>(samples.size());
  }
  return means;
}

std::vector<double> head_errors(const Fields& fields) {
  return {fields.number("output_relative"), fields.number("cosine"), fields.number("mass_relative")};
}

struct TaskMetrics {
  const char* task;
  std::vector<MetricInfo> metrics;
  std::vector<double> (*values)(const Fields&);
};

const std::vector<TaskMetrics>& all_tasks() {
  static const std::vector<TaskMetrics> list = {
      {"likelihood",
       {{"accuracy", "accuracy, options ranked by mean log-likelihood per token", true, true},
        {"accuracy_raw", "accuracy, options ranked by raw log-likelihood", true, true},
        {"accuracy_calibrated", "accuracy, options ranked by log-likelihood less that without the document", true,
         true}},
       likelihood},
      {"exact_match",
       {{"accuracy", "accuracy, right answer in the reply's first sentence", true, true},
        {"exact", "share of replies whose first line is the right answer, normalised", true, true},
        {"contained", "share of replies that hold the right answer, normalised", true, true},
        {"f1", "F1 of the words of the reply's first line", false, true},
        {"length_limit_rate", "share of answers cut off by the length limit", true, false}},
       exact},
      {"multiple_choice",
       {{"accuracy", "accuracy, unreadable answers counted wrong", true, true},
        {"parse_rate", "share of answers that could be read", true, true},
        {"length_limit_rate", "share of answers cut off by the length limit", true, false}},
       multiple_choice},
      {"fidelity",
       {{"kl", "KL(full || compacted), nats per token", false, false},
        {"log_perplexity", "log-perplexity of the full cache's answers, nats per token", false, false},
        {"top_agreement", "share of tokens with the full cache's top token", false, true}},
       fidelity},
      {"head_errors",
       {{"output_error", "error of the heads' outputs, relative L2", false, false},
        {"cosine", "cosine of the heads' outputs with the full cache's", false, true},
        {"mass_error", "relative error of the heads' attention mass", false, false}},
       head_errors},
      {"reasoning",
       {{"accuracy", "accuracy, mean over the samples of a problem (avg@k), unreadable answers counted wrong", true,
         true},
        {"parse_rate", "share of answers that hold a number", true, true},
        {"length_limit_rate", "share of thoughts cut off by a limit, their answers forced", true, false},
        {"compactions", "compactions per answer", false, false},
        {"thought_tokens", "tokens of thought per answer", false, false}},
       reasoning},
  };
  return list;
}

const TaskMetrics* find_task(const std::string& task) {
  for (const TaskMetrics& entry : all_tasks()) {
    if (task == entry.task) return &entry;
  }
  return nullptr;
}

}  // namespace

const std::vector<MetricInfo>& metrics_of_task(const std::string& task) {
  static const std::vector<MetricInfo> none;
  const TaskMetrics* entry = find_task(task);
  return entry == nullptr ? none : entry->metrics;
}

std::vector<QuestionValues> question_values(const Record& record) {
  std::vector<QuestionValues> list;
  const std::string where = fmt::format("record of cell {}, document '{}'", record.cell_id, record.document_id);
  const Json task = record.cell.is_object() ? record.cell.value("task", Json()) : Json();
  if (!task.is_object() || !task.contains("name") || !task.at("name").is_string()) {
    throw Error(ErrorKind::kData, "field 'cell.task.name' is missing", where,
                "delete the record's line and run the sweep again");
  }
  const TaskMetrics* metrics = find_task(task.at("name").get<std::string>());
  if (metrics == nullptr) return list;
  for (size_t i = 0; i < record.answers.size(); ++i) {
    const Fields fields(record, i);
    QuestionValues values{fields.text("question_id"), metrics->values(fields), fields.depth_fraction()};
    if (!values.values.empty()) list.push_back(std::move(values));
  }
  return list;
}

}  // namespace kvc
