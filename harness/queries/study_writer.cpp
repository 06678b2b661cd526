#include "harness/queries/study_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/generate.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/study_conversations.h"

namespace kvc {
namespace {

constexpr int kAttempts = 3;
constexpr int64_t kLeastAnswer = 64;  // tokens for which there must be positions

// One thing to be written.
struct Writing {
  const StudyKind* kind = nullptr;
  std::string user_text;
  bool thinks = false;
  int64_t most_tokens = 0;
  std::string purpose;  // of its seed
  // Once written:
  std::vector<int64_t> prompt;
  std::vector<int64_t> tokens;
  std::string text;
  std::string stop_reason;
};

class Writer {
 public:
  Writer(const QueryRequest& request, const StudySettings& settings) : request_(request), settings_(settings) {
    switch_ = request.model.chat_template().source().find("enable_thinking") != std::string::npos;
  }

  StudyTexts run() {
    texts_.seed = request_.seed;
    texts_.seeds = texts_.dropped = Json::array();
    std::vector<Writing> answers;
    const std::map<std::string, std::vector<std::string>> made_up = make_up_starters();
    for (const std::string& name : settings_.kinds) {
      const StudyKind& kind = study_kind(name);
      if (kind.repeats) continue;
      const std::vector<std::string> starters = kind.made_up ? made_up.at(name) : std::vector{kind.prompt};
      for (size_t i = 0; i < starters.size(); ++i) {
        answers.push_back(
            {&kind, starters[i], kind.thinks && settings_.thinking, kind.most_tokens, fmt::format("{}/B/{}", name, i)});
      }
    }
    write(answers);
    for (const std::string& name : settings_.kinds) take_answers(study_kind(name), answers);
    if (texts_.conversations.empty()) {
      throw Error(ErrorKind::kData,
                  fmt::format("self_study has no conversation: {} writings of questions gave none, {} answers never "
                              "came out of thought",
                              texts_.seeds.size(), texts_.dropped.size()),
                  "queries", "add conversations with a fixed prompt (summarize), or write thinking: false");
    }
    return std::move(texts_);
  }

 private:
  std::map<std::string, std::vector<std::string>> make_up_starters() {
    std::map<std::string, std::vector<std::string>> found;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      std::vector<Writing> seeds;
      for (const std::string& name : settings_.kinds) {
        const StudyKind& kind = study_kind(name);
        if (!kind.made_up || !found[name].empty()) continue;
        seeds.push_back(
            {&kind, kind.prompt, settings_.thinking, kMostStarterTokens, fmt::format("{}/A/{}", name, attempt)});
      }
      write(seeds);
      for (const Writing& seed : seeds) {
        found[seed.kind->name] = find_starters(*seed.kind, seed.text, in_thought(seed));
        texts_.seeds.push_back({{"kind", seed.kind->name},
                                {"attempt", attempt + 1},
                                {"text", seed.text},
                                {"starters", found[seed.kind->name].size()}});
      }
    }
    return found;
  }

  void take_answers(const StudyKind& kind, const std::vector<Writing>& answers) {
    if (kind.repeats) return add_repeat(kind);
    for (const Writing& answer : answers) {
      if (answer.kind != &kind) continue;
      if (in_thought(answer) && answer.text.find("</think>") == std::string::npos) {
        texts_.dropped.push_back(
            {{"kind", kind.name},
             {"starter", answer.user_text},
             {"answer", answer.text},
             {"reason", fmt::format("the thoughts did not end within {} tokens", answer.tokens.size())}});
        continue;
      }
      texts_.conversations.push_back(
          {kind.name, answer.user_text, answer.text, answer.prompt, answer.tokens, answer.stop_reason});
    }
  }

  void add_repeat(const StudyKind& kind) {
    StudyConversation conversation{kind.name,
                                   kind.prompt,
                                   "",
                                   make_question_prompt(request_.model, kind.prompt),
                                   request_.context.article_tokens(),
                                   "end"};
    check_positions(
        "self_study's 'repeat'",
        request_.cache.next_position() + static_cast<int64_t>(conversation.prompt.size() + conversation.said.size()),
        request_.model.spec().max_positions, "leave 'repeat' out, take context_prefill, ");
    texts_.conversations.push_back(std::move(conversation));
  }

  std::vector<int64_t> make_prompt(const Writing& writing) const {
    const Model& model = request_.model;
    if (!switch_) return make_question_prompt(model, writing.user_text);
    const std::shared_ptr<const ChatTemplate> not_owned(std::shared_ptr<void>{}, &model.chat_template());
    return make_question_prompt(model.tokenizer(), ThinkingChat(not_owned, writing.thinks), writing.user_text);
  }

  int64_t room(const Writing& writing) const {
    return request_.model.spec().max_positions - request_.cache.next_position() -
           static_cast<int64_t>(writing.prompt.size());
  }

  // Those of equal settings together.
  void write(std::vector<Writing>& writings) const {
    for (Writing& writing : writings) {
      writing.prompt = make_prompt(writing);
      if (settings_.most_tokens > 0) writing.most_tokens = std::min(writing.most_tokens, settings_.most_tokens);
      const auto needed = request_.cache.next_position() + static_cast<int64_t>(writing.prompt.size());
      check_positions("self_study", needed + std::min(kLeastAnswer, writing.most_tokens),
                      request_.model.spec().max_positions, "take context_prefill, ");
    }
    std::vector<Writing*> waiting;
    for (Writing& writing : writings) waiting.push_back(&writing);
    while (!waiting.empty()) {
      const bool thinks = waiting.front()->thinks;
      const int64_t most_tokens = waiting.front()->most_tokens;
      const auto other = std::stable_partition(waiting.begin(), waiting.end(), [&](const Writing* writing) {
        return writing->thinks == thinks && writing->most_tokens == most_tokens;
      });
      write_together({waiting.begin(), other}, in_thought(*waiting.front()), most_tokens);
      waiting.erase(waiting.begin(), other);
    }
  }

  void write_together(const std::vector<Writing*>& writings, bool thought, int64_t most_tokens) const {
    DecodeSettings settings;
    settings.max_new_tokens = most_tokens;
    settings.temperature = thought ? 0.6 : 0.7;
    settings.top_p = thought ? 0.95 : 0.8;
    settings.top_k = 20;
    std::vector<std::vector<int64_t>> prompts;
    std::vector<std::uint64_t> seeds;
    for (const Writing* writing : writings) {
      prompts.push_back(writing->prompt);
      seeds.push_back(derive_seed(request_.seed, "self_study/" + writing->purpose));
    }
    const std::vector<Generation> written = generate(request_.model, request_.cache, prompts, settings, seeds);
    for (size_t i = 0; i < written.size(); ++i) {
      Writing& writing = *writings[i];
      writing.tokens = written[i].tokens;
      writing.stop_reason = written[i].stop_reason;
      // The last token written may stand behind the last position; the queries are read with a position for each.
      if (static_cast<int64_t>(writing.tokens.size()) > room(writing)) {
        writing.tokens.resize(static_cast<size_t>(room(writing)));
      }
      writing.text = spelled(writing.tokens);
    }
  }

  // Special tokens by their spelling: a tokenizer may count <think> among them.
  std::string spelled(const std::vector<int64_t>& tokens) const {
    const Tokenizer& tokenizer = request_.model.tokenizer();
    std::string text;
    for (const int64_t token : tokens) {
      if (token < tokenizer.vocab_size()) text += tokenizer.token_bytes(token);
    }
    return text;
  }

  // Whether the answer begins with thoughts: by the switch, or because the prompt opens one.
  bool in_thought(const Writing& writing) const {
    if (switch_ && writing.thinks) return true;
    const std::string prompt = spelled(writing.prompt);
    const size_t open = prompt.rfind("<think>");
    return open != std::string::npos && prompt.find("</think>", open) == std::string::npos;
  }

  const QueryRequest& request_;
  const StudySettings& settings_;
  bool switch_ = false;  // the template has enable_thinking
  StudyTexts texts_;
};

}  // namespace

StudyTexts write_study(const QueryRequest& request, const StudySettings& settings) {
  return Writer(request, settings).run();
}

}  // namespace kvc
