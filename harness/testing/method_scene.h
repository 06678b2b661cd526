// A document as the sweep would hold it, on the small model: what the tests of the methods work on.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/testing/tiny_model.h"

namespace kvc {

inline constexpr int64_t kLayers = 2, kKvHeads = 2;

inline const std::string kArticle =
    "The lake is deep and cold. In winter nobody swims there, but in June the whole village comes. Old Mara says a "
    "bell "
    "lies on its ground; 42 divers have looked for it, none found it.";

// Model, context with its template, full cache, reference queries.
struct Scene {
  explicit Scene(at::ScalarType dtype)
      : model(tiny_model(11, dtype, 1024)),
        context(make_context(model, kArticle)),
        full(model.decoder().prefill(context.tokens)),
        queries(Registry<QuerySource>::instance()
                    .create("repeat_prefill", Json::object())
                    ->make({model, context, full, 5})) {}

  static const Scene& of(at::ScalarType dtype) {
    static const Scene exact(at::kFloat), rounded(at::kBFloat16);
    return dtype == at::kFloat ? exact : rounded;
  }

  int64_t source_len() const { return context.article_len(); }
  int64_t template_len() const { return context.prefix_len + context.suffix_len; }

  std::vector<Compaction> compact(const CompactionMethod& method, const std::vector<HeadBudget>& budgets,
                                  std::uint64_t seed = 1) const {
    const Compactable compactable{context.prefix_len, context.suffix_len};
    return method.compact({model, context, full, compactable, queries.get(),
                           method.needs_target() ? budgets : std::vector<HeadBudget>{}, seed});
  }

  // Logits of a question's tokens behind `cache`, (N, vocab).
  at::Tensor logits(const KvCache& cache) const {
    const std::vector<int64_t> tokens = make_question_prompt(model, "What lies on the ground of the lake?");
    Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
    return model.decoder().logits(model.decoder().forward(PackedTokens::single(tokens), cache, tails));
  }

  Model model;
  Context context;
  KvCache full;
  std::unique_ptr<LayerQueries> queries;
};

inline HeadBudget every_head(int64_t target_len) {
  return {{kLayers, std::vector<int64_t>(kKvHeads, target_len)}, {}};
}

// Every head another length; one keeps nothing, one everything.
inline HeadBudget ragged(const Scene& scene) {
  return {{{0, 37}, {scene.source_len(), 5}}, {}};
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.contiguous().view(at::kByte), b.contiguous().view(at::kByte));
}

inline bool same_bits(const KvCache& a, const KvCache& b) {
  bool same = a.n_layers() == b.n_layers() && a.next_position() == b.next_position();
  for (int64_t i = 0; same && i < a.n_layers(); ++i) {
    same = a.layer(i).head_offsets == b.layer(i).head_offsets && same_bits(a.layer(i).keys, b.layer(i).keys) &&
           same_bits(a.layer(i).values, b.layer(i).values) && same_bits(a.layer(i).bias, b.layer(i).bias);
  }
  return same;
}

}  // namespace kvc
