// Competition problems (MATH, Hendrycks et al., arXiv:2103.03874; the 500 of arXiv:2305.20050), from JSON lines as they
// are published: `problem`, `answer` (LaTeX), and if there `subject`, `level`, `unique_id`; `solution` is not read. A
// problem is a document, its question the instruction to think and to end in \boxed{}; answers are compared by value
// (harness/tasks/judging/math_answer.h).

#include <fmt/format.h>

#include <set>

#include "datasets/data_file.h"

namespace kvc {
namespace {

constexpr const char* kAnswerInBox =
    "Please think step by step. When you are ready to give your final answer, end your thinking and respond with only "
    "the answer, within \\boxed{}.";

class Math500 final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/math500_form.jsonl";
    int64_t problems = 0;
    std::vector<std::string> subjects;
    std::vector<int64_t> levels;
    void fields(auto&& visit) {
      visit("path", path, "MATH-500's JSON lines (test.jsonl), or another file of this form", named("a JSONL file"));
      visit("problems", problems, "first problems to use; 0: all", at_least(0));
      visit("subjects", subjects, "only these, e.g. [Algebra, Precalculus]; empty: all");
      visit("levels", levels, "only these, 1 (easy) to 5; empty: all", between(1, 5));
    }
  };
  explicit Math500(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "each line needs a problem and its answer");
    std::vector<Document> documents;
    int64_t number = 0;
    std::set<std::string> subjects, levels;  // that the file has
    read_json_lines(in, options_.path, R"({"problem": ..., "answer": ..., "subject": ..., "level": ...})",
                    [&](const Json& json) { read_line(in, json, ++number, documents, subjects, levels); });
    std::vector<std::string> asked_levels;
    for (const int64_t level : options_.levels) asked_levels.push_back(std::to_string(level));
    in.at_line(0);
    in.check_asked_for("subjects", options_.subjects, subjects);
    in.check_asked_for("levels", asked_levels, levels);
    in.fail_if_needed();
    if (documents.empty()) {
      throw Error(ErrorKind::kData, "no problem of the file has one of the subjects and levels that were asked for",
                  options_.path, "check `subjects` and `levels`");
    }
    const auto limit = static_cast<size_t>(options_.problems);
    if (limit > 0 && documents.size() > limit) documents.resize(limit);
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override {
    return {{"problem", "subject", "level"}, {"problem", "subject", "unique_id"}, {"problem", "level", "unique_id"}};
  }
  // An answer in LaTeX takes tokens.
  Json preferred_task() const override { return Json{{"task", "reasoning"}, {"answer_tokens", 64}}; }

 private:
  void read_line(DataReader& in, const Json& json, int64_t number, std::vector<Document>& documents,
                 std::set<std::string>& subjects, std::set<std::string>& levels) const {
    const std::string problem = in.text_field(json, "", "problem");
    in.check_distinct("problem", problem, "problem");
    std::string id = fmt::format("math500_{}", number);
    if (json.contains("unique_id")) id = in.text_field(json, "", "unique_id");
    in.check_distinct("document id", id, "unique_id");
    Question question;
    question.id = id + "_q";
    question.text = kAnswerInBox;
    question.gold_answer = in.text_field(json, "", "answer");
    if (!braces_match(question.gold_answer)) {
      in.add("answer", fmt::format("the braces of '{}' do not match", shortened(question.gold_answer)),
             "write the answer in LaTeX");
    }
    question.extra["answer_form"] = "math";
    const std::string subject = json.contains("subject") ? in.text_field(json, "", "subject") : "";
    if (!subject.empty()) question.extra["subject"] = subject;
    const int64_t level = level_of(in, json);
    if (level > 0) question.extra["level"] = level;
    if (!subject.empty()) subjects.insert(subject);
    if (level > 0) levels.insert(std::to_string(level));
    const auto wanted = [](const auto& list, const auto& value) {
      return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
    };
    if (!wanted(options_.subjects, subject) || !wanted(options_.levels, level)) return;
    documents.push_back({id, fmt::format("problem {}", number), problem, {std::move(question)}});
  }

  // No reply can be compared with LaTeX that is cut off.
  static bool braces_match(const std::string& text) {
    int64_t open = 0;
    for (size_t i = 0; i < text.size() && open >= 0; ++i) {
      if (text[i] == '\\') {
        ++i;
      } else if (text[i] == '{' || text[i] == '}') {
        open += text[i] == '{' ? 1 : -1;
      }
    }
    return open == 0;
  }

  // 0 where there is none. Older files of MATH write "Level 5".
  static int64_t level_of(DataReader& in, const Json& json) {
    if (!json.contains("level")) return 0;
    const Json& level = json.at("level");
    if (level.is_number_integer() && level >= 1 && level <= 5) return level.get<int64_t>();
    const std::string text = level.is_string() ? strip_space(level.get<std::string>()) : "";
    if (text.size() == 7 && text.starts_with("Level ") && text[6] >= '1' && text[6] <= '5') return text[6] - '0';
    in.add("level", fmt::format("'level' must be 1 to 5; got {}", shown(level)), "write the number, or leave it out");
    return 0;
  }

  Options options_;
};

KVC_REGISTER_DATASET(Math500, "math500", "competition problems of MATH (arXiv:2103.03874, 2305.20050)");

}  // namespace
}  // namespace kvc
