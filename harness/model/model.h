// A model ready to read text: decoder, tokenizer, chat format, and where it all came from.
#pragma once

#include <memory>
#include <string>

#include "harness/core/options.h"
#include "harness/files/generation_config.h"
#include "harness/model/decoder.h"
#include "harness/text/chat_template.h"
#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

struct ModelConfig {
  std::string path;             // GGUF file, or folder as downloaded from a model hub
  std::string dtype = "auto";   // float32, bfloat16; auto = bfloat16 where the processor or GPU has it, else float32
  std::string device = "auto";  // cpu, cuda, cuda:1; auto = cuda where LibTorch finds a GPU, else cpu
  std::string devices = "1";    // number of GPUs over which the layers are spread, from `device` on; auto = all
  std::string chat_template;    // a name of chat_template_names(); empty = the model's own
  std::string thinking;         // on, off: Qwen3's switch in every prompt; empty = as the chat template has it
  // transformers' rope_parameters in place of the model's own: {rope_type: yarn, factor: 2.0}; {} = the model's own.
  Json rope_scaling = Json::object();
  bool decode_graphs = false;  // answers are written by CUDA graphs (decode_step.h)
  void fields(auto&& visit) {
    visit("path", path, "GGUF file, or folder with config.json, safetensors and tokenizer",
          named("a GGUF file or a model folder", "write path: FILE"));
    visit("dtype", dtype, "float32, bfloat16 or auto (bfloat16 where the hardware multiplies it fast)",
          one_of({"auto", "bfloat16", "float32"}));
    visit("device", device, "cpu, cuda, cuda:1 (the second GPU) or auto");
    visit("devices", devices, "GPUs over which the layers are spread, from `device` on: a number or auto (all)");
    visit("chat_template", chat_template, "chatml, llama2, llama3 or mistral; empty: the model's own",
          none_or(one_of(chat_template_names())));
    visit("thinking", thinking, "on or off, for chat templates that have the switch; empty: as the template has it",
          none_or(one_of({"off", "on"})));
    visit("rope_scaling", rope_scaling,
          "stretches the context: {rope_type: yarn, factor: 2.0}; empty: the model's own");
    visit("decode_graphs", decode_graphs, "on a GPU, the steps of writing an answer run as CUDA graphs");
  }
  void check(const OptionCheck& fail) const;
};

// The device of ModelConfig::device on a machine with that many GPUs. Throws Error(kUsage) for a device that is
// missing.
c10::Device choose_device(const std::string& name, int64_t n_gpus);

class Model {
 public:
  // Throws Error(kData): no such path, damaged file, unsupported architecture or tensor type, wrong shapes;
  // Error(kUsage): a wrong option. Peak memory: the weights in the compute dtype and one tensor.
  static Model load(const ModelConfig& config);
  // For tests: parts made by hand.
  Model(Decoder decoder, std::unique_ptr<Tokenizer> tokenizer, std::unique_ptr<ChatTemplate> chat_template,
        Json identity, SamplingDefaults sampling_defaults = {}, bool decode_graphs = false);

  const Decoder& decoder() const { return decoder_; }
  const DecoderSpec& spec() const { return decoder_.spec(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate& chat_template() const { return *chat_template_; }
  // How the model's makers let it write; empty for GGUF files.
  const SamplingDefaults& sampling_defaults() const { return sampling_defaults_; }
  bool decode_graphs() const { return decode_graphs_; }
  // {file, name, bytes, content_hash, architecture, dtype, device} and the options that change the computation: all
  // that a result depends on.
  const Json& identity() const { return identity_; }

 private:
  Decoder decoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  Json identity_;
  SamplingDefaults sampling_defaults_;
  bool decode_graphs_;
};

}  // namespace kvc
