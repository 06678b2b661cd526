#include "harness/model/families/unknown_keys.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kHarmless[] = {
    // config.json: training
    "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range",
    "embd_pdrop", "resid_pdrop", "gradient_checkpointing", "use_cache", "pretraining_tp", "router_aux_loss_coef",
    "label_smoothing", "keys_to_ignore_at_inference",
    // naming and serving
    "_name_or_path", "name_or_path", "architectures", "model_type", "torch_dtype", "dtype", "transformers_version",
    "transformers.js_config", "auto_map", "_attn_implementation", "_attn_implementation_autoset",
    "_attn_implementation_internal", "attn_implementation", "use_flash_attention", "use_flash_attn", "flash_attention",
    "is_llama_config", "unsloth_version", "unsloth_fixed", "tokenizer_class", "license", "return_dict",
    "output_attentions", "output_hidden_states", "chunk_size_feed_forward", "torchscript", "use_bfloat16",
    "problem_type", "task_specific_params", "id2label", "label2id", "is_decoder", "is_encoder_decoder",
    "add_cross_attention", "cross_attention_hidden_size", "prefix", "tf_legacy_loss", "finetuning_task",
    // tokens: the tokenizer's files say which count
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id",
    "begin_suppress_tokens", "suppress_tokens",
    // Qwen's, read there; other families write it and do not use it
    "max_window_layers",
    // generation, in older files
    "max_length", "min_length", "do_sample", "num_beams", "temperature", "top_k", "top_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "num_return_sequences", "early_stopping", "max_sequence_length",
    // GGUF
    "tensor_data_layout", "rope.scaling.finetuned", "attention.recurrent_layers", "nextn_predict_layers",
    "vocab_padding"};

constexpr std::string_view kChanging[] = {"logit_scale",
                                          "logits_scal",
                                          "final_logit",
                                          "residual_scale",
                                          "residual_multiplier",
                                          "embedding_scale",
                                          "embedding_multiplier",
                                          "scale_emb",
                                          "scale_depth",
                                          "dim_model_base",
                                          "attention_multiplier",
                                          "attention.scale",
                                          "attn_scale",
                                          "attention_scale",
                                          "query_pre_attn",
                                          "softcap",
                                          "clamp_kqv",
                                          "clip_qkv",
                                          "expert",
                                          "moe",
                                          "router",
                                          "alibi",
                                          "parallel_residual",
                                          "no_rope",
                                          "nope_",
                                          "qk_norm",
                                          "qk_layernorm",
                                          "use_qk",
                                          "layernorm_epsilon",
                                          "layer_norm_eps",
                                          "ssm",
                                          "lora_rank",
                                          "key_length_mla",
                                          "value_length_mla",
                                          "dimension_sections",
                                          "mrope",
                                          "bidirectional",
                                          "sinks",
                                          "attention_sink",
                                          "temperature_",
                                          "cross_attention_layers",
                                          "per_layer",
                                          "swiglu_"};

}  // namespace

KeyMeaning meaning_of_key(const std::string& key) {
  if (std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless)) return KeyMeaning::kHarmless;
  const bool changes = std::any_of(std::begin(kChanging), std::end(kChanging),
                                   [&](std::string_view part) { return key.find(part) != std::string::npos; });
  return changes ? KeyMeaning::kChanges : KeyMeaning::kUnknown;
}

}  // namespace kvc
