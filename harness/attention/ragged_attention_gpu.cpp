// KVC_CUDA_KERNELS: the build compiled ragged_attention_cuda.cu and links it.
#include "harness/attention/ragged_attention_gpu.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#ifdef KVC_CUDA_KERNELS
#include <cuda_runtime_api.h>
#endif

#include <algorithm>

#include "harness/attention/cuda_attention_glue.h"
#include "harness/attention/kernel_stand_in.h"

namespace kvc::gpu {

#ifdef KVC_CUDA_KERNELS

namespace {

// LibTorch's current stream; operations on it and kernels here follow one another without waiting.
CudaStream current_stream(const at::Tensor& tensor) {
  const c10::Device device = tensor.device();
  return static_cast<CudaStream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
}

}  // namespace

bool has_kernels() {
  return true;
}

void set_stand_in(const KernelStandIn*) {
  throw Error(ErrorKind::kInternal, "this build has kernels of its own", "set_stand_in", "");
}

bool has_fast_double(const c10::Device& device) {
  int ratio = 0;
  const cudaError_t refused =
      cudaDeviceGetAttribute(&ratio, cudaDevAttrSingleToDoublePrecisionPerfRatio, std::max<int>(device.index(), 0));
  return refused == cudaSuccess && ratio > 0 && ratio <= 2;
}

int64_t memory_bytes(const c10::Device& device) {
  const c10::DeviceGuard guard(device);
  size_t left = 0, all = 0;
  return cudaMemGetInfo(&left, &all) == cudaSuccess ? static_cast<int64_t>(all) : 0;
}

const char* attention_way() {
  return "FlashAttention and own CUDA kernels";
}

bool takes(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t n_kv_heads) {
  return queries.is_cuda() && cuda::kernels_take(queries, keys, values, n_kv_heads);
}

PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix) {
  const c10::DeviceGuard device(queries.device());
  return cuda::prefix_alone(queries, prefix, current_stream(queries));
}

PartialAttention tail_attention(const at::Tensor& queries, const TailView& tails) {
  const c10::DeviceGuard device(queries.device());
  return cuda::attend_parts(queries, tails.n_kv_heads(), {cuda::tail_part(tails)}, at::kFloat, current_stream(queries));
}

at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails) {
  const c10::DeviceGuard device(queries.device());
  return cuda::context(queries, prefix, tails, current_stream(queries));
}

bool write_tails(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values) {
  const at::Tensor& keys = tails.keys;
  const bool known = keys.scalar_type() == at::kFloat || keys.scalar_type() == at::kBFloat16;
  if (!keys.is_cuda() || !known || !cuda::rows_are_dense(new_keys) || !cuda::rows_are_dense(new_values)) return false;
  const c10::DeviceGuard device(keys.device());
  cuda::write(tails, new_keys, new_values, current_stream(keys));
  return true;
}

at::Tensor step_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const StepTables& tables) {
  const c10::DeviceGuard device(queries.device());
  return cuda::step_context(queries, prefix, keys, values, tables, current_stream(queries));
}

void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                const at::Tensor& new_values, const StepTables& tables) {
  if (!cuda::rows_are_dense(new_keys) || !cuda::rows_are_dense(new_values)) {
    throw Error(ErrorKind::kInternal, "new rows whose heads do not lie side by side", "write_step", "");
  }
  const c10::DeviceGuard device(keys.device());
  cuda::write_step(keys, values, new_keys, new_values, tables, current_stream(keys));
}

#else

namespace {

const KernelStandIn* g_stand_in = nullptr;

[[noreturn]] void refuse() {
  throw Error(ErrorKind::kInternal, "this program was built without CUDA kernels", "attention", "");
}

}  // namespace

void set_stand_in(const KernelStandIn* calls) {
  g_stand_in = calls;
}

const KernelStandIn* stand_in() {
  return g_stand_in;
}

bool has_kernels() {
  return false;
}

bool has_fast_double(const c10::Device&) {
  return g_stand_in != nullptr && g_stand_in->fast_double;
}

int64_t memory_bytes(const c10::Device&) {
  return g_stand_in == nullptr ? 0 : g_stand_in->memory_bytes;
}

const char* attention_way() {
  return "FlashAttention and LibTorch's operations (this build has no CUDA kernels)";
}

bool takes(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t n_kv_heads) {
  return g_stand_in != nullptr && g_stand_in->takes(queries, keys, values, n_kv_heads);
}

PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix) {
  if (g_stand_in == nullptr) refuse();
  return g_stand_in->prefix_attention(queries, prefix);
}

PartialAttention tail_attention(const at::Tensor& queries, const TailView& tails) {
  if (g_stand_in == nullptr) refuse();
  return g_stand_in->tail_attention(queries, tails);
}

at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails) {
  if (g_stand_in == nullptr) refuse();
  return g_stand_in->context_attention(queries, prefix, tails);
}

bool write_tails(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values) {
  return g_stand_in != nullptr && g_stand_in->write_tails(tails, new_keys, new_values);
}

at::Tensor step_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const StepTables& tables) {
  if (g_stand_in == nullptr) refuse();
  return g_stand_in->step_attention(queries, prefix, keys, values, tables);
}

void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                const at::Tensor& new_values, const StepTables& tables) {
  if (g_stand_in == nullptr) refuse();
  g_stand_in->write_step(keys, values, new_keys, new_values, tables);
}

#endif

}  // namespace kvc::gpu
