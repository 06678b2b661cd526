#include "harness/api/head_errors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace kvc {
namespace {

struct Exact {
  at::Tensor log_mass;  // (c) float64
  at::Tensor output;    // (c, d) float64
};

Exact attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias) {
  const double scale = 1 / std::sqrt(static_cast<double>(keys.size(1)));
  at::Tensor logits = at::matmul(queries.to(at::kFloat), keys.to(at::kFloat).t()).to(at::kDouble).mul_(scale);
  if (bias.defined()) logits.add_(bias.to(at::kDouble));
  const at::Tensor log_mass = at::logsumexp(logits, {1});
  const at::Tensor weights = logits.sub_(log_mass.unsqueeze(1)).exp_();
  return {log_mass, at::matmul(weights.to(at::kFloat), values.to(at::kFloat)).to(at::kDouble)};
}

double total(const at::Tensor& values) {
  return values.sum().item<double>();
}
double largest(const at::Tensor& values) {
  return values.max().item<double>();
}

}  // namespace

Json HeadErrors::to_json() const {
  return Json{{"n_queries", n_queries},
              {"mass_relative_rms", mass_relative_rms},
              {"mass_relative_max", mass_relative_max},
              {"log_mass_mean_abs", log_mass_mean_abs},
              {"output_relative", output_relative},
              {"output_relative_max", output_relative_max},
              {"cosine_mean", cosine_mean}};
}

HeadErrors head_errors(const HeadProblem& problem, const HeadFit& fit, const at::Tensor& queries) {
  HeadErrors errors;
  errors.n_queries = queries.size(0);
  const int64_t chunk = std::max<int64_t>(1, (int64_t{1} << 24) / std::max<int64_t>(1, problem.keys.size(0)));
  double squares = 0;
  double exact_squares = 0;
  for (int64_t first = 0; first < errors.n_queries; first += chunk) {
    const at::Tensor some = queries.narrow(0, first, std::min(chunk, errors.n_queries - first));
    const Exact a = attend(some, problem.keys, problem.values, problem.bias);
    const Exact b = attend(some, fit.keys, fit.values, fit.bias);
    const at::Tensor log_ratio = b.log_mass - a.log_mass;
    const at::Tensor relative = at::expm1(log_ratio).abs();
    errors.mass_relative_rms += total(relative.square());
    errors.mass_relative_max = std::max(errors.mass_relative_max, largest(relative));
    errors.log_mass_mean_abs += total(log_ratio.abs());
    const at::Tensor exact_norm = at::norm(a.output, 2, 1).clamp_min(1e-30);
    const at::Tensor distance = at::norm(b.output - a.output, 2, 1);
    squares += total(distance.square());
    exact_squares += total(exact_norm.square());
    errors.output_relative_max = std::max(errors.output_relative_max, largest(distance / exact_norm));
    const at::Tensor norms = exact_norm * at::norm(b.output, 2, 1).clamp_min(1e-30);
    errors.cosine_mean += total((a.output * b.output).sum(1) / norms);
  }
  const auto n = static_cast<double>(std::max<int64_t>(1, errors.n_queries));
  errors.mass_relative_rms = std::sqrt(errors.mass_relative_rms / n);
  errors.log_mass_mean_abs /= n;
  errors.cosine_mean /= n;
  errors.output_relative = exact_squares > 0 ? std::sqrt(squares / exact_squares) : 0;
  return errors;
}

HeadOutput head_output(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                       const at::Tensor& queries) {
  const int64_t n = queries.size(0), n_entries = keys.size(0);
  HeadOutput result{at::full({n}, -INFINITY, queries.options().dtype(at::kDouble)),
                    at::zeros({n, queries.size(1)}, queries.options().dtype(at::kFloat))};
  if (n_entries == 0) return result;
  const at::Tensor float_keys = keys.to(at::kFloat).t(), float_values = values.to(at::kFloat);
  const double scale = 1 / std::sqrt(static_cast<double>(keys.size(1)));
  const int64_t chunk = std::max<int64_t>(1, (int64_t{1} << 24) / n_entries);
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t count = std::min(chunk, n - first);
    at::Tensor logits = at::matmul(queries.narrow(0, first, count).to(at::kFloat), float_keys).mul_(scale);
    if (bias.defined()) logits.add_(bias);
    const at::Tensor log_mass = at::logsumexp(logits, {1});
    result.log_mass.narrow(0, first, count).copy_(log_mass);
    at::Tensor rows = result.output.narrow(0, first, count);
    at::matmul_out(rows, logits.sub_(log_mass.unsqueeze(1)).exp_(), float_values);
  }
  return result;
}

}  // namespace kvc
