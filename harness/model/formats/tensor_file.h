// Tensors of a user or of this program as a safetensors file: read whole, written whole or not at all.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace kvc {

struct TensorFile {
  std::map<std::string, at::Tensor> tensors;    // on the CPU; float32, float16, bfloat16 or int64; 1 to 4 dimensions
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Copies every tensor into its own memory. Throws Error(kData) naming the file and the tensor that is wrong; sizes are
// checked against the file before anything is allocated.
TensorFile read_tensor_file(const std::string& path);

// Tensors of any device and layout, of the dtypes above, none of them empty. The file appears under its name when all
// of it is on disk. Throws Error(kData) when it cannot be written, Error(kInternal) for another dtype or shape.
void write_tensor_file(const std::string& path, const TensorFile& file);

}  // namespace kvc
