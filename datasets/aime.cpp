// Problems of the American Invitational Mathematics Examination (MAA), from JSON lines as several projects publish
// them: the problem under "problem", "prompt" or "question", the answer, an integer from 0 to 999, under "answer" as a
// number or a text of digits ("033"). The answer is kept without leading zeros.
//
// A problem is a document, its question the instruction to think and to end in the number (Attention Matching's
// evaluation, arXiv:2602.16284).

#include <fmt/format.h>

#include <algorithm>

#include "datasets/data_file.h"

namespace kvc {
namespace {

constexpr const char* kInstruction =
    "Please think step by step. When you are ready to give your final answer, end your thinking and respond with only "
    "the numeric answer (an integer from 0 to 999).";

// For a problem that itself asks for a \boxed{} answer: a second form of answer would contradict it.
constexpr const char* kInstructionBoxed = "Please think step by step. The answer is an integer from 0 to 999.";

// 0 to 999, or -1.
int64_t answer_of(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    return number <= 999 ? static_cast<int64_t>(number) : -1;
  }
  if (!value.is_string()) return -1;
  const std::string text = strip_space(value.get<std::string>());
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !text.empty() && text.size() <= 3 ? std::stoll(text) : -1;
}

class Aime final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/aime_form.jsonl";
    int64_t problems = 0;
    void fields(auto&& visit) {
      visit("path", path, "JSON lines with problem and answer", named("a JSONL file"));
      visit("problems", problems, "first problems to use; 0: all", at_least(0));
    }
  };
  explicit Aime(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "each line needs a problem and its answer");
    std::vector<Document> documents;
    read_json_lines(in, options_.path, R"({"problem": ..., "answer": ...})",
                    [&](const Json& json) { read_line(in, json, documents); });
    const auto limit = static_cast<size_t>(options_.problems);
    if (limit > 0 && documents.size() > limit) documents.resize(limit);
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"problem", "answer"}}; }
  Json preferred_task() const override { return "reasoning"; }

 private:
  static void read_line(DataReader& in, const Json& json, std::vector<Document>& documents) {
    const char* name = json.contains("problem") ? "problem" : json.contains("prompt") ? "prompt" : "question";
    const std::string problem = in.text_field(json, "", name);
    in.check_distinct("problem", problem, name);
    int64_t answer = -1;
    if (!json.contains("answer")) {
      in.add("answer", "'answer' is missing", "each line needs a problem and its answer");
    } else if (answer = answer_of(json.at("answer")); answer < 0) {
      in.add("answer", fmt::format("answer must be an integer from 0 to 999; got {}", shown(json.at("answer"))),
             "AIME answers are integers from 0 to 999");
    }
    const std::string id = fmt::format("aime_{}", documents.size() + 1);
    Question question;
    question.id = id + "_q";
    question.text = problem.find("\\boxed") == std::string::npos ? kInstruction : kInstructionBoxed;
    question.gold_answer = std::to_string(answer);
    documents.push_back({id, fmt::format("problem {}", documents.size() + 1), problem, {std::move(question)}});
  }

  Options options_;
};

KVC_REGISTER_DATASET(Aime, "aime", "American Invitational Mathematics Examination (MAA)");

}  // namespace
}  // namespace kvc
