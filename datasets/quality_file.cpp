#include "datasets/quality_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "harness/core/json_lines.h"

namespace kvc {
namespace {

constexpr size_t kMaxProblems = 20;
constexpr size_t kMaxOptions = 26;  // options are named by letters

std::string strip(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Long texts in an error message hide the message.
std::string shortened(const std::string& text) {
  size_t end = 60;
  if (text.size() <= end) return text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;  // never cut inside a UTF-8 character
  return text.substr(0, end) + "...";
}

// A value as it stands in an error message. Lists and objects are not printed: a hostile one may be nested a million
// deep.
std::string shown(const Json& value) {
  return value.is_structured() ? fmt::format("an {}", value.is_array() ? "array" : "object") : shortened(value.dump());
}

std::string resolve(const std::string& path) {
  std::error_code error;
  const std::filesystem::path in_source = std::filesystem::path(KVC_SOURCE_DIR) / path;
  for (const std::filesystem::path& candidate : {std::filesystem::path(path), in_source}) {
    if (std::filesystem::is_regular_file(candidate, error)) return candidate.string();
    if (std::filesystem::is_directory(candidate, error)) {
      throw Error(ErrorKind::kData, "the data set's path is a folder", path, "name the .jsonl file in it");
    }
  }
  throw Error(ErrorKind::kData, "no such data file", path,
              "check `path`; a relative one is looked for in the working directory, then in the source folder");
}

std::string read_text(const std::string& path) {
  std::ifstream file(resolve(path), std::ios::binary);
  if (!file) throw Error(ErrorKind::kData, "cannot read the data file", path, "check its permissions");
  return {std::istreambuf_iterator<char>(file), {}};
}

// Reads line after line and collects what is wrong; the documents are to be used only when nothing is.
class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)) {}

  std::vector<Document> read(const std::string& text) {
    std::istringstream lines(text);
    std::string line;
    for (line_ = 1; std::getline(lines, line); ++line_) {
      if (!strip(line).empty()) read_line(line);
    }
    if (problems_.empty() && n_more_ == 0 && documents_.empty()) {
      throw Error(ErrorKind::kData, "the file has no line of data", path_,
                  "each line is one article with its questions");
    }
    fail_if_needed();
    return std::move(documents_);
  }

 private:
  void add(const std::string& field, const std::string& fact, const std::string& mend) {
    if (problems_.size() == kMaxProblems) {
      ++n_more_;
      return;
    }
    problems_.push_back({fact, fmt::format("{}:{}{}{}", path_, line_, field.empty() ? "" : ", ", field), mend});
  }

  void fail_if_needed() const {
    if (problems_.empty()) return;
    std::string subject = path_;
    if (n_more_ > 0) subject += fmt::format(" (the first {} of {})", kMaxProblems, kMaxProblems + n_more_);
    throw_if_any(ErrorKind::kData, problems_, subject);
  }

  // The stripped text of a required field; "" after adding a problem.
  std::string text_field(const Json& object, const std::string& parent, const std::string& name) {
    const std::string field = parent + name;
    if (!object.contains(name)) {
      add(field, fmt::format("'{}' is missing", name), "this is not a line of QuALITY's released JSONL");
    } else if (!object.at(name).is_string()) {
      add(field, fmt::format("'{}' is {}, which is no text", name, shown(object.at(name))), "write it in quotes");
    } else {
      std::string text = strip(object.at(name).get<std::string>());
      if (!text.empty()) return text;
      add(field, fmt::format("'{}' is empty", name), "give its text or remove the line");
    }
    return "";
  }

  void read_line(const std::string& line) {
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_discarded() || !json.is_object()) {
      add("", json.is_discarded() ? "the line is not valid JSON" : "the line is no JSON object",
          "each line is one whole object {\"article_id\": ..., \"article\": ..., \"questions\": [...]}");
      return;
    }
    const std::string id = text_field(json, "", "article_id");
    const std::string title = text_field(json, "", "title");
    const std::string article = text_field(json, "", "article");
    std::vector<Question> questions = read_questions(json);
    // With a broken head the questions were still worth checking, but there is no document to put them into.
    if (!id.empty() && !article.empty()) merge({id, title, article, std::move(questions)});
  }

  void merge(Document document) {
    const auto [known, is_new] = index_of_.emplace(document.id, std::pair{documents_.size(), line_});
    if (is_new) {
      documents_.push_back(std::move(document));
      return;
    }
    Document& first = documents_[known->second.first];
    if (first.text != document.text) {
      add("article", fmt::format("article '{}' has another text than in line {}", document.id, known->second.second),
          "give one of them another article_id");
      return;
    }
    std::move(document.questions.begin(), document.questions.end(), std::back_inserter(first.questions));
  }

  std::vector<Question> read_questions(const Json& json) {
    std::vector<Question> questions;
    if (!json.contains("questions") || !json.at("questions").is_array() || json.at("questions").empty()) {
      add("questions", "'questions' is missing, empty or no list", "give at least one question");
      return questions;
    }
    const Json& list = json.at("questions");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string parent = fmt::format("questions[{}]", i);
      if (list[i].is_object()) {
        questions.push_back(read_question(list[i], parent + "."));
      } else {
        add(parent, "the question is no JSON object", "write {\"question\": ..., \"options\": [...], ...}");
      }
    }
    return questions;
  }

  Question read_question(const Json& json, const std::string& parent) {
    Question question;
    question.text = text_field(json, parent, "question");
    question.id = text_field(json, parent, "question_unique_id");
    if (!question.id.empty()) {
      const auto [known, is_new] = question_lines_.emplace(question.id, line_);
      if (!is_new) {
        add(parent + "question_unique_id",
            fmt::format("question id '{}' stands in line {} already", question.id, known->second),
            "remove one of the two questions");
      }
    }
    const bool options_are_good = read_options_of(json, parent, question);
    read_gold(json, parent, options_are_good, question);
    read_difficult(json, parent, question);
    return question;
  }

  bool read_options_of(const Json& json, const std::string& parent, Question& question) {
    const std::string field = parent + "options";
    if (!json.contains("options") || !json.at("options").is_array()) {
      add(field, "'options' is missing or no list", "give the options as a list of texts");
      return false;
    }
    const Json& list = json.at("options");
    if (list.size() < 2 || list.size() > kMaxOptions) {
      add(field, fmt::format("there are {} options", list.size()), fmt::format("2 to {}", kMaxOptions));
      return false;
    }
    std::set<std::string> seen;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string option = list[i].is_string() ? strip(list[i].get<std::string>()) : "";
      if (option.empty()) {
        add(fmt::format("{}[{}]", field, i), "the option is empty or no text", "give its text");
        return false;
      }
      if (!seen.insert(option).second) {
        add(fmt::format("{}[{}]", field, i), fmt::format("option '{}' stands twice", shortened(option)),
            "options of one question must differ");
        return false;
      }
      question.options.push_back(option);
    }
    return true;
  }

  void read_gold(const Json& json, const std::string& parent, bool options_are_good, Question& question) {
    const std::string field = parent + "gold_label";
    if (!json.contains("gold_label")) {
      add(field, "'gold_label' is missing", "use the train or dev split: the test split has no gold labels");
      return;
    }
    const Json& gold = json.at("gold_label");
    if (!gold.is_number_integer()) {
      add(field, fmt::format("'gold_label' is {}, which is no integer", shown(gold)), "the option's number, from 1");
      return;
    }
    if (!options_are_good) return;
    const auto n_options = static_cast<int64_t>(question.options.size());
    // Unsigned numbers beyond int64 would wrap around: compare before they are narrowed.
    const bool too_large =
        gold.is_number_unsigned() && gold.get<std::uint64_t>() > static_cast<std::uint64_t>(n_options);
    if (too_large || gold.get<int64_t>() < 1) {
      add(field, fmt::format("gold label {} of {} options", gold.dump(), n_options), fmt::format("1 to {}", n_options));
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
      add(parent + "difficult", fmt::format("'difficult' is {}", shown(difficult)), "0 or 1");
    }
  }

  std::string path_;
  int64_t line_ = 0;
  std::vector<Document> documents_;
  std::map<std::string, std::pair<size_t, int64_t>> index_of_;  // article id -> document, first line
  std::map<std::string, int64_t> question_lines_;               // question id -> line
  std::vector<Problem> problems_;
  size_t n_more_ = 0;
};

}  // namespace

std::vector<Document> read_quality_file(const std::string& path) {
  return Reader(path).read(read_text(path));
}

Json quality_file_identity(const std::string& path) {
  return {{"file", path}, {"content_hash", stable_hash(read_text(path))}};
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
