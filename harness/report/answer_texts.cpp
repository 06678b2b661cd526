#include "harness/report/answer_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "harness/report/compact_json.h"

namespace kvc {
namespace {

// Shown on their own, or nothing that a reader asks for.
constexpr std::array<std::string_view, 10> kShownElsewhere = {
    "question_id", "prompt",        "rendered_prompt", "reference_text", "gold_option",
    "gold_answer", "other_answers", "n_options",       "text",           "extra"};

const std::string* string_in(const Json& answer, const char* name) {
  const auto found = answer.find(name);
  return found != answer.end() && found->is_string() ? &found->get_ref<const std::string&>() : nullptr;
}

std::string gold_text(const Json& answer) {
  if (const auto gold = answer.find("gold_answer"); gold != answer.end()) {
    std::string text = gold->is_string() ? gold->get<std::string>() : gold->dump();
    const auto others = answer.find("other_answers");
    if (others == answer.end() || !others->is_array()) return text;
    for (const Json& other : *others) text += " | " + (other.is_string() ? other.get<std::string>() : other.dump());
    return text;
  }
  const auto option = answer.find("gold_option");
  if (option == answer.end() || !option->is_number_integer()) return "";
  const auto number = option->get<int64_t>();
  const auto letter = number >= 0 && number < 26 ? fmt::format(" ({})", static_cast<char>('A' + number)) : "";
  const auto n = answer.find("n_options");
  return fmt::format("option {}{}{}", number + 1, letter,
                     n != answer.end() && n->is_number_integer() ? " of " + n->dump() : "");
}

// A list of texts (samples of a problem, orders of the options) as one text; nothing where it holds none.
std::string listed_texts(const Json& answer) {
  std::string text;
  for (const char* name : {"samples", "rotations"}) {
    const auto list = answer.find(name);
    if (list == answer.end() || !list->is_array()) continue;
    int64_t n = 0;
    for (const Json& item : *list) {
      ++n;
      const std::string* const said = item.is_object() ? string_in(item, "text") : nullptr;
      if (said == nullptr) continue;
      if (!text.empty()) text += "\n\n";
      text += fmt::format("[{} {}]\n{}", *name == 's' ? "sample" : "order", n, *said);
    }
  }
  return text;
}

std::string details_text(const Json& answer) {
  std::string text;
  for (const auto& [name, value] : answer.items()) {
    if (std::find(kShownElsewhere.begin(), kShownElsewhere.end(), name) != kShownElsewhere.end()) continue;
    text += text.empty() ? '{' : ',';
    append_compact_string(name, text);
    text += ':';
    if ((name == "samples" || name == "rotations") && value.is_array()) {
      Json rest = value;
      for (Json& item : rest) {
        if (item.is_object()) item.erase("text");
      }
      append_compact_json(rest, text);
    } else {
      append_compact_json(value, text);
    }
  }
  return text.empty() ? "" : text + "}";
}

}  // namespace

AnswerTexts::AnswerTexts(const std::vector<Record>& records) {
  for (const Record& record : records) {
    if (record.status != "done") continue;
    auto& [seed, documents] = cells_[record.cell_id];
    seed = record.cell.contains("seed") ? record.cell.at("seed").dump() : "null";
    Questions& questions = documents[record.document_id];
    for (const Json& answer : record.answers) {
      if (!answer.is_object()) continue;
      const std::string* const id = string_in(answer, "question_id");
      if (id != nullptr) questions.emplace_back(*id, read(answer));
    }
    std::stable_sort(questions.begin(), questions.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
  }
}

std::int32_t AnswerTexts::add(std::string_view text) {
  const auto found = numbers_.find(text);
  if (found != numbers_.end()) return found->second;
  const auto number = static_cast<std::int32_t>(texts_->size());
  numbers_.emplace(texts_->emplace_back(text), number);
  return number;
}

AnswerTexts::Answer AnswerTexts::read(const Json& answer) {
  Answer result;
  const auto take = [&](const char* name, std::int32_t& number) {
    if (const std::string* const text = string_in(answer, name)) number = add(*text);
  };
  take("prompt", result.prompt);
  take("rendered_prompt", result.rendered);
  take("reference_text", result.reference);
  take("text", result.said);
  if (result.said == kNone) {
    if (std::string text = listed_texts(answer); !text.empty()) result.said = add(text);
  }
  if (std::string gold = gold_text(answer); !gold.empty()) result.gold = add(gold);
  if (std::string details = details_text(answer); !details.empty()) result.details = add(details);
  return result;
}

const AnswerTexts::Answer* AnswerTexts::find(const std::string& cell_id, const std::string& document_id,
                                             const std::string& question_id) const {
  const auto cell = cells_.find(cell_id);
  if (cell == cells_.end()) return nullptr;
  const auto document = cell->second.second.find(document_id);
  if (document == cell->second.second.end()) return nullptr;
  const Questions& questions = document->second;
  const auto found = std::lower_bound(questions.begin(), questions.end(), question_id,
                                      [](const auto& entry, const std::string& id) { return entry.first < id; });
  return found != questions.end() && found->first == question_id ? &found->second : nullptr;
}

std::string AnswerTexts::seed_of(const std::string& cell_id) const {
  const auto cell = cells_.find(cell_id);
  return cell == cells_.end() ? "" : cell->second.first;
}

}  // namespace kvc
