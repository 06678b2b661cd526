// safetensors files: a JSON header of names, types, shapes and offsets, then the numbers. Memory-mapped and read-only.
// Layout: https://github.com/huggingface/safetensors#format (version 0.x). The files are untrusted: each size and
// offset is compared with the file's size before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "harness/files/mapped_file.h"
#include "harness/files/stored_tensor.h"

namespace kvc {

// What a file may hold besides weights.
struct SafetensorsExtra {
  bool integers = false;                        // in: tensors of I64 are taken too; their type decodes nothing
  std::map<std::string, std::string> metadata;  // out: "__metadata__"
};

// The tensors of one file (F32, F16, BF16), sorted by their place in it. Their bytes lie inside `bytes`, one behind the
// other without gap or overlap, and reach to its end. Throws Error(kData) naming file, tensor and numbers.
std::vector<StoredTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& path,
                                            SafetensorsExtra* extra = nullptr);

// All weights of a folder: model.safetensors, or else the files that model.safetensors.index.json names.
class SafetensorsFolder : public TensorSource {
 public:
  struct File {
    std::string name;  // in the folder
    MappedFile mapped;
  };

  // Headers are read and checked, the numbers only mapped. Throws Error(kData): no weights, or only in a format that
  // runs code (pickle); a file missing or damaged; a tensor twice, or in another file than the index says; an index
  // that leaves the folder.
  explicit SafetensorsFolder(const std::string& folder);

  const std::vector<File>& files() const { return files_; }

 private:
  void read_single(const std::string& name);
  void read_sharded(const std::string& index_name);

  std::vector<File> files_;
};

}  // namespace kvc
