// Grade school word problems (GSM8K, Cobbe et al., arXiv:2110.14168), from the published JSON lines: `question`, and
// `answer`, a worked solution that ends in "#### 18". A problem is a document, its question the instruction to think
// and to end in the number; answers are compared by value (harness/tasks/judging/math_answer.h).

#include <fmt/format.h>

#include "datasets/data_file.h"

namespace kvc {
namespace {

constexpr const char* kAnswerWithNumber =
    "Please think step by step. When you are ready to give your final answer, end your thinking and respond with only "
    "the number.";

// What stands behind the last "####", without a dollar sign and commas; "" where that is no number.
std::string number_of(const std::string& solution) {
  const size_t mark = solution.rfind("####");
  if (mark == std::string::npos) return "";
  std::string number = strip_space(solution.substr(mark + 4));
  std::erase_if(number, [](char c) { return c == ',' || c == '$'; });
  const size_t digits = number.starts_with('-') ? 1 : 0;
  const bool is_number = number.find_first_not_of("0123456789.", digits) == std::string::npos &&
                         number.find_first_of("0123456789", digits) != std::string::npos &&
                         number.find('.') == number.rfind('.');
  return is_number ? number : "";
}

class Gsm8k final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/gsm8k_form.jsonl";
    int64_t problems = 0;
    void fields(auto&& visit) {
      visit("path", path, "GSM8K's JSON lines (test.jsonl or train.jsonl)", named("a JSONL file"));
      visit("problems", problems, "first problems to use; 0: all", at_least(0));
    }
  };
  explicit Gsm8k(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "this is not a line of GSM8K's published file");
    std::vector<Document> documents;
    read_json_lines(in, options_.path, R"({"question": ..., "answer": "... #### 18"})", [&](const Json& json) {
      const std::string problem = in.text_field(json, "", "question");
      const std::string solution = in.text_field(json, "", "answer");
      in.check_distinct("problem", problem, "question");
      const std::string number = number_of(solution);
      if (!solution.empty() && number.empty()) {
        in.add("answer", fmt::format("'answer' must end in \"#### \" and a number; got '{}'", last_part(solution)),
               "GSM8K's solutions do");
      }
      const std::string id = fmt::format("gsm8k_{}", documents.size() + 1);
      Question question;
      question.id = id + "_q";
      question.text = kAnswerWithNumber;
      question.gold_answer = number;
      question.extra["answer_form"] = "math";
      documents.push_back({id, fmt::format("problem {}", documents.size() + 1), problem, {std::move(question)}});
    });
    const auto limit = static_cast<size_t>(options_.problems);
    if (limit > 0 && documents.size() > limit) documents.resize(limit);
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"question", "answer"}}; }
  Json preferred_task() const override { return "reasoning"; }

 private:
  static std::string last_part(const std::string& text) {
    const size_t line = text.rfind('\n');
    return shortened(line == std::string::npos ? text : text.substr(line + 1));
  }

  Options options_;
};

KVC_REGISTER_DATASET(Gsm8k, "gsm8k", "grade school problems (arXiv:2110.14168)");

}  // namespace
}  // namespace kvc
