#include "harness/model/families/weight_reader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvc {
namespace {

constexpr size_t kShown = 8;  // problems that are printed; a wrong file has hundreds of the same kind

}  // namespace

const GgufTensor* WeightReader::take(const std::string& name, const std::vector<int64_t>& shape) {
  taken_.insert(name);
  const GgufTensor* tensor = file_.find_tensor(name);
  const char* const mend = "the file is damaged or of another architecture than it says: convert the model anew";
  if (tensor == nullptr) {
    problems_.push_back(
        {fmt::format("tensor '{}' of shape [{}] is missing", name, fmt::join(shape, ", ")), file_.path(), mend});
  } else if (tensor->shape != shape) {
    problems_.push_back({fmt::format("tensor '{}' has shape [{}]; the metadata ask for [{}]", name,
                                     fmt::join(tensor->shape, ", "), fmt::join(shape, ", ")),
                         file_.path(), mend});
  } else {
    return tensor;
  }
  if (mode_ == Mode::kRead) finish();
  return nullptr;
}

at::Tensor WeightReader::upload(const at::Tensor& tensor) const {
  return tensor.to(device_);
}

at::Tensor WeightReader::vector(const std::string& name, int64_t size) {
  return stacked_vectors({{name, size, {}}});
}

at::Tensor WeightReader::matrix(const std::string& name, int64_t rows, int64_t columns) {
  return stacked({{name, rows, {}}}, columns);
}

at::Tensor WeightReader::stacked(const std::vector<Part>& parts, int64_t columns) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  at::Tensor out;
  if (mode_ == Mode::kRead) out = at::empty({rows, columns}, at::dtype(dtype_));
  int64_t start = 0;
  for (const Part& part : parts) {
    const GgufTensor* tensor = take(part.name, {part.rows, columns});
    if (out.defined()) dequantize_into(*tensor, out.narrow(0, start, part.rows), file_.path(), part.source_row);
    start += part.rows;
  }
  return out.defined() ? upload(out) : out;
}

at::Tensor WeightReader::stacked_vectors(const std::vector<Part>& parts) {
  std::vector<at::Tensor> list;
  for (const Part& part : parts) {
    const GgufTensor* tensor = take(part.name, {part.rows});
    if (mode_ == Mode::kCheck) continue;
    const at::Tensor stored = dequantize(*tensor, dtype_, file_.path());
    at::Tensor ordered = stored;
    if (part.source_row) {
      ordered = at::empty_like(stored);
      for (int64_t i = 0; i < part.rows; ++i) ordered[i] = stored[part.source_row(i)];
    }
    list.push_back(ordered);
  }
  return mode_ == Mode::kCheck ? at::Tensor() : upload(list.size() == 1 ? list[0] : at::cat(list));
}

void WeightReader::finish() {
  for (const GgufTensor& tensor : file_.tensors()) {
    if (taken_.contains(tensor.name) || mode_ == Mode::kRead) continue;
    problems_.push_back({fmt::format("tensor '{}' of shape [{}] is none that this architecture has", tensor.name,
                                     fmt::join(tensor.shape, ", ")),
                         file_.path(), "the model computes something that is not supported: take another model"});
  }
  if (problems_.empty()) return;
  const size_t total = problems_.size();
  if (total > kShown) {
    problems_.resize(kShown);
    problems_.push_back({fmt::format("and {} more tensors are wrong", total - kShown), file_.path(), ""});
  }
  throw_if_any(ErrorKind::kData, problems_, file_.path());
}

}  // namespace kvc
