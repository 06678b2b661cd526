// A KV cache on disk, compacted or not, to be asked again later by the same model.
#pragma once

#include <string>

#include "harness/api/context.h"
#include "harness/kv/kv_cache.h"

namespace kvc {

// A safetensors file: "layers.N.keys", ".values" (sum_h len_h, d) in the model dtype, ".bias" (sum_h len_h) float32
// where there is one, ".head_offsets" (Hkv + 1) int64, "tokens" int64; metadata "format" = kvcompact.cache.v1,
// "next_position", "prefix_len", "suffix_len", "compactable" (0 where the entries are no longer those of the tokens in
// order of the context, as after a summary), "model" (Model::identity()) and "about" as JSON, "content_hash" of all
// that.
struct SavedCache {
  KvCache cache;
  Context context;          // as the model read it; of a summary the tokens that were summarised
  bool compactable = true;  // prefix, compactable entries and suffix of every head are where `context` says
  Json about;               // how it was made: whatever save_cache() was given
};

// Throws Error(kData) when the file cannot be written.
void save_cache(const std::string& path, const SavedCache& saved, const Model& model);

// On the model's device. Throws Error(kData): no such file, damaged, another format; weights, dtype or rotary options
// other than the model's; shapes or positions that the model cannot have.
SavedCache load_cache(const std::string& path, const Model& model);

}  // namespace kvc
