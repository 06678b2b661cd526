// A model ready to read text: decoder, tokenizer, chat format, and where it all came from.
#pragma once

#include <memory>
#include <string>

#include "harness/core/options.h"
#include "harness/model/chat_template.h"
#include "harness/model/decoder.h"
#include "harness/model/tokenizer/tokenizer.h"

namespace kvc {

struct ModelConfig {
  std::string path;             // GGUF file
  std::string dtype = "auto";   // float32, bfloat16; auto = bfloat16 where the processor or GPU has it, else float32
  std::string device = "auto";  // cpu, cuda; auto = cuda where LibTorch finds a GPU, else cpu
  std::string chat_template;    // a name of chat_template_names(); empty = the model's own
  void fields(auto&& visit) {
    visit("path", path, "GGUF file of the weights");
    visit("dtype", dtype, "float32, bfloat16 or auto (bfloat16 where the hardware multiplies it fast)");
    visit("device", device, "cpu, cuda or auto");
    visit("chat_template", chat_template, "chatml, llama2, llama3 or mistral; empty: the model's own");
  }
  void check(const OptionCheck& fail) const;
};

class Model {
 public:
  // Throws Error(kData): no such file, damaged file, unsupported architecture or tensor type, wrong shapes.
  static Model load(const ModelConfig& config);
  // For tests: parts made by hand.
  Model(Decoder decoder, std::unique_ptr<Tokenizer> tokenizer, std::unique_ptr<ChatTemplate> chat_template,
        Json identity);

  const Decoder& decoder() const { return decoder_; }
  const DecoderSpec& spec() const { return decoder_.spec(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate& chat_template() const { return *chat_template_; }
  // {file, bytes, content_hash, architecture, dtype, device}: all that a result depends on.
  const Json& identity() const { return identity_; }

 private:
  Decoder decoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  Json identity_;
};

}  // namespace kvc
