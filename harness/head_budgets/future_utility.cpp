#include "harness/head_budgets/future_utility.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <queue>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/head_budgets/head_allocation.h"

namespace kvc {
namespace {

// What losing each entry costs, lowest score first, made convex: (T) ascending.
std::vector<double> costs_of(const std::vector<double>& utilities, const std::vector<float>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  std::vector<double> lost = {0};
  for (auto entry = order.rbegin(); entry != order.rend(); ++entry) lost.push_back(lost.back() + utilities[*entry]);
  const std::vector<double> hull = lower_hull(lost);
  std::vector<double> costs;
  for (size_t i = 1; i < hull.size(); ++i) costs.push_back(hull[i] - hull[i - 1]);
  return costs;
}

// L2 norms of what every entry of the layer writes, by query head: (Hq, N) of the whole context.
at::Tensor written_norms(const Model& model, const LayerKv& layer, int64_t layer_index) {
  const DecoderSpec& spec = model.spec();
  const at::Tensor& projection = model.decoder().weights().layers[static_cast<size_t>(layer_index)].attention_output;
  std::vector<at::Tensor> rows;
  for (int64_t head = 0; head < spec.n_query_heads; ++head) {
    const at::Tensor part = projection.narrow(1, head * spec.head_dim, spec.head_dim).to(at::kFloat);
    const at::Tensor values = layer.head_values(head / spec.group_size()).to(at::kFloat);
    rows.push_back(at::linalg_vector_norm(at::mm(values, part.t()), 2, at::IntArrayRef{1}));
  }
  const at::Tensor norms = at::stack(rows);
  return norms / norms.sum().clamp_min(1e-30);
}

// What the queries (n, Hq, d) of the last n - skipped tokens of a text, whose keys stand in `tails`, give the context's
// entries at most: (Hkv, N).
at::Tensor largest_weights(const LayerKv& layer, const at::Tensor& queries, const at::Tensor& own_keys,
                           int64_t first_step, int64_t n_steps, const at::Tensor& norms) {
  const int64_t n_query_heads = queries.size(1), n_kv_heads = layer.n_kv_heads();
  const int64_t group_size = n_query_heads / n_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(queries.size(2)));
  std::vector<at::Tensor> rows;
  for (int64_t kv = 0; kv < n_kv_heads; ++kv) {
    at::Tensor largest = at::zeros({layer.head_len(kv)}, norms.options());
    const at::Tensor keys = layer.head_keys(kv).to(at::kFloat), own = own_keys.select(0, kv).to(at::kFloat);
    for (int64_t g = 0; g < group_size; ++g) {
      const int64_t head = kv * group_size + g;
      const at::Tensor asked = queries.narrow(0, first_step, n_steps).select(1, head).to(at::kFloat) * scale;
      at::Tensor behind = at::mm(asked, own.t());
      const at::Tensor step = at::arange(first_step, first_step + n_steps, at::TensorOptions(at::kLong)).unsqueeze(1);
      const at::Tensor token = at::arange(own.size(0), at::TensorOptions(at::kLong)).unsqueeze(0);
      behind.masked_fill_(token.gt(step).to(behind.device()), -std::numeric_limits<float>::infinity());
      const at::Tensor weights = at::softmax(at::cat({at::mm(asked, keys.t()), behind}, 1), 1);
      largest = at::maximum(largest, weights.narrow(1, 0, keys.size(0)).amax(0) * norms[head]);
    }
    rows.push_back(largest);
  }
  return at::stack(rows);
}

std::vector<double> as_doubles(const at::Tensor& row) {
  const at::Tensor exact = row.to(at::kCPU, at::kDouble).contiguous();
  return {exact.const_data_ptr<double>(), exact.const_data_ptr<double>() + exact.numel()};
}

HeadProblem problem_of(const CompactionRequest& request, int64_t layer, int64_t head) {
  const LayerKv& kv = request.cache.layer(layer);
  const HeadEntries entries =
      kv.head(head).slice(request.compactable.prefix_len, request.compactable.source_len(kv.head_len(head)));
  HeadProblem problem;
  problem.keys = entries.keys;
  problem.values = entries.values;
  problem.bias = entries.bias;
  problem.layer = layer;
  problem.kv_head = head;
  problem.seed = request.seed;
  problem.request = &request;
  if (request.queries != nullptr) {
    problem.queries = request.queries->layer(layer, nullptr).select(0, head);
    problem.window_queries = [queries = request.queries, layer, head](int64_t n_tokens) {
      return queries->window(layer, n_tokens).select(0, head);
    };
  }
  return problem;
}

std::vector<std::vector<float>> scores_of(const CompactionRequest& request, const CompactionMethod& method) {
  const auto* scored = dynamic_cast<const PerHeadMethod*>(&method);
  std::vector<std::vector<float>> scores;
  for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
    for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
      const at::Tensor own = scored == nullptr ? at::Tensor() : scored->scores(problem_of(request, layer, head));
      if (!own.defined()) {
        throw Error(ErrorKind::kUsage, "this method has no scores, which say what a head loses first", "--method",
                    "take a method that scores its entries, e.g. snapkv or expected_attention");
      }
      const at::Tensor list = own.to(at::kCPU, at::kFloat).contiguous();
      scores.emplace_back(list.const_data_ptr<float>(), list.const_data_ptr<float>() + list.numel());
    }
  }
  return scores;
}

}  // namespace

UtilityProfile profile_of(const std::vector<std::vector<double>>& utilities,
                          const std::vector<std::vector<float>>& scores) {
  const size_t n_heads = utilities.size(), length = utilities.empty() ? 0 : utilities.front().size();
  bool fits = length > 0 && scores.size() == n_heads;
  std::vector<std::vector<double>> costs;
  for (size_t h = 0; fits && h < n_heads; ++h) {
    fits = utilities[h].size() == length && scores[h].size() == length;
    if (fits) costs.push_back(costs_of(utilities[h], scores[h]));
  }
  if (!fits) throw Error(ErrorKind::kInternal, "utilities and scores of different entries", "profile_of", "");
  const auto least = std::max<size_t>(1, static_cast<size_t>(std::llround(0.01 * static_cast<double>(length))));
  using Next = std::tuple<double, size_t, size_t>;  // cost, head, entries that it has lost
  std::priority_queue<Next, std::vector<Next>, std::greater<>> next;
  for (size_t h = 0; h < n_heads; ++h) {
    if (length > least) next.emplace(costs[h][0], h, 0);
  }
  std::vector<size_t> lost(n_heads, 0);
  UtilityProfile profile;
  int64_t gone = 0;
  for (int64_t step = 1; step <= kProfileSteps; ++step) {
    const int64_t wanted = std::llround(static_cast<double>(step) / 100 * static_cast<double>(n_heads * length));
    while (gone < wanted && !next.empty()) {
      const auto [cost, head, count] = next.top();
      next.pop();
      ++lost[head];
      ++gone;
      if (length - lost[head] > least) next.emplace(costs[head][count + 1], head, count + 1);
    }
    profile.emplace_back();
    for (const size_t count : lost) profile.back().push_back(static_cast<double>(count) / static_cast<double>(length));
  }
  return profile;
}

std::vector<std::vector<std::vector<double>>> future_utilities(const Model& model, const ReadDocument& read,
                                                               const std::vector<ProbeText>& texts) {
  const c10::InferenceMode inference;
  const Decoder& decoder = model.decoder();
  std::vector<at::Tensor> norms;
  for (int64_t layer = 0; layer < read.full.n_layers(); ++layer)
    norms.push_back(written_norms(model, read.full.layer(layer), layer));
  std::vector<std::vector<std::vector<double>>> all;
  for (const ProbeText& text : texts) {
    std::vector<int64_t> tokens = text.prompt;
    tokens.insert(tokens.end(), text.answer.begin(), text.answer.end());
    // The last token of an answer is written and never read.
    const auto first_step = static_cast<int64_t>(text.prompt.size());
    const int64_t n_steps = std::max<int64_t>(1, static_cast<int64_t>(text.answer.size()) - 1);
    Tails tails = Tails::behind(read.full, 1, static_cast<int64_t>(tokens.size()));
    std::vector<at::Tensor> queries(static_cast<size_t>(read.full.n_layers()));
    decoder.forward(PackedTokens::single(tokens), read.full, tails,
                    [&](int64_t layer, const at::Tensor& here) { queries[static_cast<size_t>(layer)] = here.clone(); });
    std::vector<std::vector<double>>& heads = all.emplace_back();
    for (int64_t layer = 0; layer < read.full.n_layers(); ++layer) {
      const auto place = static_cast<size_t>(layer);
      const at::Tensor own = tails.keys(layer).select(0, 0).narrow(1, 0, static_cast<int64_t>(tokens.size()));
      const at::Tensor largest =
          largest_weights(read.full.layer(layer), queries[place], own, first_step, n_steps, norms[place]);
      for (int64_t head = 0; head < read.full.n_kv_heads(); ++head) {
        heads.push_back(as_doubles(largest[head].narrow(0, read.span.prefix_len, read.context.article_len())));
      }
    }
  }
  return all;
}

UtilityProfile measure_utility(const Model& model, const Document& document, const CompactionMethod& method,
                               const QuerySource* source, const CurveSettings& settings, std::uint64_t seed) {
  const c10::InferenceMode inference;
  const ReadDocument read = ReadDocument::read(model, document.text);
  const auto queries = read.queries(model, source, derive_seed(seed, "queries/" + document.id));
  const CompactionRequest request{
      model, read.context, read.full, read.span, queries.get(), {}, derive_seed(seed, "method")};
  const std::vector<std::vector<float>> scores = scores_of(request, method);
  const auto utilities = future_utilities(model, read, probe_texts(model, read.full, document, settings));
  UtilityProfile mean(kProfileSteps, std::vector<double>(scores.size(), 0.0));
  for (const auto& of_question : utilities) {
    const UtilityProfile one = profile_of(of_question, scores);
    for (size_t step = 0; step < mean.size(); ++step) {
      for (size_t h = 0; h < scores.size(); ++h) mean[step][h] += one[step][h] / static_cast<double>(utilities.size());
    }
  }
  return mean;
}

std::string profile_as_npy(const UtilityProfile& profile, int64_t n_kv_heads) {
  const auto n_layers = static_cast<int64_t>(profile.front().size()) / n_kv_heads;
  std::string header = fmt::format("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, {}, {}), }}",
                                   profile.size(), n_layers, n_kv_heads);
  header.append(64 - (10 + header.size() + 1) % 64, ' ');
  header += '\n';
  std::string file = "\x93NUMPY";
  file += '\x01';
  file += '\0';
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  for (const auto& step : profile) {
    for (const double value : step) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      for (int byte = 0; byte < 8; ++byte) file += static_cast<char>((bits >> (8 * byte)) & 0xff);
    }
  }
  return file;
}

}  // namespace kvc
