#include "datasets/document_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "datasets/csv_table.h"
#include "datasets/data_file.h"
#include "datasets/folder_files.h"
#include "datasets/own_question.h"
#include "harness/core/printable.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMostDocumentBytes = std::uintmax_t{64} << 20U;
constexpr std::uintmax_t kMostBytes = std::uintmax_t{1} << 30U;
constexpr int64_t kMostOptionColumns = 26;
constexpr int64_t kMostLookedFor = 20;
constexpr const char* kColumns = "the first row names the columns: document, question, and answer, or options and gold";
// What self-study asks for (arXiv:2506.06266); a test compares.
constexpr const char* kRequest =
    "Write one question that tests knowledge of the context. Give enough detail that it has exactly one answer. "
    "Answer with just the question.";

// N of "option_N"; 0 for another name or number.
int64_t option_number(const std::string& column) {
  constexpr std::string_view kPrefix = "option_";
  if (!column.starts_with(kPrefix)) return 0;
  int64_t number = 0;
  const char* end = column.data() + column.size();
  const auto read = std::from_chars(column.data() + kPrefix.size(), end, number);
  return read.ec == std::errc() && read.ptr == end && number <= kMostOptionColumns ? std::max<int64_t>(number, 0) : 0;
}

// The number of the option, from 1, that a cell means by a letter ("b", "(B)", "B.") or a number ("2").
std::optional<size_t> option_by_name(std::string gold) {
  if (gold.starts_with('(')) gold.erase(0, 1);
  while (!gold.empty() && (gold.back() == ')' || gold.back() == '.' || gold.back() == ':')) gold.pop_back();
  size_t number = 0;
  const char* end = gold.data() + gold.size();
  const auto read = std::from_chars(gold.data(), end, number);
  if (read.ec == std::errc() && read.ptr == end) return number;
  const std::string letter = lower_ascii(gold);
  if (letter.size() != 1 || letter[0] < 'a' || letter[0] > 'z') return std::nullopt;
  return static_cast<size_t>(letter[0] - 'a') + 1;
}

class FolderReader {
 public:
  explicit FolderReader(const std::string& path)
      : path_(fs::path(path).lexically_normal().generic_string()),
        in_(join(path_, "questions.csv"), "fill in the cell, or remove the row", path_) {
    files_ = list_folder(find_data_path(path), path_);
    if (!files_.texts.empty()) return;
    std::string found;
    for (const std::string& note : files_.notes) found += "; " + note;
    throw Error(ErrorKind::kData, "the folder has no .txt or .md file" + found, path_,
                "put the documents there as text files; datasets/README.md shows the form");
  }

  DocumentFolder run() {
    folder_.notes = files_.notes;
    if (files_.questions.empty()) {
      for (const FolderFile& file : files_.texts) ask_model(folder_.documents.emplace_back(started(file)));
      folder_.notes.push_back(
          fmt::format("there is no questions.csv: the model writes {} questions about each document, for fidelity to "
                      "its full cache, not for accuracy",
                      kQuestionsByModel));
    } else {
      read_questions();
    }
    read_texts();
    in_.fail_if_needed();
    note_equal_texts();
    return std::move(folder_);
  }

 private:
  static std::string join(const std::string& folder, const std::string& name) {
    return folder.ends_with('/') ? folder + name : folder + "/" + name;
  }

  static Document started(const FolderFile& file) { return {file.id, file.id, "", {}}; }

  static void ask_model(Document& document) {
    for (int64_t i = 1; i <= kQuestionsByModel; ++i) {
      Question question;
      question.id = fmt::format("{}_{}", document.id, i);
      question.text = kRequest;
      question.written_by_model = true;
      question.extra = {{"written_by", "model"}};
      document.questions.push_back(std::move(question));
    }
  }

  void read_questions() {
    std::string text;
    try {
      text = read_utf8_file(files_.questions.string(), kMostDocumentBytes);
    } catch (const Error& error) {
      throw Error(ErrorKind::kData, error.fact(), join(path_, "questions.csv"),
                  "save it as UTF-8; spreadsheets call this form \"CSV UTF-8\"");
    }
    const CsvTable table = read_csv(text, in_);
    in_.fail_if_needed();
    if (table.rows.size() < 2) {
      in_.at_line(0);
      in_.add("", "the file has no questions", "add a row for each question; without the file the model writes some");
      return;
    }
    read_header(table.rows.front());
    in_.fail_if_needed();
    for (const FolderFile& file : files_.texts) documents_.emplace(file.id, started(file));
    for (size_t i = 1; i < table.rows.size(); ++i) read_row(table.rows[i]);
    if (n_listed_ > 0) {
      folder_.notes.push_back(fmt::format(
          "questions with several right answers, separated by '|', of which any one is enough: {}", n_listed_));
    }
    std::vector<std::string> unasked;
    for (auto& [id, document] : documents_) {
      if (document.questions.empty()) {
        unasked.push_back(id);
      } else {
        folder_.documents.push_back(std::move(document));
      }
    }
    if (!unasked.empty()) {
      folder_.notes.push_back(fmt::format("{} of {} documents have no question in questions.csv and are left out: {}",
                                          unasked.size(), documents_.size(), some_of(unasked)));
    }
  }

  void read_header(const CsvRow& header) {
    in_.at_line(header.line);
    std::vector<std::string> other;
    for (const std::string& cell : header.cells) {
      std::string name = lower_ascii(strip_space(cell));
      std::replace(name.begin(), name.end(), ' ', '_');
      if (!name.empty() && std::find(columns_.begin(), columns_.end(), name) != columns_.end()) {
        in_.add("", fmt::format("duplicate column '{}'", printable(name)), "keep one of them");
      }
      const bool known = std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end() || option_number(name) > 0;
      if (!known && !name.empty()) other.push_back(printable(strip_space(cell)));
      columns_.push_back(name);
    }
    const auto has = [&](const std::string& name) {
      return std::find(columns_.begin(), columns_.end(), name) != columns_.end();
    };
    for (const char* name : {"document", "question"}) {
      if (has(name)) continue;
      in_.add("", fmt::format("column '{}' is missing; the first row has: {}", name, fmt::join(shown_columns(), ", ")),
              kColumns);
    }
    const bool options = has("options") || std::any_of(columns_.begin(), columns_.end(),
                                                       [](const std::string& name) { return option_number(name) > 0; });
    if (!has("answer") && !(options && has("gold"))) {
      in_.add("",
              fmt::format("there is no column 'answer' and no pair of 'options' (or option_1, option_2, ...) and "
                          "'gold'; the first row has: {}",
                          fmt::join(shown_columns(), ", ")),
              kColumns);
    }
    if (!other.empty()) {
      folder_.notes.push_back(fmt::format("columns of questions.csv that are not read: {}", some_of(other)));
    }
  }

  std::vector<std::string> shown_columns() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < std::min<size_t>(columns_.size(), 12); ++i) names.push_back(printable(columns_[i]));
    return names;
  }

  void read_row(const CsvRow& row) {
    in_.at_line(row.line);
    std::map<std::string, std::string> cells;
    std::map<int64_t, std::string> numbered;
    for (size_t i = 0; i < row.cells.size(); ++i) {
      const std::string cell = strip_space(row.cells[i]);
      if (cell.empty()) continue;
      if (i >= columns_.size() || columns_[i].empty()) {
        in_.add("", fmt::format("cell {} has no column: '{}'", i + 1, printable(shortened(cell))),
                "quote cells that hold the separator, and give each column a name");
        return;
      }
      if (const int64_t number = option_number(columns_[i]); number > 0) {
        numbered[number] = cell;
      } else {
        cells[columns_[i]] = cell;
      }
    }
    Document* document = find_document(cells["document"]);
    Json json = Json::object();
    for (const char* name : {"id", "question", "answer"}) {
      if (!cells[name].empty()) json[name] = cells[name];
    }
    if (const std::vector<std::string> answers = parts_of(cells["answer"]); answers.size() > 1) {
      json["answer"] = answers;
      ++n_listed_;
    }
    read_options(cells, numbered, json);
    const std::string id = document == nullptr ? fmt::format("line {}", row.line)
                                               : fmt::format("{}_{}", document->id, document->questions.size() + 1);
    Question question = read_own_question(in_, json, "", id);
    if (document != nullptr) document->questions.push_back(std::move(question));
  }

  // What a cell lists, separated by '|'; nothing of an empty cell.
  static std::vector<std::string> parts_of(const std::string& cell) {
    std::vector<std::string> parts;
    for (size_t begin = 0; !cell.empty() && begin <= cell.size();) {
      const size_t end = std::min(cell.find('|', begin), cell.size());
      parts.push_back(strip_space(cell.substr(begin, end - begin)));
      begin = end + 1;
    }
    return parts;
  }

  void read_options(std::map<std::string, std::string>& cells, const std::map<int64_t, std::string>& numbered,
                    Json& json) {
    if (!cells["options"].empty() && !numbered.empty()) {
      in_.add("options", "the row has options in 'options' and in columns of their own", "keep one of the two forms");
      return;
    }
    std::vector<std::string> options = parts_of(cells["options"]);
    for (const auto& [number, option] : numbered) {
      if (number != static_cast<int64_t>(options.size()) + 1) {
        in_.add(fmt::format("option_{}", options.size() + 1),
                fmt::format("the option is empty, but option_{} is not", number), "fill the columns from option_1 on");
        return;
      }
      options.push_back(option);
    }
    if (!options.empty()) json["options"] = options;
    if (!cells["gold"].empty()) json["gold"] = gold_of(cells["gold"], options);
  }

  // The option's number where the cell means one; else the cell, about which the reader of questions complains.
  Json gold_of(const std::string& cell, const std::vector<std::string>& options) {
    const auto same = std::find(options.begin(), options.end(), cell);
    const auto as_text = static_cast<size_t>(same - options.begin()) + 1;
    const std::optional<size_t> as_name = option_by_name(cell);
    if (same == options.end())
      return as_name && *as_name >= 1 && *as_name <= options.size() ? Json(*as_name) : Json(cell);
    if (as_name && *as_name != as_text && *as_name >= 1 && *as_name <= options.size()) {
      in_.add(
          "gold",
          fmt::format("gold '{}' is the text of option {}, but also names option {}", printable(cell), as_text,
                      *as_name),
          fmt::format("write {} or {}", static_cast<char>('A' + as_text - 1), static_cast<char>('A' + *as_name - 1)));
    }
    return as_text;
  }

  // The document that a cell names: its path in the folder, with or without the ending. Only files that were found in
  // the folder can be named: a cell is never opened as a path.
  Document* find_document(std::string name) {
    if (name.empty()) {
      in_.add("document", "'document' is missing", "name a file of the folder");
      return nullptr;
    }
    std::replace(name.begin(), name.end(), '\\', '/');
    while (name.starts_with("./")) name.erase(0, 2);
    if (const auto found = documents_.find(name); found != documents_.end()) return &found->second;
    if (stems_.empty()) {
      for (const auto& [id, document] : documents_) stems_[id.substr(0, id.rfind('.'))].push_back(id);
    }
    const auto found = stems_.find(name);
    if (found != stems_.end() && found->second.size() == 1) return &documents_.at(found->second.front());
    if (found != stems_.end()) {
      in_.add("document", fmt::format("'{}' may be {}", printable(name), fmt::join(found->second, " or ")),
              "write the whole name");
      return nullptr;
    }
    // A look for the nearest name takes its time; the problems behind the first few are only counted.
    std::vector<std::string> ids;
    for (const auto& [id, document] : documents_) {
      if (n_unknown_ <= kMostLookedFor) ids.push_back(id);
    }
    ++n_unknown_;
    const std::string near = name.size() < 256 ? nearest_name(name, ids) : "";
    in_.add("document", fmt::format("there is no document '{}' in the folder", printable(name)),
            near.empty() ? "the folder has " + some_of(ids) : fmt::format("did you mean '{}'?", near));
    return nullptr;
  }

  void read_texts() {
    std::map<std::string, const FolderFile*> files;
    for (const FolderFile& file : files_.texts) files[file.id] = &file;
    std::uintmax_t bytes = 0;
    for (Document& document : folder_.documents) {
      const FolderFile& file = *files.at(document.id);
      const std::string where = join(path_, document.id);
      if (file.bytes > kMostDocumentBytes) {
        in_.add_at(where, fmt::format("the file has {} bytes; a document may have {}", file.bytes, kMostDocumentBytes),
                   "is this a text? Cut it into several documents");
        continue;
      }
      bytes += file.bytes;
      if (bytes > kMostBytes) {
        in_.add_at(where, fmt::format("the documents have more than {} bytes together", kMostBytes),
                   "split the folder into several data sets");
        return;
      }
      try {
        document.text = strip_space(read_utf8_file(file.path.string(), kMostDocumentBytes));
      } catch (const Error& error) {
        in_.add_at(where, error.fact(), "save it as plain text in UTF-8");
        continue;
      }
      if (document.text.empty()) in_.add_at(where, "the document is empty", "give it its text, or remove the file");
    }
  }

  // Two copies of a text are one document to every statistic that counts documents.
  void note_equal_texts() {
    std::map<std::string, std::vector<std::string>> by_text;
    for (const Document& document : folder_.documents) by_text[stable_hash(document.text)].push_back(document.id);
    for (const auto& [hash, ids] : by_text) {
      if (ids.size() > 1) {
        folder_.notes.push_back(fmt::format("{} documents have the same text, which makes intervals too narrow: {}",
                                            ids.size(), some_of(ids)));
      }
    }
  }

  inline static const std::vector<std::string> kKnown = {"document", "question", "answer", "options", "gold", "id"};

  std::string path_;  // in messages
  DataReader in_;     // of questions.csv
  FolderFiles files_;
  std::vector<std::string> columns_;
  std::map<std::string, Document> documents_;
  std::map<std::string, std::vector<std::string>> stems_;  // id without its ending -> ids
  int64_t n_listed_ = 0;                                   // questions with several right answers
  int64_t n_unknown_ = 0;                                  // cells that name no document
  DocumentFolder folder_;
};

}  // namespace

DocumentFolder read_document_folder(const std::string& path) {
  return FolderReader(path).run();
}

Json document_folder_identity(const std::string& path) {
  std::string all;
  for (const Document& document : read_document_folder(path).documents) {
    all += canonical_json({document.id, stable_hash(document.text)});
    for (const Question& question : document.questions) {
      all += canonical_json({question.id, question.text, question.options, question.gold_option.value_or(-1),
                             question.gold_answer, question.written_by_model});
      // Apart, so that folders of one right answer a question keep the hash they have in records.
      if (!question.other_answers.empty()) all += canonical_json(question.other_answers);
    }
  }
  return {{"file", path}, {"content_hash", stable_hash(all)}};
}

}  // namespace kvc
