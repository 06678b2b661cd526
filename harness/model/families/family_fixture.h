// For tests: a tiny model of any family as a folder or a GGUF file, and what opening it says.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/model/families/checkpoint.h"
#include "harness/model/families/tiny_files.h"

namespace kvc {

using nlohmann::json;

inline constexpr int64_t kHidden = 8, kHeads = 2, kKvHeads = 1, kHeadDim = 6, kFfn = 5, kVocab = 7, kLayers = 2;

inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_FALSE(error.fact().empty());
    return error.what();
  }
  return "";
}

struct Parts {
  bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false, head = true;
};

// The same numbers under transformers' names.
inline TinyTensors folder_tensors(const Parts& parts) {
  TinyTensors tensors;
  float next = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = TinyTensor::numbered(shape, next += 1);
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  if (parts.head) add("lm_head.weight", {kVocab, kHidden});
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const std::pair<const char*, int64_t> projections[] = {{"q", kHeads}, {"k", kKvHeads}, {"v", kKvHeads}};
    for (const auto& [name, heads] : projections) {
      add(fmt::format("{}self_attn.{}_proj.weight", layer, name), {heads * kHeadDim, kHidden});
      if (parts.qkv_bias) add(fmt::format("{}self_attn.{}_proj.bias", layer, name), {heads * kHeadDim});
    }
    add(layer + "self_attn.o_proj.weight", {kHidden, kHeads * kHeadDim});
    if (parts.output_bias) add(layer + "self_attn.o_proj.bias", {kHidden});
    if (parts.qk_norm) add(layer + "self_attn.q_norm.weight", {kHeadDim});
    if (parts.qk_norm) add(layer + "self_attn.k_norm.weight", {kHeadDim});
    add(layer + "input_layernorm.weight", {kHidden});
    add(layer + "post_attention_layernorm.weight", {kHidden});
    for (const char* name : {"gate", "up", "down"}) {
      const bool down = std::string(name) == "down";
      add(fmt::format("{}mlp.{}_proj.weight", layer, name),
          down ? std::vector<int64_t>{kHidden, kFfn} : std::vector<int64_t>{kFfn, kHidden});
      if (parts.mlp_bias) add(fmt::format("{}mlp.{}_proj.bias", layer, name), {down ? kHidden : kFfn});
    }
  }
  return tensors;
}

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A converter as llama.cpp has it: other names, and for Llama the rows of each head of q and k so that the pair
// (j, j + d/2) comes to lie at (2j, 2j + 1).
inline TinyTensors as_gguf(const TinyTensors& tensors, bool rotates_neighbours) {
  const std::pair<const char*, const char*> names[] = {{"model.embed_tokens", "token_embd"},
                                                       {"model.norm", "output_norm"},
                                                       {"lm_head", "output"},
                                                       {"model.layers.", "blk."},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"self_attn.q_norm", "attn_q_norm"},
                                                       {"self_attn.k_norm", "attn_k_norm"},
                                                       {"input_layernorm", "attn_norm"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"}};
  TinyTensors out;
  for (const auto& [name, tensor] : tensors) {
    std::string other = name;
    for (const auto& [from, to] : names) other = replaced(other, from, to);
    TinyTensor moved = tensor;
    if (rotates_neighbours && (name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos)) {
      const int64_t width = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
      for (int64_t row = 0; row < tensor.shape[0]; ++row) {
        const int64_t in_head = row % kHeadDim, half = kHeadDim / 2;
        const int64_t target = row - in_head + 2 * (in_head % half) + in_head / half;
        std::copy_n(tensor.values.begin() + row * width, width, moved.values.begin() + target * width);
      }
    }
    out[other] = moved;
  }
  return out;
}

inline json config_of(const std::string& class_name) {
  return {{"architectures", {class_name}},
          {"num_hidden_layers", kLayers},
          {"hidden_size", kHidden},
          {"num_attention_heads", kHeads},
          {"num_key_value_heads", kKvHeads},
          {"head_dim", kHeadDim},
          {"intermediate_size", kFfn},
          {"vocab_size", kVocab},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500.0},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "float32"}};
}

inline TinyGguf gguf_of(const std::string& architecture, const TinyTensors& folder) {
  TinyGguf file;
  const auto number = [](int64_t value) { return static_cast<std::uint32_t>(value); };
  const std::string prefix = architecture + ".";
  file.metadata = {{"general.architecture", architecture},
                   {prefix + "block_count", number(kLayers)},
                   {prefix + "embedding_length", number(kHidden)},
                   {prefix + "feed_forward_length", number(kFfn)},
                   {prefix + "attention.head_count", number(kHeads)},
                   {prefix + "attention.head_count_kv", number(kKvHeads)},
                   {prefix + "attention.key_length", number(kHeadDim)},
                   {prefix + "attention.value_length", number(kHeadDim)},
                   {prefix + "attention.layer_norm_rms_epsilon", 1e-5F},
                   {prefix + "context_length", number(64)},
                   {prefix + "rope.freq_base", 500.F}};
  file.tensors = as_gguf(folder, architecture == "llama");
  return file;
}

class FamilyTest : public testing::Test {
 protected:
  FamilyTest() { std::filesystem::create_directories(folder_); }
  ~FamilyTest() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::remove(file_);
  }

  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }
  std::string write_folder(const json& config, const TinyTensors& tensors) const {
    write(folder_ + "/config.json", config.dump());
    write(folder_ + "/model.safetensors", safetensors_text(tensors));
    return folder_;
  }
  std::string write_gguf(const TinyGguf& file) const {
    write(file_, file.text());
    return file_;
  }
  std::string config_error(const json& config, const TinyTensors& tensors = folder_tensors({})) const {
    write_folder(config, tensors);
    return error_of([&] { Checkpoint(folder_).check_weights(); });
  }
  // A Llama whose config is changed by one value.
  std::string config_error(const char* key, const json& value) const {
    json config = config_of("LlamaForCausalLM");
    config[key] = value;
    return config_error(config);
  }
  std::string gguf_error(const TinyGguf& file) const {
    write_gguf(file);
    return error_of([&] { Checkpoint(file_).check_weights(); });
  }
  std::string gguf_error(const std::string& key, const TinyValue& value) const {
    TinyGguf file = gguf_of("llama", folder_tensors({}));
    file.metadata["llama." + key] = value;
    return gguf_error(file);
  }
  DecoderSpec config_spec(const json& changes) const {
    json config = config_of("LlamaForCausalLM");
    config.update(changes);
    return find_family(ConfigFile(config, "config.json")).spec(ConfigFile(config, "config.json"));
  }

  std::string folder_ =
      (std::filesystem::temp_directory_path() / ("kvc_family_test_" + std::to_string(::getpid()))).string();
  std::string file_ = folder_ + ".gguf";
};

}  // namespace kvc
