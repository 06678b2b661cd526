#include "harness/math/double_products.h"

#include "harness/core/vector_clones.h"

namespace kvc::products {
namespace {

template <class A, class B>
KVC_INLINE double sum_of_products(const A* a, const B* b, int64_t n) {
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int64_t k = 0; k < 16; ++k) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (int64_t k = 8; k > 0; k /= 2) {
    for (int64_t j = 0; j < k; ++j) sums[j] += sums[j + k];
  }
  return sums[0];
}

// a -= w0 b0 + w1 b1 + w2 b2 + w3 b3
KVC_VECTOR_CLONES void subtract(double* a, const double* w, const float* const* b, int64_t n) {
  const float *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
  for (int64_t i = 0; i < n; ++i) {
    a[i] -= (w[0] * static_cast<double>(b0[i]) + w[1] * static_cast<double>(b1[i])) +
            (w[2] * static_cast<double>(b2[i]) + w[3] * static_cast<double>(b3[i]));
  }
}

}  // namespace

KVC_VECTOR_CLONES double dot(const double* a, const double* b, int64_t n) {
  return sum_of_products(a, b, n);
}

KVC_VECTOR_CLONES double dot(const double* a, const float* b, int64_t n) {
  return sum_of_products(a, b, n);
}

void subtract_all(std::vector<double>& a, const std::vector<double>& w, const std::vector<const float*>& b) {
  const auto n = static_cast<int64_t>(a.size());
  for (size_t i = 0; i < b.size(); i += 4) {
    double four[4] = {0, 0, 0, 0};
    const float* from[4] = {b[i], b[i], b[i], b[i]};
    for (size_t k = 0; k < 4 && i + k < b.size(); ++k) {
      four[k] = w[i + k];
      from[k] = b[i + k];
    }
    subtract(a.data(), four, from, n);
  }
}

}  // namespace kvc::products
