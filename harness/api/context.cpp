#include "harness/api/context.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

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

// Stand for a document and a question whose text is not known or does not matter. They begin with a character that
// nobody trims and end in a letter, behind which tokenizers cut.
constexpr const char* kSomeArticle = "\x02kvc-document\x02x";
constexpr const char* kSomeQuestion = "\x02kvc-question\x02x";
constexpr const char* kBetween = "\n\n";  // document and question in one turn

// A rendered conversation: its text, and for each byte whether it is control.
struct Rendered {
  std::string text;
  std::string marks;

  void append(const Segment& segment) {
    text += segment.text;
    marks.append(segment.text.size(), segment.control ? '\1' : '\0');
  }
  bool begins_with(const Rendered& other) const {
    return text.starts_with(other.text) && marks.starts_with(other.marks);
  }
  bool ends_with(const Rendered& other) const { return text.ends_with(other.text) && marks.ends_with(other.marks); }
  Rendered part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), marks.substr(begin, end - begin)};
  }
  bool operator==(const Rendered&) const = default;

  std::vector<Segment> segments() const {
    std::vector<Segment> result;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(marks.find(marks[begin] == 0 ? '\1' : '\0', begin), text.size());
      result.push_back({text.substr(begin, end - begin), marks[begin] != 0});
      begin = end;
    }
    return result;
  }
};

Rendered render(const ChatTemplate& chat_template, const std::vector<std::string>& user_turns, bool generation_prompt) {
  std::vector<ChatTurn> turns = {{"system", kSystem}};
  for (const std::string& text : user_turns) turns.push_back({"user", text});
  RenderOptions options;
  options.generation_prompt = generation_prompt;
  Rendered rendered;
  for (const Segment& segment : chat_template.render(turns, options)) rendered.append(segment);
  return rendered;
}

// Where `part` stands as data, if it does so exactly once.
std::optional<size_t> find_data(const Rendered& rendered, const std::string& part) {
  const size_t at = rendered.text.find(part);
  if (at == std::string::npos || rendered.text.find(part, at + 1) != std::string::npos) return std::nullopt;
  const std::string marks(part.size(), '\0');
  if (rendered.marks.compare(at, part.size(), marks) != 0) return std::nullopt;
  return at;
}

// A conversation of a document and a question, cut between the two.
struct Cut {
  Rendered context;
  Rendered question;
};

// As two user turns: the context is rendered alone.
std::optional<Cut> cut_turns(const ChatTemplate& chat_template, const std::string& article,
                             const std::string& question) {
  Cut cut{render(chat_template, {article}, false), {}};
  const Rendered whole = render(chat_template, {article, question}, true);
  if (!whole.begins_with(cut.context)) return std::nullopt;
  cut.question = whole.part(cut.context.text.size(), whole.text.size());
  return cut;
}

// As one user turn, in which `known`, the document or the question, stands at the cut.
std::optional<Cut> cut_turn(const ChatTemplate& chat_template, const std::string& article, const std::string& question,
                            bool article_known) {
  const Rendered whole = render(chat_template, {article + kBetween + question}, true);
  const std::string known = article_known ? article : kBetween + question;
  const std::optional<size_t> at = find_data(whole, known);
  if (!at) return std::nullopt;
  const size_t end = *at + (article_known ? known.size() : 0);
  return Cut{whole.part(0, end), whole.part(end, whole.text.size())};
}

[[noreturn]] void unfit(const std::string& fact) {
  throw Error(ErrorKind::kData, "the chat template does not fit a document and questions: " + fact,
              "chat template of the model",
              "write 'chat_template: NAME' at the model in the sweep file, or give --chat-template NAME");
}

// How the template takes document and question; `split_turns` false: in one turn. Found out with the stand-ins.
struct ChatForm {
  bool split_turns = true;
  Cut cut;  // of the stand-ins
};

ChatForm find_form(const ChatTemplate& chat_template) {
  std::string refusal = "it changes the text before the question";
  try {
    if (auto cut = cut_turns(chat_template, kSomeArticle, kSomeQuestion)) return {true, std::move(*cut)};
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    refusal = error.fact();
  }
  try {
    if (auto cut = cut_turn(chat_template, kSomeArticle, kSomeQuestion, true)) return {false, std::move(*cut)};
  } catch (const Error& error) {
    // Of two refusals the second says what is wrong with any conversation.
    if (error.kind() != ErrorKind::kData || error.fact() == refusal) throw;
    unfit(fmt::format("as two user turns, {}; as one, {}", refusal, error.fact()));
  }
  unfit(fmt::format("as two user turns, {}; as one, it changes their text", refusal));
}

// The context's text, and where the article stands in it.
std::pair<Rendered, ByteRange> render_context(const ChatTemplate& chat_template, const std::string& article) {
  const ChatForm form = find_form(chat_template);
  const std::optional<size_t> at = find_data(form.cut.context, kSomeArticle);
  if (!at) unfit("it changes the document's text");
  const Rendered before = form.cut.context.part(0, *at);
  const Rendered after = form.cut.context.part(*at + std::string(kSomeArticle).size(), form.cut.context.text.size());
  const std::optional<Cut> cut = form.split_turns ? cut_turns(chat_template, article, kSomeQuestion)
                                                  : cut_turn(chat_template, article, kSomeQuestion, false);
  if (!cut || cut->question != form.cut.question) unfit("the template's suffix differs for this document");
  const size_t size = cut->context.text.size(), framed = before.text.size() + after.text.size();
  if (size < framed || !cut->context.begins_with(before) || !cut->context.ends_with(after)) {
    unfit("the template's prefix or suffix differs for this document");
  }
  const ByteRange range{static_cast<int64_t>(before.text.size()), static_cast<int64_t>(size - after.text.size())};
  const Rendered shown = cut->context.part(before.text.size(), size - after.text.size());
  if (shown.marks.find('\1') != std::string::npos || article.find(shown.text) == std::string::npos) {
    unfit("it changes this document's text");
  }
  return {cut->context, range};
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
  const auto refuse_empty = [](const char* fact) { throw Error(ErrorKind::kData, fact, "", "give it some text"); };
  if (article.empty()) refuse_empty("the document is empty");
  const auto [rendered, range] = render_context(chat_template, article);
  Context context;
  std::vector<int64_t> ends;
  context.tokens = tokenizer.encode(rendered.segments(), &ends);
  set_template_lengths(context, ends, range);
  if (context.article_len() <= 0) refuse_empty("the document has no tokens");
  const auto n_tokens = static_cast<int64_t>(context.tokens.size());
  if (n_tokens > max_positions) {
    throw Error(ErrorKind::kData,
                fmt::format("document of {} tokens is longer than the model's {} positions", grouped(n_tokens),
                            grouped(max_positions)),
                "", "take a shorter document, a model with more positions, or stretch this one (rope_scaling)");
  }
  return context;
}

Context make_context(const Model& model, const std::string& article) {
  return make_context(model.tokenizer(), model.chat_template(), model.spec().max_positions, article);
}

namespace {

// The stand-in document and a question behind it.
Cut cut_question(const ChatTemplate& chat_template, const std::string& user_text) {
  const ChatForm form = find_form(chat_template);
  auto cut = form.split_turns ? cut_turns(chat_template, kSomeArticle, user_text)
                              : cut_turn(chat_template, kSomeArticle, user_text, true);
  if (!cut || cut->context != form.cut.context) unfit("the text before this question is not that before others");
  return std::move(*cut);
}

Rendered joined(const Rendered& first, const Rendered& second) {
  return {first.text + second.text, first.marks + second.marks};
}

// The tokens of a text, cut at the byte `at`; nullopt where a token spans it. A token without bytes that stands there
// (a vocabulary's leading space) belongs to what follows.
struct CutTokens {
  std::vector<int64_t> before, behind;
};
std::optional<CutTokens> cut_tokens(const Tokenizer& tokenizer, const Rendered& text, size_t at) {
  std::vector<int64_t> ends;
  const std::vector<int64_t> tokens = tokenizer.encode(text.segments(), &ends);
  const auto border = std::lower_bound(ends.begin(), ends.end(), static_cast<int64_t>(at));
  if (border == ends.end() || *border != static_cast<int64_t>(at)) return std::nullopt;
  const auto n_before = border - ends.begin() + 1;
  return CutTokens{{tokens.begin(), tokens.begin() + n_before}, {tokens.begin() + n_before, tokens.end()}};
}

}  // namespace

std::vector<int64_t> make_question_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                          const std::string& user_text, const std::string& answer_prefix) {
  Cut cut = cut_question(chat_template, user_text);
  if (!answer_prefix.empty()) cut.question.append({answer_prefix, false});
  const auto tokens = cut_tokens(tokenizer, joined(cut.context, cut.question), cut.context.text.size());
  return tokens ? tokens->behind : tokenizer.encode(cut.question.segments());
}

std::vector<std::vector<int64_t>> make_answers(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                               const std::string& user_text, const std::vector<std::string>& answers) {
  const Cut cut = cut_question(chat_template, user_text);
  Rendered before = joined(cut.context, cut.question);
  // As make_question_prompt() reads the question.
  if (!cut_tokens(tokenizer, before, cut.context.text.size())) before = cut.question;
  const std::vector<int64_t> prompt = tokenizer.encode(before.segments());
  std::vector<std::vector<int64_t>> list;
  for (const std::string& answer : answers) {
    Rendered whole = before;
    whole.append({answer, false});
    const auto tokens = cut_tokens(tokenizer, whole, before.text.size());
    list.push_back(tokens && tokens->before == prompt ? tokens->behind : tokenizer.encode_text(answer));
  }
  return list;
}

std::vector<int64_t> encode_behind(const Tokenizer& tokenizer, const std::vector<Segment>& before,
                                   const std::vector<Segment>& text) {
  Rendered first, second;
  for (const Segment& segment : before) first.append(segment);
  for (const Segment& segment : text) second.append(segment);
  const auto tokens = cut_tokens(tokenizer, joined(first, second), first.text.size());
  return tokens ? tokens->behind : tokenizer.encode(text);
}

std::vector<std::vector<int64_t>> make_answers(const Model& model, const std::string& user_text,
                                               const std::vector<std::string>& answers) {
  return make_answers(model.tokenizer(), model.chat_template(), user_text, answers);
}

std::vector<int64_t> make_question_prompt(const Model& model, const std::string& user_text,
                                          const std::string& answer_prefix) {
  return make_question_prompt(model.tokenizer(), model.chat_template(), user_text, answer_prefix);
}

}  // namespace kvc
