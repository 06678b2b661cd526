// Launchers of the matching pursuit's kernels, of many heads at once: raw pointers on one device, no torch header. The
// algorithm and the letters are those of harness/math/device_pursuit.h, what the arrays hold is said in
// harness/math/pursuit_kernels.h.
//
// An iteration of one pick is six launches, whatever the number of heads:
//   residual   r = y - E[:,picked] w                                 reads 4 n t bytes a head
//   correlate  E[:,j]^T r of the keys at hand, float32               4 n for each of them; n where a head scans them
//   all choose     the 64 highest, then their correlations in float64    256 n gram       the products of the pick's
//   column with those before   4 n t factor     M times these, and what is needed of M^T M            8 t^2 (half of M,
//   twice) append     the new row of M, the weights                         0.25 t^2
// Each further pick of the same iteration is the last three. Columns are rows of the table, read where they lie.
//
// Additions have an order that n, t and T decide, without atomics (integers are counted with them, in shared memory):
// equal requests leave equal bytes, and a head has the same bits alone and among others.
#pragma once

#include <cstdint>

#include "harness/attention/cuda_launch.h"

namespace kvc::KVC_CUDA_NAMESPACE {

inline constexpr int kMostPursuitHeads = 384;  // of one launch: their numbers travel as a kernel argument
inline constexpr int kMostCandidates = 256;    // that a choice compares in float64

// Rows of M that a block of `factor` takes.
inline constexpr int kFactorRows = 32;

// What the host knows of each head: rows (picks so far), picks (keys that this iteration picks), whether weights are
// solved for at its end, and whether it picks among all keys by the coarse table.
enum PursuitFlags : uint8_t { kSolves = 1, kScans = 2 };
struct PursuitNumbers {
  int32_t rows[kMostPursuitHeads], picks[kMostPursuitHeads];
  uint8_t flags[kMostPursuitHeads];
};

// Arrays of H heads, one head behind the other. room: rows of a head; T: keys; n: queries; J: keys at hand.
struct PursuitHeads {
  int n_heads = 0;
  int64_t n_queries = 0, n_keys = 0, room = 0;
  int64_t padded = 0;                  // n', of rows of `coarse` and `residual32`
  const float* table = nullptr;        // rows of n
  const uint8_t* coarse = nullptr;     // rows of n'
  const float* coarse_step = nullptr;  // of each row
  const int64_t* first_row = nullptr;  // (H): of its keys in the table
  const double* goal = nullptr;        // (H,n)
  const double* margin = nullptr;      // (H)
  int64_t* order = nullptr;            // (H,room)
  double* inverse = nullptr;           // (H,room,room)
  double* forward = nullptr;           // (H,room)
  bool* dependent = nullptr;           // (H,room)
  int64_t* cuts = nullptr;             // (H,room)
  bool* taken = nullptr;               // (H,T)
  double lower = 0, upper = 0;
  // Before and after an iteration; may be the same.
  const double *weights_before = nullptr, *free_before = nullptr;  // (H,room)
  const int64_t* n_cut_before = nullptr;                           // (H)
  double *weights = nullptr, *free = nullptr;
  int64_t* n_cut = nullptr;
  double* least = nullptr;  // (H): the lowest correlation that was chosen; +inf of a head that picks nothing
  // Keys at hand (H,J), rising, or null: all T of them.
  const int64_t* at_hand = nullptr;
  int64_t n_at_hand = 0;
  int n_candidates = 0;  // at most kMostCandidates and J, at least the most picks of a head
  // Work space.
  double* residual = nullptr;     // (H,n)
  float* residual32 = nullptr;    // (H,n'), zeros behind n; all zeros of a head that picks nothing
  float* rough = nullptr;         // (H,T), of keys at hand the first J
  int64_t* candidates = nullptr;  // (H,n_candidates): keys, rising
  double* heights = nullptr;      // (H,n_candidates)
  double* gram = nullptr;         // (H,room + 1): with the picks before it, with itself, with y
  double* factor = nullptr;       // (H,room)
  double* partial = nullptr;      // (H,room / kFactorRows rounded up,room)
};

// Of this thread since it began; anyone may set it to nought.
LaunchCount& pursuit_launches();

// Each returns why a launch failed, or null. most_rows and most_picks: the largest of the numbers.
// r of every head with its first `rows` picks and weights_before, into residual and, where it is not null, residual32.
const char* pursuit_residual(const PursuitHeads& heads, const PursuitNumbers& numbers, CudaStream stream);
// A whole iteration: up to numbers.picks keys of each head.
const char* pursuit_iteration(const PursuitHeads& heads, const PursuitNumbers& numbers, CudaStream stream);

}  // namespace kvc::KVC_CUDA_NAMESPACE
