#include "harness/api/context.h"

#include <fmt/format.h>

#include "harness/core/error.h"

namespace kvc {
namespace {

constexpr const char* kSystem = "You are a helpful assistant. Answer a question based on the provided context.";

std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > 0; at -= 3) text.insert(static_cast<size_t>(at), 1, ',');
  return text;
}

struct ByteRange {
  int64_t begin = 0, end = 0;
};

// Where the article stands in the rendered text: it is the last piece of data.
ByteRange article_bytes(const std::vector<Segment>& segments, const std::string& article) {
  ByteRange range;
  const Segment* last = nullptr;
  int64_t offset = 0;
  for (const Segment& segment : segments) {
    const auto size = static_cast<int64_t>(segment.text.size());
    if (!segment.control) {
      last = &segment;
      range = {offset, offset + size};
    }
    offset += size;
  }
  if (last == nullptr || last->text != article) {
    throw Error(ErrorKind::kInternal, "the chat template does not give the user's text as its last piece of data", "",
                "");
  }
  return range;
}

// Tokens that begin before the article belong to the template in front of it; so do those that end after it, behind.
void set_template_lengths(Context& context, const std::vector<int64_t>& ends, const ByteRange& article) {
  const auto n = static_cast<int64_t>(ends.size());
  const auto begin_of = [&](int64_t i) { return i == 0 ? 0 : ends[static_cast<size_t>(i - 1)]; };
  while (context.prefix_len < n && begin_of(context.prefix_len) < article.begin) ++context.prefix_len;
  while (context.suffix_len < n - context.prefix_len &&
         ends[static_cast<size_t>(n - 1 - context.suffix_len)] > article.end) {
    ++context.suffix_len;
  }
}

}  // namespace

Context make_context(const Tokenizer& tokenizer, const ChatTemplate& chat_template, int64_t max_positions,
                     const std::string& article) {
  const std::vector<Segment> segments =
      chat_template.render({{"system", kSystem}, {"user", article}}, /*start=*/true, /*generation_prompt=*/false);
  Context context;
  std::vector<int64_t> ends;
  context.tokens = tokenizer.encode(segments, &ends);
  set_template_lengths(context, ends, article_bytes(segments, article));
  if (context.article_len() <= 0) {
    throw Error(ErrorKind::kData, article.empty() ? "the document is empty" : "the document has no token of its own",
                "", "give it some text");
  }
  const auto n_tokens = static_cast<int64_t>(context.tokens.size());
  if (n_tokens > max_positions) {
    throw Error(ErrorKind::kData,
                fmt::format("document of {} tokens is longer than the model's {} positions", grouped(n_tokens),
                            grouped(max_positions)),
                "", "take a shorter document, or a model with more positions");
  }
  return context;
}

Context make_context(const Model& model, const std::string& article) {
  return make_context(model.tokenizer(), model.chat_template(), model.spec().max_positions, article);
}

std::vector<int64_t> make_question_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                          const std::string& user_text, const std::string& answer_prefix) {
  std::vector<Segment> segments =
      chat_template.render({{"user", user_text}}, /*start=*/false, /*generation_prompt=*/true);
  if (!answer_prefix.empty()) segments.push_back({answer_prefix, false});
  return tokenizer.encode(segments);
}

std::vector<int64_t> make_question_prompt(const Model& model, const std::string& user_text,
                                          const std::string& answer_prefix) {
  return make_question_prompt(model.tokenizer(), model.chat_template(), user_text, answer_prefix);
}

}  // namespace kvc
