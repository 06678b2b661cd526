// Launchers of the kernels between a layer's products: each in one pass over memory, in float32, rounded once to the
// dtype. Raw pointers on one device, no torch header. Letters: N rows, D numbers a row, F feed-forward size, Hq query
// heads, Hkv KV heads, d head dimension. All return why they failed, or null.
#pragma once

#include <cstdint>

#include "harness/attention/cuda_launch.h"

namespace kvc::KVC_CUDA_NAMESPACE {

// Of this thread since it began; anyone may set it to nought.
LaunchCount& layer_launches();

// The first Hq + Hkv heads of qkv (N, (Hq + 2 Hkv) d), rows dense, each normalised over its own d numbers where a norm
// (d) is given (null: not), then rotated: with h the first and k the second half, (h cos - k sin, k cos + h sin). cos,
// sin (positions, d / 2) float32, positions (N) on the device. queries (N, Hq, d), keys (N, Hkv, d). d even.
struct RotationShape {
  Number number = Number::kFloat32;
  int64_t n_rows = 0;
  int n_query_heads = 0, n_kv_heads = 0, head_dim = 0;
  float eps = 0;
};
const char* rotate_heads(const RotationShape& shape, const void* qkv, const void* q_norm, const void* k_norm,
                         const float* cos, const float* sin, const int64_t* positions, void* queries, void* keys,
                         CudaStream stream);

// sum = a + b, rounded; normed = sum / sqrt(mean sum^2 + eps) * weight. All (N, D) but weight (D).
const char* add_rms_norm(Number number, int64_t n_rows, int64_t size, float eps, const void* a, const void* b,
                         const void* weight, void* sum, void* normed, CudaStream stream);

// silu(gate) up of gate_up (N, 2 F): (N, F).
const char* silu_mul(Number number, int64_t n_rows, int64_t size, const void* gate_up, void* out, CudaStream stream);

}  // namespace kvc::KVC_CUDA_NAMESPACE
