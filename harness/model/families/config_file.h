// A family's numbers out of a model folder's config.json, each checked, with an account of what was read.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "harness/model/decoder_spec.h"

namespace kvc {

class ConfigFile {
 public:
  // Throws Error(kData): no such file, no JSON.
  explicit ConfigFile(const std::string& folder);
  ConfigFile(nlohmann::json value, std::string path) : value_(std::move(value)), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string model_type() const;            // "" when it is not there
  std::vector<std::string> classes() const;  // "architectures"

  // A key that is null counts as missing. Throw Error(kData): missing, of another type, out of range (1 to 2^24;
  // positive and finite).
  std::int64_t size(const std::string& key);
  std::int64_t size(const std::string& key, std::int64_t otherwise);
  double positive(const std::string& key, double otherwise);
  bool boolean(const std::string& key, bool otherwise);
  std::string text(const std::string& key, const std::string& otherwise);
  std::vector<std::string> texts(const std::string& key);
  bool has(const std::string& key) const { return value_.contains(key); }  // null counts too
  // Null when missing.
  const nlohmann::json* find(const std::string& key);

  [[noreturn]] void refuse(const std::string& fact, const std::string& mend) const;
  void note(const std::string& oddity) { oddities_.push_back(oddity); }
  const std::vector<std::string>& oddities() const { return oddities_; }

  // Judges the keys that were never asked for: see unknown_keys.h. Throws Error(kData) for one that changes the
  // computation and is not null, 0, 1, false or empty.
  void finish();

 private:
  nlohmann::json value_;
  std::string path_;
  std::set<std::string> asked_;
  std::vector<std::string> oddities_;
};

// Keys of config.json that all families share: layers, widths, heads, context, RoPE, tied head, activation.
// Quantised weights are refused. Defaults are those of transformers' LlamaConfig where a family does not pass its own.
// `kv_heads`: where num_key_value_heads is not there at all, 0 = as many as query heads; `head_dim`: where that is not
// there, 0 = hidden_size / heads.
DecoderSpec read_config_numbers(ConfigFile& config, std::int64_t kv_heads = 0, std::int64_t head_dim = 0);

// sliding_window where `active` and some layer slides: see limit_to_window. Which do is said by layer_types; where that
// is missing, layers from `first_sliding` on.
void read_sliding_window(ConfigFile& config, bool active, DecoderSpec& spec, std::int64_t first_sliding = 0);
// Qwen's form: use_sliding_window turns it on, and the first max_window_layers layers (28 unless said) do not slide.
void read_qwen_sliding_window(ConfigFile& config, DecoderSpec& spec);

}  // namespace kvc
