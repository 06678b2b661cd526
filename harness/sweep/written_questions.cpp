#include "harness/sweep/written_questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "harness/api/context.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/generate.h"

namespace kvc {
namespace {

constexpr int kAttempts = 3;
constexpr int64_t kMostTokens = 128;  // of a question
constexpr int64_t kVersion = 1;       // raised when the same request gives other texts

// What stands behind a thought, without white space at both ends.
std::string question_in(const std::string& text) {
  constexpr std::string_view kClose = "</think>";
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t close = text.rfind(kClose);
  const size_t first = text.find_first_not_of(kSpace, close == std::string::npos ? 0 : close + kClose.size());
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

class QuestionWriter {
 public:
  QuestionWriter(const Model& model, const KvCache& full, std::vector<Question>& questions, std::uint64_t seed)
      : model_(model), full_(full), seed_(seed) {
    for (Question& question : questions) {
      if (!question.written_by_model) continue;
      wanted_.push_back(&question);
      prompts_.push_back(make_question_prompt(model, question.text));
    }
    settings_.temperature = 0.7;
    settings_.top_p = 0.8;
    settings_.top_k = 20;
    settings_.max_new_tokens = kMostTokens;
    const auto is_token = [&](const char* name) { return model.tokenizer().encode({{name, true}}).size() == 1; };
    if (is_token("<think>") && is_token("</think>")) settings_.thinking_budget = 0;
  }

  bool empty() const { return wanted_.empty(); }

  // All that the texts depend on besides model and document.
  Json asked() const {
    return {{"what", "written questions"},
            {"version", kVersion},
            {"prompts", prompts_},
            {"decode", settings_.to_json()},
            {"seed", seed_}};
  }

  // A text for each wanted question, "" where none came about.
  std::vector<std::string> write() {
    texts_.assign(wanted_.size(), "");
    for (int attempt = 0; attempt < kAttempts; ++attempt) write_missing(attempt);
    return texts_;
  }

  void fill_in(const std::vector<std::string>& texts) const {
    for (size_t i = 0; i < wanted_.size(); ++i) wanted_[i]->text = texts[i];
  }

  size_t size() const { return wanted_.size(); }

 private:
  void write_missing(int attempt) {
    std::vector<size_t> missing;
    std::vector<std::vector<int64_t>> prompts;
    std::vector<std::uint64_t> seeds;
    for (size_t i = 0; i < wanted_.size(); ++i) {
      if (!texts_[i].empty()) continue;
      missing.push_back(i);
      prompts.push_back(prompts_[i]);
      seeds.push_back(derive_seed(seed_, fmt::format("written_question/{}/{}", wanted_[i]->id, attempt)));
    }
    if (missing.empty()) return;
    const std::vector<Generation> written = generate(model_, full_, prompts, settings_, seeds);
    for (size_t k = 0; k < missing.size(); ++k) {
      const bool whole = written[k].stop_reason != "length" || attempt + 1 == kAttempts;
      const std::string text = question_in(written[k].text);
      if (whole && !text.empty() && seen_.insert(text).second) texts_[missing[k]] = text;
    }
  }

  const Model& model_;
  const KvCache& full_;
  std::uint64_t seed_;
  std::vector<Question*> wanted_;
  std::vector<std::vector<int64_t>> prompts_;
  DecodeSettings settings_;
  std::vector<std::string> texts_;
  std::set<std::string> seen_;
};

// The texts of a kept answer; none where it is not a list of so many texts.
std::vector<std::string> texts_of(const Json& kept, size_t n) {
  const Json list = kept.is_object() ? kept.value("texts", Json()) : Json();
  if (!list.is_array() || list.size() != n) return {};
  if (!std::all_of(list.begin(), list.end(), [](const Json& text) { return text.is_string(); })) return {};
  return list.get<std::vector<std::string>>();
}

// Tokens may end inside a character; what stands in records is UTF-8.
std::string as_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

}  // namespace

std::vector<Question> write_questions(const Model& model, const KvCache& full, std::vector<Question> questions,
                                      std::uint64_t seed, KeptAnswers* kept) {
  QuestionWriter writer(model, full, questions, seed);
  if (writer.empty()) return questions;
  std::vector<std::string> texts;
  if (kept != nullptr) {
    if (const auto known = kept->find(writer.asked())) texts = texts_of(*known, writer.size());
  }
  if (texts.empty()) {
    texts = writer.write();
    std::transform(texts.begin(), texts.end(), texts.begin(), as_utf8);
    if (kept != nullptr) kept->keep(writer.asked(), {{"texts", texts}});
  }
  writer.fill_in(texts);
  std::erase_if(questions, [](const Question& question) { return question.text.empty(); });
  if (questions.empty()) {
    throw Error(ErrorKind::kData,
                fmt::format("the model wrote no question about the document in {} attempts", kAttempts), "",
                "give questions of your own in questions.csv, or take another model");
  }
  return questions;
}

}  // namespace kvc
