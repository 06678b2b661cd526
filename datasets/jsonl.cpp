// Own documents with questions, from JSON lines. The schema is in datasets/README.md.

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "datasets/data_file.h"

namespace kvc {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& path) : in_(path, "see the schema in datasets/README.md"), path_(path) {}

  std::vector<Document> read() {
    std::istringstream lines(read_data_file(path_));
    std::string line;
    for (int64_t n = 1; std::getline(lines, line); ++n) {
      in_.at_line(n);
      if (!strip_space(line).empty()) read_line(line);
    }
    in_.fail_if_needed();
    if (documents_.empty()) {
      throw Error(ErrorKind::kData, "the file has no line of data", path_,
                  "each line is one context with its questions");
    }
    return std::move(documents_);
  }

 private:
  void read_line(const std::string& line) {
    const Json json = in_.object_line(line, "{\"context\": ..., \"questions\": [...]}");
    if (json.is_null()) return;
    Document document;
    document.id = json.contains("id") ? in_.text_field(json, "", "id") : fmt::format("line_{}", in_.line());
    document.title = json.contains("title") ? in_.text_field(json, "", "title") : document.id;
    document.text = in_.text_field(json, "", "context");
    in_.check_distinct("document id", document.id, "id");
    if (!json.contains("questions") || !json.at("questions").is_array() || json.at("questions").empty()) {
      in_.add("questions", "'questions' is missing, empty or no list", "give at least one question");
      return;
    }
    const Json& list = json.at("questions");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string field = fmt::format("questions[{}]", i);
      if (list[i].is_object()) {
        document.questions.push_back(read_question(list[i], field + ".", fmt::format("{}_{}", document.id, i + 1)));
      } else {
        in_.add(field, "the question must be a JSON object", "write {\"question\": ..., \"answer\": ...}");
      }
    }
    documents_.push_back(std::move(document));
  }

  Question read_question(const Json& json, const std::string& parent, const std::string& default_id) {
    Question question;
    question.id = json.contains("id") ? in_.text_field(json, parent, "id") : default_id;
    in_.check_distinct("question id", question.id, parent + "id");
    question.text = in_.text_field(json, parent, "question");
    if (json.contains("answer_prefix")) question.answer_prefix = in_.text_field(json, parent, "answer_prefix");
    if (json.contains("extra")) {
      if (json.at("extra").is_object()) {
        question.extra = json.at("extra");
      } else {
        in_.add(parent + "extra", fmt::format("'extra' must be an object; got {}", shown(json.at("extra"))),
                "write {\"name\": value}");
      }
    }
    const bool is_choice = json.contains("options");
    if (is_choice && json.contains("answer")) {
      in_.add(parent + "answer", "a question with options has a free answer too",
              "give `options` and `gold`, or `answer`");
    } else if (is_choice) {
      if (in_.options_field(json, parent, question.options)) read_gold(json, parent, question);
    } else if (json.contains("gold")) {
      in_.add(parent + "gold", "'gold' needs options", "give `options` and `gold`, or `answer`");
    } else {
      question.gold_answer = in_.text_field(json, parent, "answer");
    }
    return question;
  }

  void read_gold(const Json& json, const std::string& parent, Question& question) {
    const std::string field = parent + "gold";
    const std::vector<std::string>& options = question.options;
    if (!json.contains("gold")) {
      in_.add(field, "'gold' is missing", "the right option's number, from 1, or its text");
      return;
    }
    const Json& gold = json.at("gold");
    if (gold.is_string()) {
      const auto found = std::find(options.begin(), options.end(), strip_space(gold.get<std::string>()));
      if (found != options.end()) {
        question.gold_option = found - options.begin();
      } else {
        in_.add(field, fmt::format("gold must be one of the options; got {}", shown(gold)),
                "repeat one of them exactly");
      }
      return;
    }
    if (!gold.is_number_integer()) {
      in_.add(field, fmt::format("'gold' must be a number or text; got {}", shown(gold)),
              "the right option's number, from 1, or its text");
      return;
    }
    // Unsigned numbers beyond int64 would wrap around: compare before they are narrowed.
    const bool too_large = gold.is_number_unsigned() && gold.get<std::uint64_t>() > options.size();
    if (too_large || gold.get<int64_t>() < 1) {
      in_.add(field, fmt::format("gold {} of {} options", gold.dump(), options.size()),
              fmt::format("1 to {}", options.size()));
      return;
    }
    question.gold_option = gold.get<int64_t>() - 1;
  }

  DataReader in_;
  std::string path_;
  std::vector<Document> documents_;
};

class JsonlData final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/own.jsonl";
    void fields(auto&& visit) { visit("path", path, "JSON lines: context and questions (datasets/README.md)"); }
    void check(const OptionCheck& fail) const {
      if (path.empty()) fail("path", "is empty", "name a JSONL file");
    }
  };
  explicit JsonlData(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override { return Reader(options_.path).read(); }
  Json identity() const override { return data_file_identity(options_.path); }

 private:
  Options options_;
};

KVC_REGISTER_DATASET(JsonlData, "jsonl", "own data, schema in datasets/README.md");

}  // namespace
}  // namespace kvc
