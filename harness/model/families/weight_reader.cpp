#include "harness/model/families/weight_reader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/core/printable.h"
#include "harness/files/mapped_file.h"

namespace kvc {
namespace {

// Whether two stored tensors of one shape hold the same numbers, compared in the coarser of their two types.
bool same_values(const StoredTensor& a, const StoredTensor& b, const std::string& where) {
  if (a.type == b.type) return std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
  const auto has = [&](const char* name) {
    return a.type->name == std::string(name) || b.type->name == std::string(name);
  };
  const at::ScalarType type = has("BF16") ? at::kBFloat16 : has("F16") ? at::kHalf : at::kFloat;
  constexpr int64_t kRows = 1024;  // at a time
  const auto rows = [&](const StoredTensor& whole, int64_t first, int64_t n) {
    const auto row_bytes = whole.bytes.size() / static_cast<size_t>(whole.shape[0]);
    const StoredTensor part{
        whole.name,
        whole.type,
        {n, whole.shape[1]},
        whole.bytes.subspan(static_cast<size_t>(first) * row_bytes, static_cast<size_t>(n) * row_bytes)};
    return dequantize(part, type, where);
  };
  for (int64_t first = 0; first < a.shape[0]; first += kRows) {
    const int64_t n = std::min(kRows, a.shape[0] - first);
    if (!at::equal(rows(a, first, n), rows(b, first, n))) return false;
  }
  return true;
}

constexpr size_t kShown = 8;  // problems that are printed; a wrong file has hundreds of the same kind

}  // namespace

void WeightReader::add_problem(const std::string& fact, const std::string& mend) {
  problems_.push_back({fact, source_.path(), mend});
}

const StoredTensor* WeightReader::take(const std::string& name, const std::vector<int64_t>& shape) {
  taken_.insert(name);
  const StoredTensor* tensor = source_.find_tensor(name);
  const char* const mend = "the model is damaged or of another architecture than it says: fetch or convert it anew";
  if (tensor == nullptr) {
    add_problem(fmt::format("tensor '{}' of shape [{}] is missing", name, fmt::join(shape, ", ")), mend);
  } else if (tensor->shape != shape) {
    add_problem(fmt::format("tensor '{}' has shape [{}]; the model's numbers ask for [{}]", name,
                            fmt::join(tensor->shape, ", "), fmt::join(shape, ", ")),
                mend);
  } else {
    return tensor;
  }
  if (mode_ == Mode::kRead) finish();
  return nullptr;
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
    const StoredTensor* tensor = take(part.name, {part.rows, columns});
    if (out.defined()) {
      dequantize_into(*tensor, out.narrow(0, start, part.rows), source_.path(), part.source_row);
      release_pages(tensor->bytes);
    }
    start += part.rows;
  }
  return out.defined() ? out.to(device_) : out;
}

at::Tensor WeightReader::stacked_vectors(const std::vector<Part>& parts) {
  std::vector<at::Tensor> list;
  for (const Part& part : parts) {
    const StoredTensor* tensor = take(part.name, {part.rows});
    if (mode_ == Mode::kCheck) continue;
    const at::Tensor stored = dequantize(*tensor, dtype_, source_.path());
    at::Tensor ordered = stored;
    if (part.source_row) {
      ordered = at::empty_like(stored);
      for (int64_t i = 0; i < part.rows; ++i) ordered[i] = stored[part.source_row(i)];
    }
    list.push_back(ordered);
  }
  if (mode_ == Mode::kCheck) return {};
  return (list.size() == 1 ? list[0] : at::cat(list)).to(device_);
}

void WeightReader::same(const std::string& name, const std::string& other, const std::vector<int64_t>& shape) {
  const StoredTensor* tensor = take(name, shape);
  const StoredTensor* original = source_.find_tensor(other);
  if (mode_ == Mode::kCheck || tensor == nullptr || original == nullptr) return;
  if (!same_values(*tensor, *original, source_.path())) {
    add_problem(
        fmt::format("tensor '{}' is stored, differs from '{}', and the config says the two are one", name, other),
        "if the head is one of its own, write \"tie_word_embeddings\": false into config.json");
    finish();
  }
  release_pages(tensor->bytes);
}

void WeightReader::finish() {
  for (const StoredTensor& tensor : source_.tensors()) {
    if (taken_.contains(tensor.name) || mode_ == Mode::kRead) continue;
    add_problem(fmt::format("tensor '{}' of shape [{}] is none that this architecture has", printable(tensor.name),
                            fmt::join(tensor.shape, ", ")),
                "the model computes something that is not supported: take another model");
  }
  if (problems_.empty()) return;
  const size_t total = problems_.size();
  if (total > kShown) {
    problems_.resize(kShown);
    problems_.push_back({fmt::format("and {} more tensors are wrong", total - kShown), source_.path(), ""});
  }
  throw_if_any(ErrorKind::kData, problems_, source_.path());
}

}  // namespace kvc
