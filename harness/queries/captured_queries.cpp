#include "harness/queries/captured_queries.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"

namespace kvc {
namespace {

// What a capture ends with.
struct Captured {
  at::Tensor queries;                  // (L, Hkv, g, s, d)
  at::Tensor window;                   // (L, Hkv, g, w, d)
  at::Tensor positions;                // (g s)
  at::Tensor window_positions;         // (g w)
  at::Tensor input_norms;              // (L, s); undefined where nobody took them
  std::vector<int64_t> tokens;         // (s), numbered through the text
  std::vector<int64_t> window_tokens;  // (w)
  TextKeys keys;
  std::string source;
  Json notes;
};

class CapturedQueries final : public LayerQueries {
 public:
  explicit CapturedQueries(Captured all) : all_(std::move(all)) {}

  at::Tensor layer(int64_t layer, const KvCache* /*compacted_below*/) const override {
    return all_.queries.select(0, layer).flatten(1, 2);
  }

  at::Tensor window(int64_t layer, int64_t n_tokens) const override {
    check_window(n_tokens, n_window(), all_.source);
    return all_.window.select(0, layer).narrow(2, n_window() - n_tokens, n_tokens).flatten(1, 2);
  }

  bool knows_reach() const override { return true; }

  QueryReach reach(int64_t layer, int64_t kv_head) const override {
    return {all_.positions, log_mass(layer, kv_head, all_.queries.select(0, layer).select(0, kv_head), all_.tokens)};
  }

  QueryReach window_reach(int64_t layer, int64_t kv_head, int64_t n_tokens) const override {
    check_window(n_tokens, n_window(), all_.source);
    const at::Tensor queries = all_.window.select(0, layer).select(0, kv_head);
    const int64_t first = n_window() - n_tokens;
    return {all_.window_positions.view({queries.size(0), -1}).narrow(1, first, n_tokens).flatten(),
            log_mass(layer, kv_head, queries.narrow(1, first, n_tokens),
                     {all_.window_tokens.begin() + first, all_.window_tokens.end()})};
  }

  Json notes() const override { return all_.notes; }
  at::Tensor positions() const override { return all_.positions; }
  at::Tensor input_norms(int64_t layer) const override {
    if (!all_.input_norms.defined()) return {};
    return all_.input_norms.select(0, layer).repeat({all_.queries.size(2)});
  }
  int64_t n_queries() const override { return all_.queries.size(2) * all_.queries.size(3); }
  int64_t bytes() const override {
    return static_cast<int64_t>(all_.queries.nbytes() + all_.window.nbytes()) + all_.keys.bytes();
  }

 private:
  int64_t n_window() const { return all_.window.size(3); }

  at::Tensor log_mass(int64_t layer, int64_t kv_head, const at::Tensor& queries,
                      const std::vector<int64_t>& tokens) const {
    if (all_.keys.empty()) {
      return at::full({queries.size(0) * queries.size(1)}, -std::numeric_limits<float>::infinity(),
                      queries.options().dtype(at::kFloat));
    }
    return all_.keys.log_mass(layer, kv_head, queries, tokens);
  }

  Captured all_;
};

}  // namespace

std::vector<int64_t> draw_sorted(int64_t n, int64_t n_drawn, std::uint64_t seed) {
  const at::TensorOptions index(at::kLong);
  at::Tensor order = at::arange(n, index);
  if (n > n_drawn) {
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    order = std::get<0>(at::sort(at::randperm(n, generator, index).narrow(0, 0, n_drawn)));
  }
  const int64_t* data = order.const_data_ptr<int64_t>();
  return {data, data + order.numel()};
}

at::Tensor pool_queries(const at::Tensor& queries, int64_t group_size) {
  return queries.unflatten(1, {queries.size(1) / group_size, group_size}).permute({1, 2, 0, 3}).flatten(1, 2);
}

void check_window(int64_t n_tokens, int64_t available, const std::string& source) {
  if (n_tokens < 0 || n_tokens > LayerQueries::kMaxWindow) {
    throw Error(ErrorKind::kUsage,
                fmt::format("a window of {} tokens, at most {} are kept", n_tokens, LayerQueries::kMaxWindow), source,
                fmt::format("ask for a window of 0 to {} tokens", LayerQueries::kMaxWindow));
  }
  if (n_tokens > available) {
    throw Error(ErrorKind::kData, fmt::format("a window of {} tokens, the text read has {}", n_tokens, available),
                source, "ask for a smaller window or take a longer document");
  }
}

at::Tensor query_positions(const std::vector<int64_t>& positions, const std::vector<int64_t>& kept,
                           int64_t group_size) {
  std::vector<int64_t> of_kept;
  of_kept.reserve(kept.size());
  for (const int64_t token : kept) of_kept.push_back(positions[static_cast<size_t>(token)]);
  return at::tensor(of_kept, at::TensorOptions(at::kLong)).repeat({group_size});
}

QueryCapture::QueryCapture(const Decoder& decoder, const std::vector<int64_t>& positions, int64_t max_queries,
                           std::uint64_t seed, std::string source)
    : group_size_(decoder.spec().group_size()),
      n_tokens_(static_cast<int64_t>(positions.size())),
      n_window_(std::min(n_tokens_, LayerQueries::kMaxWindow)),
      kept_(draw_sorted(n_tokens_, tokens_for(max_queries, group_size_), seed)),
      n_taken_(static_cast<size_t>(decoder.spec().n_layers), 0),
      source_(std::move(source)),
      positions_(query_positions(positions, kept_, group_size_)) {
  const std::vector<int64_t> last(positions.end() - n_window_, positions.end());
  window_positions_ = at::tensor(last, at::TensorOptions(at::kLong)).repeat({group_size_});
  const DecoderSpec& spec = decoder.spec();
  const auto n_kept = static_cast<int64_t>(kept_.size());
  queries_ = at::empty({spec.n_layers, spec.n_kv_heads, group_size_, n_kept, spec.head_dim}, decoder.options());
  window_ = at::empty({spec.n_layers, spec.n_kv_heads, group_size_, n_window_, spec.head_dim}, decoder.options());
  norm_options_ = decoder.options().dtype(at::kFloat);
}

void QueryCapture::take_inputs(int64_t layer, int64_t first_token, const at::Tensor& normed) {
  if (!input_norms_.defined()) {
    input_norms_ = at::zeros({static_cast<int64_t>(n_taken_.size()), n_tokens_}, norm_options_);
  }
  input_norms_.select(0, layer)
      .narrow(0, first_token, normed.size(0))
      .copy_(at::linalg_vector_norm(normed.to(at::kFloat), 2, at::IntArrayRef{1}));
}

void QueryCapture::take(int64_t layer, int64_t first_token, const at::Tensor& queries) {
  const int64_t n_new = queries.size(0);
  const int64_t end_token = first_token + n_new;
  n_taken_[static_cast<size_t>(layer)] += n_new;
  // (c, Hq, d) -> (Hkv, g, c, d)
  const at::Tensor by_head =
      queries.view({n_new, queries.size(1) / group_size_, group_size_, queries.size(2)}).permute({1, 2, 0, 3});

  const auto first = std::lower_bound(kept_.begin(), kept_.end(), first_token);
  const auto last = std::lower_bound(first, kept_.end(), end_token);
  if (first != last) {
    std::vector<int64_t> rows;
    for (auto token = first; token != last; ++token) rows.push_back(*token - first_token);
    const at::Tensor index = device_numbers(rows, queries.device());  // sent once for all layers, not waited for
    queries_.select(0, layer).narrow(2, first - kept_.begin(), last - first).copy_(by_head.index_select(2, index));
  }
  const int64_t window_start = n_tokens_ - n_window_;
  const int64_t from = std::max(first_token, window_start);
  if (from < end_token) {
    window_.select(0, layer)
        .narrow(2, from - window_start, end_token - from)
        .copy_(by_head.narrow(2, from - first_token, end_token - from));
  }
}

std::unique_ptr<LayerQueries> QueryCapture::finish(TextKeys keys, int64_t n_skipped, Json notes) && {
  for (size_t layer = 0; layer < n_taken_.size(); ++layer) {
    if (n_taken_[layer] != n_tokens_) {
      throw Error(ErrorKind::kInternal,
                  fmt::format("queries of {} tokens came, {} were expected", n_taken_[layer], n_tokens_),
                  fmt::format("{}, layer {}", source_, layer), "this is a bug of the program; please report it");
    }
  }
  std::vector<int64_t> tokens, window_tokens;
  for (const int64_t token : kept_) tokens.push_back(n_skipped + token);
  for (int64_t i = n_tokens_ - n_window_; i < n_tokens_; ++i) window_tokens.push_back(n_skipped + i);
  const at::Tensor kept = at::tensor(kept_, at::TensorOptions(at::kLong)).to(norm_options_.device());
  return std::make_unique<CapturedQueries>(
      Captured{std::move(queries_), std::move(window_), std::move(positions_), std::move(window_positions_),
               input_norms_.defined() ? input_norms_.index_select(1, kept) : at::Tensor(), std::move(tokens),
               std::move(window_tokens), std::move(keys), std::move(source_), std::move(notes)});
}

}  // namespace kvc
