// Linear least squares, plain and with box constraints, by the Gram matrix in float64.
//
// Letters: A (n,t) one row per equation, B (n,m) or y (n) right-hand sides, G = A^T A (t,t).
//
// Data are float32. Up to 31 columns products and solves are float64, so that the squared condition number of G costs
// nothing that float32 data had: singular values down to kRankCutoff of the largest are resolved, those below are noise
// of the data and are left out. From 32 on G and its factor are tried in float32, at half the cost, and the solution is
// refined until an estimate of its relative error is below 3e-6 (one step as a rule, three at most): at first with
// residuals by float32 products, where an estimate of what their rounding does allows it, else in float64. Where steps
// do not shrink fivefold (condition number of the normed columns in the thousands) float64 does all of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace kvc {

// Singular values below this part of the largest count as zero. About sqrt(n eps) of float64 for n = 4096 (what a Gram
// matrix can still tell from rounding), and what float32 solvers use too (eps * max(n, t)).
inline constexpr double kRankCutoff = 1e-6;

// The precision in which products are made first. kRefined: as described above. kDouble: everything in float64, for
// GPUs whose float64 products are about as fast as their float32 ones (A100, H100, H200): one product a Gram matrix, no
// refinement of a float32 factor and none of its waits.
enum class FitRoute : std::uint8_t { kRefined, kDouble };

// The route of data on a GPU where the caller names none; kRefined until a model is loaded to such a GPU. Data on the
// CPU are always kRefined.
FitRoute gpu_fit_route();
void set_gpu_fit_route(FitRoute route);

enum class LeastSquaresSolver : std::uint8_t {
  kCholesky,      // of the Gram matrix, with iterative refinement
  kEigenvectors,  // the fallback: rank-revealing, minimum-norm solution
};

struct LeastSquares {
  at::Tensor solution;       // (t,m), or (t) for a vector; float32
  double residual_norm = 0;  // ||A X - B||_F
  int64_t rank = 0;
  LeastSquaresSolver solver = LeastSquaresSolver::kCholesky;
};

// argmin_X ||A X - B||_F; where it is not unique (n < t, dependent columns) the X of smallest norm. A, B float32 on one
// device. Cost, where n >= t >= 32 and columns are not close to dependent: 1.1 n t^2 flops in float32 for the Gram
// matrix, t^3 / 3 for its factor, 6 n t m for the solution and its refinement, 4 n t m in float64 for each further
// step. Else 2 n t min(n,t) in float64 (five eighths of it, by symmetry, where n >= t) and min(n,t)^3 / 3; the
// eigenvectors about 10 min(n,t)^3. Where n >= t only a few hundred rows are in float64 at a time. Memory beyond A: 8
// t^2 bytes in float32, 24 t^2 in float64. Throws Error(kInternal) on non-finite input or shapes that contradict each
// other.
LeastSquares least_squares(const at::Tensor& a, const at::Tensor& b, std::optional<FitRoute> route = {});

// What a ridge is measured by: the squared spectral norm of A, its squared Frobenius norm over t, or 1.
enum class RidgeScale : std::uint8_t { kSpectral, kFrobenius, kFixed };

// argmin_X ||A X - B||_F^2 + lambda scale ||X||_F^2. lambda > 0. Cost as least_squares(); shapes too.
LeastSquares ridge(const at::Tensor& a, const at::Tensor& b, double lambda, RidgeScale scale);

// The box of a constrained fit, and the effort.
struct BoxSettings {
  double lower = 1e-12;
  std::optional<double> upper;
  int64_t iterations = 0;  // projected-gradient steps after clamping; 0 = clamped least squares
};

struct BoxedFit {
  at::Tensor solution;       // (k) float32, within the box
  double residual_norm = 0;  // ||A w - y||
  int64_t n_at_lower = 0;    // entries on a bound
  int64_t n_at_upper = 0;
  int64_t rank = 0;                                           // of the unconstrained start
  LeastSquaresSolver solver = LeastSquaresSolver::kCholesky;  // of the unconstrained start
  bool converged = true;                                      // fit_active_set() met its conditions
};

// The normal equations of min ||A w - y||, formed once and solved for any number of leading columns: the Gram matrix of
// the first k columns is the leading block of the whole one. Holds G (float32: 4 t^2 bytes; float64 where that does not
// do: 8 t^2) and shares A.
// Not to be shared by threads: float64 is formed when first needed.
class NormalEquations {
 public:
  // A (n,t), y (n); float32.
  NormalEquations(const at::Tensor& a, const at::Tensor& y, std::optional<FitRoute> route = {});

  // Approximate box-constrained fit with the first k columns (Algorithm 3 of arXiv:2602.16284): unconstrained
  // least squares, clamped, then `iterations` steps w <- clamp(w - G w / L + A^T y / L), L the squared spectral norm of
  // A by three power iterations. Not a converged NNLS. Cost O(k^2) a step. 0 <= k <= t.
  BoxedFit fit_box(int64_t k, const BoxSettings& settings) const;

  // The minimum of ||A w - y|| over the box, to the Karush-Kuhn-Tucker conditions: projected Newton steps on the
  // entries that are free, from fit_box()'s result (Bertsekas, SIAM J. Control Optim. 20, 1982). Never worse than
  // fit_box(). A few Cholesky factors of at most k columns. Where it has not ended after 200 steps the best of them is
  // returned and `converged` is false.
  BoxedFit fit_active_set(int64_t k, const BoxSettings& settings) const;

 private:
  void form() const;

  FitRoute route_;
  at::Tensor a_;               // (n,t) float32
  at::Tensor y_;               // (n,1) float32
  at::Tensor quick_gram_;      // (t,t) float32, or undefined
  mutable at::Tensor gram_;    // (t,t) float64
  mutable at::Tensor moment_;  // (t,1) float64, A^T y
};

}  // namespace kvc
