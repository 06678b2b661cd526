// Products of matrices in the model's dtype whose results are not rounded to it: logits, attention weights and Gram
// matrices need all of float32, and a GPU's tensor cores add bfloat16 products in float32 anyway.
#pragma once

#include <ATen/core/Tensor.h>

namespace kvc {

// a b in float32, a (m,k) and b (k,n) of one dtype and device, or (H,m,k) and (H,k,n). On a GPU bfloat16 is multiplied
// as it is; on the CPU it is widened first, for LibTorch has no such product there. Sums are float32.
at::Tensor float_product(const at::Tensor& a, const at::Tensor& b);

// Sets what LibTorch leaves open of products on a GPU: sums of bfloat16 and float16 products stay float32 between the
// parts of a divided sum, and float32 matrices are not rounded to TF32, whatever the environment says. Without effect
// on the CPU. Called before a model's weights go to a GPU.
void keep_products_exact();

}  // namespace kvc
