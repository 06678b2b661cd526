#include "datasets/benchmark_lines.h"

#include <fmt/format.h>

#include <cmath>

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
  const auto refuse = [&](const std::string& field, const std::string& fact, const std::string& mend) {
    in.add(field, fmt::format("'{}' {}", field, fact), mend);
    return std::vector<std::string>();
  };
  if (!object.contains(name)) return refuse(name, "is missing", "give at least one, as text or number");
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.empty()) return refuse(name, "is an empty list", "give at least one, as text or number");
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = value.is_array() ? fmt::format("{}[{}]", name, i) : name;
    if (list[i].is_string()) {
      if (const std::string text = list[i].get<std::string>(); !strip_space(text).empty()) texts.push_back(text);
    } else if (!list[i].is_number()) {
      return refuse(field, "must be text or a number; got " + shown(list[i]), "write it in quotes");
    } else if (list[i].is_number_float() && std::abs(list[i].get<double>()) >= 0x1p53) {
      return refuse(field, "is a number of more digits than JSON numbers keep: " + list[i].dump(),
                    "write all its digits in quotes");
    } else {
      texts.push_back(list[i].dump());
    }
  }
  if (texts.empty()) return refuse(name, "is empty", "give at least one, as text or number");
  return texts;
}

}  // namespace kvc
