#include "harness/model/elementwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "harness/attention/layer_kernels.h"
#include "harness/kv/device_numbers.h"
#include "harness/model/vector_clones.h"

namespace kvc {

namespace {

using vector::Bf16;
using vector::load;
using vector::store;

// --- loops: `n` rows at a time, called for slices of a batch
// --------------------------------------------------------------

template <class T>
KVC_INLINE float inverse_rms(const T* row, int64_t size, float eps) {
  // Sixteen sums side by side: a single one is a chain of dependent additions and cannot be vectorised.
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int64_t lane = 0; lane < 16; ++lane) sums[lane] += load(row + i + lane) * load(row + i + lane);
  }
  for (; i < size; ++i) sums[0] += load(row + i) * load(row + i);
  float total = 0;
  for (const float sum : sums) total += sum;
  return 1.0F / std::sqrt(total / static_cast<float>(size) + eps);
}

template <class T>
KVC_INLINE void norm_rows(const T* rows, const T* weight, T* out, int64_t n, int64_t size, float eps) {
  for (int64_t r = 0; r < n; ++r, rows += size, out += size) {
    const float scale = inverse_rms(rows, size, eps);
    for (int64_t i = 0; i < size; ++i) store(out + i, load(rows + i) * scale * load(weight + i));
  }
}

template <class T>
KVC_INLINE void add_norm_rows(const T* a, const T* b, const T* weight, T* sum, T* out, int64_t n, int64_t size,
                              float eps) {
  for (int64_t r = 0; r < n; ++r, a += size, b += size, sum += size, out += size) {
    for (int64_t i = 0; i < size; ++i) store(sum + i, load(a + i) + load(b + i));
    const float scale = inverse_rms(sum, size, eps);
    for (int64_t i = 0; i < size; ++i) store(out + i, load(sum + i) * scale * load(weight + i));
  }
}

// exp to about 1e-7 relative error (Cephes' polynomial), in operations that a compiler can put side by side.
KVC_INLINE float fast_exp(float x) {
  // Kept within +-87, where the result is a normal number; on the bits, as comparing floats counts as control flow.
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = std::min(bits & 0x7fffffffU, std::bit_cast<std::uint32_t>(87.0F));
  x = std::bit_cast<float>(magnitude | (bits & 0x80000000U));
  const float shifted = x * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: rounds to a whole number, left in the low bits
  const float n = shifted - 12582912.0F;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23U;
  return p * std::bit_cast<float>(exponent);
}

template <class T>
KVC_INLINE void silu_mul_rows(const T* gate_up, T* out, int64_t n, int64_t size) {
  for (int64_t r = 0; r < n; ++r, gate_up += 2 * size, out += size) {
    for (int64_t i = 0; i < size; ++i) {
      const float gate = load(gate_up + i);
      store(out + i, gate / (1.0F + fast_exp(-gate)) * load(gate_up + size + i));
    }
  }
}

template <class T>
KVC_INLINE void rotate_rows(const T* rows, int64_t stride, const T* weight, T* out, int64_t n, int64_t n_heads,
                            int64_t half, float eps, const float* cos, const float* sin, const int64_t* positions) {
  for (int64_t r = 0; r < n; ++r, rows += stride) {
    const float* c = cos + positions[r] * half;
    const float* s = sin + positions[r] * half;
    for (int64_t h = 0; h < n_heads; ++h, out += 2 * half) {
      const T* head = rows + h * 2 * half;
      if (weight != nullptr) {
        const float scale = inverse_rms(head, 2 * half, eps);
        for (int64_t i = 0; i < half; ++i) {
          const float first = load(head + i) * scale * load(weight + i);
          const float second = load(head + half + i) * scale * load(weight + half + i);
          store(out + i, first * c[i] - second * s[i]);
          store(out + half + i, second * c[i] + first * s[i]);
        }
        continue;
      }
      for (int64_t i = 0; i < half; ++i) {
        const float first = load(head + i), second = load(head + half + i);
        store(out + i, first * c[i] - second * s[i]);
        store(out + half + i, second * c[i] + first * s[i]);
      }
    }
  }
}

// Each loop once for float32 and once for bfloat16, in versions for every vector width (which a template cannot have).
#define KVC_LOOPS(T)                                                                                               \
  KVC_VECTOR_CLONES void norm_loop(const T* rows, const T* weight, T* out, int64_t n, int64_t size, float eps) {   \
    norm_rows(rows, weight, out, n, size, eps);                                                                    \
  }                                                                                                                \
  KVC_VECTOR_CLONES void add_norm_loop(const T* a, const T* b, const T* weight, T* sum, T* out, int64_t n,         \
                                       int64_t size, float eps) {                                                  \
    add_norm_rows(a, b, weight, sum, out, n, size, eps);                                                           \
  }                                                                                                                \
  KVC_VECTOR_CLONES void silu_mul_loop(const T* gate_up, T* out, int64_t n, int64_t size) {                        \
    silu_mul_rows(gate_up, out, n, size);                                                                          \
  }                                                                                                                \
  KVC_VECTOR_CLONES void rotate_loop(const T* rows, int64_t stride, const T* weight, T* out, int64_t n,            \
                                     int64_t n_heads, int64_t half, float eps, const float* cos, const float* sin, \
                                     const int64_t* positions) {                                                   \
    rotate_rows(rows, stride, weight, out, n, n_heads, half, eps, cos, sin, positions);                            \
  }
KVC_LOOPS(float)
KVC_LOOPS(Bf16)
#undef KVC_LOOPS

// --- which loop, and over which rows
// -----------------------------------------------------------------------------------------

// The loops read dense rows of float32 or bfloat16 on the CPU.
bool has_loop(const at::Tensor& rows) {
  return rows.is_cpu() && rows.is_contiguous() &&
         (rows.scalar_type() == at::kFloat || rows.scalar_type() == at::kBFloat16);
}

// body(T tag, first row, last row) in parallel, with about 16k numbers as the least worth a thread.
template <class Body>
void for_rows(const at::Tensor& rows, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, rows.size(1)));
  at::parallel_for(0, rows.size(0), grain, [&](int64_t begin, int64_t end) {
    if (rows.scalar_type() == at::kFloat) {
      body(float{}, begin, end);
    } else {
      body(Bf16{}, begin, end);
    }
  });
}

template <class T>
T* raw(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

at::Tensor plain_rms_norm(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  if (rows.is_cuda()) {  // one kernel, float32 inside
    return std::get<0>(at::_fused_rms_norm(rows.contiguous(), weight.sizes(), weight.to(rows.scalar_type()), eps));
  }
  const at::Tensor wide = rows.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * scale * weight.to(at::kFloat)).to(rows.scalar_type());
}

at::Tensor plain_rotate(at::Tensor heads, const at::Tensor& norm, double eps, const at::Tensor& cos,
                        const at::Tensor& sin) {
  const at::ScalarType dtype = heads.scalar_type();
  heads = heads.to(at::kFloat);
  if (norm.defined()) heads = plain_rms_norm(heads, norm, eps);
  const int64_t half = heads.size(2) / 2;
  const at::Tensor first = heads.narrow(2, 0, half), second = heads.narrow(2, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, 2).to(dtype);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  if (!has_loop(rows) || !weight.is_contiguous()) return plain_rms_norm(rows, weight, eps);
  at::Tensor out = at::empty_like(rows);
  const int64_t size = rows.size(1);
  for_rows(rows, [&]<class T>(T, int64_t begin, int64_t end) {
    norm_loop(raw<T>(rows) + begin * size, raw<T>(weight), raw<T>(out) + begin * size, end - begin, size,
              static_cast<float>(eps));
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight,
                                               double eps) {
  if (auto made = gpu::add_rms_norm(a, b, weight, eps)) return *std::move(made);
  if (!has_loop(a) || !has_loop(b) || !weight.is_contiguous()) {
    at::Tensor sum = a + b;
    at::Tensor norm = plain_rms_norm(sum, weight, eps);
    return {std::move(sum), std::move(norm)};
  }
  at::Tensor sum = at::empty_like(a);
  at::Tensor out = at::empty_like(a);
  const int64_t size = a.size(1);
  for_rows(a, [&]<class T>(T, int64_t begin, int64_t end) {
    const int64_t at = begin * size;
    add_norm_loop(raw<T>(a) + at, raw<T>(b) + at, raw<T>(weight), raw<T>(sum) + at, raw<T>(out) + at, end - begin, size,
                  static_cast<float>(eps));
  });
  return {std::move(sum), std::move(out)};
}

at::Tensor silu_mul(const at::Tensor& gate_up) {
  const int64_t size = gate_up.size(1) / 2;
  if (auto made = gpu::silu_mul(gate_up)) return *std::move(made);
  if (!has_loop(gate_up)) {
    const at::Tensor gate = gate_up.narrow(1, 0, size).to(at::kFloat);
    return (at::silu(gate) * gate_up.narrow(1, size, size)).to(gate_up.scalar_type());
  }
  at::Tensor out = at::empty({gate_up.size(0), size}, gate_up.options());
  for_rows(gate_up, [&]<class T>(T, int64_t begin, int64_t end) {
    silu_mul_loop(raw<T>(gate_up) + begin * 2 * size, raw<T>(out) + begin * size, end - begin, size);
  });
  return out;
}

namespace {

// Where there is no loop. positions (N) on qkv's device.
RotatedHeads plain_rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads,
                                const at::Tensor& q_norm, const at::Tensor& k_norm, double eps,
                                const RotaryTables& tables, const at::Tensor& positions) {
  if (auto made =
          gpu::rotate_heads(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, tables.cos, tables.sin, positions)) {
    return {std::move(made->first), std::move(made->second)};
  }
  const at::Tensor cos = tables.cos.index({positions}).unsqueeze(1);
  const at::Tensor sin = tables.sin.index({positions}).unsqueeze(1);
  const at::Tensor heads = qkv.view({qkv.size(0), -1, 2 * tables.cos.size(1)});
  return {plain_rotate(heads.narrow(1, 0, n_query_heads), q_norm, eps, cos, sin),
          plain_rotate(heads.narrow(1, n_query_heads, n_kv_heads), k_norm, eps, cos, sin)};
}

RotatedHeads rotate_heads_by_loop(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads,
                                  const at::Tensor& q_norm, const at::Tensor& k_norm, double eps,
                                  const RotaryTables& tables, const int64_t* positions) {
  const int64_t n = qkv.size(0), width = qkv.size(1), half = tables.cos.size(1), head_dim = 2 * half;
  const int64_t query_width = n_query_heads * head_dim;
  RotatedHeads out{at::empty({n, n_query_heads, head_dim}, qkv.options()),
                   at::empty({n, n_kv_heads, head_dim}, qkv.options())};
  const auto* cos = tables.cos.const_data_ptr<float>();
  const auto* sin = tables.sin.const_data_ptr<float>();
  for_rows(qkv, [&]<class T>(T, int64_t begin, int64_t end) {
    const T* rows = raw<T>(qkv) + begin * width;
    rotate_loop(rows, width, raw<T>(q_norm), raw<T>(out.queries) + begin * query_width, end - begin, n_query_heads,
                half, static_cast<float>(eps), cos, sin, positions + begin);
    rotate_loop(rows + query_width, width, raw<T>(k_norm), raw<T>(out.keys) + begin * n_kv_heads * head_dim,
                end - begin, n_kv_heads, half, static_cast<float>(eps), cos, sin, positions + begin);
  });
  return out;
}

}  // namespace

RotatedHeads rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                          const at::Tensor& k_norm, double eps, const RotaryTables& tables,
                          const std::vector<int64_t>& positions) {
  if (has_loop(qkv)) {
    return rotate_heads_by_loop(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, tables, positions.data());
  }
  return plain_rotate_heads(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, tables,
                            device_numbers(positions, qkv.device()));
}

RotatedHeads rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                          const at::Tensor& k_norm, double eps, const RotaryTables& tables,
                          const at::Tensor& positions) {
  if (has_loop(qkv)) {
    return rotate_heads_by_loop(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, tables,
                                positions.const_data_ptr<int64_t>());
  }
  return plain_rotate_heads(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, tables, positions);
}

}  // namespace kvc
