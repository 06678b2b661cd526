// Kernels are launched by name only, and counted.
#define KVC_COUNT_LAUNCHES_ONLY 1
#define KVC_CUDA_NAMESPACE counted_cuda
#include "harness/testing/cuda_emulation.h"
// The kernels, under the emulation's names.
#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/attention/cuda_layer_glue.h"
#include "harness/attention/cuda_pursuit_glue.h"
#include "harness/attention/cuda_statistics_glue.h"
#include "harness/attention/kernel_stand_in.h"
#include "harness/attention/layer_kernels_cuda.cu"
#include "harness/attention/pursuit_cuda.cu"
#include "harness/attention/ragged_attention_cuda.cu"
#include "harness/attention/tensor_attention_cuda.cu"
#include "harness/testing/pretended_gpu.h"

namespace kvc::pretended {
namespace {

GpuCounts& gpu_counts() {
  static GpuCounts counts;
  return counts;
}

// Remembers which GPUs were made the current one.
struct DeviceGuardImpl final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device device) const override {
    setDevice(device);
    return NoOpDeviceGuardImpl::exchangeDevice(device);
  }
  void setDevice(c10::Device device) const override { gpu_counts().made_current.insert(device.index()); }
};

const c10::Device kGpu{c10::DeviceType::CUDA, 0};

void count(const std::string& name, int64_t bytes) {
  GpuCounts& counts = gpu_counts();
  ++counts.launches;
  counts.bytes += bytes;
  ++counts.by_name[name];
}

bool is_there(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_cuda();
}

at::Tensor pretend(at::IntArrayRef sizes, at::IntArrayRef strides, caffe2::TypeMeta dtype, c10::Device device) {
  const auto bytes = static_cast<int64_t>(at::detail::computeStorageNbytes(sizes, strides, dtype.itemsize()));
  // An address that nobody reads, so that pointers can be handed to launchers.
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes,
                       c10::DataPtr(reinterpret_cast<void*>(uintptr_t{1} << 20U), device), nullptr, false);
  at::Tensor tensor =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

at::Tensor pretend(at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device) {
  const at::Tensor shape = at::empty(sizes, at::TensorOptions(c10::kMeta).dtype(dtype));
  return pretend(shape.sizes(), shape.strides(), shape.dtype(), device);
}

int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * static_cast<int64_t>(tensor.itemsize()) : 0;
}

// An operation under way on the meta device: which of its tensors stand for which. All are of one GPU, but for copies.
class Call {
 public:
  explicit Call(std::string name) : name_(std::move(name)) {}
  c10::IValue there(const c10::IValue& value) {
    if (value.isTensor()) return twin(value.toTensor());
    if (value.isDevice() && value.toDevice().is_cuda()) {
      where_ = c10::Device(c10::kCUDA, std::max<c10::DeviceIndex>(value.toDevice().index(), 0));
      return c10::IValue(c10::Device(c10::kMeta));
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(twin(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<at::Tensor>(twin(*tensor)) : std::nullopt);
      }
      return list;
    }
    return value;
  }
  c10::IValue back(const c10::IValue& value) {
    if (value.isTensor()) return origin(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(origin(tensor));
      return list;
    }
    return value;
  }
  int64_t bytes() const { return bytes_; }

 private:
  at::Tensor twin(const at::Tensor& tensor) {
    // Numbers without a device of their own go with any.
    if (!tensor.defined() || (!tensor.is_cuda() && tensor.dim() == 0)) return tensor;
    if (tensor.is_cuda()) {
      const c10::Device device(c10::kCUDA, tensor.device().index());
      if (!where_) where_ = device;
      TORCH_CHECK(name_ == "aten::copy_" || *where_ == device, name_, " of tensors on GPUs ", where_->str(), " and ",
                  device.str());
    }
    for (const auto& [meta, known] : twins_) {
      if (known.is_same(tensor)) return meta;
    }
    at::Tensor meta =
        at::empty_strided(tensor.sizes(), tensor.strides(), at::TensorOptions(c10::kMeta).dtype(tensor.scalar_type()));
    twins_.emplace_back(meta, tensor);
    bytes_ += bytes_of(tensor);
    return meta;
  }
  at::Tensor origin(const at::Tensor& meta) {
    if (!meta.defined() || !meta.is_meta()) return meta;
    for (const auto& [twin, known] : twins_) {
      if (!twin.is_same(meta)) continue;
      if (known.sizes() != meta.sizes()) {
        known.unsafeGetTensorImpl()->set_sizes_and_strides(meta.sizes(), meta.strides());
      }
      return known;
    }
    bytes_ += bytes_of(meta);
    return pretend(meta.sizes(), meta.strides(), meta.dtype(), where_.value_or(kGpu));
  }

  std::string name_;
  std::optional<c10::Device> where_;
  std::vector<std::pair<at::Tensor, at::Tensor>> twins_;
  int64_t bytes_ = 0;
};

bool starts_nothing(std::string_view name) {
  constexpr std::array kNames = {
      "aten::empty",        "aten::as_strided", "aten::view",    "aten::_reshape_alias", "aten::alias",
      "aten::detach",       "aten::expand",     "aten::select",  "aten::slice",          "aten::unfold",
      "aten::transpose",    "aten::permute",    "aten::t",       "aten::squeeze",        "aten::unsqueeze",
      "aten::diagonal",     "aten::resize_",    "aten::split",   "aten::unbind",         "aten::lift",
      "aten::_unsafe_view", "aten::narrow",     "aten::set_",    "aten::empty_strided",  "aten::lift_fresh",
      "aten::new_empty",    "aten::empty_like", "aten::squeeze_"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

// Of operations that read or write what an index names and leave the rest of self alone. arguments: self, dim, index.
std::optional<int64_t> indexed_bytes(std::string_view name, const std::vector<c10::IValue>& arguments,
                                     const torch::jit::Stack& results) {
  const bool in_place = name == "aten::scatter" && results.back().toTensor().is_same(arguments[0].toTensor());
  if (!in_place && name != "aten::gather") return std::nullopt;
  const at::Tensor index = arguments[2].toTensor();
  return index.numel() * static_cast<int64_t>(sizeof(int64_t) + 2 * arguments[0].toTensor().itemsize());
}

// Whether a GPU's blocks add floating-point numbers in an order that differs from run to run: of LibTorch's list
// (torch.use_deterministic_algorithms), what this project might call.
bool is_a_race(std::string_view name, const std::vector<c10::IValue>& arguments) {
  constexpr std::array kNames = {"aten::index_add", "aten::index_add_", "aten::scatter_add", "aten::scatter_add_",
                                 "aten::put_",      "aten::histc",      "aten::bincount"};
  if (arguments.empty() || !arguments[0].isTensor()) return false;
  const at::Tensor self = arguments[0].toTensor();
  if (name == "aten::bincount") return arguments[1].isTensor() && arguments[1].toTensor().defined();
  if (!self.is_floating_point()) return false;
  // A single line is scanned by blocks that wait for whichever is ready (cub::DeviceScan).
  if (name == "aten::cumsum") return self.dim() > 0 && self.numel() == self.size(arguments[1].toInt());
  if (name == "aten::index_put_" || name == "aten::_index_put_impl_") return arguments[3].toBool();
  if (name.starts_with("aten::scatter_reduce")) return arguments[4].toStringRef()[0] != 'a';  // but amax and amin
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

void on_meta(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string& name = op.schema().name();
  const size_t n = op.schema().arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<int64_t>(n), stack->end());
  stack->resize(stack->size() - n);
  if (name == "aten::_local_scalar_dense") {
    ++gpu_counts().waits;
    stack->emplace_back(at::ones({}, arguments[0].toTensor().scalar_type()).item());
    return;
  }
  if (name == "aten::equal") {
    ++gpu_counts().waits;
    stack->emplace_back(false);
    return;
  }
  if (name == "aten::copy_" && !is_there(arguments[0].toTensor())) {
    ++gpu_counts().waits;
    const at::Tensor to = arguments[0].toTensor();
    stack->emplace_back(to.scalar_type() == at::kBool ? to.fill_(false) : to.fill_(1));
    return;
  }
  if (is_a_race(name, arguments)) ++gpu_counts().races[name];
  // From memory that is not pinned the host waits for what the GPU does before the copy, and for the copy.
  const bool sent = name == "aten::copy_" && !is_there(arguments[1].toTensor());
  if (sent && !arguments[2].toBool()) ++gpu_counts().waits;
  Call call(name);
  torch::jit::Stack inner;
  for (const c10::IValue& argument : arguments) inner.push_back(call.there(argument));
  op.callBoxed(&inner);
  for (const c10::IValue& result : inner) stack->push_back(call.back(result));
  if (!starts_nothing(name)) count(name, indexed_bytes(name, arguments, *stack).value_or(call.bytes()));
}

// Operations that only a GPU has, by their shapes.

at::Tensor mm_to(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) {
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && a.scalar_type() == b.scalar_type());
  at::Tensor out = pretend({a.size(0), b.size(1)}, dtype, a.device());
  count("aten::mm", bytes_of(a) + bytes_of(b) + bytes_of(out));
  return out;
}

at::Tensor bmm_to(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) {
  TORCH_CHECK(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && a.size(2) == b.size(1) &&
              a.scalar_type() == b.scalar_type());
  at::Tensor out = pretend({a.size(0), a.size(1), b.size(2)}, dtype, a.device());
  count("aten::bmm", bytes_of(a) + bytes_of(b) + bytes_of(out));
  return out;
}

at::Tensor& baddbmm_to(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype,
                       const at::Scalar& beta, const at::Scalar& /*alpha*/, at::Tensor& out) {
  TORCH_CHECK(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && a.size(2) == b.size(1) &&
              a.scalar_type() == b.scalar_type() && out.scalar_type() == dtype);
  const std::vector<int64_t> shape = {a.size(0), a.size(1), b.size(2)};
  TORCH_CHECK(out.sizes() == at::IntArrayRef(shape) && self.sizes() == out.sizes());
  count("aten::baddbmm", bytes_of(a) + bytes_of(b) + bytes_of(out) * (beta.to<double>() == 0 ? 1 : 2));
  return out;
}

std::tuple<at::Tensor, at::Tensor> fused_rms_norm(const at::Tensor& input, at::IntArrayRef shape,
                                                  const std::optional<at::Tensor>& weight, std::optional<double>) {
  TORCH_CHECK(shape.size() == 1 && input.size(-1) == shape[0] && (!weight || weight->sizes() == shape));
  at::Tensor out = pretend(input.sizes(), input.scalar_type(), input.device());
  count("aten::_fused_rms_norm", bytes_of(input) + bytes_of(out));
  return {out, pretend({1}, at::kFloat, input.device())};
}

// Its optional arguments differ among LibTorch's versions.
void flash_attention(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t n = op.schema().arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<int64_t>(n), stack->end());
  stack->resize(stack->size() - n);
  const auto tensor = [&](size_t i) { return arguments[i].toTensor(); };
  const at::Tensor query = tensor(0), key = tensor(1), value = tensor(2), query_offsets = tensor(3),
                   key_offsets = tensor(4);
  TORCH_CHECK(query.dim() == 3 && key.sizes() == value.sizes() && query.size(2) == key.size(2) &&
              query.scalar_type() == at::kBFloat16 && query_offsets.scalar_type() == at::kInt &&
              query_offsets.sizes() == key_offsets.sizes() && query.size(1) % key.size(1) == 0);
  const at::Tensor sums = pretend({query.size(1), query.size(0)}, at::kFloat, query.device());
  count("aten::_flash_attention_forward", 2 * bytes_of(query) + bytes_of(key) + bytes_of(value) + bytes_of(sums));
  stack->emplace_back(pretend(query.sizes(), query.scalar_type(), query.device()));
  stack->emplace_back(sums);
  for (size_t i = 2; i < op.schema().returns().size(); ++i)
    stack->emplace_back(pretend({1}, at::kLong, query.device()));
}

// Operations of all devices whose shapes LibTorch knows in Python only.

at::Tensor index_select(const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  TORCH_CHECK(index.dim() == 1 && index.is_cuda() && index.scalar_type() == at::kLong);
  std::vector<int64_t> shape = self.sizes().vec();
  shape[static_cast<size_t>(dim < 0 ? dim + self.dim() : dim)] = index.size(0);
  at::Tensor out = pretend(shape, self.scalar_type(), self.device());
  count("aten::index_select", 2 * bytes_of(out));
  return out;
}

at::Tensor count_nonzero(const at::Tensor& self, at::IntArrayRef dims) {
  TORCH_CHECK(dims.empty());
  count("aten::count_nonzero", bytes_of(self));
  return pretend(at::IntArrayRef{}, at::kLong, self.device());
}

// How many there are is a number: as if all.
at::Tensor nonzero(const at::Tensor& self) {
  ++gpu_counts().waits;
  count("aten::nonzero", 2 * bytes_of(self));
  return pretend({self.numel(), self.dim()}, at::kLong, self.device());
}

at::Tensor standard_deviation(const at::Tensor& self, at::OptionalIntArrayRef dims, const std::optional<at::Scalar>&,
                              bool keepdim) {
  return self.sum(dims, keepdim);
}

at::Tensor search_sorted(const at::Tensor& sorted, const at::Tensor& self, bool, bool, std::optional<c10::string_view>,
                         const std::optional<at::Tensor>&) {
  TORCH_CHECK(sorted.is_cuda() && self.is_cuda() && sorted.scalar_type() == self.scalar_type());
  count("aten::searchsorted", bytes_of(sorted) + bytes_of(self));
  return pretend(self.sizes(), at::kLong, self.device());
}

at::Tensor solve_by_cholesky(const at::Tensor& self, const at::Tensor& factor, bool) {
  TORCH_CHECK(self.size(-2) == factor.size(-1) && self.scalar_type() == factor.scalar_type());
  count("aten::_cholesky_solve_helper", bytes_of(factor) + 2 * bytes_of(self));
  return pretend(self.sizes(), self.scalar_type(), self.device());
}

at::Tensor one_of_all(const at::Tensor& self) {  // max, min
  count("aten::max", bytes_of(self));
  return pretend(at::IntArrayRef{}, self.scalar_type(), self.device());
}

at::Tensor solve_triangular(const at::Tensor& a, const at::Tensor& b, bool, bool, bool) {
  TORCH_CHECK(a.dim() == b.dim() && a.size(-1) == a.size(-2) && a.size(-1) == b.size(-2) &&
              a.scalar_type() == b.scalar_type());
  at::Tensor out = pretend(b.sizes(), b.scalar_type(), b.device());
  count("aten::linalg_solve_triangular", bytes_of(a) + 2 * bytes_of(b));
  return out;
}

at::Tensor where(const at::Tensor& condition, const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(condition.scalar_type() == at::kBool);
  const std::vector<int64_t> shape = at::infer_size(at::infer_size(condition.sizes(), a.sizes()), b.sizes());
  at::Tensor out = pretend(shape, at::result_type(a, b), condition.device());
  count("aten::where", bytes_of(condition) + bytes_of(a) + bytes_of(b) + bytes_of(out));
  return out;
}

// out of the shape to which the other tensors broadcast, number by number.
void each_number(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t n = op.schema().arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<int64_t>(n), stack->end());
  stack->resize(stack->size() - n);
  const at::Tensor out = arguments.back().toTensor();
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  for (size_t i = 0; i + 1 < n; ++i) {
    if (!arguments[i].isTensor()) continue;
    shape = at::infer_size(shape, arguments[i].toTensor().sizes());
    bytes += bytes_of(arguments[i].toTensor());
  }
  if (out.sizes() != at::IntArrayRef(shape)) out.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  count(op.schema().name(), bytes + bytes_of(out));
  stack->emplace_back(out);
}

gpu::KernelStandIn counted_kernels() {
  namespace glue = counted_cuda;
  gpu::KernelStandIn calls;
  calls.memory_bytes = int64_t{139} << 30;  // an H200's
  calls.fast_double = true;                 // likewise
  calls.takes = [](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t n_kv_heads) {
    return queries.is_cuda() && glue::kernels_take(queries, keys, values, n_kv_heads);
  };
  calls.prefix_attention = [](const at::Tensor& queries, const LayerKv& prefix) {
    return glue::prefix_alone(queries, prefix, nullptr);
  };
  calls.tail_attention = [](const at::Tensor& queries, const TailView& tails) {
    return glue::attend_parts(queries, tails.n_kv_heads(), {glue::tail_part(tails)}, at::kFloat, nullptr);
  };
  calls.context_attention = [](const at::Tensor& queries, const LayerKv& prefix, const TailView& tails) {
    return glue::context(queries, prefix, tails, nullptr);
  };
  calls.write_tails = [](const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values) {
    if (!tails.keys.is_cuda() || !glue::rows_are_dense(new_keys) || !glue::rows_are_dense(new_values)) return false;
    glue::write(tails, new_keys, new_values, nullptr);
    return true;
  };
  calls.step_attention = [](const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                            const at::Tensor& values, const StepTables& tables) {
    return glue::step_context(queries, prefix, keys, values, tables, nullptr);
  };
  calls.write_step = [](const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                        const at::Tensor& new_values, const StepTables& tables) {
    glue::write_step(keys, values, new_keys, new_values, tables, nullptr);
  };
  calls.rotate_heads = [](const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                          const at::Tensor& k_norm, double eps, const at::Tensor& cos, const at::Tensor& sin,
                          const at::Tensor& positions) {
    return glue::rotate(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, cos, sin, positions, nullptr);
  };
  calls.add_rms_norm = [](const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight, double eps) {
    return glue::add_and_norm(a, b, weight, eps, nullptr);
  };
  calls.silu_mul = [](const at::Tensor& gate_up) { return glue::gate(gate_up, nullptr); };
  calls.attention_statistics = [](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                  const at::Tensor& values, KeySum sum, const RowReach& reach) {
    return glue::statistics(queries, keys, bias, values, sum, reach, nullptr);
  };
  calls.pursuit_kernels = {glue::kMostCandidates,
                           [](const PursuitTensors& heads, const std::vector<int64_t>& rows) {
                             return glue::pursuit_rest(heads, rows, nullptr);
                           },
                           [](const PursuitTensors& heads, const PursuitIteration& now) {
                             return glue::pursuit_advance(heads, now, nullptr);
                           }};
  return calls;
}

}  // namespace

GpuCounts take_gpu_counts() {
  // Of own kernels the launchers say what they read and write.
  GpuCounts taken = std::exchange(gpu_counts(), {});
  taken.bytes += std::exchange(counted_cuda::layer_launches(), {}).bytes;
  taken.bytes += std::exchange(counted_cuda::attention_launches(), {}).bytes;
  taken.bytes += std::exchange(counted_cuda::column_launches(), {}).bytes;
  taken.bytes += std::exchange(counted_cuda::pursuit_launches(), {}).bytes;
  return taken;
}

bool install_gpu() {
  if (at::hasCUDA()) return false;
  static const bool installed = [] {
    c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::DeviceType::CUDA)].store(new DeviceGuardImpl());
    static torch::Library all(torch::Library::IMPL, "_", c10::DispatchKey::CUDA, __FILE__, __LINE__);
    all.fallback(torch::CppFunction::makeFromBoxedFunction<&on_meta>());
    static torch::Library some(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
    // Written for every device, by kernels that each brings along.
    for (const char* name : {"copy_", "linalg_vector_norm.out", "fill_.Scalar", "zero_"}) {
      some.impl(name, torch::CppFunction::makeFromBoxedFunction<&on_meta>());
    }
    some.impl("mm.dtype", TORCH_FN(mm_to));
    some.impl("bmm.dtype", TORCH_FN(bmm_to));
    some.impl("baddbmm.dtype_out", TORCH_FN(baddbmm_to));
    for (const char* name : {"abs.out", "logical_not.out", "logical_and.out", "logical_or.out"}) {
      some.impl(name, torch::CppFunction::makeFromBoxedFunction<&each_number>());
    }
    some.impl("index_select", TORCH_FN(index_select));
    some.impl("max", TORCH_FN(one_of_all));
    some.impl("min", TORCH_FN(one_of_all));
    some.impl("count_nonzero.dim_IntList", TORCH_FN(count_nonzero));
    some.impl("nonzero", TORCH_FN(nonzero));
    some.impl("std.correction", TORCH_FN(standard_deviation));
    some.impl("searchsorted.Tensor", TORCH_FN(search_sorted));
    some.impl("_cholesky_solve_helper", TORCH_FN(solve_by_cholesky));
    some.impl("linalg_solve_triangular", TORCH_FN(solve_triangular));
    some.impl("where.self", TORCH_FN(where));
    some.impl("_fused_rms_norm", TORCH_FN(fused_rms_norm));
    some.impl("_flash_attention_forward", torch::CppFunction::makeFromBoxedFunction<&flash_attention>());
    static const gpu::KernelStandIn calls = counted_kernels();
    gpu::set_stand_in(&calls);
    emulation::counting::seen() = [] { count("own kernel", 0); };
    return true;
  }();
  return installed;
}

}  // namespace kvc::pretended
