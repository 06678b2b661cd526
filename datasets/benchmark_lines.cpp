#include "datasets/benchmark_lines.h"

#include <fmt/format.h>

#include "harness/core/stable_hash.h"

namespace kvc {

void DocumentsByText::add(const std::string& id, const std::string& title, const std::string& text, Question question) {
  const auto [known, is_new] = index_of_.emplace(stable_hash(text), documents_.size());
  if (is_new) documents_.push_back({id, title.empty() ? id : title, text, {}});
  documents_[known->second].questions.push_back(std::move(question));
  ++n_questions_;
}

Json score_extra(const std::string& subset, const std::string& rule, const std::vector<std::string>& references,
                 int64_t max_new_tokens) {
  return {{"subset", subset}, {"score_rule", rule}, {"references", references}, {"max_new_tokens", max_new_tokens}};
}

std::string optional_text(DataReader& in, const Json& object, const std::string& name) {
  if (!object.contains(name) || object.at(name).is_null()) return "";
  if (object.at(name).is_string()) return strip_space(object.at(name).get<std::string>());
  in.add(name, fmt::format("'{}' must be text; got {}", name, shown(object.at(name))), "write it in quotes");
  return "";
}

std::vector<std::string> texts_of_field(DataReader& in, const Json& object, const std::string& name) {
  const Json value = object.value(name, Json());
  std::vector<std::string> texts;
  bool valid = true;
  for (const Json& item : value.is_array() ? value : Json::array({value})) {
    if (item.is_number()) {
      texts.push_back(item.dump());
    } else if (item.is_string()) {
      if (const std::string text = item.get<std::string>(); !strip_space(text).empty()) texts.push_back(text);
    } else {
      valid = false;
    }
  }
  if (!valid || texts.empty()) {
    in.add(name, fmt::format("'{}' must be an answer or a list of them; got {}", name, shown(value)),
           "give at least one answer as text or number");
  }
  return texts;
}

}  // namespace kvc
