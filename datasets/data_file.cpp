#include "datasets/data_file.h"

#include <fmt/format.h>

#include <set>
#include <sstream>

#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

constexpr size_t kMaxProblems = 20;
constexpr size_t kMaxOptions = 26;  // options are named by letters

}  // namespace

std::string strip_space(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string lower_ascii(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

std::string shortened(const std::string& text) {
  size_t end = 60;
  if (text.size() <= end) return text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

std::string shown(const Json& value) {
  return value.is_structured() ? fmt::format("an {}", value.is_array() ? "array" : "object")
                               : shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void set_right_answers(const std::vector<std::string>& texts, Question& question) {
  std::set<std::string> seen;
  question.other_answers.clear();
  for (const std::string& text : texts) {
    if (!seen.insert(text).second) continue;
    if (seen.size() == 1) {
      question.gold_answer = text;
    } else {
      question.other_answers.push_back(text);
    }
  }
}

std::filesystem::path find_data_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path in_source = std::filesystem::path(KVC_SOURCE_DIR) / path;
  for (const std::filesystem::path& candidate : {std::filesystem::path(path), in_source}) {
    if (std::filesystem::is_regular_file(candidate, error) || std::filesystem::is_directory(candidate, error)) {
      return candidate;
    }
  }
  throw Error(ErrorKind::kData, "no such data file", path,
              "check `path`; a relative one is looked for in the working directory, then in the source folder");
}

std::string read_data_file(const std::string& path) {
  const std::filesystem::path found = find_data_path(path);
  if (std::filesystem::is_directory(found)) {
    throw Error(ErrorKind::kData, "the data set's path is a folder", path, "name the file in it");
  }
  return read_utf8_file(found.string());
}

std::string invalid_json(const std::string& subject, const std::string& text) {
  try {
    [[maybe_unused]] const Json parsed = Json::parse(text);
  } catch (const Json::out_of_range&) {
    return subject + " has a number that is too large, above 1.8e308";
  } catch (const Json::exception&) {
  }
  return subject + " is not valid JSON";
}

Json data_file_identity(const std::string& path) {
  return {{"file", path}, {"content_hash", stable_hash(read_data_file(path))}};
}

void DataReader::add(const std::string& field, const std::string& fact, const std::string& mend) {
  std::string where = path_;
  if (line_ > 0) where += fmt::format(":{}", line_);
  if (!field.empty()) where += ", " + field;
  add_at(where, fact, mend);
}

void DataReader::add_at(const std::string& where, const std::string& fact, const std::string& mend) {
  if (problems_.size() == kMaxProblems) {
    ++n_more_;
    return;
  }
  problems_.push_back({fact, where, mend});
}

void DataReader::fail_if_needed() const {
  if (problems_.empty()) return;
  std::string subject = subject_.empty() ? path_ : subject_;
  if (n_more_ > 0) subject += fmt::format(" (the first {} of {})", kMaxProblems, kMaxProblems + n_more_);
  throw_if_any(ErrorKind::kData, problems_, subject);
}

Json DataReader::parse(const std::string& text) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 16) return false;  // deeper than any field
    const auto level = static_cast<size_t>(depth);
    if (keys.size() < level + 2) keys.resize(level + 2);
    if (event == Json::parse_event_t::object_start) keys[level + 1].clear();
    if (event == Json::parse_event_t::key && !keys[level].insert(parsed.get<std::string>()).second) {
      add("", fmt::format("duplicate key '{}' in one object", shortened(parsed.get<std::string>())),
          "keep one of them");
    }
    return true;
  };
  return Json::parse(text, watch, false);
}

Json DataReader::object_line(const std::string& line, const std::string& form) {
  Json json = parse(line);
  if (!json.is_discarded() && json.is_object()) return json;
  add("", json.is_discarded() ? invalid_json("the line", line) : "the line must be a JSON object",
      "each line is one whole object " + form);
  return nullptr;
}

std::string DataReader::text_field(const Json& object, const std::string& parent, const std::string& name) {
  const std::string field = parent + name;
  if (!object.contains(name)) {
    add(field, fmt::format("'{}' is missing", name), missing_mend_);
  } else if (!object.at(name).is_string()) {
    add(field, fmt::format("'{}' must be text; got {}", name, shown(object.at(name))), "write it in quotes");
  } else {
    std::string text = strip_space(object.at(name).get<std::string>());
    if (!text.empty()) return text;
    add(field, fmt::format("'{}' is empty", name), line_ > 0 ? "give its text or remove the line" : "give its text");
  }
  return "";
}

bool DataReader::options_field(const Json& object, const std::string& parent, std::vector<std::string>& options) {
  const std::string field = parent + "options";
  if (!object.contains("options") || !object.at("options").is_array()) {
    add(field, "'options' must be a list", "give the options as a list of texts");
    return false;
  }
  const Json& list = object.at("options");
  if (list.size() < 2 || list.size() > kMaxOptions) {
    add(field, fmt::format("there are {} options", list.size()), fmt::format("2 to {}", kMaxOptions));
    return false;
  }
  std::set<std::string> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string option = list[i].is_string() ? strip_space(list[i].get<std::string>()) : "";
    if (option.empty()) {
      add(fmt::format("{}[{}]", field, i), "the option is empty or no text", "give its text");
      return false;
    }
    if (!seen.insert(option).second) {
      add(fmt::format("{}[{}]", field, i), fmt::format("duplicate option '{}'", shortened(option)),
          "options of one question must differ");
      return false;
    }
    options.push_back(option);
  }
  return true;
}

void DataReader::check_asked_for(const std::string& option, const std::vector<std::string>& asked,
                                 const std::set<std::string>& found) {
  for (const std::string& value : asked) {
    if (found.count(value) > 0) continue;
    add("option '" + option + "'", fmt::format("the file has nothing with '{}'", shortened(value)),
        found.empty() ? "leave the option out" : suggest_name(value, {found.begin(), found.end()}));
  }
}

void DataReader::check_distinct(const std::string& what, const std::string& id, const std::string& field) {
  if (id.empty()) return;
  const auto [known, is_new] = seen_.emplace(std::pair{what, id}, line_);
  if (is_new) return;
  const std::string first = known->second > 0 ? fmt::format(", first in line {}", known->second) : "";
  add(field, fmt::format("duplicate {} '{}'{}", what, shortened(id), first),
      what == "document id"   ? "give one of them another id"
      : what == "question id" ? "remove one of the two questions"
                              : "remove one of the two lines");
}

void read_json_lines(DataReader& in, const std::string& path, const std::string& form,
                     const std::function<void(const Json&)>& read) {
  std::istringstream lines(read_data_file(path));
  bool any = false;
  std::string line;
  for (int64_t n = 1; std::getline(lines, line); ++n) {
    in.at_line(n);
    if (strip_space(line).empty()) continue;
    any = true;
    if (const Json json = in.object_line(line, form); !json.is_null()) read(json);
  }
  in.fail_if_needed();
  if (!any) throw Error(ErrorKind::kData, "the file has no line of data", path, "each line is one object " + form);
}

}  // namespace kvc
