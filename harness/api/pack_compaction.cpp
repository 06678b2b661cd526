#include "harness/api/pack_compaction.h"

#include <ATen/ATen.h>

#include <utility>

namespace kvc {
namespace {

void add_notes(Json& sum, const Json& notes) {
  for (const auto& [name, value] : notes.items()) {
    if (!sum.contains(name))
      sum[name] = value;
    else if (value.is_number_integer())
      sum[name] = sum[name].get<int64_t>() + value.get<int64_t>();
    else
      sum[name] = sum[name].get<double>() + value.get<double>();
  }
}

}  // namespace

LayerKv pack_layer(const CompactionRequest& request, const HeadResult* heads, int64_t layer, size_t budget,
                   Json& notes) {
  const LayerKv& source = request.cache.layer(layer);
  const Compactable& span = request.compactable;
  std::vector<HeadEntries> packed;
  for (int64_t h = 0; h < request.cache.n_kv_heads(); ++h) {
    const HeadFit& fit = heads[h].fits[budget];
    const HeadEntries whole = source.head(h);
    HeadEntries prefix = whole.slice(0, span.prefix_len);
    if (fit.prefix_keys.defined()) prefix.keys = fit.prefix_keys;
    packed.push_back(join_entries({std::move(prefix),
                                   {fit.keys, fit.values, fit.bias},
                                   whole.slice(whole.size() - span.suffix_len, span.suffix_len)}));
    add_notes(notes, fit.notes);
  }
  LayerKv result = pack_heads(packed);
  if (result.bias.defined() && result.bias.count_nonzero().item<int64_t>() == 0) result.bias = at::Tensor();
  return result;
}

Compaction pack(const CompactionRequest& request, const std::vector<HeadResult>& heads, size_t budget) {
  std::vector<LayerKv> layers;
  Json notes = Json::object();
  for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
    layers.push_back(
        pack_layer(request, &heads[static_cast<size_t>(layer * request.cache.n_kv_heads())], layer, budget, notes));
  }
  return Compaction{KvCache(std::move(layers), request.cache.next_position()), 0, 0, std::move(notes)};
}

void attribute_times(double wall_s, const std::vector<HeadResult>& heads, std::vector<Compaction>& compactions) {
  double prepare_s = 0;
  std::vector<double> fit_s(compactions.size(), 0.0);
  for (const HeadResult& head : heads) {
    prepare_s += head.prepare_s;
    for (size_t b = 0; b < fit_s.size(); ++b) fit_s[b] += head.fit_s[b];
  }
  double total_s = prepare_s;
  for (const double seconds : fit_s) total_s += seconds;
  if (total_s <= 0) return;
  for (size_t b = 0; b < fit_s.size(); ++b) {
    compactions[b].shared_s = wall_s * prepare_s / total_s;
    compactions[b].own_s = wall_s * fit_s[b] / total_s;
  }
}

}  // namespace kvc
