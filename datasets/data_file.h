// What the readers of data files share: finding the file, and collecting what is wrong in it with its place.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "harness/api/dataset.h"

namespace kvc {

// Without white space (ASCII) at both ends.
std::string strip_space(const std::string& text);

// A to Z in small letters, all else as it is.
std::string lower_ascii(std::string text);

// At most about 60 bytes, for an error message; never cut inside a UTF-8 character.
std::string shortened(const std::string& text);

// A value as it stands in an error message. Lists and objects are not printed: a hostile one may be nested a million
// deep.
std::string shown(const Json& value);

// The first text becomes the question's gold_answer, the others, without repetitions, its other_answers.
void set_right_answers(const std::vector<std::string>& texts, Question& question);

// Where `path` is: a relative one is looked for in the working directory, then in the source folder. Throws
// Error(kData) where there is neither a file nor a folder.
std::filesystem::path find_data_path(const std::string& path);

// The text of the file that find_data_path() finds. Throws Error(kData): no such file, a folder, unreadable, not UTF-8
// (with the offset), or more than 1 GiB.
std::string read_data_file(const std::string& path);

// "SUBJECT is not valid JSON", or what else a JSON parser refused in `text`: a number beyond the range of doubles.
std::string invalid_json(const std::string& subject, const std::string& text);

// {file, content_hash}
Json data_file_identity(const std::string& path);

// Checks fields and collects problems; what was read is to be used only when fail_if_needed() has not thrown.
class DataReader {
 public:
  // `missing_mend`: what to do about a field that is not there. `subject`: what several problems are said to be in; ""
  // is the path.
  DataReader(std::string path, std::string missing_mend, std::string subject = "")
      : path_(std::move(path)), missing_mend_(std::move(missing_mend)), subject_(std::move(subject)) {}

  // 0: the place is a field of the file, not of a line.
  void at_line(int64_t line) { line_ = line; }
  int64_t line() const { return line_; }

  void add(const std::string& field, const std::string& fact, const std::string& mend);
  // Of another file.
  void add_at(const std::string& where, const std::string& fact, const std::string& mend);

  // Throws Error(kData) with all problems, at most 20 of them.
  void fail_if_needed() const;

  // JSON, discarded where it is none; a key that is twice in one object is a problem (a parser alone keeps the last).
  // What lies more than 16 levels deep is left out.
  Json parse(const std::string& text);

  // The line as an object; null after adding a problem.
  Json object_line(const std::string& line, const std::string& form);

  // The stripped text of a required field; "" after adding a problem.
  std::string text_field(const Json& object, const std::string& parent, const std::string& name);

  // False after a problem: `options` are 2 to 26 distinct texts.
  bool options_field(const Json& object, const std::string& parent, std::vector<std::string>& options);

  // Adds a problem for every value that the option `option` asks for and no line of the file has; `found`: those it
  // has.
  void check_asked_for(const std::string& option, const std::vector<std::string>& asked,
                       const std::set<std::string>& found);

  // Adds a problem when the id was seen before; `what` is "question id" or "document id", or what stands for an id.
  void check_distinct(const std::string& what, const std::string& id, const std::string& field);

 private:
  std::string path_;
  std::string missing_mend_;
  std::string subject_;
  int64_t line_ = 0;
  std::map<std::pair<std::string, std::string>, int64_t> seen_;  // (what, id) -> line
  std::vector<Problem> problems_;
  size_t n_more_ = 0;
};

// Calls `read` for every line of a file of JSON lines that is not empty; `form` is what a line looks like, for
// messages. Throws Error(kData) with all problems that were added to `in`, or when the file has no line.
void read_json_lines(DataReader& in, const std::string& path, const std::string& form,
                     const std::function<void(const Json&)>& read);

}  // namespace kvc
