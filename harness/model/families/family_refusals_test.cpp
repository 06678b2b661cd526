// What the readers of model files refuse, and what they report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/model/families/family_fixture.h"

namespace kvc {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

using FamilyRefusalTest = FamilyTest;

TEST_F(FamilyRefusalTest, UnknownArchitecturesAreNamedWithTheKnownOnes) {
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

TEST_F(FamilyRefusalTest, AModelCutIntoFilesIsTold) {
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["split.count"] = std::uint32_t{1};
  file.metadata["split.no"] = std::uint32_t{0};
  EXPECT_EQ(gguf_error(file), "");
  file.metadata["split.count"] = std::uint32_t{2};
  EXPECT_THAT(gguf_error(file), AllOf(HasSubstr("part 1 of a model cut into 2 files"), HasSubstr("--merge")));
  file.metadata["split.no"] = std::uint32_t{1};
  file.metadata.erase("general.architecture");  // later parts hold tensors only
  EXPECT_THAT(gguf_error(file), HasSubstr("part 2 of a model cut into 2 files"));
}

TEST_F(FamilyRefusalTest, TensorsMissingMisshapenAndLeftOverAreNamed) {
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

TEST_F(FamilyRefusalTest, StoredRotaryFrequenciesAreReportedAndNotUsed) {
  TinyTensors tensors = folder_tensors({});
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = TinyTensor::numbered({kHeadDim / 2}, 0);
  const Checkpoint checkpoint(write_folder(config_of("LlamaForCausalLM"), tensors));
  checkpoint.check_weights();
  EXPECT_THAT(checkpoint.oddities(), Contains(HasSubstr("1 tensors of rotary frequencies")));
}

TEST_F(FamilyRefusalTest, ConfigsOfOtherComputationsAreRefused) {
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
  EXPECT_THAT(config_error("num_key_value_heads", 3), HasSubstr("2 query heads are not a multiple of 3 KV heads"));
  EXPECT_THAT(config_error("head_dim", 7), HasSubstr("head_dim is 7"));
  EXPECT_THAT(config_error("rms_norm_eps", -1), HasSubstr("'rms_norm_eps' is -1"));
  EXPECT_THAT(config_error("tie_word_embeddings", 1), HasSubstr("'tie_word_embeddings' is 1"));
  EXPECT_THAT(config_error("attention_bias", true), HasSubstr("self_attn.q_proj.bias' of shape [12] is missing"));
}

TEST_F(FamilyRefusalTest, UnknownConfigKeysAreReported) {
  json config = config_of("LlamaForCausalLM");
  config["my_own_key"] = {1, 2};
  config["initializer_range"] = 0.02;
  write_folder(config, folder_tensors({}));
  EXPECT_THAT(Checkpoint(folder_).oddities(),
              testing::ElementsAre("'my_own_key' ([1,2]) in config.json is not known and not used"));
}

TEST_F(FamilyRefusalTest, GgufMetadataOfOtherComputationsAreRefused) {
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
  EXPECT_THAT(gguf_error("attention.head_count_kv", std::uint32_t{3}),
              HasSubstr("2 query heads are not a multiple of 3"));
  EXPECT_THAT(gguf_error("vocab_size", std::uint32_t{9}), HasSubstr("llama.vocab_size is 9, but"));
  EXPECT_THAT(gguf_error("block_count", std::uint32_t{0}), HasSubstr("metadata key 'llama.block_count' is 0"));
  EXPECT_THAT(gguf_error("block_count", std::uint32_t{4096}), HasSubstr("4096 layers, and 21 tensors are stored"));
  EXPECT_THAT(gguf_error("context_length", 1.F), HasSubstr("float32 where an integer is needed"));
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.metadata["llama.my_own_key"] = std::string("x");
  EXPECT_THAT(Checkpoint(write_gguf(file)).oddities(),
              testing::ElementsAre("metadata key 'llama.my_own_key' ('x') is not known and not used"));
}

}  // namespace
}  // namespace kvc
