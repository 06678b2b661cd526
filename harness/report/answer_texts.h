// What was asked and answered, as text, found again by cell, document and question. Equal texts are kept once: a prompt
// that a hundred cells share costs as much as one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

class AnswerTexts {
 public:
  // Numbers of texts; kNone where a record has none.
  static constexpr std::int32_t kNone = -1;
  struct Answer {
    std::int32_t prompt = kNone, rendered = kNone, reference = kNone;
    std::int32_t gold = kNone;     // as a person reads it: "4821", "option 3 (C) of 4"
    std::int32_t said = kNone;     // the model's text; of several samples or orders all, one after the other
    std::int32_t details = kNone;  // all else of the answer, as compact JSON
  };

  AnswerTexts() = default;
  explicit AnswerTexts(const std::vector<Record>& records);

  // Null where there is no such answer.
  const Answer* find(const std::string& cell_id, const std::string& document_id, const std::string& question_id) const;
  const std::string& text(std::int32_t number) const { return (*texts_)[static_cast<size_t>(number)]; }
  // The seed of a cell as JSON text, "" for an unknown cell.
  std::string seed_of(const std::string& cell_id) const;

 private:
  std::int32_t add(std::string_view text);
  Answer read(const Json& answer);

  // Copies share the texts, which stay where they are: numbers_ looks into them.
  std::shared_ptr<std::deque<std::string>> texts_ = std::make_shared<std::deque<std::string>>();
  std::unordered_map<std::string_view, std::int32_t> numbers_;    // by text
  using Questions = std::vector<std::pair<std::string, Answer>>;  // sorted by question
  std::map<std::string, std::pair<std::string, std::unordered_map<std::string, Questions>>>
      cells_;  // seed, by document
};

}  // namespace kvc
