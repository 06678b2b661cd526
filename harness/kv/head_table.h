// One value for every layer and KV head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvc {

// [L][Hkv], every layer with the same number of heads. Iterates layer by layer, head by head.
template <class T>
class HeadTable {
 public:
  HeadTable() = default;
  // Every layer as `layer`.
  HeadTable(int64_t n_layers, const std::vector<T>& layer) : n_heads_(static_cast<int64_t>(layer.size())) {
    for (int64_t l = 0; l < n_layers; ++l) add_layer(layer);
  }
  HeadTable(std::initializer_list<std::vector<T>> layers) {
    for (const std::vector<T>& layer : layers) add_layer(layer);
  }
  // value_of(layer, head)
  template <class Function>
  static HeadTable make(int64_t n_layers, int64_t n_heads, const Function& value_of) {
    HeadTable table;
    table.n_heads_ = n_heads;
    for (int64_t l = 0; l < n_layers; ++l) {
      for (int64_t h = 0; h < n_heads; ++h) table.values_.push_back(value_of(l, h));
    }
    return table;
  }
  // value_of(value of this table)
  template <class Function>
  auto map(const Function& value_of) const {
    return HeadTable<decltype(value_of(values_.front()))>::make(
        n_layers(), n_heads_, [&](int64_t l, int64_t h) { return value_of(at(l, h)); });
  }

  // Throws std::invalid_argument for another number of heads than in the layers before.
  void add_layer(const std::vector<T>& layer) {
    if (values_.empty()) n_heads_ = static_cast<int64_t>(layer.size());
    if (static_cast<int64_t>(layer.size()) != n_heads_) throw std::invalid_argument("layers of different heads");
    values_.insert(values_.end(), layer.begin(), layer.end());
  }

  int64_t n_layers() const { return n_heads_ > 0 ? static_cast<int64_t>(values_.size()) / n_heads_ : 0; }
  int64_t n_heads() const { return n_heads_; }  // of a layer
  template <class U>
  bool same_shape(const HeadTable<U>& other) const {
    return n_layers() == other.n_layers() && n_heads() == other.n_heads();
  }

  // Throw std::out_of_range.
  T& at(int64_t layer, int64_t head) { return values_[place(layer, head)]; }
  const T& at(int64_t layer, int64_t head) const { return values_[place(layer, head)]; }
  std::span<T> layer(int64_t layer) { return std::span(values_).subspan(place(layer, 0), size_t(n_heads_)); }
  std::span<const T> layer(int64_t layer) const {
    return std::span(values_).subspan(place(layer, 0), size_t(n_heads_));
  }
  std::span<T> all() { return values_; }
  std::span<const T> all() const { return values_; }

  bool operator==(const HeadTable&) const = default;

 private:
  size_t place(int64_t layer, int64_t head) const {
    if (layer < 0 || layer >= n_layers() || head < 0 || head >= n_heads_) throw std::out_of_range("HeadTable");
    return static_cast<size_t>(layer * n_heads_ + head);
  }

  int64_t n_heads_ = 0;
  std::vector<T> values_;
};

}  // namespace kvc
