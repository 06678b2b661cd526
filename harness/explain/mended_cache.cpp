#include "harness/explain/mended_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/kv/device_numbers.h"

namespace kvc {
namespace {

// The head of a packed row.
int64_t head_of(const LayerKv& layer, int64_t row) {
  return std::upper_bound(layer.head_offsets.begin(), layer.head_offsets.end(), row) - layer.head_offsets.begin() - 1;
}

}  // namespace

const char* repair_name(Repair repair) {
  switch (repair) {
    case Repair::kBias:
      return "bias";
    case Repair::kMass:
      return "mass";
    case Repair::kValues:
      return "values";
    case Repair::kKeys:
      return "keys";
    case Repair::kFit:
      return "fit";
    case Repair::kPosition:
      return "position";
  }
  return "";
}

MendedCache::MendedCache(const KvCache& full, const KvCache& compact, const TokenSpan& document)
    : full_(full), compact_(compact), document_(document), sources_(find_sources(compact, full)) {
  for (int64_t l = 0; l < full.n_layers(); ++l) {
    const LayerKv& layer = full.layer(l);
    std::vector<bool> kept(static_cast<size_t>(layer.n_entries()), false);
    std::vector<int64_t> tokens;
    for (const int64_t source : sources_.row[static_cast<size_t>(l)]) {
      tokens.push_back(EntrySources::kUnknown);
      if (source == EntrySources::kUnknown) continue;
      kept[static_cast<size_t>(source)] = true;
      tokens.back() = source - layer.head_offsets[static_cast<size_t>(head_of(layer, source))];
    }
    kept_.push_back(std::move(kept));
    tokens_.push_back(std::move(tokens));
  }
}

double MendedCache::kept_share(const TokenSpans& spans) const {
  int64_t kept = 0, all = 0;
  for (int64_t l = 0; l < full_.n_layers(); ++l) {
    for (int64_t h = 0; h < full_.n_kv_heads(); ++h) {
      const int64_t first = full_.layer(l).head_offsets[static_cast<size_t>(h)];
      for (const TokenSpan& span : spans) {
        for (int64_t token = span.first; token < span.end; ++token)
          kept += kept_[static_cast<size_t>(l)][static_cast<size_t>(first + token)] ? 1 : 0;
        all += span.size();
      }
    }
  }
  return all == 0 ? 0 : static_cast<double>(kept) / static_cast<double>(all);
}

std::vector<Repair> MendedCache::possible_repairs() const {
  std::vector<Repair> list;
  if (sources_.has_bias) list.push_back(Repair::kBias);
  if (sources_.has_bias && mass_bias_.n_layers() > 0) list.push_back(Repair::kMass);
  if (sources_.values_changed) list.push_back(Repair::kValues);
  if (sources_.keys_changed) list.push_back(Repair::kKeys);
  if (static_cast<int>(sources_.has_bias) + sources_.values_changed + sources_.keys_changed > 1)
    list.push_back(Repair::kFit);
  if (compact_.next_position() != full_.next_position()) list.push_back(Repair::kPosition);
  return list;
}

LayerKv MendedCache::repaired_layer(Repair repair, int64_t l, const TokenSpans& spans) const {
  LayerKv layer = compact_.layer(l);
  const LayerKv& full = full_.layer(l);
  std::vector<int64_t> rows, sources;
  std::vector<float> mass;
  for (int64_t row = 0; row < layer.n_entries(); ++row) {
    const int64_t token = token_of(l, row);
    if (token == EntrySources::kUnknown || !holds(spans, token)) continue;
    rows.push_back(row);
    sources.push_back(sources_.row[static_cast<size_t>(l)][static_cast<size_t>(row)]);
    if (repair == Repair::kMass) {
      mass.push_back(static_cast<float>(mass_bias_.at(l, head_of(layer, row))));
    }
  }
  const at::Device device = layer.keys.device();
  const at::Tensor into = device_numbers(rows, device), from = device_numbers(sources, device);
  const bool all = repair == Repair::kFit;
  if (all || repair == Repair::kValues)
    layer.values = layer.values.index_copy(0, into, full.values.index_select(0, from));
  if (all || repair == Repair::kKeys) layer.keys = layer.keys.index_copy(0, into, full.keys.index_select(0, from));
  if (all || repair == Repair::kBias || repair == Repair::kMass) {
    const at::Tensor bias =
        layer.bias.defined() ? layer.bias : at::zeros({layer.n_entries()}, layer.keys.options().dtype(at::kFloat));
    const at::Tensor wanted = mass.empty() ? at::zeros({into.size(0)}, bias.options()) : at::tensor(mass).to(device);
    layer.bias = bias.index_copy(0, into, wanted);
  }
  return layer;
}

KvCache MendedCache::repaired(Repair repair, const TokenSpans& spans) const {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < compact_.n_layers(); ++l)
    layers.push_back(repair == Repair::kPosition ? compact_.layer(l) : repaired_layer(repair, l, spans));
  return {std::move(layers), repair == Repair::kPosition ? full_.next_position() : compact_.next_position()};
}

LayerKv MendedCache::restored_layer(const LayerKv& base, int64_t l, const TokenSpans& spans) const {
  const LayerKv& full = full_.layer(l);
  std::vector<HeadEntries> heads;
  for (int64_t h = 0; h < base.n_kv_heads(); ++h) {
    const int64_t first = full.head_offsets[static_cast<size_t>(h)];
    std::vector<int64_t> missing;
    for (const TokenSpan& span : spans) {
      for (int64_t token = span.first; token < span.end; ++token) {
        if (!kept_[static_cast<size_t>(l)][static_cast<size_t>(first + token)]) missing.push_back(first + token);
      }
    }
    const at::Tensor rows = device_numbers(missing, base.keys.device());
    const HeadEntries back{full.keys.index_select(0, rows), full.values.index_select(0, rows), {}};
    heads.push_back(missing.empty() ? base.head(h) : join_entries({base.head(h), back}));
  }
  return pack_heads(heads);
}

KvCache MendedCache::restored(const TokenSpans& spans, const std::optional<Repair>& repair) const {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < compact_.n_layers(); ++l) {
    const bool fitted = repair && *repair != Repair::kPosition;
    const LayerKv base = fitted ? repaired_layer(*repair, l, {document_}) : compact_.layer(l);
    layers.push_back(restored_layer(base, l, spans));
  }
  return {std::move(layers), full_.next_position()};
}

}  // namespace kvc
