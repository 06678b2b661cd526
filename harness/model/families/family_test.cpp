// Every family from a folder and from a GGUF file of hand-written numbers.
#include "harness/model/families/family.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "harness/model/families/family_fixture.h"
#include "harness/model/families/inspect.h"

namespace kvc {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

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

// A BF16 head beside an F32 embedding is equal where rounding the one gives the other.
TEST_F(FamilyTest, ATiedHeadMayBeStoredInAnotherDtype) {
  json config = config_of("LlamaForCausalLM");
  config["tie_word_embeddings"] = true;
  TinyTensors tensors = folder_tensors({.head = false});
  const auto stored = [&](float change) {
    std::string data;
    for (const float value : tensors["model.embed_tokens.weight"].values) {
      const c10::BFloat16 rounded(value + change);
      data.append(reinterpret_cast<const char*>(&rounded.x), sizeof rounded.x);
    }
    write_folder(config, tensors);
    const std::string plain = safetensors_text(tensors);
    std::uint64_t size = 0;
    std::memcpy(&size, plain.data(), sizeof size);
    json header = json::parse(plain.substr(8, size));
    const size_t end = plain.size() - 8 - size;
    header["lm_head.weight"] = {
        {"dtype", "BF16"}, {"shape", {kVocab, kHidden}}, {"data_offsets", {end, end + data.size()}}};
    const std::string text = header.dump();
    size = text.size();
    write(folder_ + "/model.safetensors", std::string(reinterpret_cast<const char*>(&size), sizeof size) + text +
                                              plain.substr(plain.size() - end) + data);
    const Checkpoint checkpoint(folder_);
    return error_of([&] { checkpoint.weights(at::kFloat, at::kCPU); });
  };
  EXPECT_EQ(stored(0), "");
  EXPECT_THAT(stored(1), HasSubstr("tensor 'lm_head.weight' is stored, differs from 'model.embed_tokens.weight'"));
}

// What AutoModel saves: the names without "model.", and no head.
TEST_F(FamilyTest, NamesWithoutTheLeadingModelAreTheSameWeights) {
  json config = config_of("LlamaForCausalLM");
  config["tie_word_embeddings"] = true;
  const TinyTensors named = folder_tensors({.head = false});
  TinyTensors bare;
  for (const auto& [name, tensor] : named) bare[name.substr(std::string("model.").size())] = tensor;
  const DecoderWeights expected = Checkpoint(write_folder(config, named)).weights(at::kFloat, at::kCPU);
  const DecoderWeights weights = Checkpoint(write_folder(config, bare)).weights(at::kFloat, at::kCPU);
  EXPECT_TRUE(at::equal(weights.embedding, expected.embedding));
  EXPECT_TRUE(at::equal(weights.final_norm, expected.final_norm));
  EXPECT_TRUE(at::equal(weights.layers[1].qkv, expected.layers[1].qkv));
  EXPECT_TRUE(at::equal(weights.layers[1].down, expected.layers[1].down));
  config["tie_word_embeddings"] = false;
  EXPECT_THAT(config_error(config, bare), HasSubstr("a model without its head: 'lm_head.weight' is missing"));
}

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
  // Layers from max_window_layers on slide (transformers' Qwen2Config); of two layers none does here.
  for (const char* name : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    json few = config_of(name);
    few.update({{"sliding_window", 8}, {"use_sliding_window", true}, {"max_window_layers", 28}});
    const auto positions = [&] { return find_family(ConfigFile(few, "c")).spec(ConfigFile(few, "c")).max_positions; };
    EXPECT_EQ(positions(), 64);
    few.erase("max_window_layers");  // 28 then
    EXPECT_EQ(positions(), 64);
    few["max_window_layers"] = 0;
    EXPECT_EQ(positions(), 8);
    few["layer_types"] = {"full_attention", "full_attention"};
    EXPECT_EQ(positions(), 64);
    few["max_window_layers"] = -1;
    EXPECT_THAT(error_of([&] { positions(); }), HasSubstr("'max_window_layers' must be a whole number from 0"));
  }
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["llama.attention.sliding_window"] = std::uint32_t{16};
  EXPECT_EQ(Checkpoint(write_gguf(file)).spec().max_positions, 16);
}

TEST_F(FamilyTest, InspectListsAModelWithoutLoadingIt) {
  TinyTensors tensors = folder_tensors({});
  write_folder(config_of("LlamaForCausalLM"), tensors);
  write(folder_ + "/generation_config.json",
        R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"repetition_penalty":1.1,"eos_token_id":[3,5]})");
  const ModelFacts facts = inspect_model(folder_);
  EXPECT_EQ(facts.format, "safetensors");
  EXPECT_EQ(facts.architecture, "llama");
  EXPECT_EQ(facts.tensors.size(), tensors.size());
  EXPECT_EQ(facts.weight_problem, "");
  EXPECT_EQ(facts.sampling.to_json().dump(),
            R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"repetition_penalty":1.1,"end_ids":[3,5]})");
  EXPECT_THAT(facts.oddities, testing::Contains(HasSubstr("repetition_penalty 1.1; it is not applied")));
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
