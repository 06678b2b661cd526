// A model's chat format as a renderer. Output is segments, so that what the user's text says can never act as control.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/model/tokenizer/tokenizer.h"

namespace kvc {

struct ChatTurn {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  virtual std::string name() const = 0;
  // The template's own text, for people; "" where there is none.
  virtual std::string source() const { return ""; }

  // The turns as the model was trained on them. `start`: this is the beginning of the text (BOS where the format has
  // one); false for a turn placed behind a context that is already read. `generation_prompt`: the header of the
  // assistant's turn follows. No default system prompt is ever added: what is not in `turns` is not in the text.
  virtual std::vector<Segment> render(const std::vector<ChatTurn>& turns, bool start, bool generation_prompt) const = 0;
};

// The chat template of a model: a GGUF file or a folder. `name` empty: the one stored with the model; else a name of
// chat_template_names(). A model that stores none, or one that cannot be read, still gives an object: it throws
// Error(kData) with the way out when it is asked to render, so that what needs no chat works without.
// Throws Error(kUsage) for an unknown name, Error(kData) for a damaged file.
std::unique_ptr<ChatTemplate> load_chat_template(const std::string& model_path, const std::string& name);

// Renderers by name: "chatml", "llama3". Throws Error(kUsage) for an unknown name.
std::unique_ptr<ChatTemplate> make_chat_template(const std::string& name);
std::vector<std::string> chat_template_names();

// The renderer for a template as stored in the model file, recognised by its control tokens. Throws Error(kData) when
// it is none of them; the way out is `chat_template:` in the model's config.
std::unique_ptr<ChatTemplate> recognise_chat_template(const std::string& stored_template, const std::string& where);

}  // namespace kvc
