#include "datasets/quality_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "datasets/data_file.h"

namespace kvc {
namespace {

// Reads line after line; the documents are to be used only when nothing is wrong with any.
class ArticleReader {
 public:
  explicit ArticleReader(const std::string& path)
      : in_(path, "this is not a line of QuALITY's released JSONL"), path_(path) {}

  std::vector<Document> read() {
    read_json_lines(in_, path_, R"({"article_id": ..., "article": ..., "questions": [...]})",
                    [&](const Json& json) { read_article(json); });
    return std::move(documents_);
  }

 private:
  void read_article(const Json& json) {
    const std::string id = in_.text_field(json, "", "article_id");
    const std::string title = in_.text_field(json, "", "title");
    const std::string article = in_.text_field(json, "", "article");
    std::vector<Question> questions = read_questions(json);
    // With a broken head the questions were still worth checking, but there is no document to put them into.
    if (!id.empty() && !article.empty()) merge({id, title, article, std::move(questions)});
  }

  void merge(Document document) {
    const auto [known, is_new] = index_of_.emplace(document.id, std::pair{documents_.size(), in_.line()});
    if (is_new) {
      documents_.push_back(std::move(document));
      return;
    }
    Document& first = documents_[known->second.first];
    if (first.text != document.text) {
      in_.add("article",
              fmt::format("article '{}' has another text than in line {}", document.id, known->second.second),
              "give one of them another article_id");
      return;
    }
    std::move(document.questions.begin(), document.questions.end(), std::back_inserter(first.questions));
  }

  std::vector<Question> read_questions(const Json& json) {
    std::vector<Question> questions;
    if (!json.contains("questions") || !json.at("questions").is_array() || json.at("questions").empty()) {
      in_.add("questions", "'questions' must be a list of at least one", "give at least one question");
      return questions;
    }
    const Json& list = json.at("questions");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string parent = fmt::format("questions[{}]", i);
      if (list[i].is_object()) {
        questions.push_back(read_question(list[i], parent + "."));
      } else {
        in_.add(parent, "the question must be a JSON object", "write {\"question\": ..., \"options\": [...], ...}");
      }
    }
    return questions;
  }

  Question read_question(const Json& json, const std::string& parent) {
    Question question;
    question.text = in_.text_field(json, parent, "question");
    question.id = in_.text_field(json, parent, "question_unique_id");
    in_.check_distinct("question id", question.id, parent + "question_unique_id");
    const bool options_are_good = in_.options_field(json, parent, question.options);
    read_gold(json, parent, options_are_good, question);
    read_difficult(json, parent, question);
    return question;
  }

  void read_gold(const Json& json, const std::string& parent, bool options_are_good, Question& question) {
    const std::string field = parent + "gold_label";
    if (!json.contains("gold_label")) {
      in_.add(field, "'gold_label' is missing", "use the train or dev split: the test split has no gold labels");
      return;
    }
    const Json& gold = json.at("gold_label");
    if (!gold.is_number_integer()) {
      in_.add(field, fmt::format("'gold_label' must be an integer; got {}", shown(gold)),
              "the option's number, from 1");
      return;
    }
    if (!options_are_good) return;
    const auto n_options = static_cast<int64_t>(question.options.size());
    // Unsigned numbers beyond int64 would wrap around: compare before they are narrowed.
    const bool too_large =
        gold.is_number_unsigned() && gold.get<std::uint64_t>() > static_cast<std::uint64_t>(n_options);
    if (too_large || gold.get<int64_t>() < 1) {
      in_.add(field, fmt::format("gold label {} of {} options", gold.dump(), n_options),
              fmt::format("1 to {}", n_options));
      return;
    }
    question.gold_option = gold.get<int64_t>() - 1;
  }

  void read_difficult(const Json& json, const std::string& parent, Question& question) {
    if (!json.contains("difficult")) return;
    const Json& difficult = json.at("difficult");
    if (difficult.is_boolean() || difficult == 0 || difficult == 1) {
      question.extra["difficult"] = difficult == 1 || difficult == true;
    } else {
      in_.add(parent + "difficult", fmt::format("'difficult' is {}", shown(difficult)), "0 or 1");
    }
  }

  DataReader in_;
  std::string path_;
  std::vector<Document> documents_;
  std::map<std::string, std::pair<size_t, int64_t>> index_of_;  // article id -> document, first line
};

}  // namespace

std::vector<Document> read_quality_file(const std::string& path) {
  return ArticleReader(path).read();
}

std::vector<Document> select_documents(std::vector<Document> documents, const std::vector<std::string>& ids,
                                       const std::string& path) {
  if (ids.empty()) return documents;
  std::vector<std::string> known;
  for (const Document& document : documents) known.push_back(document.id);
  std::vector<Problem> problems;
  std::vector<Document> selected;
  for (const std::string& id : ids) {
    const auto found = std::find(known.begin(), known.end(), id);
    if (found == known.end()) {
      problems.push_back({fmt::format("no article '{}'", id), path + ", option 'articles'", suggest_name(id, known)});
    } else {
      selected.push_back(documents[static_cast<size_t>(found - known.begin())]);
    }
  }
  throw_if_any(ErrorKind::kData, problems, path);
  return selected;
}

}  // namespace kvc
