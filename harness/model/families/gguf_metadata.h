// A family's numbers out of GGUF metadata ("llama.block_count"), each checked, with an account of what was read.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/files/gguf.h"
#include "harness/model/decoder_spec.h"

namespace kvc {

class GgufMetadata {
 public:
  // Keys below are without "`architecture`.".
  GgufMetadata(const GgufFile& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  const GgufFile& file() const { return file_; }
  std::string full(const std::string& key) const { return prefix_ + key; }

  // Throw Error(kData): key missing, of another type, out of range (1 to 2^24; positive and finite).
  std::int64_t size(const std::string& key);
  std::int64_t size(const std::string& key, std::int64_t otherwise);
  double positive(const std::string& key);
  double positive(const std::string& key, double otherwise);
  std::optional<std::int64_t> integer(const std::string& key);
  std::optional<double> number(const std::string& key);
  std::optional<std::string> text(const std::string& key);
  std::optional<bool> boolean(const std::string& key);
  bool has(const std::string& key) const { return file_.has(prefix_ + key); }

  bool has_tensor(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  [[noreturn]] void refuse(const std::string& fact, const std::string& mend) const;
  // Notes for the user that are no errors: one sentence each.
  void note(const std::string& oddity) { oddities_.push_back(oddity); }
  const std::vector<std::string>& oddities() const { return oddities_; }

  // Judges the architecture's keys that were never asked for: see unknown_keys.h. Throws Error(kData) for one that
  // changes the computation and is not 0, 1, false or empty.
  void finish();

 private:
  std::string asked(const std::string& key);

  const GgufFile& file_;
  std::string prefix_;
  std::set<std::string> asked_;  // full keys
  std::vector<std::string> oddities_;
};

// Layers, widths, heads, context, RoPE, tied head; biases by the tensors that are there; qk_norm stays false.
DecoderSpec read_gguf_numbers(GgufMetadata& metadata);

// Texts of at most `window` tokens are the same with and without a sliding window of that size (a token sees itself and
// the window - 1 before it): longer ones are refused by taking them out of max_positions. Returns a note, "" if nothing
// changed.
std::string limit_to_window(DecoderSpec& spec, std::int64_t window);

}  // namespace kvc
