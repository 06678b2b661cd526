#include "harness/api/cache_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstddef>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/formats/content_hash.h"
#include "harness/model/formats/tensor_file.h"

namespace kvc {
namespace {

constexpr const char* kFormat = "kvcompact.cache.v1";
constexpr const char* kHashKey = "content_hash";

// What two models must share for the one to read the other's cache; a cache moves between devices.
Json reader_identity(Json identity) {
  for (const char* own :
       {"file", "name", "device", "devices", "attention", "fits", "decode_graphs", "bytes", "thinking"})
    identity.erase(own);
  return identity;
}

// Of all tensors and what else the cache is made of: a bit that turned on a disk shows in no shape.
std::string hash_of(const TensorFile& file) {
  std::string all;
  for (const auto& [name, tensor] : file.tensors) {
    const at::Tensor rows = tensor.to(at::kCPU).contiguous();
    all += fmt::format("{} {}\n", name,
                       content_hash({static_cast<const std::byte*>(rows.const_data_ptr()), rows.nbytes()}));
  }
  for (const auto& [key, value] : file.metadata) {
    if (key != kHashKey) all += fmt::format("{} {}\n", key, value);
  }
  return stable_hash(all);
}

class Reader {
 public:
  Reader(const std::string& path, const Model& model)
      : path_(path), model_(model), file_(read_tensor_file(path)), hash_(hash_of(file_)) {}

  SavedCache read() {
    if (text("format") != kFormat) {
      refuse(fmt::format("the file's format is '{}', not '{}'", text("format"), kFormat),
             "name a file that kvc compact wrote with this version");
    }
    check_model();
    Context context = read_context();
    const int64_t next_position = number("next_position");
    if (next_position < 1 || next_position > model_.spec().max_positions) {
      refuse(
          fmt::format("next_position is {}; the model has {} positions", next_position, model_.spec().max_positions));
    }
    std::vector<LayerKv> layers;
    for (int64_t i = 0; i < model_.spec().n_layers; ++i) layers.push_back(read_layer(i, context));
    if (!file_.tensors.empty()) {
      refuse(fmt::format("the tensor '{}' belongs to no layer of the model", file_.tensors.begin()->first));
    }
    const bool compactable = number("compactable") != 0;
    Json about = json("about");
    if (text(kHashKey) != hash_) refuse("the file is damaged: its content is not what was written");
    return {KvCache(std::move(layers), next_position), std::move(context), compactable, std::move(about)};
  }

 private:
  [[noreturn]] void refuse(const std::string& fact, const std::string& mend = "make the cache again") const {
    throw Error(ErrorKind::kData, fact, path_, mend);
  }
  std::string text(const std::string& key) const {
    const auto found = file_.metadata.find(key);
    return found == file_.metadata.end() ? "" : found->second;
  }
  int64_t number(const std::string& key) const {
    const std::string digits = text(key);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || value < 0) {
      refuse(fmt::format("the metadata have no number '{}'", key));
    }
    return value;
  }
  Json json(const std::string& key) const {
    Json value = Json::parse(text(key), nullptr, /*allow_exceptions=*/false);
    if (!value.is_object()) refuse(fmt::format("the metadata have no '{}'", key));
    return value;
  }

  void check_model() const {
    const Json made = reader_identity(json("model"));
    const Json now = reader_identity(model_.identity());
    if (made == now) return;
    for (const auto& [key, value] : now.items()) {
      if (made.contains(key) && made.at(key) == value) continue;
      refuse(fmt::format("the cache was made by another model: its {} is {}, this one's is {}", key,
                         made.contains(key) ? made.at(key).dump() : "not known", value.dump()),
             "name the model and options it was made with, or make the cache again");
    }
    refuse(fmt::format("the cache was made with other options of the model: {}", made.dump()),
           "name the model and options it was made with, or make the cache again");
  }

  at::Tensor take(const std::string& name) {
    auto node = file_.tensors.extract(name);
    if (node.empty()) refuse(fmt::format("the tensor '{}' is missing", name));
    return node.mapped();
  }
  std::vector<int64_t> integers(const std::string& name) {
    const at::Tensor tensor = take(name);
    if (tensor.scalar_type() != at::kLong || tensor.dim() != 1)
      refuse(fmt::format("'{}' must be a list of int64", name));
    return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
  }

  Context read_context() {
    Context context{integers("tokens"), number("prefix_len"), number("suffix_len")};
    for (const int64_t token : context.tokens) {
      if (token < 0 || token >= model_.spec().vocab_size)
        refuse(fmt::format("token {} is not in the vocabulary", token));
    }
    const auto n = static_cast<int64_t>(context.tokens.size());
    if (context.prefix_len > n || context.suffix_len > n - context.prefix_len) {
      refuse(fmt::format("{} tokens cannot begin with {} and end with {} of the template", n, context.prefix_len,
                         context.suffix_len));
    }
    return context;
  }

  LayerKv read_layer(int64_t index, const Context& context) {
    const std::string at = fmt::format("layers.{}.", index);
    LayerKv layer;
    layer.head_offsets = integers(at + "head_offsets");
    const auto n_heads = static_cast<size_t>(model_.spec().n_kv_heads);
    const auto& offsets = layer.head_offsets;
    if (offsets.size() != n_heads + 1 || offsets.front() != 0) {
      refuse(fmt::format("'{}head_offsets' are not those of {} heads", at, n_heads));
    }
    const bool compactable = number("compactable") != 0;
    for (size_t h = 0; h < n_heads; ++h) {
      if (offsets[h + 1] < offsets[h] ||
          (compactable && offsets[h + 1] - offsets[h] < context.prefix_len + context.suffix_len)) {
        refuse(fmt::format("head {} of layer {} has {} entries", h, index, offsets[h + 1] - offsets[h]));
      }
    }
    const at::TensorOptions options = model_.decoder().options(index);
    layer.keys = rows(at + "keys", offsets.back(), options);
    layer.values = rows(at + "values", offsets.back(), options);
    if (file_.tensors.contains(at + "bias")) {
      layer.bias = take(at + "bias").to(options.device());
      if (layer.bias.scalar_type() != at::kFloat || layer.bias.dim() != 1 || layer.bias.size(0) != offsets.back()) {
        refuse(fmt::format("'{}bias' must be a list of {} float32 numbers", at, offsets.back()));
      }
      if (layer.bias.isnan().any().item<bool>()) refuse(fmt::format("'{}bias' has values that are not numbers", at));
    }
    return layer;
  }

  at::Tensor rows(const std::string& name, int64_t n_rows, const at::TensorOptions& options) {
    const at::Tensor tensor = take(name);
    if (tensor.dim() != 2 || tensor.size(0) != n_rows || tensor.size(1) != model_.spec().head_dim ||
        tensor.scalar_type() != options.dtype().toScalarType()) {
      refuse(fmt::format("'{}' is not ({}, {}) in the model's dtype", name, n_rows, model_.spec().head_dim));
    }
    if (!tensor.isfinite().all().item<bool>()) refuse(fmt::format("'{}' has values that are not finite", name));
    return tensor.to(options.device());
  }

  const std::string& path_;
  const Model& model_;
  TensorFile file_;
  std::string hash_;  // as read
};

}  // namespace

void save_cache(const std::string& path, const SavedCache& saved, const Model& model) {
  TensorFile file;
  for (int64_t i = 0; i < saved.cache.n_layers(); ++i) {
    const LayerKv& layer = saved.cache.layer(i);
    const std::string at = fmt::format("layers.{}.", i);
    file.tensors[at + "keys"] = layer.keys;
    file.tensors[at + "values"] = layer.values;
    if (layer.bias.defined()) file.tensors[at + "bias"] = layer.bias;
    file.tensors[at + "head_offsets"] = at::tensor(layer.head_offsets, at::kLong);
  }
  file.tensors["tokens"] = at::tensor(saved.context.tokens, at::kLong);
  file.metadata = {{"format", kFormat},
                   {"kvc_version", KVC_VERSION},
                   {"next_position", std::to_string(saved.cache.next_position())},
                   {"prefix_len", std::to_string(saved.context.prefix_len)},
                   {"suffix_len", std::to_string(saved.context.suffix_len)},
                   {"compactable", saved.compactable ? "1" : "0"},
                   {"model", model.identity().dump()},
                   {"about", saved.about.dump()}};
  file.metadata[kHashKey] = hash_of(file);
  write_tensor_file(path, file);
}

SavedCache load_cache(const std::string& path, const Model& model) {
  return Reader(path, model).read();
}

}  // namespace kvc
