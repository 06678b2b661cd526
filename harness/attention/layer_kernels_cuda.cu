// The work between a layer's products, one launch each: what LibTorch's operations do in chains of four to twenty.
#include "harness/attention/cuda_kernel.h"
#include "harness/attention/layer_kernels_cuda.h"

namespace kvc::KVC_CUDA_NAMESPACE {
namespace {

constexpr int kLayerWarps = 4;
constexpr int kLayerThreads = kLayerWarps * kWarpLanes;

// A warp for each head of each row.
template <class T>
__global__ void __launch_bounds__(kLayerThreads)
    rotate_kernel(const RotationShape shape, const T* qkv, const T* q_norm, const T* k_norm, const float* cos,
                  const float* sin, const int64_t* positions, T* queries, T* keys) {
  const int n_heads = shape.n_query_heads + shape.n_kv_heads, d = shape.head_dim, half = d / 2;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kLayerWarps + threadIdx.x / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  if (item >= shape.n_rows * n_heads) return;  // the whole warp
  const int64_t row = item / n_heads;
  const int head = static_cast<int>(item % n_heads);
  const bool is_query = head < shape.n_query_heads;
  const T* from = qkv + (row * (n_heads + shape.n_kv_heads) + head) * d;
  T* to = is_query ? queries + (row * shape.n_query_heads + head) * d
                   : keys + (row * shape.n_kv_heads + head - shape.n_query_heads) * d;
  const T* norm = is_query ? q_norm : k_norm;
  float scale = 1;
  if (norm != nullptr) {
    float squares = 0;
    for (int i = lane; i < d; i += kWarpLanes) squares += to_float(from[i]) * to_float(from[i]);
    scale = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(d) + shape.eps);
  }
  const float* c = cos + positions[row] * half;
  const float* s = sin + positions[row] * half;
  for (int i = lane; i < half; i += kWarpLanes) {
    float first = to_float(from[i]), second = to_float(from[half + i]);
    if (norm != nullptr) {
      first = first * scale * to_float(norm[i]);
      second = second * scale * to_float(norm[half + i]);
    }
    store(to + i, first * c[i] - second * s[i]);
    store(to + half + i, second * c[i] + first * s[i]);
  }
}

// A block for each row.
template <class T>
__global__ void __launch_bounds__(kLayerThreads)
    add_norm_kernel(int64_t size, float eps, const T* a, const T* b, const T* weight, T* sum, T* normed) {
  __shared__ float parts[kLayerWarps];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * size;
  const int thread = static_cast<int>(threadIdx.x);
  float squares = 0;
  for (int64_t i = thread; i < size; i += kLayerThreads) {
    T* to = sum + row + i;
    store(to, to_float(a[row + i]) + to_float(b[row + i]));
    squares += to_float(*to) * to_float(*to);
  }
  squares = warp_sum(squares);
  if (thread % kWarpLanes == 0) parts[thread / kWarpLanes] = squares;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < kLayerWarps; ++w) total += parts[w];
  const float scale = 1.0F / sqrtf(total / static_cast<float>(size) + eps);
  for (int64_t i = thread; i < size; i += kLayerThreads) {  // each thread reads what it wrote
    store(normed + row + i, to_float(sum[row + i]) * scale * to_float(weight[i]));
  }
}

template <class T>
__global__ void __launch_bounds__(kLayerThreads)
    silu_mul_kernel(int64_t n_numbers, int64_t size, const T* gate_up, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kLayerThreads + threadIdx.x;
  if (i >= n_numbers) return;
  const int64_t at = i / size * 2 * size + i % size;
  const float gate = to_float(gate_up[at]);
  store(out + i, gate / (1.0F + expf(-gate)) * to_float(gate_up[at + size]));
}

int64_t bytes_of(Number number) {
  return number == Number::kFloat32 ? 4 : 2;
}

dim3 blocks(int64_t n, int64_t each) {
  return dim3(static_cast<unsigned>((n + each - 1) / each));
}

void count(int64_t bytes) {
  ++layer_launches().launches;
  layer_launches().bytes += bytes;
}

template <class T>
const char* rotate_as(const RotationShape& shape, const void* qkv, const void* q_norm, const void* k_norm,
                      const float* cos, const float* sin, const int64_t* positions, void* queries, void* keys,
                      CudaStream stream) {
  const int64_t items = shape.n_rows * (shape.n_query_heads + shape.n_kv_heads);
  return launch(rotate_kernel<T>, blocks(items, kLayerWarps), dim3(kLayerThreads), 0, stream, shape,
                static_cast<const T*>(qkv), static_cast<const T*>(q_norm), static_cast<const T*>(k_norm), cos, sin,
                positions, static_cast<T*>(queries), static_cast<T*>(keys));
}

template <class T>
const char* add_norm_as(int64_t n_rows, int64_t size, float eps, const void* a, const void* b, const void* weight,
                        void* sum, void* normed, CudaStream stream) {
  return launch(add_norm_kernel<T>, blocks(n_rows, 1), dim3(kLayerThreads), 0, stream, size, eps,
                static_cast<const T*>(a), static_cast<const T*>(b), static_cast<const T*>(weight), static_cast<T*>(sum),
                static_cast<T*>(normed));
}

template <class T>
const char* silu_mul_as(int64_t n_rows, int64_t size, const void* gate_up, void* out, CudaStream stream) {
  return launch(silu_mul_kernel<T>, blocks(n_rows * size, kLayerThreads), dim3(kLayerThreads), 0, stream, n_rows * size,
                size, static_cast<const T*>(gate_up), static_cast<T*>(out));
}

}  // namespace

LaunchCount& layer_launches() {
  thread_local LaunchCount counted;
  return counted;
}

const char* rotate_heads(const RotationShape& shape, const void* qkv, const void* q_norm, const void* k_norm,
                         const float* cos, const float* sin, const int64_t* positions, void* queries, void* keys,
                         CudaStream stream) {
  if (shape.head_dim % 2 != 0) return "an odd head dimension";
  if (shape.n_rows == 0) return nullptr;
  const int64_t heads = shape.n_query_heads + shape.n_kv_heads;
  count(shape.n_rows * (2 * heads * bytes_of(shape.number) + 4) * shape.head_dim);
  const auto rotate = shape.number == Number::kFloat32 ? rotate_as<float> : rotate_as<__nv_bfloat16>;
  return rotate(shape, qkv, q_norm, k_norm, cos, sin, positions, queries, keys, stream);
}

const char* add_rms_norm(Number number, int64_t n_rows, int64_t size, float eps, const void* a, const void* b,
                         const void* weight, void* sum, void* normed, CudaStream stream) {
  if (n_rows == 0 || size == 0) return nullptr;
  count(4 * n_rows * size * bytes_of(number));
  const auto add = number == Number::kFloat32 ? add_norm_as<float> : add_norm_as<__nv_bfloat16>;
  return add(n_rows, size, eps, a, b, weight, sum, normed, stream);
}

const char* silu_mul(Number number, int64_t n_rows, int64_t size, const void* gate_up, void* out, CudaStream stream) {
  if (n_rows * size == 0) return nullptr;
  count(3 * n_rows * size * bytes_of(number));
  const auto multiply = number == Number::kFloat32 ? silu_mul_as<float> : silu_mul_as<__nv_bfloat16>;
  return multiply(n_rows, size, gate_up, out, stream);
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
