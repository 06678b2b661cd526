// LongBench v2 (Bai et al., arXiv:2412.15204): multiple choice about long texts, from its published data.json (a list)
// or the same as JSON lines: `_id`, `domain`, `sub_domain`, `difficulty`, `length`, `question`, `choice_A` to
// `choice_D`, `answer` (a letter), `context`. Questions about one text are one document.
//
// Asked by multiple_choice and likelihood, in the words of those tasks; texts are not cut in the middle.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "datasets/benchmark_lines.h"

namespace kvc {
namespace {

class LongBenchV2 final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/longbench_v2_form.jsonl";
    std::vector<std::string> difficulties;
    std::vector<std::string> lengths;
    std::vector<std::string> domains;
    int64_t questions = 0;
    void fields(auto&& visit) {
      visit("path", path, "LongBench v2's data.json, or its questions as JSON lines", named("a JSON file"));
      visit("difficulties", difficulties, "only these: easy, hard; empty: all");
      visit("lengths", lengths, "only these: short (up to 32k words), medium, long (above 128k); empty: all");
      visit("domains", domains, "only these, e.g. [Single-Document QA]; empty: all");
      visit("questions", questions, "first questions to use of those; 0: all", at_least(0));
    }
  };
  explicit LongBenchV2(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "this is not a question of LongBench v2's published file");
    DocumentsByText documents;
    ValuesOfFile found;
    const auto read = [&](const Json& json) { read_question(in, json, found, documents); };
    if (const std::string text = read_data_file(options_.path); strip_space(text).starts_with('[')) {
      read_list(in, text, read);
    } else {
      read_json_lines(in, options_.path, R"({"question": ..., "choice_A": ..., "answer": "A", "context": ...})", read);
    }
    in.at_line(0);
    in.check_asked_for("difficulties", options_.difficulties, found["difficulty"]);
    in.check_asked_for("lengths", options_.lengths, found["length"]);
    in.check_asked_for("domains", options_.domains, found["domain"]);
    in.fail_if_needed();
    if (found["_id"].empty()) throw Error(ErrorKind::kData, "the list of questions is empty", options_.path, kTakeFile);
    if (documents.n_questions() == 0) {
      throw Error(ErrorKind::kData, "no question of the file has the difficulty, length and domain that were asked for",
                  options_.path, "check `difficulties`, `lengths` and `domains`");
    }
    return documents.take();
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"choice_A", "choice_B", "choice_C"}}; }

 private:
  static constexpr const char* kTakeFile = "take LongBench v2's data.json as it is published";
  using ValuesOfFile = std::map<std::string, std::set<std::string>>;  // field -> what questions have there

  static void read_list(DataReader& in, const std::string& text, const std::function<void(const Json&)>& read) {
    const Json list = in.parse(text);
    if (list.is_discarded()) in.add("", invalid_json("the file", text), kTakeFile);
    in.fail_if_needed();
    for (size_t i = 0; i < list.size(); ++i) {
      in.at_line(static_cast<int64_t>(i) + 1);
      if (list[i].is_object()) {
        read(list[i]);
      } else {
        in.add("", fmt::format("question {} of the list must be an object", i + 1), "write {\"question\": ...}");
      }
    }
    in.fail_if_needed();
  }

  void read_question(DataReader& in, const Json& json, ValuesOfFile& found, DocumentsByText& documents) const {
    if (!json.contains("question") && !json.contains("choice_A") && !json.contains("context")) {
      return in.add("", "the fields 'question', 'choice_A' and 'context' are missing", kTakeFile);
    }
    Question question;
    question.id = in.text_field(json, "", "_id");
    in.check_distinct("question id", question.id, "_id");
    found["_id"].insert(question.id);
    question.text = in.text_field(json, "", "question");
    for (const char letter : {'A', 'B', 'C', 'D'})
      question.options.push_back(in.text_field(json, "", std::string("choice_") + letter));
    const std::string answer = in.text_field(json, "", "answer");
    if (!answer.empty() && (answer.size() != 1 || answer[0] < 'A' || answer[0] > 'D')) {
      in.add("answer", fmt::format("'answer' must be A, B, C or D; got '{}'", shortened(answer)), "write the letter");
    }
    question.gold_option = answer.empty() ? 0 : answer[0] - 'A';
    const auto gold = static_cast<size_t>(question.gold_option.value());
    if (gold < 4 && std::count(question.options.begin(), question.options.end(), question.options[gold]) > 1 &&
        !question.options[gold].empty()) {
      in.add(std::string("choice_") + answer, "another choice is the same as the right one", "write another choice");
    }
    const std::string context = in.text_field(json, "", "context");
    const std::string difficulty = optional_text(in, json, "difficulty"), length = optional_text(in, json, "length"),
                      domain = optional_text(in, json, "domain");
    for (const auto& [name, value] : {std::pair{"difficulty", difficulty}, {"length", length}, {"domain", domain}}) {
      if (value.empty()) continue;
      question.extra[name] = value;
      found[name].insert(value);
    }
    const auto wanted = [](const std::vector<std::string>& list, const std::string& value) {
      return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
    };
    if (!wanted(options_.difficulties, difficulty) || !wanted(options_.lengths, length) ||
        !wanted(options_.domains, domain) ||
        (options_.questions > 0 && documents.n_questions() >= static_cast<size_t>(options_.questions)))
      return;
    const std::string id = question.id;
    documents.add("longbench_v2_" + id, "", context, std::move(question));
  }

  Options options_;
};

KVC_REGISTER_DATASET(LongBenchV2, "longbench_v2", "multiple choice about long texts (arXiv:2412.15204)");

}  // namespace
}  // namespace kvc
