// What host code needs to know to call a kernel's launcher: no CUDA header, no torch header.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace kvc {

// cudaStream_t, without CUDA's headers.
using CudaStream = ::CUstream_st*;

}  // namespace kvc

// Functions that kernels and the host both call.
#ifdef __CUDACC__
#define KVC_HOST_DEVICE __host__ __device__
#else
#define KVC_HOST_DEVICE
#endif

// Tests compile the kernels for the host under another name, so that a program can hold both.
#ifndef KVC_CUDA_NAMESPACE
#define KVC_CUDA_NAMESPACE cuda
#endif

namespace kvc::KVC_CUDA_NAMESPACE {

enum class Number { kFloat32, kBfloat16 };

// How many kernels of one file were launched and how many bytes they had to read and write, by their shapes.
struct LaunchCount {
  int64_t launches = 0, bytes = 0;
};

}  // namespace kvc::KVC_CUDA_NAMESPACE
