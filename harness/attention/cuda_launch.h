// What host code needs to know to call a kernel's launcher: no CUDA header, no torch header.
#pragma once

struct CUstream_st;

namespace kvc {

// cudaStream_t, without CUDA's headers.
using CudaStream = ::CUstream_st*;

}  // namespace kvc

// Tests compile the kernels for the host under another name, so that a program can hold both.
#ifndef KVC_CUDA_NAMESPACE
#define KVC_CUDA_NAMESPACE cuda
#endif

namespace kvc::KVC_CUDA_NAMESPACE {

enum class Number { kFloat32, kBfloat16 };

}  // namespace kvc::KVC_CUDA_NAMESPACE
