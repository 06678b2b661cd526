// Float64 dot products and updates of long columns, for loops in which a tensor library's calls would cost more than
// the arithmetic.
#pragma once

#include <cstdint>
#include <vector>

namespace kvc::products {

double dot(const double* a, const double* b, int64_t n);
double dot(const double* a, const float* b, int64_t n);

// a -= sum of w[i] b[i]; each b[i] is as long as a.
void subtract_all(std::vector<double>& a, const std::vector<double>& w, const std::vector<const float*>& b);

}  // namespace kvc::products
