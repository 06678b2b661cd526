// Every family from a folder and from a GGUF file of hand-written numbers, and what the readers refuse.
#include "harness/model/families/family.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "harness/core/error.h"
#include "harness/model/families/checkpoint.h"
#include "harness/model/families/inspect.h"
#include "harness/model/families/tiny_files.h"

namespace kvc {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kHidden = 8, kHeads = 2, kKvHeads = 1, kHeadDim = 6, kFfn = 5, kVocab = 7, kLayers = 2;

std::string error_of(const std::function<void()>& call) {
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
TinyTensors folder_tensors(const Parts& parts) {
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

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A converter as llama.cpp has it: other names, and for Llama the rows of each head of q and k so that the pair
// (j, j + d/2) comes to lie at (2j, 2j + 1).
TinyTensors as_gguf(const TinyTensors& tensors, bool rotates_neighbours) {
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

json config_of(const std::string& class_name) {
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

TinyGguf gguf_of(const std::string& architecture, const TinyTensors& folder) {
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

std::vector<at::Tensor> all(const DecoderWeights& weights) {
  std::vector<at::Tensor> list = {weights.embedding, weights.final_norm, weights.head};
  for (const LayerWeights& layer : weights.layers) {
    for (const at::Tensor& tensor : {layer.attention_norm, layer.qkv, layer.qkv_bias, layer.q_norm, layer.k_norm,
                                     layer.attention_output, layer.attention_output_bias, layer.feed_forward_norm,
                                     layer.gate_up, layer.gate_up_bias, layer.down, layer.down_bias}) {
      list.push_back(tensor);
    }
  }
  return list;
}

TEST_F(FamilyTest, FolderAndGgufGiveTheSameModel) {
  struct Case {
    std::string class_name, family, gguf;
    Parts parts;
    json config = {};
  };
  const Case cases[] = {
      {"LlamaForCausalLM", "llama", "llama", {}, {}},
      {"LlamaForCausalLM", "llama", "llama", {.head = false}, {{"tie_word_embeddings", true}}},
      {"LlamaForCausalLM",
       "llama",
       "llama",
       {.qkv_bias = true, .output_bias = true, .mlp_bias = true},
       {{"attention_bias", true}, {"mlp_bias", true}}},
      {"MistralForCausalLM", "mistral", "llama", {}, {}},
      {"Qwen2ForCausalLM", "qwen2", "qwen2", {.qkv_bias = true}, {{"use_sliding_window", false}}},
      {"Qwen3ForCausalLM", "qwen3", "qwen3", {.qk_norm = true}, {}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.class_name + c.config.dump());
    const TinyTensors tensors = folder_tensors(c.parts);
    json config = config_of(c.class_name);
    if (!c.config.is_null()) config.update(c.config);
    const Checkpoint folder(write_folder(config, tensors));
    const Checkpoint file(write_gguf(gguf_of(c.gguf, tensors)));
    EXPECT_EQ(folder.family().name, c.family);
    EXPECT_EQ(file.family().name, c.gguf);
    EXPECT_THAT(folder.oddities(), IsEmpty());
    EXPECT_THAT(file.oddities(), IsEmpty());
    Json expected = to_json(folder.spec()), found = to_json(file.spec());
    expected.erase("rms_norm_eps");  // float32 in GGUF
    found.erase("rms_norm_eps");
    EXPECT_EQ(expected, found);
    EXPECT_EQ(folder.spec().head_dim, kHeadDim);
    EXPECT_EQ(folder.spec().rope_base, 500.0);
    EXPECT_EQ(folder.spec().attention_bias, c.parts.qkv_bias);
    EXPECT_EQ(folder.spec().qk_norm, c.parts.qk_norm);
    EXPECT_EQ(folder.spec().tied_embeddings, !c.parts.head);
    const std::vector<at::Tensor> a = all(folder.weights(at::kFloat, at::kCPU)),
                                  b = all(file.weights(at::kFloat, at::kCPU));
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].defined(), b[i].defined()) << i;
      EXPECT_TRUE(!a[i].defined() || at::equal(a[i], b[i])) << i;
    }
  }
}

TEST_F(FamilyTest, WeightsLieWhereTheDecoderLooks) {
  const TinyTensors tensors = folder_tensors({.qkv_bias = true, .output_bias = true, .mlp_bias = true});
  json config = config_of("LlamaForCausalLM");
  config.update({{"attention_bias", true}, {"mlp_bias", true}});
  const Checkpoint checkpoint(write_folder(config, tensors));
  const DecoderWeights weights = checkpoint.weights(at::kFloat, at::kCPU);
  const auto stored = [&](const std::string& name) {
    const TinyTensor& tensor = tensors.at("model.layers.1." + name);
    return at::tensor(tensor.values).view(tensor.shape);
  };
  const LayerWeights& layer = weights.layers.at(1);
  EXPECT_TRUE(at::equal(layer.qkv, at::cat({stored("self_attn.q_proj.weight"), stored("self_attn.k_proj.weight"),
                                            stored("self_attn.v_proj.weight")})));
  EXPECT_TRUE(at::equal(layer.qkv_bias, at::cat({stored("self_attn.q_proj.bias"), stored("self_attn.k_proj.bias"),
                                                 stored("self_attn.v_proj.bias")})));
  EXPECT_TRUE(at::equal(layer.gate_up, at::cat({stored("mlp.gate_proj.weight"), stored("mlp.up_proj.weight")})));
  EXPECT_TRUE(at::equal(layer.gate_up_bias, at::cat({stored("mlp.gate_proj.bias"), stored("mlp.up_proj.bias")})));
  EXPECT_TRUE(at::equal(layer.attention_output_bias, stored("self_attn.o_proj.bias")));
  EXPECT_TRUE(at::equal(layer.down, stored("mlp.down_proj.weight")));
  EXPECT_TRUE(at::equal(layer.down_bias, stored("mlp.down_proj.bias")));
  EXPECT_TRUE(at::equal(layer.attention_norm, stored("input_layernorm.weight")));
  EXPECT_TRUE(at::equal(layer.feed_forward_norm, stored("post_attention_layernorm.weight")));
  EXPECT_EQ(checkpoint.weights(at::kBFloat16, at::kCPU).head.scalar_type(), at::kBFloat16);
}

TEST_F(FamilyTest, UnknownArchitecturesAreNamedWithTheKnownOnes) {
  EXPECT_THAT(config_error(config_of("GemmaForCausalLM")),
              AllOf(HasSubstr("architecture 'GemmaForCausalLM' is not supported"),
                    HasSubstr("LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM")));
  EXPECT_THAT(config_error(config_of("LlamaForSequenceClassification")), HasSubstr("is not supported"));
  json config = config_of("");
  config.erase("architectures");
  config["model_type"] = "qwen3_moe";
  EXPECT_THAT(config_error(config), HasSubstr("architecture 'qwen3_moe' is not supported"));
  config["model_type"] = "llama";
  EXPECT_EQ(config_error(config), "");
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["general.architecture"] = std::string("gemma3\x1b");
  EXPECT_THAT(gguf_error(file), AllOf(HasSubstr("architecture 'gemma3\\x1b' is not supported"),
                                      HasSubstr("supported architecture: llama, qwen2, qwen3")));
}

TEST_F(FamilyTest, TensorsMissingMisshapenAndLeftOverAreNamed) {
  const json config = config_of("LlamaForCausalLM");
  TinyTensors tensors = folder_tensors({});
  tensors.erase("model.layers.1.mlp.up_proj.weight");
  tensors["model.norm.weight"] = TinyTensor::numbered({kHidden + 1}, 0);
  tensors["model.layers.0.self_attn.q_proj.bias"] = TinyTensor::numbered({kHeads * kHeadDim}, 0);
  tensors["model.layers.2.input_layernorm.weight"] = TinyTensor::numbered({kHidden}, 0);
  EXPECT_THAT(
      config_error(config, tensors),
      AllOf(HasSubstr("4 problems"), HasSubstr("tensor 'model.layers.1.mlp.up_proj.weight' of shape [5, 8] is missing"),
            HasSubstr("tensor 'model.norm.weight' has shape [9]; the model's numbers ask for [8]"),
            HasSubstr("tensor 'model.layers.0.self_attn.q_proj.bias' of shape [12] is none that"),
            HasSubstr("tensor 'model.layers.2.input_layernorm.weight'")));
  tensors = folder_tensors({});
  tensors.erase("lm_head.weight");
  EXPECT_THAT(config_error(config, tensors), HasSubstr("tensor 'lm_head.weight' of shape [7, 8] is missing"));
  EXPECT_THAT(config_error(config_of("Qwen2ForCausalLM")), HasSubstr("q_proj.bias' of shape [12] is missing"));
  EXPECT_THAT(config_error(config_of("Qwen3ForCausalLM")), HasSubstr("q_norm.weight' of shape [6] is missing"));
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.tensors["blk.0.attn_q_norm.weight"] = TinyTensor::numbered({kHeadDim}, 0);
  EXPECT_THAT(gguf_error(file), HasSubstr("tensor 'blk.0.attn_q_norm.weight' of shape [6] is none that"));
}

TEST_F(FamilyTest, ATiedHeadMayBeStoredWhenItIsEqual) {
  json config = config_of("LlamaForCausalLM");
  config["tie_word_embeddings"] = true;
  TinyTensors tensors = folder_tensors({});
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  const Checkpoint equal(write_folder(config, tensors));
  EXPECT_THAT(equal.oddities(), Contains(HasSubstr("'lm_head.weight' is stored as well")));
  const DecoderWeights weights = equal.weights(at::kFloat, at::kCPU);
  EXPECT_TRUE(weights.head.is_same(weights.embedding));
  tensors["lm_head.weight"].values[3] += 1;
  const Checkpoint different(write_folder(config, tensors));
  EXPECT_THAT(error_of([&] { different.weights(at::kFloat, at::kCPU); }),
              HasSubstr("tensor 'lm_head.weight' is stored, differs from 'model.embed_tokens.weight'"));
}

TEST_F(FamilyTest, StoredRotaryFrequenciesAreReportedAndNotUsed) {
  TinyTensors tensors = folder_tensors({});
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = TinyTensor::numbered({kHeadDim / 2}, 0);
  const Checkpoint checkpoint(write_folder(config_of("LlamaForCausalLM"), tensors));
  checkpoint.check_weights();
  EXPECT_THAT(checkpoint.oddities(), Contains(HasSubstr("1 tensors of rotary frequencies")));
}

TEST_F(FamilyTest, ConfigsOfOtherComputationsAreRefused) {
  EXPECT_EQ(config_error("use_cache", true), "");
  EXPECT_THAT(config_error("hidden_act", "gelu"), HasSubstr("the activation is 'gelu'"));
  EXPECT_THAT(config_error("quantization_config", {{"quant_method", "gptq"}}),
              AllOf(HasSubstr("the weights are quantised (\"gptq\")"), HasSubstr("F32, F16 or BF16")));
  EXPECT_THAT(config_error("partial_rotary_factor", 0.5), HasSubstr("only a part of each head is rotated"));
  EXPECT_THAT(config_error("rope_interleaved", true), HasSubstr("neighbouring dimensions"));
  EXPECT_EQ(config_error("rope_interleaved", false), "");
  EXPECT_THAT(config_error("num_local_experts", 8), HasSubstr("'num_local_experts' is 8: the model would be computed"));
  EXPECT_THAT(config_error("final_logit_softcapping", 30.0), HasSubstr("'final_logit_softcapping' is 30.0"));
  EXPECT_EQ(config_error("final_logit_softcapping", nullptr), "");
  EXPECT_EQ(config_error("logit_scale", 1.0), "");
  EXPECT_THAT(config_error("layer_types", {"full_attention", "linear_attention"}),
              HasSubstr("a layer is of type 'linear_attention'"));
  for (const char* key : {"num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size",
                          "max_position_embeddings"}) {
    EXPECT_THAT(config_error(key, nullptr), HasSubstr(fmt::format("'{}' is missing", key)));
    for (const json& value : {json(0), json(-1), json(1.5), json("8"), json(1 << 25)}) {
      EXPECT_THAT(config_error(key, value), HasSubstr(fmt::format("'{}' is {}", key, value.dump())));
    }
  }
  // A hostile number of layers is refused before their tensors are looked for one by one.
  EXPECT_THAT(config_error("num_hidden_layers", 1 << 24), HasSubstr("16777216 layers, and 21 tensors are stored"));
  EXPECT_THAT(config_error("num_key_value_heads", 3), HasSubstr("2 query heads are no multiple of 3 KV heads"));
  EXPECT_THAT(config_error("head_dim", 7), HasSubstr("head_dim is 7"));
  EXPECT_THAT(config_error("rms_norm_eps", -1), HasSubstr("'rms_norm_eps' is -1"));
  EXPECT_THAT(config_error("tie_word_embeddings", 1), HasSubstr("'tie_word_embeddings' is 1"));
  EXPECT_THAT(config_error("attention_bias", true), HasSubstr("self_attn.q_proj.bias' of shape [12] is missing"));
}

TEST_F(FamilyTest, UnknownConfigKeysAreReported) {
  json config = config_of("LlamaForCausalLM");
  config["my_own_key"] = {1, 2};
  config["initializer_range"] = 0.02;
  write_folder(config, folder_tensors({}));
  EXPECT_THAT(Checkpoint(folder_).oddities(),
              testing::ElementsAre("'my_own_key' ([1,2]) in config.json is not known and not used"));
}

TEST_F(FamilyTest, RopeParametersInOldAndNewSpelling) {
  const DecoderSpec linear = config_spec({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(linear.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope_scaling_factor, 4.0);
  EXPECT_EQ(linear.max_positions, 256);
  EXPECT_EQ(linear.rope_base, 500.0);
  const json parameters = {{"rope_type", "llama3"},   {"rope_theta", 700.0},
                           {"factor", 8.0},           {"low_freq_factor", 1.0},
                           {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 16}};
  const DecoderSpec llama3 = config_spec({{"rope_parameters", parameters}});
  EXPECT_EQ(llama3.rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.rope_base, 700.0);
  EXPECT_EQ(llama3.rope_original_max_positions, 16);
  EXPECT_EQ(llama3.rope_high_freq_factor, 4.0);
  EXPECT_EQ(llama3.max_positions, 64);
  const DecoderSpec dynamic = config_spec({{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}}});
  EXPECT_EQ(dynamic.rope_scaling, RopeScaling::kDynamic);
  EXPECT_EQ(dynamic.rope_original_max_positions, 64);
  EXPECT_EQ(dynamic.max_positions, 128);
  const DecoderSpec yarn =
      config_spec({{"rope_scaling",
                    {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"beta_fast", 16}}}});
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.max_positions, 128);
  EXPECT_EQ(yarn.rope_original_max_positions, 32);
  EXPECT_EQ(yarn.rope_beta_fast, 16.0);
  EXPECT_EQ(yarn.rope_beta_slow, 1.0);
  EXPECT_EQ(yarn.rope_attention_factor, 0.0);
  EXPECT_EQ(config_spec({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 9.0}}}}).rope_base, 9.0);
  EXPECT_EQ(config_spec({{"rope_scaling", nullptr}}).rope_scaling, RopeScaling::kNone);
}

TEST_F(FamilyTest, WrongRopeParametersAreRefused) {
  const auto error = [&](const json& value) { return config_error("rope_scaling", value); };
  EXPECT_THAT(error({{"rope_type", "longrope"}, {"factor", 2}}),
              AllOf(HasSubstr("RoPE scaling 'longrope' is not supported"), HasSubstr("default, linear, dynamic")));
  EXPECT_THAT(error({{"rope_type", "linear"}}), HasSubstr("RoPE parameter 'factor' is missing"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factor", 0}}), HasSubstr("RoPE parameter 'factor' is 0"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factor", "2"}}), HasSubstr("RoPE parameter 'factor' is no number"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factr", 2}}),
              AllOf(HasSubstr("RoPE parameter 'factr' is not known"), HasSubstr("did you mean 'factor'?")));
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 2}}), HasSubstr("'low_freq_factor' is missing"));
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}),
              HasSubstr("high_freq_factor 4 is not above low_freq_factor 4"));
  EXPECT_THAT(error({{"rope_type", "yarn"}, {"factor", 1e9}}), HasSubstr("take a smaller factor"));
  EXPECT_THAT(error({{"full_attention", {{"rope_type", "default"}}}}), HasSubstr("'full_attention' is not known"));
  EXPECT_THAT(error({{"mrope_section", {16, 24, 24}}, {"rope_type", "default"}}), HasSubstr("'mrope_section'"));
  EXPECT_THAT(error({1, 2}), HasSubstr("rope_scaling is no object"));
}

TEST_F(FamilyTest, TheUsersRopeScalingReplacesTheFiles) {
  json config = config_of("LlamaForCausalLM");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  write_folder(config, folder_tensors({}));
  const DecoderSpec yarn = Checkpoint(folder_, {{"rope_type", "yarn"}, {"factor", 4.0}}).spec();
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope_original_max_positions, 64);
  EXPECT_EQ(yarn.max_positions, 256);
  EXPECT_EQ(yarn.rope_base, 500.0);
  const DecoderSpec none = Checkpoint(folder_, {{"rope_type", "default"}}).spec();
  EXPECT_EQ(none.rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(none.max_positions, 64);
  EXPECT_THAT(error_of([&] {
                Checkpoint(folder_, {{"rope_type", "yarn"}});
              }),
              AllOf(HasSubstr("'factor' is missing"), HasSubstr("model option 'rope_scaling'")));
}

// A token sees itself and window - 1 before it, so that a text of `window` tokens is read as without a window.
TEST_F(FamilyTest, ASlidingWindowLimitsTheTextsThatAreRead) {
  json config = config_of("MistralForCausalLM");
  config["sliding_window"] = 16;
  write_folder(config, folder_tensors({}));
  const Checkpoint mistral(folder_);
  EXPECT_EQ(mistral.spec().max_positions, 16);
  EXPECT_THAT(mistral.oddities(), Contains(HasSubstr("sliding window of 16 tokens")));
  config["sliding_window"] = 64;
  EXPECT_EQ(find_family(ConfigFile(config, "c")).spec(ConfigFile(config, "c")).max_positions, 64);
  config.erase("sliding_window");
  config["max_position_embeddings"] = 8192;
  EXPECT_EQ(find_family(ConfigFile(config, "c")).spec(ConfigFile(config, "c")).max_positions, 4096);
  json qwen = config_of("Qwen2ForCausalLM");
  qwen.update({{"sliding_window", 16}, {"use_sliding_window", false}, {"max_window_layers", 1}});
  EXPECT_EQ(find_family(ConfigFile(qwen, "c")).spec(ConfigFile(qwen, "c")).max_positions, 64);
  qwen["use_sliding_window"] = true;
  EXPECT_EQ(find_family(ConfigFile(qwen, "c")).spec(ConfigFile(qwen, "c")).max_positions, 16);
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["llama.attention.sliding_window"] = std::uint32_t{16};
  EXPECT_EQ(Checkpoint(write_gguf(file)).spec().max_positions, 16);
}

TEST_F(FamilyTest, GgufMetadataOfOtherComputationsAreRefused) {
  EXPECT_EQ(gguf_error("use_parallel_residual", false), "");
  EXPECT_THAT(gguf_error("use_parallel_residual", true), HasSubstr("'llama.use_parallel_residual' is true"));
  EXPECT_THAT(gguf_error("logit_scale", 0.5F), HasSubstr("metadata key 'llama.logit_scale' is 0.5: the model would"));
  EXPECT_EQ(gguf_error("logit_scale", 1.F), "");
  EXPECT_THAT(gguf_error("attention.clamp_kqv", 8.F), HasSubstr("llama.attention.clamp_kqv"));
  EXPECT_THAT(gguf_error("expert_count", std::uint32_t{8}), HasSubstr("the model has 8 experts"));
  EXPECT_THAT(gguf_error("attention.causal", false), HasSubstr("attention is not causal"));
  EXPECT_THAT(gguf_error("attention.value_length", std::uint32_t{4}),
              HasSubstr("6 dimensions of keys and 4 of values"));
  EXPECT_THAT(gguf_error("rope.dimension_count", std::uint32_t{4}),
              HasSubstr("4 of 6 dimensions of a head are rotated"));
  EXPECT_THAT(gguf_error("attention.head_count_kv", std::uint32_t{3}), HasSubstr("2 query heads are no multiple of 3"));
  EXPECT_THAT(gguf_error("vocab_size", std::uint32_t{9}), HasSubstr("llama.vocab_size is 9, but"));
  EXPECT_THAT(gguf_error("block_count", std::uint32_t{0}), HasSubstr("metadata key 'llama.block_count' is 0"));
  EXPECT_THAT(gguf_error("block_count", std::uint32_t{4096}), HasSubstr("4096 layers, and 21 tensors are stored"));
  EXPECT_THAT(gguf_error("context_length", 1.F), HasSubstr("float32 where an integer is needed"));
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["llama.my_own_key"] = std::string("x");
  EXPECT_THAT(Checkpoint(write_gguf(file)).oddities(),
              testing::ElementsAre("metadata key 'llama.my_own_key' ('x') is not known and not used"));
}

TEST_F(FamilyTest, GgufRope) {
  const auto spec = [&](const std::map<std::string, TinyValue>& values) {
    TinyGguf file = gguf_of("llama", folder_tensors({}));
    for (const auto& [key, value] : values) file.metadata["llama.rope." + key] = value;
    return Checkpoint(write_gguf(file)).spec();
  };
  EXPECT_EQ(spec({{"scaling.type", std::string("none")}}).rope_scaling, RopeScaling::kNone);
  const DecoderSpec linear = spec({{"scaling.type", std::string("linear")}, {"scaling.factor", 4.F}});
  EXPECT_EQ(linear.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope_scaling_factor, 4.0);
  EXPECT_EQ(spec({{"scale_linear", 2.F}}).rope_scaling_factor, 2.0);
  const DecoderSpec yarn = spec({{"scaling.type", std::string("yarn")},
                                 {"scaling.factor", 4.F},
                                 {"scaling.original_context_length", std::uint32_t{32}}});
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope_original_max_positions, 32);
  EXPECT_EQ(yarn.max_positions, 128);
  EXPECT_EQ(yarn.rope_attention_factor, 0.0);
  EXPECT_NEAR(spec({{"scaling.type", std::string("yarn")}, {"scaling.factor", 4.F}, {"scaling.attn_factor", 2.F}})
                  .rope_attention_factor,
              2 * (0.1 * std::log(4.0) + 1), 1e-9);
  EXPECT_THAT(gguf_error("rope.scaling.type", std::string("longrope")), HasSubstr("RoPE scaling 'longrope'"));
}

TEST_F(FamilyTest, GgufFrequencyDivisors) {
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.tensors["rope_freqs.weight"] = {{3}, {1, 2, 8}};
  const Checkpoint checkpoint(write_gguf(file));
  checkpoint.check_weights();
  EXPECT_EQ(checkpoint.spec().rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(checkpoint.spec().rope_frequency_divisors, (std::vector<double>{1, 2, 8}));
  file.tensors["rope_freqs.weight"].values[1] = 0;
  EXPECT_THAT(gguf_error(file), HasSubstr("'rope_freqs.weight' holds 0"));
  file.tensors["rope_freqs.weight"] = {{2}, {1, 2}};
  EXPECT_THAT(gguf_error(file), HasSubstr("'rope_freqs.weight' is no row of 3 numbers"));
  file.tensors["rope_freqs.weight"] = {{3}, {1, 2, 8}};
  file.metadata["llama.rope.scaling.type"] = std::string("linear");
  file.metadata["llama.rope.scaling.factor"] = 2.F;
  EXPECT_THAT(gguf_error(file), HasSubstr("both linear RoPE scaling and rope_freqs.weight"));
}

TEST_F(FamilyTest, InspectListsAModelWithoutLoadingIt) {
  TinyTensors tensors = folder_tensors({});
  write_folder(config_of("LlamaForCausalLM"), tensors);
  write(folder_ + "/generation_config.json",
        R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"eos_token_id":[3,5]})");
  const ModelFacts facts = inspect_model(folder_);
  EXPECT_EQ(facts.format, "safetensors");
  EXPECT_EQ(facts.architecture, "llama");
  EXPECT_EQ(facts.tensors.size(), tensors.size());
  EXPECT_EQ(facts.weight_problem, "");
  EXPECT_EQ(facts.sampling.to_json().dump(), R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"end_ids":[3,5]})");
  int64_t parameters = 0;
  for (const auto& [name, tensor] : tensors) parameters += static_cast<int64_t>(tensor.values.size());
  EXPECT_EQ(facts.parameters, parameters);
  tensors.erase("model.norm.weight");
  write_folder(config_of("LlamaForCausalLM"), tensors);
  EXPECT_THAT(inspect_model(folder_).weight_problem, HasSubstr("tensor 'model.norm.weight' of shape [8] is missing"));
  write(folder_ + "/generation_config.json", R"({"top_p":2})");
  EXPECT_THAT(error_of([&] { inspect_model(folder_); }), HasSubstr("'top_p' is 2"));
}

TEST_F(FamilyTest, TheContentHashSeesWeightsAndConfigs) {
  TinyTensors tensors = folder_tensors({});
  const std::string first = Checkpoint(write_folder(config_of("LlamaForCausalLM"), tensors)).content_hash();
  EXPECT_EQ(Checkpoint(folder_).content_hash(), first);
  write(folder_ + "/README.md", "text");
  EXPECT_EQ(Checkpoint(folder_).content_hash(), first);
  write(folder_ + "/tokenizer_config.json", "{}");
  EXPECT_NE(Checkpoint(folder_).content_hash(), first);
  std::filesystem::remove(folder_ + "/tokenizer_config.json");
  tensors["lm_head.weight"].values[3] += 1;
  EXPECT_NE(Checkpoint(write_folder(config_of("LlamaForCausalLM"), tensors)).content_hash(), first);
}

}  // namespace
}  // namespace kvc
