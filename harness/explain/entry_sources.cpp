#include "harness/explain/entry_sources.h"

#include <ATen/ATen.h>

#include <string_view>
#include <unordered_map>

namespace kvc {
namespace {

// The bytes of a matrix's rows, as keys of a map.
class Rows {
 public:
  explicit Rows(const at::Tensor& matrix) : matrix_(matrix.cpu().contiguous()) {}
  std::string_view operator[](int64_t row) const {
    const auto bytes = static_cast<size_t>(matrix_.size(1) * matrix_.element_size());
    return {static_cast<const char*>(matrix_.const_data_ptr()) + static_cast<size_t>(row) * bytes, bytes};
  }
  int64_t size() const { return matrix_.size(0); }

 private:
  at::Tensor matrix_;
};

// Rows of one head of the full cache that are nobody's source yet.
class Free {
 public:
  Free(const Rows& rows, int64_t first, int64_t end, const std::vector<bool>& taken) {
    for (int64_t row = end - 1; row >= first; --row) {  // equal rows are given away from the front
      if (!taken[static_cast<size_t>(row)]) rows_.emplace(rows[row], row);
    }
  }
  int64_t take(std::string_view bytes) {
    const auto found = rows_.find(bytes);
    if (found == rows_.end()) return EntrySources::kUnknown;
    const int64_t row = found->second;
    rows_.erase(found);
    return row;
  }

 private:
  std::unordered_multimap<std::string_view, int64_t> rows_;
};

std::vector<int64_t> match_layer(const LayerKv& compact, const LayerKv& full, bool same_text, EntrySources& counts) {
  const Rows compact_keys(compact.keys), compact_values(compact.values), keys(full.keys), values(full.values);
  std::vector<int64_t> sources(static_cast<size_t>(compact.n_entries()), EntrySources::kUnknown);
  std::vector<bool> taken(static_cast<size_t>(full.n_entries()), false);
  for (const bool by_key : {true, false}) {
    if (!by_key && !same_text) break;
    for (int64_t head = 0; head < compact.n_kv_heads(); ++head) {
      const auto h = static_cast<size_t>(head);
      Free free(by_key ? keys : values, full.head_offsets[h], full.head_offsets[h + 1], taken);
      for (int64_t row = compact.head_offsets[h]; row < compact.head_offsets[h + 1]; ++row) {
        int64_t& source = sources[static_cast<size_t>(row)];
        if (source != EntrySources::kUnknown) continue;
        source = free.take((by_key ? compact_keys : compact_values)[row]);
        if (source == EntrySources::kUnknown) continue;
        taken[static_cast<size_t>(source)] = true;
        ++(by_key ? counts.by_key : counts.by_value);
        if (by_key && compact_values[row] != values[source]) counts.values_changed = true;
        if (!by_key) counts.keys_changed = true;
      }
    }
  }
  for (const int64_t source : sources) counts.unknown += source == EntrySources::kUnknown ? 1 : 0;
  return sources;
}

}  // namespace

EntrySources find_sources(const KvCache& compact, const KvCache& full) {
  EntrySources sources;
  // In the first layer a value depends on its token alone: the same word of another text would be taken for this one.
  const bool same_text = compact.next_position() == full.next_position();
  for (int64_t l = 0; l < compact.n_layers(); ++l) {
    sources.row.push_back(match_layer(compact.layer(l), full.layer(l), same_text, sources));
    const at::Tensor& bias = compact.layer(l).bias;
    if (bias.defined() && bias.count_nonzero().item<int64_t>() > 0) sources.has_bias = true;
  }
  return sources;
}

}  // namespace kvc
