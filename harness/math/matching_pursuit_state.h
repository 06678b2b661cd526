// Internals of MatchingPursuit: rows of its Gram matrix, and the state of a pursuit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "harness/math/exponential_table.h"
#include "harness/math/matching_pursuit.h"

namespace kvc {

// Rows of G: all at once, or those asked for, from the table E.
struct MatchingPursuit::Rows {
  std::unique_ptr<const ExponentialTable> table;  // E, or nothing where it is too large
  std::vector<at::Tensor> blocks;                 // some rows each
  std::vector<const float*> row;                  // of each key, or nullptr
  std::mutex mutex;

  bool on_demand() const { return table != nullptr; }
  void take(const at::Tensor& block, const std::vector<int64_t>& keys);
  bool missing(const std::vector<int64_t>& keys);
  // Safe to call from several threads; what it has made is read without the lock afterwards.
  void need(const std::vector<int64_t>& keys, const std::vector<int64_t>& likely, int64_t most);
};

// The state of a pursuit: picks, their columns, and the Cholesky factor of their Gram matrix.
struct MatchingPursuit::State {
  std::vector<int64_t> order;
  std::vector<Column> columns;              // of each pick (n)
  std::vector<double> moment;               // column . y of each pick
  std::vector<std::vector<double>> gram;    // row i: with the picks 0..i
  std::vector<std::vector<double>> factor;  // row i of the lower factor; empty where the pick is dependent
  std::vector<bool> dependent;
  std::vector<double> weights;
  std::vector<bool> taken;  // picked or excluded (T)
  int64_t iteration = 0;
  int64_t n_cut = 0;            // choices among more keys than are compared in float64
  std::vector<int64_t> likely;  // to be picked next
  bool solved = false;          // weights are those of a solve, with lower bounds for keys picked since

  int64_t size() const { return static_cast<int64_t>(order.size()); }
  // The state after the first `picks` picks; its weights are not those of a solve.
  State prefix(size_t picks) const {
    State part = *this;
    part.order.resize(picks);
    part.columns.resize(picks);
    part.moment.resize(picks);
    part.gram.resize(picks);
    part.factor.resize(picks);
    part.dependent.resize(picks);
    part.weights.resize(picks);
    for (size_t i = picks; i < order.size(); ++i) part.taken[static_cast<size_t>(order[i])] = false;
    return part;
  }
};

std::vector<double> to_vector(const at::Tensor& values);  // on the CPU, flat

}  // namespace kvc
