// A model's chat format: its own Jinja template, rendered as Hugging Face's transformers does (apply_chat_template).
//
// As written: the text is the template's, to the byte. So a default system prompt appears where the template writes one
// (Qwen2.5, SmolLM2), blanks around a content go where it trims them (Llama 3), a conversation is refused where it
// raises an exception. One departure: where the template has no system turn (it refuses one or writes nothing of it:
// Mistral 7B Instruct v0.1), a system turn at the beginning is put in front of the user's first words, with an empty
// line between. BOS stands in the text if the template writes it, and nobody adds another: the tokens of a rendering
// are Tokenizer::encode() of its segments, no more.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

struct ChatTurn {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct RenderOptions {
  bool generation_prompt = false;   // the header of the assistant's turn follows
  std::optional<bool> thinking;     // `enable_thinking` of the template (Qwen3); not given: the template's default
  std::string date = "2024-07-26";  // what the template's strftime_now() tells: never today's, so that a prompt is
                                    // the same on every day. The default is the one that Llama 3's templates name
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  // Of a built-in template; "model" for a model's own, "none" where there is no usable one.
  virtual std::string name() const = 0;
  // The template's own text; "" where there is none.
  virtual std::string source() const { return ""; }

  // The whole conversation from its beginning. What the template writes is control, every byte of a content is data,
  // also behind trim, split, replace and the like. Neighbouring segments differ in their origin; none is empty.
  // Throws Error(kUsage): a role that is none of the three (roles become control text), no such date; Error(kData) with
  // the template's line: the template refuses the conversation, uses what is not supported, or works without end.
  // Cost: some microseconds and a few copies of the contents.
  virtual std::vector<Segment> render(const std::vector<ChatTurn>& turns, const RenderOptions& options) const = 0;
};

// Another template with its thinking switch set wherever a rendering leaves it open.
class ThinkingChat final : public ChatTemplate {
 public:
  ThinkingChat(std::shared_ptr<const ChatTemplate> inner, bool thinking)
      : inner_(std::move(inner)), thinking_(thinking) {}
  std::string name() const override { return inner_->name(); }
  std::string source() const override { return inner_->source(); }
  std::vector<Segment> render(const std::vector<ChatTurn>& turns, const RenderOptions& options) const override;

 private:
  std::shared_ptr<const ChatTemplate> inner_;
  bool thinking_;
};

// The chat template of a model. `name` not empty: a name of chat_template_names(). Else the one stored with the model:
// of a GGUF file `tokenizer.chat_template`; of a folder chat_template.jinja, else `chat_template` of
// tokenizer_config.json (a string, or a list of named ones of which "default" is taken). A model that stores none, or
// one that cannot be read, still gives an object: it throws Error(kData) with the way out when it is asked to render,
// so that what needs no chat works without. Throws Error(kUsage) for an unknown name, Error(kData) for a damaged file.
std::unique_ptr<ChatTemplate> load_chat_template(const std::string& model_path, const std::string& name);

// A ThinkingChat of it. Throws Error(kUsage) for a template without that switch (`enable_thinking`), which would ignore
// it.
std::unique_ptr<ChatTemplate> with_thinking(std::unique_ptr<ChatTemplate> chat_template, bool thinking);

// A built-in one: "chatml", "llama2", "llama3", "mistral". Throws Error(kUsage) for an unknown name.
std::unique_ptr<ChatTemplate> make_chat_template(const std::string& name);
std::vector<std::string> chat_template_names();

// From a template's text. `special_tokens`: variables such as bos_token with their spelling; a missing one is undefined
// in the template and prints as nothing. `where` is the text's origin, for errors. Throws Error(kData) with the line:
// a syntax error, or a construct that is not supported.
std::unique_ptr<ChatTemplate> make_chat_template(std::string text, std::map<std::string, std::string> special_tokens,
                                                 std::string where);

}  // namespace kvc
