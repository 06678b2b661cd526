// Tensors as they lie in a model's files, whatever the format: what families
// read weights from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "harness/files/ggml_types.h"

namespace kvc {

struct StoredTensor {
  std::string name;
  const GgmlType* type = nullptr;    // never null
  std::vector<std::int64_t> shape;   // torch order, (rows, columns); 1 to 4 dimensions, each at least 1
  std::span<const std::byte> bytes;  // inside a mapping: valid as long as the source
};

// The tensors of one model: a GGUF file, or the safetensors files of a folder.
// Names differ; bytes do not overlap.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  const std::string& path() const { return path_; }                      // of the file or folder, for messages
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of the files
  // Null when there is none.
  const StoredTensor* find_tensor(const std::string& name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }

 protected:
  explicit TensorSource(std::string path) : path_(std::move(path)) {}
  TensorSource(const TensorSource&) = default;
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(const TensorSource&) = default;
  TensorSource& operator=(TensorSource&&) = default;

  void set_tensors(std::vector<StoredTensor> tensors) {
    tensors_ = std::move(tensors);
    for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  }

 private:
  std::string path_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t> index_;
};

}  // namespace kvc
