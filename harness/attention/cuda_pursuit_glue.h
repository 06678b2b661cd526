// From tensors to the launchers of pursuit_cuda.h: on the current GPU, or, for the kernels as tests emulate them, on
// the CPU. Arguments and results as in harness/math/pursuit_kernels.h.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "harness/attention/cuda_attention_glue.h"
#include "harness/attention/pursuit_cuda.h"
#include "harness/math/pursuit_kernels.h"

namespace kvc::KVC_CUDA_NAMESPACE {

// Heads [first, first + n) of a pursuit, their work space divided.
inline PursuitHeads pursuit_heads(const PursuitTensors& all, int64_t first, int64_t n, int64_t n_at_hand,
                                  int64_t n_candidates) {
  const auto own = [&](const at::Tensor& tensor) { return tensor.narrow(0, first, n); };
  PursuitHeads heads;
  heads.n_heads = static_cast<int>(n);
  heads.n_queries = all.table.size(2);
  heads.n_keys = all.table.size(1);
  heads.room = all.order.size(1);
  heads.padded = pursuit_padded(heads.n_queries);
  heads.table = all.table.const_data_ptr<float>();
  if (all.coarse.defined()) {
    heads.coarse = all.coarse.const_data_ptr<uint8_t>();
    heads.coarse_step = all.coarse_step.const_data_ptr<float>();
  }
  heads.first_row = own(all.first_row).const_data_ptr<int64_t>();
  heads.goal = own(all.goal).const_data_ptr<double>();
  heads.margin = own(all.margin).const_data_ptr<double>();
  heads.order = own(all.order).mutable_data_ptr<int64_t>();
  heads.inverse = own(all.inverse).mutable_data_ptr<double>();
  heads.forward = own(all.forward).mutable_data_ptr<double>();
  heads.dependent = own(all.dependent).mutable_data_ptr<bool>();
  heads.cuts = own(all.cuts).mutable_data_ptr<int64_t>();
  heads.taken = own(all.taken).mutable_data_ptr<bool>();
  heads.weights_before = own(all.weights).const_data_ptr<double>();
  heads.free_before = own(all.free).const_data_ptr<double>();
  heads.n_cut_before = own(all.n_cut).const_data_ptr<int64_t>();
  heads.n_at_hand = n_at_hand;
  heads.n_candidates = static_cast<int>(n_candidates);
  auto* work = all.work.mutable_data_ptr<double>();
  const auto part = [&](int64_t numbers) { return std::exchange(work, work + numbers); };
  heads.partial = part(n * ((heads.room + kFactorRows - 1) / kFactorRows) * heads.room);
  heads.gram = part(n * (heads.room + 1));
  heads.factor = part(n * heads.room);
  heads.residual = part(n * heads.n_queries);
  heads.heights = part(n * n_candidates);
  heads.rough = reinterpret_cast<float*>(work);
  return heads;
}

// work(first, n, numbers): heads [first, first + n), as many as a launch takes.
inline void for_heads(int64_t n_heads, const std::vector<int64_t>& rows, const std::vector<int64_t>& picks,
                      const std::vector<bool>& solves, const std::vector<bool>& scans,
                      const std::function<const char*(int64_t, int64_t, const PursuitNumbers&)>& work) {
  for (int64_t first = 0; first < n_heads; first += kMostPursuitHeads) {
    const int64_t n = std::min<int64_t>(kMostPursuitHeads, n_heads - first);
    PursuitNumbers numbers{};
    for (int64_t h = 0; h < n; ++h) {
      const auto head = static_cast<size_t>(first + h);
      numbers.rows[h] = static_cast<int32_t>(rows[head]);
      numbers.picks[h] = picks.empty() ? 0 : static_cast<int32_t>(picks[head]);
      numbers.flags[h] = static_cast<uint8_t>((!solves.empty() && solves[head] ? kSolves : 0) |
                                              (!scans.empty() && scans[head] ? kScans : 0));
    }
    demand(work(first, n, numbers), "pursuit kernel");
  }
}

inline at::Tensor pursuit_rest(const PursuitTensors& all, const std::vector<int64_t>& rows, CudaStream stream) {
  const int64_t n_heads = all.goal.size(0);
  at::Tensor rest = at::empty_like(all.goal);
  for_heads(n_heads, rows, {}, {}, {}, [&](int64_t first, int64_t n, const PursuitNumbers& numbers) {
    PursuitHeads heads = pursuit_heads(all, first, n, 0, 0);
    heads.residual = rest.narrow(0, first, n).mutable_data_ptr<double>();
    return pursuit_residual(heads, numbers, stream);
  });
  return rest;
}

inline PursuitStep pursuit_advance(const PursuitTensors& all, const PursuitIteration& now, CudaStream stream) {
  const int64_t n_heads = all.goal.size(0), most = *std::max_element(now.picks.begin(), now.picks.end());
  const int64_t n_at_hand = now.at_hand.defined() ? now.at_hand.size(1) : all.table.size(1);
  const int64_t n_candidates = std::min(std::max(kPursuitCandidates, most), n_at_hand);
  const int64_t n_queries = all.goal.size(1);
  const at::Tensor residual = at::empty({n_heads, pursuit_padded(n_queries)}, all.goal.options().dtype(at::kFloat));
  PursuitStep made{at::empty_like(all.weights),
                   at::empty_like(all.free),
                   at::empty_like(all.n_cut),
                   residual.narrow(1, 0, n_queries),
                   at::empty({n_heads, n_candidates}, all.order.options()),
                   at::empty_like(all.margin)};
  const auto work = [&](int64_t first, int64_t n, const PursuitNumbers& numbers) {
    PursuitHeads heads = pursuit_heads(all, first, n, n_at_hand, n_candidates);
    const auto own = [&](const at::Tensor& tensor) { return tensor.narrow(0, first, n); };
    heads.candidates = own(made.candidates).mutable_data_ptr<int64_t>();
    heads.lower = now.lower;
    heads.upper = now.upper;
    heads.weights = own(made.weights).mutable_data_ptr<double>();
    heads.free = own(made.free).mutable_data_ptr<double>();
    heads.n_cut = own(made.n_cut).mutable_data_ptr<int64_t>();
    heads.least = own(made.least).mutable_data_ptr<double>();
    heads.residual32 = own(residual).mutable_data_ptr<float>();
    if (now.at_hand.defined()) heads.at_hand = own(now.at_hand).const_data_ptr<int64_t>();
    return pursuit_iteration(heads, numbers, stream);
  };
  for_heads(n_heads, now.rows, now.picks, now.solves, now.scans, work);
  return made;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
