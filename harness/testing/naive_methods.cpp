#include "harness/testing/naive_methods.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace kvc {
namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix to_matrix(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous();
  Matrix m(static_cast<size_t>(flat.size(0)), std::vector<double>(static_cast<size_t>(flat.size(1))));
  for (size_t i = 0; i < m.size(); ++i) {
    for (size_t j = 0; j < m[i].size(); ++j) {
      m[i][j] = flat.const_data_ptr<double>()[i * static_cast<size_t>(flat.size(1)) + j];
    }
  }
  return m;
}

Matrix naive_logits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
  const Matrix q = to_matrix(queries), k = to_matrix(keys);
  Matrix s(q.size(), std::vector<double>(k.size()));
  for (size_t i = 0; i < q.size(); ++i) {
    for (size_t j = 0; j < k.size(); ++j) {
      double dot = 0;
      for (size_t c = 0; c < q[i].size(); ++c) dot += q[i][c] * k[j][c];
      s[i][j] = dot / std::sqrt(static_cast<double>(q[i].size()));
      if (bias.defined()) s[i][j] += bias[static_cast<int64_t>(j)].item<double>();
    }
  }
  return s;
}

// argmin ||A x - b|| column by column: Householder QR, which squares no condition number.
Matrix householder_least_squares(Matrix a, Matrix b) {
  const size_t n = a.size(), t = a[0].size(), m = b[0].size();
  for (size_t k = 0; k < t; ++k) {
    double norm = 0;
    for (size_t i = k; i < n; ++i) norm += a[i][k] * a[i][k];
    norm = std::sqrt(norm);
    const double alpha = a[k][k] > 0 ? -norm : norm;
    std::vector<double> v(n, 0.0);
    for (size_t i = k; i < n; ++i) v[i] = a[i][k];
    v[k] -= alpha;
    const double length = std::inner_product(v.begin(), v.end(), v.begin(), 0.0);
    const auto reflect = [&](Matrix& x, size_t column) {
      double dot = 0;
      for (size_t i = k; i < n; ++i) dot += v[i] * x[i][column];
      for (size_t i = k; i < n; ++i) x[i][column] -= 2 * dot / length * v[i];
    };
    for (size_t j = k; j < t; ++j) reflect(a, j);
    for (size_t j = 0; j < m; ++j) reflect(b, j);
  }
  Matrix x(t, std::vector<double>(m));
  for (size_t j = 0; j < m; ++j) {
    for (size_t k = t; k-- > 0;) {
      double rest = b[k][j];
      for (size_t l = k + 1; l < t; ++l) rest -= a[k][l] * x[l][j];
      x[k][j] = rest / a[k][k];
    }
  }
  return x;
}

std::vector<int64_t> best_by_rms(const Matrix& weights, int64_t target_len) {
  const size_t T = weights[0].size();
  std::vector<double> scores(T, 0.0);
  for (size_t j = 0; j < T; ++j) {
    for (const auto& row : weights) scores[j] += row[j] * row[j];
  }
  std::vector<int64_t> order(T);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(target_len));
  return order;
}

// Weights and mass of every row, relative to exp(row maximum).
std::pair<Matrix, std::vector<double>> exp_rows(Matrix s) {
  std::vector<double> sums;
  for (auto& row : s) {
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (double& value : row) sum += value = std::exp(value - largest);
    sums.push_back(sum);
  }
  return {s, sums};
}

Matrix columns(const Matrix& m, const std::vector<int64_t>& indices) {
  Matrix part(m.size());
  for (size_t i = 0; i < m.size(); ++i) {
    for (const int64_t j : indices) part[i].push_back(m[i][static_cast<size_t>(j)]);
  }
  return part;
}

}  // namespace

NaiveAttention naive_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                               const at::Tensor& bias) {
  const Matrix s = naive_logits(queries, keys, bias), v = to_matrix(values);
  const auto [e, sums] = exp_rows(s);
  NaiveAttention result;
  for (size_t i = 0; i < s.size(); ++i) {
    result.log_mass.push_back(std::log(sums[i]) + *std::max_element(s[i].begin(), s[i].end()));
    std::vector<double> output(v[0].size(), 0.0);
    for (size_t j = 0; j < v.size(); ++j) {
      for (size_t c = 0; c < output.size(); ++c) output[c] += e[i][j] / sums[i] * v[j][c];
    }
    result.output.push_back(std::move(output));
  }
  return result;
}

NaiveMatching naive_attention_matching(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                       const at::Tensor& bias, int64_t target_len,
                                       const NaiveMatchingSettings& settings) {
  const Matrix s = naive_logits(queries, keys, bias);
  const auto [e, mass] = exp_rows(s);
  Matrix weights = e;
  for (size_t i = 0; i < weights.size(); ++i) {
    for (double& value : weights[i]) value /= mass[i];
  }
  NaiveMatching result;
  result.indices = best_by_rms(weights, target_len);
  std::vector<double> log_w(result.indices.size(), 0.0);
  if (settings.fit_bias) {
    Matrix y;
    for (const double sum : mass) y.push_back({sum});
    const Matrix w = householder_least_squares(columns(e, result.indices), y);
    for (size_t j = 0; j < w.size(); ++j) {
      log_w[j] = std::log(std::clamp(w[j][0], std::exp(-settings.bias_bound), std::exp(settings.bias_bound)));
    }
  }
  for (size_t j = 0; j < log_w.size(); ++j) {
    result.bias.push_back(log_w[j] + (bias.defined() ? bias[result.indices[j]].item<double>() : 0.0));
  }
  if (!settings.fit_values) {
    const Matrix v = to_matrix(values);
    for (const int64_t index : result.indices) result.values.push_back(v[static_cast<size_t>(index)]);
    return result;
  }
  Matrix x = columns(s, result.indices);
  for (auto& row : x) {
    for (size_t j = 0; j < row.size(); ++j) row[j] += log_w[j];
  }
  auto [x_exp, x_sums] = exp_rows(x);
  for (size_t i = 0; i < x_exp.size(); ++i) {
    for (double& value : x_exp[i]) value /= x_sums[i];
  }
  result.values = householder_least_squares(x_exp, naive_attention(queries, keys, values, bias).output);
  return result;
}

}  // namespace kvc
