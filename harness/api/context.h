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
  // Of a slice of a longer text: how many article tokens stand before its first. The article's tokens then have the
  // positions prefix_len + first_position + i, as their keys do.
  int64_t first_position = 0;

  int64_t article_len() const { return static_cast<int64_t>(tokens.size()) - prefix_len - suffix_len; }
  std::vector<int64_t> article_tokens() const { return {tokens.begin() + prefix_len, tokens.end() - suffix_len}; }
};

// The document as the chat template puts it behind the system prompt "You are a helpful assistant. Answer a question
// based on the provided context." (the prompt of arXiv:2602.16284), without a generation prompt.
//
// Document and question are two user turns where the template renders them so that the text up to the question does not
// depend on it (ChatML, Llama 3, Qwen, SmolLM2): the context is then the whole rendering of system prompt and document,
// the question is what the template adds to it. Where the template refuses two user turns in a row (Llama 2, Mistral)
// or changes what it has written, they are one user turn, "DOCUMENT\n\nQUESTION": the context ends with the document,
// the question begins with the empty line. Which of the two it is depends on the template alone.
//
// A token that spans template and document belongs to the template. Blanks at the document's ends are left out where
// the template trims them. Throws Error(kData): the document is empty, the context is longer than the model's positions
// (with the numbers), the template allows neither form or changes the document or puts text of its own after looking
// into it.
Context make_context(const Model& model, const std::string& article);
// The same from a model's parts.
Context make_context(const Tokenizer& tokenizer, const ChatTemplate& chat_template, int64_t max_positions,
                     const std::string& article);

// Tokens of a question behind a context, with the assistant's header, then `answer_prefix` as the first words of the
// answer. The tokens are those of the whole conversation behind the context's text; where one of them would span both,
// the question is read as a text of its own. Throws Error(kData) as make_context() does.
std::vector<int64_t> make_question_prompt(const Model& model, const std::string& user_text,
                                          const std::string& answer_prefix = "");
std::vector<int64_t> make_question_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                          const std::string& user_text, const std::string& answer_prefix = "");

// Tokens of each answer behind the question's prompt, as they are in the whole conversation: an answer is not encoded
// as a text of its own, before which SentencePiece vocabularies put a space. Where the last token of the prompt and the
// first of an answer would be one, the answer is read as a text of its own.
std::vector<std::vector<int64_t>> make_answers(const Model& model, const std::string& user_text,
                                               const std::vector<std::string>& answers);
std::vector<std::vector<int64_t>> make_answers(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                               const std::string& user_text, const std::vector<std::string>& answers);

// Tokens of `text` where it stands behind `before`, without those of `before`. Read as a text of its own where a token
// would span both.
std::vector<int64_t> encode_behind(const Tokenizer& tokenizer, const std::vector<Segment>& before,
                                   const std::vector<Segment>& text);

// Which entries of a head may be compacted: all but the first prefix_len and the last suffix_len. The same for every
// head, whatever its length.
struct Compactable {
  int64_t prefix_len = 0;
  int64_t suffix_len = 0;
  int64_t source_len(int64_t head_len) const { return head_len - prefix_len - suffix_len; }
};

}  // namespace kvc
