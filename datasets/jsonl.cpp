// Own documents with questions, from JSON lines or a folder of texts. Both forms are in datasets/README.md.

#include <fmt/format.h>

#include <filesystem>

#include "datasets/data_file.h"
#include "datasets/document_folder.h"
#include "datasets/own_question.h"

namespace kvc {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& path) : in_(path, "see the schema in datasets/README.md"), path_(path) {}

  std::vector<Document> read() {
    read_json_lines(in_, path_, R"({"context": ..., "questions": [...]})",
                    [&](const Json& json) { read_document(json); });
    return std::move(documents_);
  }

 private:
  void read_document(const Json& json) {
    Document document;
    document.id = json.contains("id") ? in_.text_field(json, "", "id") : fmt::format("line_{}", in_.line());
    document.title = json.contains("title") ? in_.text_field(json, "", "title") : document.id;
    document.text = in_.text_field(json, "", "context");
    in_.check_distinct("document id", document.id, "id");
    if (!json.contains("questions") || !json.at("questions").is_array() || json.at("questions").empty()) {
      in_.add("questions", "'questions' must be a list of at least one", "give at least one question");
      return;
    }
    const Json& list = json.at("questions");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string field = fmt::format("questions[{}]", i);
      if (list[i].is_object()) {
        document.questions.push_back(
            read_own_question(in_, list[i], field + ".", fmt::format("{}_{}", document.id, i + 1)));
      } else {
        in_.add(field, "the question must be a JSON object", "write {\"question\": ..., \"answer\": ...}");
      }
    }
    documents_.push_back(std::move(document));
  }

  DataReader in_;
  std::string path_;
  std::vector<Document> documents_;
};

class JsonlData final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/own.jsonl";
    void fields(auto&& visit) {
      visit("path", path, "JSON lines, or a folder of .txt and .md files with questions.csv (datasets/README.md)",
            named("a JSONL file or a folder"));
    }
  };
  explicit JsonlData(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    return is_folder() ? read_document_folder(options_.path).documents : Reader(options_.path).read();
  }
  Json identity() const override {
    return is_folder() ? document_folder_identity(options_.path) : data_file_identity(options_.path);
  }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"context", "questions"}, {"context"}}; }
  std::vector<std::string> notes() const override {
    return is_folder() ? read_document_folder(options_.path).notes : std::vector<std::string>{};
  }

 private:
  bool is_folder() const { return std::filesystem::is_directory(find_data_path(options_.path)); }

  Options options_;
};

KVC_REGISTER_DATASET(JsonlData, "jsonl", "own data, schema in datasets/README.md");

}  // namespace
}  // namespace kvc
