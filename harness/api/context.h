// A document as the model reads it: template, article, template.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/model/model.h"

namespace kvc {

struct Context {
  std::vector<int64_t> tokens;  // the whole formatted context
  int64_t prefix_len = 0;       // template tokens before the article, kept by every method
  int64_t suffix_len = 0;       // template tokens after it, kept too

  int64_t article_len() const { return static_cast<int64_t>(tokens.size()) - prefix_len - suffix_len; }
  std::vector<int64_t> article_tokens() const { return {tokens.begin() + prefix_len, tokens.end() - suffix_len}; }
};

// [system: "You are a helpful assistant. Answer a question based on the provided context."] [user: article], no
// generation prompt (spec E.1). A token that spans template and article belongs to the template. Throws Error(kData) if
// the article is empty or the context is longer than the model's positions, with the numbers.
Context make_context(const Model& model, const std::string& article);
// The same from a model's parts.
Context make_context(const Tokenizer& tokenizer, const ChatTemplate& chat_template, int64_t max_positions,
                     const std::string& article);

// Tokens of a user turn placed behind a context, with the assistant's header, then `answer_prefix` as the first words
// of the answer.
std::vector<int64_t> make_question_prompt(const Model& model, const std::string& user_text,
                                          const std::string& answer_prefix = "");
std::vector<int64_t> make_question_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                          const std::string& user_text, const std::string& answer_prefix = "");

// Which entries of a head may be compacted: all but the first prefix_len and the last suffix_len. The same for every
// head, whatever its length.
struct Compactable {
  int64_t prefix_len = 0;
  int64_t suffix_len = 0;
  int64_t source_len(int64_t head_len) const { return head_len - prefix_len - suffix_len; }
};

}  // namespace kvc
