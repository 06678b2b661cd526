#include "harness/kv/kv_cache.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"

namespace kvc {

namespace {

[[noreturn]] void refuse(const std::string& fact, const std::string& where) {
  throw Error(ErrorKind::kInternal, fact, where, "");
}

std::string shape_text(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("({})", fmt::join(tensor.sizes(), ", ")) : "undefined";
}

void check_layer(const LayerKv& layer, const LayerKv& first, const std::string& where) {
  const std::vector<int64_t>& offsets = layer.head_offsets;
  if (offsets.size() < 2 || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end())) {
    refuse(fmt::format("head offsets [{}] do not rise from 0", fmt::join(offsets, ", ")), where);
  }
  if (!layer.keys.defined() || layer.keys.dim() != 2 || layer.keys.size(0) != offsets.back() ||
      !layer.values.defined() || layer.values.sizes() != layer.keys.sizes()) {
    refuse(fmt::format("keys {} and values {} do not hold {} entries each", shape_text(layer.keys),
                       shape_text(layer.values), offsets.back()),
           where);
  }
  if (layer.values.scalar_type() != layer.keys.scalar_type() || layer.values.device() != layer.keys.device()) {
    refuse("keys and values differ in type or device", where);
  }
  if (layer.bias.defined() && (layer.bias.dim() != 1 || layer.bias.size(0) != offsets.back() ||
                               layer.bias.scalar_type() != at::kFloat || layer.bias.device() != layer.keys.device())) {
    refuse(fmt::format("bias {} is not one float32 for each of {} entries", shape_text(layer.bias), offsets.back()),
           where);
  }
  if (layer.n_kv_heads() != first.n_kv_heads() || layer.keys.size(1) != first.keys.size(1) ||
      layer.keys.scalar_type() != first.keys.scalar_type()) {
    refuse(fmt::format("{} KV heads and keys {} of {} differ from layer 0: {} KV heads, {} of {}", layer.n_kv_heads(),
                       shape_text(layer.keys), toString(layer.keys.scalar_type()), first.n_kv_heads(),
                       shape_text(first.keys), toString(first.keys.scalar_type())),
           where);
  }
}

}  // namespace

at::Tensor LayerKv::head_keys(int64_t kv_head) const {
  return keys.narrow(0, head_offsets[static_cast<size_t>(kv_head)], head_len(kv_head));
}

at::Tensor LayerKv::head_values(int64_t kv_head) const {
  return values.narrow(0, head_offsets[static_cast<size_t>(kv_head)], head_len(kv_head));
}

at::Tensor LayerKv::head_bias(int64_t kv_head) const {
  if (!bias.defined()) return {};
  return bias.narrow(0, head_offsets[static_cast<size_t>(kv_head)], head_len(kv_head));
}

KvCache::KvCache(std::vector<LayerKv> layers, int64_t next_position)
    : layers_(std::move(layers)), next_position_(next_position) {
  if (layers_.empty()) refuse("a cache needs at least one layer", "KvCache");
  if (next_position_ < 0) refuse(fmt::format("next position {} is negative", next_position_), "KvCache");
  for (size_t l = 0; l < layers_.size(); ++l) check_layer(layers_[l], layers_[0], fmt::format("KvCache, layer {}", l));
}

KvCache KvCache::empty(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, const at::TensorOptions& options) {
  return empty(std::vector<at::TensorOptions>(static_cast<size_t>(n_layers), options), n_kv_heads, head_dim);
}

KvCache KvCache::empty(const std::vector<at::TensorOptions>& layers, int64_t n_kv_heads, int64_t head_dim) {
  std::vector<LayerKv> list;
  for (const at::TensorOptions& options : layers) {
    list.push_back({at::empty({0, head_dim}, options),
                    at::empty({0, head_dim}, options),
                    {},
                    std::vector<int64_t>(static_cast<size_t>(n_kv_heads) + 1, 0)});
  }
  return {std::move(list), 0};
}

KvCache KvCache::clone() const {
  std::vector<LayerKv> layers = layers_;
  for (LayerKv& layer : layers) {
    layer.keys = layer.keys.clone(at::MemoryFormat::Contiguous);
    layer.values = layer.values.clone(at::MemoryFormat::Contiguous);
    if (layer.bias.defined()) layer.bias = layer.bias.clone(at::MemoryFormat::Contiguous);
  }
  return {std::move(layers), next_position_};
}

int64_t KvCache::n_entries() const {
  int64_t total = 0;
  for (const LayerKv& layer : layers_) total += layer.n_entries();
  return total;
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const LayerKv& layer : layers_) {
    total += static_cast<int64_t>(layer.keys.nbytes() + layer.values.nbytes());
    if (layer.bias.defined()) total += static_cast<int64_t>(layer.bias.nbytes());
    total += static_cast<int64_t>(layer.head_offsets.size() * sizeof(int64_t));
  }
  return total;
}

int64_t KvCache::allocated_bytes() const {
  std::set<const void*> seen;
  int64_t total = 0;
  const auto count = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || !seen.insert(tensor.storage().unsafeGetStorageImpl()).second) return;
    total += static_cast<int64_t>(tensor.storage().nbytes());
  };
  for (const LayerKv& layer : layers_) {
    count(layer.keys);
    count(layer.values);
    count(layer.bias);
    total += static_cast<int64_t>(layer.head_offsets.capacity() * sizeof(int64_t));
  }
  return total;
}

LayerKv pack_heads(const std::vector<HeadEntries>& heads) {
  if (heads.empty()) refuse("a layer must have at least one head; got none", "pack_heads");
  LayerKv layer;
  layer.head_offsets.push_back(0);
  for (const HeadEntries& head : heads) layer.head_offsets.push_back(layer.head_offsets.back() + head.size());
  HeadEntries all = join_entries(heads);
  layer.keys = std::move(all.keys);
  layer.values = std::move(all.values);
  layer.bias = std::move(all.bias);
  check_layer(layer, layer, "pack_heads");
  return layer;
}

LayerKv pack_heads(const std::vector<at::Tensor>& keys, const std::vector<at::Tensor>& values,
                   const std::vector<at::Tensor>& bias) {
  if (values.size() != keys.size() || (!bias.empty() && bias.size() != keys.size())) {
    refuse(fmt::format("keys, values and biases must be as many; got {}, {} and {}", keys.size(), values.size(),
                       bias.size()),
           "pack_heads");
  }
  std::vector<HeadEntries> heads;
  for (size_t h = 0; h < keys.size(); ++h) heads.push_back({keys[h], values[h], bias.empty() ? at::Tensor() : bias[h]});
  return pack_heads(heads);
}

Tails::Tails(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, int64_t batch, int64_t capacity,
             const at::TensorOptions& options)
    : Tails(std::vector<at::TensorOptions>(static_cast<size_t>(n_layers), options), n_kv_heads, head_dim, batch,
            capacity) {}

Tails::Tails(const std::vector<at::TensorOptions>& layers, int64_t n_kv_heads, int64_t head_dim, int64_t batch,
             int64_t capacity)
    : capacity_(capacity), lengths_(static_cast<size_t>(batch), 0) {
  for (const at::TensorOptions& options : layers) {
    keys_.push_back(at::empty({batch, n_kv_heads, capacity, head_dim}, options));
    values_.push_back(at::empty({batch, n_kv_heads, capacity, head_dim}, options));
  }
}

Tails Tails::behind(const KvCache& prefix, int64_t batch, int64_t capacity) {
  std::vector<at::TensorOptions> layers;
  for (int64_t l = 0; l < prefix.n_layers(); ++l) layers.push_back(prefix.layer(l).keys.options());
  return {layers, prefix.n_kv_heads(), prefix.head_dim(), batch, capacity};
}

namespace {

// rows (N, Hkv, d), any strides with dense d, into target (B, Hkv, capacity, d) at the sequences' ends.
void write_rows(const at::Tensor& target, const at::Tensor& rows, const std::vector<int64_t>& lengths,
                const std::vector<int64_t>& offsets) {
  const int64_t n_heads = target.size(1), capacity = target.size(2), head_dim = target.size(3);
  if (!target.is_cpu() || rows.stride(2) != 1) {
    std::vector<int64_t> index;
    for (size_t b = 0; b < lengths.size(); ++b) {
      for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i) {
        for (int64_t h = 0; h < n_heads; ++h) {
          index.push_back((static_cast<int64_t>(b) * n_heads + h) * capacity + lengths[b] + i - offsets[b]);
        }
      }
    }
    target.view({-1, head_dim}).index_copy_(0, device_numbers(index, target.device()), rows.reshape({-1, head_dim}));
    return;
  }
  // One copy a row and head: a chain of ATen calls per sequence would cost more than a decode step's arithmetic.
  const auto item = static_cast<int64_t>(target.element_size());
  auto* to = static_cast<char*>(target.data_ptr());
  const auto* from = static_cast<const char*>(rows.data_ptr());
  const size_t row_bytes = static_cast<size_t>(head_dim * item);
  for (size_t b = 0; b < lengths.size(); ++b) {
    for (int64_t h = 0; h < n_heads; ++h) {
      char* out = to + ((static_cast<int64_t>(b) * n_heads + h) * capacity + lengths[b]) * head_dim * item;
      for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i, out += row_bytes) {
        std::memcpy(out, from + (i * rows.stride(0) + h * rows.stride(1)) * item, row_bytes);
      }
    }
  }
}

void check_rows(const at::Tensor& rows, const at::Tensor& target, int64_t n_rows) {
  if (rows.dim() != 3 || rows.size(0) != n_rows || rows.size(1) != target.size(1) || rows.size(2) != target.size(3) ||
      rows.scalar_type() != target.scalar_type() || rows.device() != target.device()) {
    refuse(fmt::format("rows {} of {} do not fit tails {} of {}", shape_text(rows), toString(rows.scalar_type()),
                       shape_text(target), toString(target.scalar_type())),
           "Tails::write");
  }
}

void check_offsets(const std::vector<int64_t>& offsets, size_t batch, const std::string& where) {
  if (offsets.size() != batch + 1 || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end())) {
    refuse(fmt::format("offsets [{}] do not divide a batch of {}", fmt::join(offsets, ", "), batch), where);
  }
}

}  // namespace

void Tails::write(int64_t layer, const at::Tensor& new_keys, const at::Tensor& new_values,
                  const std::vector<int64_t>& sequence_offsets, RowWriter* writer) {
  check_offsets(sequence_offsets, lengths_.size(), "Tails::write");
  for (size_t b = 0; b < lengths_.size(); ++b) {
    const int64_t needed = lengths_[b] + sequence_offsets[b + 1] - sequence_offsets[b];
    if (needed > capacity_) {
      refuse(fmt::format("sequence {} needs {} entries, there is room for {}", b, needed, capacity_), "Tails::write");
    }
  }
  const auto l = static_cast<size_t>(layer);
  check_rows(new_keys, keys_.at(l), sequence_offsets.back());
  check_rows(new_values, values_.at(l), sequence_offsets.back());
  if (writer != nullptr && writer(view(layer, sequence_offsets), new_keys, new_values)) return;
  write_rows(keys_[l], new_keys, lengths_, sequence_offsets);
  write_rows(values_[l], new_values, lengths_, sequence_offsets);
}

TailView Tails::view(int64_t layer, const std::vector<int64_t>& sequence_offsets) const {
  return {keys(layer), values(layer), lengths_, sequence_offsets};
}

TailView TailView::slice(int64_t first, int64_t last) const {
  TailView part{keys.slice(0, first, last),
                values.slice(0, first, last),
                {lengths.begin() + first, lengths.begin() + last},
                {offsets.begin() + first, offsets.begin() + last + 1}};
  for (int64_t& offset : part.offsets) offset -= offsets[static_cast<size_t>(first)];
  return part;
}

void Tails::advance(const std::vector<int64_t>& sequence_offsets) {
  check_offsets(sequence_offsets, lengths_.size(), "Tails::advance");
  for (size_t b = 0; b < lengths_.size(); ++b) lengths_[b] += sequence_offsets[b + 1] - sequence_offsets[b];
}

namespace {

// A new (sequences, Hkv, capacity, d) whose sequence i begins with the first lengths[i] entries of source's
// sequences[i].
at::Tensor gather(const at::Tensor& source, const std::vector<int64_t>& sequences, const std::vector<int64_t>& lengths,
                  int64_t capacity) {
  const auto batch = static_cast<int64_t>(sequences.size());
  at::Tensor result = at::empty({batch, source.size(1), capacity, source.size(3)}, source.options());
  if (!source.is_cpu()) {
    // One operation for all: entries behind a sequence's own length come along, and are never read.
    const int64_t most = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    const at::Tensor rows = device_numbers(sequences, source.device());
    result.narrow(2, 0, most).copy_(source.narrow(2, 0, most).index_select(0, rows));
    return result;
  }
  const int64_t row = source.size(3) * static_cast<int64_t>(source.element_size());
  const int64_t heads = source.size(1);
  for (int64_t i = 0; i < batch; ++i) {
    for (int64_t h = 0; h < heads; ++h) {
      std::memcpy(static_cast<char*>(result.data_ptr()) + (i * heads + h) * capacity * row,
                  static_cast<const char*>(source.data_ptr()) +
                      (sequences[static_cast<size_t>(i)] * heads + h) * source.size(2) * row,
                  static_cast<size_t>(lengths[static_cast<size_t>(i)] * row));
    }
  }
  return result;
}

}  // namespace

void Tails::reserve(int64_t capacity) {
  if (capacity <= capacity_) return;
  std::vector<int64_t> all(lengths_.size());
  for (size_t b = 0; b < all.size(); ++b) all[b] = static_cast<int64_t>(b);
  for (size_t l = 0; l < keys_.size(); ++l) {
    keys_[l] = gather(keys_[l], all, lengths_, capacity);
    values_[l] = gather(values_[l], all, lengths_, capacity);
  }
  capacity_ = capacity;
}

Tails Tails::select(const std::vector<int64_t>& sequences, int64_t capacity) const {
  Tails result = *this;  // shares the tensors until they are replaced below
  result.capacity_ = std::max(capacity, capacity_);
  result.lengths_.clear();
  for (const int64_t sequence : sequences) result.lengths_.push_back(lengths_.at(static_cast<size_t>(sequence)));
  for (size_t l = 0; l < keys_.size(); ++l) {
    result.keys_[l] = gather(keys_[l], sequences, result.lengths_, result.capacity_);
    result.values_[l] = gather(values_[l], sequences, result.lengths_, result.capacity_);
  }
  return result;
}

void Tails::truncate(int64_t index, int64_t n_entries) {
  int64_t& length = lengths_.at(static_cast<size_t>(index));
  if (n_entries < 0) refuse(fmt::format("length {} is negative", n_entries), "Tails::truncate");
  length = std::min(length, n_entries);
}

KvCache Tails::into_cache(int64_t first_position) && {
  if (batch() != 1) refuse(fmt::format("a batch of {} is not a single cache", batch()), "Tails::into_cache");
  const int64_t length = lengths_[0];
  std::vector<LayerKv> layers(keys_.size());
  for (size_t l = 0; l < keys_.size(); ++l) {
    const int64_t n_heads = keys_[l].size(1), head_dim = keys_[l].size(3);
    // reshape is a view exactly where the capacity is used up.
    layers[l].keys = keys_[l][0].narrow(1, 0, length).reshape({n_heads * length, head_dim});
    layers[l].values = values_[l][0].narrow(1, 0, length).reshape({n_heads * length, head_dim});
    layers[l].head_offsets.reserve(static_cast<size_t>(n_heads) + 1);
    for (int64_t h = 0; h <= n_heads; ++h) layers[l].head_offsets.push_back(h * length);
    keys_[l].reset();
    values_[l].reset();
  }
  return {std::move(layers), first_position + length};
}

int64_t Tails::allocated_bytes() const {
  int64_t total = 0;
  for (size_t l = 0; l < keys_.size(); ++l) {
    total += static_cast<int64_t>(keys_[l].storage().nbytes() + values_[l].storage().nbytes());
  }
  return total;
}

}  // namespace kvc
