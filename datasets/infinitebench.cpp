// InfiniteBench (Zhang et al., arXiv:2402.13718), one of its published JSON lines files: `id`, `context`, `input`,
// `answer`, `options`. Which of its twelve tasks a file holds is known by its name (passkey.jsonl). Lines about one
// text are one document. longbook_choice_eng and code_debug are asked by multiple_choice and likelihood, the others by
// published_score with their own scores.
//
// Departures: prompts are told in words of our own, behind the text; where the published limit holds a bare number only
// (passkey, number_string, code_run), the answer's first words are given, as in its prompts for base models;
// math_find may write 12 tokens instead of 3, which is less than one number in many vocabularies.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "datasets/benchmark_lines.h"

namespace kvc {
namespace {

struct InfiniteBenchSet {
  std::string_view name;
  std::string_view rule;  // published_score.h; "": multiple choice
  int64_t max_new_tokens;
  std::string_view question;  // {} is the line's input
  std::string_view answer_prefix;
};

constexpr std::array kInfiniteBenchSets = {
    InfiniteBenchSet{"passkey", "first_integer", 6, "{}", "The pass key is"},
    InfiniteBenchSet{"number_string", "first_integer", 12, "{}", "The sequence of digits is"},
    InfiniteBenchSet{"kv_retrieval", "word", 50, "Find the value of one key in the JSON object.\n\n{}", ""},
    InfiniteBenchSet{
        "longdialogue_qa_eng", "capitals", 40,
        "In the script the name of one character was replaced by \"$$MASK$$\" in one place. Who is it? Answer "
        "with the name as it stands before that character's lines, and nothing else.",
        ""},
    InfiniteBenchSet{"longbook_sum_eng", "rouge_l_sum", 1200, "Write a summary of the book.", ""},
    InfiniteBenchSet{"longbook_qa_eng", "f1", 40,
                     "Answer the question about the book as briefly as you can.\n\nQuestion: {}", ""},
    InfiniteBenchSet{"longbook_qa_chn", "f1_characters", 40, "请根据这本书回答问题，回答要尽量简短。\n\n问题：{}", ""},
    InfiniteBenchSet{"longbook_choice_eng", "", 0, "{}", ""},
    InfiniteBenchSet{"code_debug", "", 0, "Which of these functions of the project was given a deliberate error?", ""},
    InfiniteBenchSet{"code_run", "last_integer", 5, "{}", ""},
    InfiniteBenchSet{"math_find", "first_number", 12, "{}", ""},
    InfiniteBenchSet{
        "math_calc", "leading_numbers", 30000,
        "Compute the expression of the text step by step. Write the value after each operation, as a list of "
        "numbers like [1, 4, 8], and nothing else.",
        ""},
};

// "func_3(-5)" of "Please give me the exact number of the return value of func_3(-5). ..."; "" where there is none.
std::string function_call_in(const std::string& text) {
  const size_t begin = text.find("func_");
  const size_t end = begin == std::string::npos ? begin : text.find(')', begin);
  return end == std::string::npos ? "" : text.substr(begin, end + 1 - begin);
}

class InfiniteBench final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/longbook_qa_eng.jsonl";
    std::string subset;
    int64_t lines = 0;
    void fields(auto&& visit) {
      visit("path", path, "one of InfiniteBench's JSON lines files, e.g. passkey.jsonl", named("a JSONL file"));
      visit("subset", subset, "which of its tasks the file holds; empty: the file's name says it");
      visit("lines", lines, "first lines to use; 0: all", at_least(0));
    }
  };
  explicit InfiniteBench(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    const InfiniteBenchSet& set = set_of_file();
    DataReader in(options_.path, "this is not a line of InfiniteBench's published files");
    DocumentsByText documents;
    read_json_lines(in, options_.path, R"({"context": ..., "input": ..., "answer": ..., "options": [...]})",
                    [&](const Json& json) {
                      if (options_.lines == 0 || documents.n_questions() < static_cast<size_t>(options_.lines))
                        read_line(in, json, set, documents);
                    });
    return documents.take();
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"context", "input", "answer"}}; }

 private:
  const InfiniteBenchSet& set_of_file() const {
    const std::string name =
        options_.subset.empty() ? std::filesystem::path(options_.path).stem().string() : options_.subset;
    const auto* found = std::find_if(kInfiniteBenchSets.begin(), kInfiniteBenchSets.end(),
                                     [&](const InfiniteBenchSet& set) { return set.name == name; });
    if (found != kInfiniteBenchSets.end()) return *found;
    std::vector<std::string> known;
    for (const InfiniteBenchSet& set : kInfiniteBenchSets) known.emplace_back(set.name);
    throw Error(ErrorKind::kData, fmt::format("'{}' is none of InfiniteBench's tasks", shortened(name)), options_.path,
                "name the file's task as `subset`. " + suggest_name(name, known));
  }

  static void read_line(DataReader& in, const Json& json, const InfiniteBenchSet& set, DocumentsByText& documents) {
    const std::string context = in.text_field(json, "", json.contains("content") ? "content" : "context");
    const std::string input = optional_text(in, json, "input");
    const std::vector<std::string> answers = texts_of_field(in, json, "answer");
    const std::string id = fmt::format("{}_{}", set.name, in.line());
    if (json.contains("id")) in.check_distinct("question id", json.at("id").dump(), "id");
    Question question;
    question.id = id + "_q";
    question.text = strip_space(fmt::format(fmt::runtime(set.question), input));
    question.answer_prefix = set.answer_prefix;
    if (input.empty() && set.question.find("{}") != std::string_view::npos)
      in.add("input", "'input' is missing or empty", "this is not a line of InfiniteBench's files");
    if (answers.empty()) return;
    check_numbers(in, set, answers);
    if (set.rule.empty()) {
      in.options_field(json, "", question.options);
      const auto right = std::find(question.options.begin(), question.options.end(), strip_space(answers.front()));
      if (right == question.options.end()) {
        in.add("answer", fmt::format("the answer '{}' is none of the options", shortened(answers.front())),
               "write one of the options");
        return;
      }
      question.gold_option = right - question.options.begin();
      question.extra["subset"] = set.name;
    } else {
      set_score(set, answers, input, question);
    }
    documents.add(id, "", context, std::move(question));
  }

  // What scores of numbers can never give a point for. math_find's and math_calc's numbers may have a point or a minus.
  static void check_numbers(DataReader& in, const InfiniteBenchSet& set, const std::vector<std::string>& answers) {
    const std::string_view allowed = set.rule == "first_integer"     ? "0123456789"
                                     : set.rule == "last_integer"    ? "+-0123456789"
                                     : set.rule == "first_number"    ? "+-.0123456789"
                                     : set.rule == "leading_numbers" ? "+-.,[] 0123456789"
                                                                     : "";
    if (allowed.empty()) return;
    for (const std::string& answer : answers) {
      const std::string text = strip_space(answer);
      if (text.find_first_not_of(allowed) == std::string::npos && text.find_first_of("0123456789") != std::string::npos)
        continue;
      in.add("answer",
             fmt::format("the answer of {} must be {}; got '{}'", set.name,
                         set.rule.ends_with("integer") ? "a whole number" : "a number", shortened(text)),
             "write it in digits");
    }
  }

  static void set_score(const InfiniteBenchSet& set, const std::vector<std::string>& answers, const std::string& input,
                        Question& question) {
    // The values of a calculation are one answer.
    std::vector<std::string> references = answers;
    if (set.rule == "leading_numbers") references = {fmt::format("{}", fmt::join(answers, ", "))};
    if (set.name == "code_run") {
      if (const std::string call = function_call_in(input); !call.empty()) {
        question.text =
            fmt::format("Compute from the functions of the text what {} returns. Answer with the number only.", call);
        question.answer_prefix = fmt::format("The value of {} is", call);
      }
    }
    set_right_answers(references, question);
    question.extra = score_extra(std::string(set.name), std::string(set.rule), references, set.max_new_tokens);
  }

  Options options_;
};

KVC_REGISTER_DATASET(InfiniteBench, "infinitebench", "twelve tasks of 100k tokens and more (arXiv:2402.13718)");

}  // namespace
}  // namespace kvc
