// Takes a family's tensors out of a model's files by name and shape, fuses and reorders rows, and keeps account of what
// was taken.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "harness/files/stored_tensor.h"
#include "harness/model/formats/dequantize.h"

namespace kvc {

class WeightReader {
 public:
  // kCheck only looks at names and shapes and returns undefined tensors, so that a wrong file is refused before
  // gigabytes are decoded. kRead holds the tensors made so far and the current one, in compute dtype; pages of the
  // file are released once read.
  enum class Mode : std::uint8_t { kCheck, kRead };

  WeightReader(const TensorSource& source, Mode mode, at::ScalarType dtype, at::Device device)
      : source_(source), mode_(mode), dtype_(dtype), device_(device) {}

  // Where the tensors taken from now on go.
  void send_to(at::Device device) { device_ = device; }

  struct Part {
    std::string name;
    std::int64_t rows;
    RowMap source_row;  // empty = as stored
  };

  at::Tensor vector(const std::string& name, std::int64_t size);
  at::Tensor matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  // The parts' rows one after the other, (sum of rows, columns).
  at::Tensor stacked(const std::vector<Part>& parts, std::int64_t columns);
  // The same for biases: each part is a tensor of one dimension, (sum of rows).
  at::Tensor stacked_vectors(const std::vector<Part>& parts);
  // Counts a tensor that is read elsewhere, or needs no reading, as taken.
  void mark(const std::string& name) { taken_.insert(name); }
  // A tensor that is stored although it must equal `other`: it has to have the same shape and, when read, the same
  // bytes.
  void same(const std::string& name, const std::string& other, const std::vector<std::int64_t>& shape);

  // Throws Error(kData) with everything that was missing, misshapen, or in the file and never taken.
  void finish();

 private:
  const StoredTensor* take(const std::string& name, const std::vector<std::int64_t>& shape);
  void add_problem(const std::string& fact, const std::string& mend);

  const TensorSource& source_;
  Mode mode_;
  at::ScalarType dtype_;
  at::Device device_;
  std::set<std::string> taken_;
  std::vector<Problem> problems_;
};

}  // namespace kvc
