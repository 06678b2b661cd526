// A document on a small model of any depth, for tests of query sources.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {

// Another model's tokenizer.
class BorrowedTokenizer final : public Tokenizer {
 public:
  explicit BorrowedTokenizer(std::shared_ptr<const Model> owner) : owner_(std::move(owner)) {}
  using Tokenizer::encode;
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    return owner_->tokenizer().encode(segments, ends);
  }
  std::string token_bytes(int64_t id) const override { return owner_->tokenizer().token_bytes(id); }
  bool is_special(int64_t id) const override { return owner_->tokenizer().is_special(id); }
  int64_t vocab_size() const override { return owner_->tokenizer().vocab_size(); }
  std::optional<int64_t> bos() const override { return owner_->tokenizer().bos(); }
  std::vector<int64_t> end_ids() const override { return owner_->tokenizer().end_ids(); }

 private:
  std::shared_ptr<const Model> owner_;
};

// The tiny model with another number of layers, a norm over queries, or a chat template of its own.
struct SmallModel {
  int64_t n_layers = 2;
  bool qk_norm = false;
  int64_t max_positions = 4096;
  std::uint64_t seed = 21;
  at::ScalarType dtype = at::kFloat;
  std::string chat_template;  // Jinja; empty = chatml

  Model make() const {
    const auto tiny = std::make_shared<const Model>(tiny_model(seed, dtype));
    DecoderSpec spec = tiny_spec(max_positions);
    spec.n_layers = n_layers;
    spec.qk_norm = qk_norm;
    return {Decoder(spec, random_weights(spec, seed, dtype)), std::make_unique<BorrowedTokenizer>(tiny),
            chat_template.empty() ? make_chat_template("chatml") : make_chat_template(chat_template, {}, "test"),
            Json{{"content_hash", fmt::format("small-{}-{}", n_layers, seed)}}};
  }
};

// About `n_bytes` of text, as many tokens of the small model, without repetition.
inline std::string numbered_article(int64_t n_bytes) {
  std::string text;
  for (int64_t i = 0; static_cast<int64_t>(text.size()) < n_bytes; ++i) {
    text += fmt::format("House {} of the street has {} windows. ", i * i + 7, (i * 37 + 11) % 97);
  }
  return text.substr(0, static_cast<size_t>(n_bytes));
}

struct QueryScene {
  explicit QueryScene(const SmallModel& small, int64_t n_bytes = 300)
      : model(small.make()),
        context(make_context(model, numbered_article(n_bytes))),
        full(model.decoder().prefill(context.tokens)) {}

  QueryRequest request(std::uint64_t seed = 1) const { return {model, context, full, seed}; }
  std::unique_ptr<LayerQueries> make(const std::string& name, const Json& options, std::uint64_t seed = 1) const {
    return Registry<QuerySource>::instance().create(name, options)->make(request(seed));
  }

  Model model;
  Context context;
  KvCache full;
};

}  // namespace kvc
