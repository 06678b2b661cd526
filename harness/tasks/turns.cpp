// The questions of a document asked one after another in one conversation: the document's cache is compacted once, and
// what was asked and answered stays behind it, uncompacted. Each turn is a user turn as exact_match's, answered
// greedily; the answers are the model's own, right or wrong.
//
// Fields of an answer: turn (from 1), prompt (the user turn), rendered_prompt (what this turn adds to the
// conversation), answer_prefix (the words given), text, stop_reason ("end", "length"), n_tokens, conversation_tokens
// (behind the document, before this answer).
//
// Metrics, of what is written behind the thought (thought.h):
// - accuracy: 1 if exact_match(text, right answer) for any right answer (gold_answer, other_answers)
// - turn_1 to turn_8: accuracy of that turn; turns_9_to_16, turns_from_17: of those together; no value in any other
// - length_limit_rate: 1 if stop_reason is "length"
//
// A question-aware method compacts for each question anew and is asked each alone: every turn is then a first one.

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "harness/api/context.h"
#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

constexpr int64_t kTurnsAlone = 8;  // turns with a metric of their own

// What the template puts behind an answer, up to the next one: the end of the assistant's turn, the user's turn, the
// assistant's header. The same behind whatever stands before.
std::vector<Segment> next_turn(const ChatTemplate& chat_template, const std::string& user_text) {
  const std::string asked = "\x02kvc-question\x02x", answered = "\x02kvc-answer\x02x";
  RenderOptions options;
  options.generation_prompt = true;
  std::vector<Segment> behind;
  size_t n_found = 0;
  for (const Segment& segment :
       chat_template.render({{"user", asked}, {"assistant", answered}, {"user", user_text}}, options)) {
    const size_t at = segment.control ? std::string::npos : segment.text.find(answered);
    if (at != std::string::npos) {
      ++n_found;
      const std::string rest = segment.text.substr(at + answered.size());
      if (!rest.empty()) behind.push_back({rest, segment.control});
    } else if (n_found > 0) {
      behind.push_back(segment);
    }
  }
  if (n_found == 1 && !behind.empty()) return behind;
  throw Error(ErrorKind::kData,
              "the chat template does not show an answer that was given before, so that no second "
              "question can be asked",
              "chat template of the model",
              "write 'chat_template: NAME' at the model in the sweep file, or ask with exact_match");
}

class Turns final : public Task {
 public:
  struct Options {
    int64_t max_new_tokens = 16;
    void fields(auto&& visit) { visit("max_new_tokens", max_new_tokens, "longest answer of a turn", at_least(1)); }
  };

  explicit Turns(Options options) : options_(options) {}

  bool accepts(const Question& question) const override { return !question.gold_answer.empty(); }

  std::vector<Json> ask(const AskRequest& request) const override { return std::move(ask_together({request}).front()); }

  Batch batch(const Model& model, const std::vector<Question>& questions) const override {
    Batch batch{1, 0};
    for (const Question& question : questions) {
      batch.tokens += static_cast<int64_t>(make_prompts(model, {{question.text, question.answer_prefix}})[0].size()) +
                      options_.max_new_tokens;
    }
    return batch;
  }

  // Turn by turn, each in all caches' conversations.
  std::vector<std::vector<Json>> ask_together(const std::vector<AskRequest>& requests) const override {
    DecodeSettings settings;
    settings.max_new_tokens = options_.max_new_tokens;
    std::vector<Conversation> conversations(requests.size());
    if (requests.empty()) return {};
    const Model& model = requests.front().model;
    for (const Question& question : requests.front().questions) {
      std::vector<PrefixPrompts> parts;
      for (size_t r = 0; r < requests.size(); ++r) {
        conversations[r].take(question_tokens(model, conversations[r], question));
        parts.push_back({requests[r].cache, conversations[r].read, kNoSeeds});
      }
      const std::vector<std::vector<Generation>> written = generate(model, parts, settings);
      for (size_t r = 0; r < requests.size(); ++r) answer_turn(model, question, written[r].front(), conversations[r]);
    }
    std::vector<std::vector<Json>> answers;
    for (Conversation& conversation : conversations) answers.push_back(std::move(conversation.answers));
    return answers;
  }

 private:
  static inline const std::vector<std::uint64_t> kNoSeeds;  // greedy

  struct Conversation {
    std::vector<std::vector<int64_t>> read = {{}};  // tokens so far, as the one prompt of a batch
    std::vector<int64_t> turn;                      // the last question's
    std::string last_text;
    std::vector<Json> answers;

    void take(std::vector<int64_t> tokens) {
      read.front().insert(read.front().end(), tokens.begin(), tokens.end());
      turn = std::move(tokens);
    }
  };

  static std::vector<int64_t> question_tokens(const Model& model, const Conversation& conversation,
                                              const Question& question) {
    return conversation.answers.empty() ? make_prompts(model, {{question.text, question.answer_prefix}}).front()
                                        : turn_tokens(model, conversation.last_text, question);
  }

  static void answer_turn(const Model& model, const Question& question, const Generation& written,
                          Conversation& conversation) {
    std::vector<int64_t>& read = conversation.read.front();
    Json answer{{"question_id", question.id},
                {"turn", conversation.answers.size() + 1},
                {"prompt", question.text},
                {"rendered_prompt", spelled(model, conversation.turn)},
                {"answer_prefix", question.answer_prefix},
                {"text", written.text},
                {"stop_reason", written.stop_reason},
                {"n_tokens", written.tokens.size()},
                {"conversation_tokens", read.size()}};
    if (opens_thought(model, conversation.turn)) answer["prompt_opens_thought"] = true;
    conversation.answers.push_back(std::move(answer));
    read.insert(read.end(), written.tokens.begin(), written.tokens.end());
    conversation.last_text = question.answer_prefix + written.text;
  }

  static std::vector<int64_t> turn_tokens(const Model& model, const std::string& answered, const Question& question) {
    std::vector<Segment> segments = next_turn(model.chat_template(), question.text);
    const std::vector<Segment> before = {{answered.empty() ? "x" : answered, false}};
    std::vector<int64_t> tokens = encode_behind(model.tokenizer(), before, segments);
    if (question.answer_prefix.empty()) return tokens;
    if (close_thought(model, tokens)) {
      const std::vector<int64_t> words = model.tokenizer().encode_text(question.answer_prefix);
      tokens.insert(tokens.end(), words.begin(), words.end());
      return tokens;
    }
    segments.push_back({question.answer_prefix, false});
    return encode_behind(model.tokenizer(), before, segments);
  }

  Options options_;
};

std::vector<double> judge_turns(const AnswerFields& answer) {
  const std::vector<std::string> golds = answer.right_answers();
  const std::string text = answer_text(answer);
  const double right = is_true(
      std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) { return exact_match(text, gold); }));
  const int64_t turn = answer.integer("turn", 1);
  std::vector<double> values = {right};
  const auto add = [&](bool here) { values.push_back(here ? right : std::numeric_limits<double>::quiet_NaN()); };
  for (int64_t shown = 1; shown <= kTurnsAlone; ++shown) add(shown == turn);
  add(turn > kTurnsAlone && turn <= 2 * kTurnsAlone);
  add(turn > 2 * kTurnsAlone);
  values.push_back(is_true(answer.cut_by_length()));
  return values;
}

KVC_REGISTER_TASK(Turns, "turns", "several questions in one conversation");
KVC_REGISTER_METRICS("turns", one_by_one<judge_turns>,
                     {{"accuracy", "accuracy over all turns: right answer in the first sentence", true, true},
                      {"turn_1", "accuracy of turn 1", true, true},
                      {"turn_2", "accuracy of turn 2", true, true},
                      {"turn_3", "accuracy of turn 3", true, true},
                      {"turn_4", "accuracy of turn 4", true, true},
                      {"turn_5", "accuracy of turn 5", true, true},
                      {"turn_6", "accuracy of turn 6", true, true},
                      {"turn_7", "accuracy of turn 7", true, true},
                      {"turn_8", "accuracy of turn 8", true, true},
                      {"turns_9_to_16", "accuracy of turns 9 to 16", true, true},
                      {"turns_from_17", "accuracy of turn 17 and later", true, true},
                      {"length_limit_rate", "cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
