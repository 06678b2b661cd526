// The table E of a pursuit and its Gram matrix: as a whole, or the rows that are asked for.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/math/attention.h"
#include "harness/math/exponential_table.h"
#include "harness/math/matching_pursuit_state.h"

namespace kvc {
namespace {

constexpr int64_t kBlockQueries = 512;
constexpr int64_t kRowPanels = 8;
constexpr int64_t kMostTableBytes = int64_t{1} << 29;
// Rows of the whole of G made at a time.
constexpr int64_t kRowsOfWhole = 24;

}  // namespace

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

void MatchingPursuit::Rows::take(const at::Tensor& block, const std::vector<int64_t>& keys) {
  blocks.push_back(block.contiguous());
  const float* data = blocks.back().const_data_ptr<float>();
  const auto width = static_cast<int64_t>(row.size());
  for (size_t i = 0; i < keys.size(); ++i) row[static_cast<size_t>(keys[i])] = data + static_cast<int64_t>(i) * width;
}

bool MatchingPursuit::Rows::missing(const std::vector<int64_t>& keys) {
  const std::lock_guard lock(mutex);
  return std::any_of(keys.begin(), keys.end(), [&](int64_t key) { return row[static_cast<size_t>(key)] == nullptr; });
}

void MatchingPursuit::Rows::need(const std::vector<int64_t>& keys, const std::vector<int64_t>& likely, int64_t most) {
  const std::lock_guard lock(mutex);
  std::vector<int64_t> missing;
  for (const int64_t key : keys) {
    if (row[static_cast<size_t>(key)] == nullptr) missing.push_back(key);
  }
  if (missing.empty()) return;
  for (const int64_t key : likely) {
    if (static_cast<int64_t>(missing.size()) >= most) break;
    const bool listed = std::find(missing.begin(), missing.end(), key) != missing.end();
    if (row[static_cast<size_t>(key)] == nullptr && !listed) missing.push_back(key);
  }
  take(table->gram_rows(missing), missing);
}

MatchingPursuit::MatchingPursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                 const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings)
    : settings_(settings),
      n_(queries.size(0)),
      source_len_(keys.size(0)),
      target_(to_vector(row_sum)),
      rows_(std::make_shared<Rows>()) {
  queries_ = queries.to(at::kFloat);
  keys_ = keys.to(at::kFloat);
  if (bias.defined()) bias_ = bias.to(at::kFloat);
  row_max_ = row_max;
  rows_->row.assign(static_cast<size_t>(source_len_), nullptr);
  host_ = {queries_.mul(1.0 / std::sqrt(static_cast<double>(keys.size(1)))).contiguous(), keys_.contiguous(), bias_,
           row_max_.squeeze(1)};
  const bool fits = 4 * n_ * source_len_ <= kMostTableBytes;
  if (fits) {
    rows_->table = std::make_unique<const ExponentialTable>(host_.scaled_queries, host_.keys, host_.bias, host_.row_max,
                                                            row_sum.squeeze(1));
    moment_ = rows_->table->moment();
  } else {
    at::Tensor moment = at::zeros({source_len_}, queries_.options().dtype(at::kDouble));
    for_each_block([&](const at::Tensor& block, int64_t first) {
      moment.add_(at::mv(block.t(), row_sum.narrow(0, first, block.size(0)).squeeze(1)).to(at::kDouble));
    });
    moment_ = to_vector(moment);
  }
  for (const double h : moment_) largest_moment_ = std::max(largest_moment_, h);
}

// Calls work(rows of E (., T), index of the first).
void MatchingPursuit::for_each_block(const std::function<void(const at::Tensor&, int64_t)>& work) const {
  for (int64_t first = 0; first < n_; first += kBlockQueries) {
    const int64_t n_here = std::min(kBlockQueries, n_ - first);
    at::Tensor block = attention_logits(queries_.narrow(0, first, n_here), keys_, bias_);
    work(block.sub_(row_max_.narrow(0, first, n_here)).exp_(), first);
  }
}

// All of G.
void MatchingPursuit::form_gram() {
  const int64_t t = source_len_;
  at::Tensor gram = rows_->table ? at::empty({t, t}, queries_.options()) : at::zeros({t, t}, queries_.options());
  const int64_t width = std::max<int64_t>(64, (t + kRowPanels - 1) / kRowPanels);
  const auto add_block = [&](const at::Tensor& block) {
    for (int64_t panel = 0; panel < t; panel += width) {
      const int64_t here = std::min(width, t - panel);
      gram.narrow(0, panel, here)
          .narrow(1, panel, t - panel)
          .addmm_(block.narrow(1, panel, here).t(), block.narrow(1, panel, t - panel));
    }
  };
  if (rows_->table) {
    for (int64_t first = 0; first < t; first += kRowsOfWhole) {
      std::vector<int64_t> keys(static_cast<size_t>(std::min(kRowsOfWhole, t - first)));
      std::iota(keys.begin(), keys.end(), first);
      const int64_t panel = first / width * width;
      gram.narrow(0, first, static_cast<int64_t>(keys.size()))
          .narrow(1, panel, t - panel)
          .copy_(rows_->table->gram_rows(keys, panel).narrow(1, panel, t - panel));
    }
  } else {
    for_each_block([&](const at::Tensor& block, int64_t) { add_block(block); });
  }
  for (int64_t panel = 0; panel < t; panel += width) {  // the rest by symmetry
    const int64_t here = std::min(width, t - panel), behind = t - panel - here;
    if (behind == 0) break;
    gram.narrow(0, panel + here, behind)
        .narrow(1, panel, here)
        .copy_(gram.narrow(0, panel, here).narrow(1, panel + here, behind).t());
  }
  rows_->blocks.clear();
  std::vector<int64_t> all(static_cast<size_t>(t));
  std::iota(all.begin(), all.end(), 0);
  rows_->take(gram, all);
}

std::vector<float> MatchingPursuit::column(int64_t key) const {
  if (rows_->table) return rows_->table->column(key);
  const at::Tensor key_t = host_.keys.narrow(0, key, 1).t();
  const at::Tensor logits = (host_.bias.defined() ? at::addmm(host_.bias.narrow(0, key, 1), host_.scaled_queries, key_t)
                                                  : at::mm(host_.scaled_queries, key_t))
                                .squeeze(1);
  const at::Tensor values = logits.sub_(host_.row_max).exp_().contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + n_};
}

}  // namespace kvc
