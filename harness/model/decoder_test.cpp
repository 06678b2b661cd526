// Judge of all: harness/testing/naive_decoder, float64 loops. Tolerance in float32: states are of unit size after sums
// over some 100 products in a few layers, each rounded to 6e-8; 2e-5 leaves a factor of ten and is far below what any
// wrong formula gives.
#include "harness/model/decoder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "harness/core/error.h"
#include "harness/testing/naive_decoder.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr double kTolerance = 2e-5;
constexpr std::uint64_t kSeed = 11;

std::vector<int64_t> text(int64_t n, int64_t step = 37) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back((i * i * 7 + i * step + 5) % 300);
  return tokens;
}

double largest_difference(const at::Tensor& tensor, const std::vector<std::vector<double>>& rows) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous().view({static_cast<int64_t>(rows.size()), -1});
  double largest = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    EXPECT_EQ(wide.size(1), static_cast<int64_t>(rows[r].size()));
    for (size_t i = 0; i < rows[r].size(); ++i) {
      const double difference = std::abs(wide.const_data_ptr<double>()[r * rows[r].size() + i] - rows[r][i]);
      largest = std::max(largest, std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
    }
  }
  return largest;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

KvCache no_prefix(const Decoder& decoder) {
  const DecoderSpec& spec = decoder.spec();
  return KvCache::empty(spec.n_layers, spec.n_kv_heads, spec.head_dim, decoder.options());
}

struct Variant {
  const char* name;
  std::function<void(DecoderSpec&)> change;
};

class DecoderVariants : public ::testing::TestWithParam<Variant> {
 protected:
  DecoderSpec spec() const {
    DecoderSpec spec = tiny_spec();
    GetParam().change(spec);
    return spec;
  }
};

TEST_P(DecoderVariants, AgreeWithNaiveLoops) {
  const DecoderWeights weights = random_weights(spec(), kSeed);
  const Decoder decoder(spec(), weights);
  const std::vector<int64_t> tokens = text(41);
  for (const bool with_prefix : {false, true}) {
    const KvCache prefix = with_prefix ? ragged_prefix() : no_prefix(decoder);
    const NaiveResult expected = naive_forward(spec(), weights, prefix, tokens);
    Tails tails = Tails::behind(prefix, 1, 41);
    const at::Tensor hidden = decoder.forward(PackedTokens::single(tokens), prefix, tails);
    EXPECT_LT(largest_difference(hidden, expected.hidden), kTolerance);
    // Logits are sums of 48 products of size 1/2: ten times the states' size.
    EXPECT_LT(largest_difference(decoder.logits(hidden), expected.logits), 10 * kTolerance);
    EXPECT_EQ(decoder.logits(hidden).scalar_type(), at::kFloat);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DecoderVariants,
                         ::testing::Values(Variant{"Llama", [](DecoderSpec&) {}},
                                           Variant{"Qwen2", [](DecoderSpec& s) { s.attention_bias = true; }},
                                           Variant{"Qwen3", [](DecoderSpec& s) { s.qk_norm = true; }},
                                           Variant{"OwnHead", [](DecoderSpec& s) { s.tied_embeddings = false; }},
                                           Variant{"LinearScaling",
                                                   [](DecoderSpec& s) {
                                                     s.rope_scaling = RopeScaling::kLinear;
                                                     s.rope_scaling_factor = 4;
                                                   }},
                                           Variant{"Llama3Scaling",
                                                   [](DecoderSpec& s) {
                                                     s.rope_scaling = RopeScaling::kLlama3;
                                                     s.rope_frequency_divisors = {1, 1, 1, 1.5, 3, 8, 8, 8};
                                                   }},
                                           Variant{"Llama3Numbers",
                                                   [](DecoderSpec& s) {
                                                     s.rope_scaling = RopeScaling::kLlama3;
                                                     s.rope_scaling_factor = 8;
                                                     s.rope_original_max_positions = 64;
                                                   }},
                                           Variant{"DynamicScaling",
                                                   [](DecoderSpec& s) {
                                                     s.rope_scaling = RopeScaling::kDynamic;
                                                     s.rope_scaling_factor = 4;
                                                     s.rope_original_max_positions = 128;
                                                   }},
                                           Variant{"YarnScaling",
                                                   [](DecoderSpec& s) {
                                                     s.rope_scaling = RopeScaling::kYarn;
                                                     s.rope_scaling_factor = 8;
                                                     s.rope_original_max_positions = 64;
                                                   }},
                                           Variant{"BiasesEverywhere",
                                                   [](DecoderSpec& s) {
                                                     s.attention_bias = s.attention_output_bias = s.mlp_bias = true;
                                                   }},
                                           Variant{"AnotherBase", [](DecoderSpec& s) { s.rope_base = 1e6; }}),
                         [](const auto& variant) { return std::string(variant.param.name); });

class TinyDecoder : public ::testing::Test {
 protected:
  const DecoderWeights weights_ = random_weights(tiny_spec(), kSeed);
  const Decoder decoder_{tiny_spec(), weights_};

  at::Tensor read(const std::vector<int64_t>& tokens, const KvCache& prefix) const {
    Tails tails = Tails::behind(prefix, 1, static_cast<int64_t>(tokens.size()));
    return decoder_.forward(PackedTokens::single(tokens), prefix, tails);
  }
};

// Every second, third, ... entry of each head, heads of different lengths, with a bias: as a method leaves a cache.
KvCache ragged(const KvCache& cache, int64_t every) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < cache.n_layers(); ++l) {
    std::vector<at::Tensor> keys, values, bias;
    for (int64_t h = 0; h < cache.n_kv_heads(); ++h) {
      keys.push_back(cache.layer(l).head_keys(h).slice(0, h, cache.layer(l).head_len(h), every + h));
      values.push_back(cache.layer(l).head_values(h).slice(0, h, cache.layer(l).head_len(h), every + h));
      bias.push_back(at::linspace(-1, 1, keys.back().size(0)));
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  return {std::move(layers), cache.next_position()};
}

TEST_F(TinyDecoder, APassOverSeveralPrefixesGivesTheBitsOfEachAlone) {
  const KvCache full = decoder_.prefill(text(60)), empty = decoder_.empty_cache();
  const KvCache small = ragged(full, 3), smaller = ragged(full, 7);
  const std::vector<const KvCache*> prefixes = {&full, &small, &empty, &smaller};
  std::vector<PackedTokens> inputs;
  std::vector<Tails> tails, tails_alone;
  at::Tensor alone;
  for (size_t p = 0; p < prefixes.size(); ++p) {
    const int64_t batch = 1 + static_cast<int64_t>(p) * 2;  // 16 sequences in all, of one or two new tokens
    std::vector<std::vector<int64_t>> prompts, next;
    for (int64_t b = 0; b < batch; ++b) {
      prompts.push_back(text(2 + (b + static_cast<int64_t>(p)) % 4, 7 + 2 * b));
      next.push_back(text(1 + b % 2, 11 + 2 * static_cast<int64_t>(p) + 4 * b));
    }
    tails.push_back(Tails::behind(*prefixes[p], batch, 8));
    decoder_.forward(PackedTokens::pack(prompts), *prefixes[p], tails.back());
    std::vector<int64_t> all(static_cast<size_t>(batch));
    for (size_t b = 0; b < all.size(); ++b) all[b] = static_cast<int64_t>(b);
    tails_alone.push_back(tails.back().select(all));
    inputs.push_back(PackedTokens::pack(next));
    const at::Tensor rows = decoder_.forward(inputs.back(), *prefixes[p], tails_alone.back());
    alone = alone.defined() ? at::cat({alone, rows}) : rows;
  }
  std::vector<PrefixPart> parts;
  for (size_t p = 0; p < prefixes.size(); ++p) parts.push_back({inputs[p], *prefixes[p], tails[p]});
  ASSERT_GT(alone.size(0), 16);
  ASSERT_LE(alone.size(0), decoder_.independent_rows());
  const at::Tensor together = decoder_.forward(parts);
  EXPECT_TRUE(at::equal(together, alone));
  EXPECT_TRUE(at::equal(decoder_.logits(together), decoder_.logits(alone)));
  for (size_t p = 0; p < prefixes.size(); ++p) {
    EXPECT_EQ(tails[p].lengths(), tails_alone[p].lengths());
    for (int64_t l = 0; l < tails[p].n_layers(); ++l) {
      for (int64_t b = 0; b < tails[p].batch(); ++b) {
        const int64_t n = tails[p].lengths()[static_cast<size_t>(b)];
        EXPECT_TRUE(at::equal(tails[p].keys(l)[b].narrow(1, 0, n), tails_alone[p].keys(l)[b].narrow(1, 0, n)));
        EXPECT_TRUE(at::equal(tails[p].values(l)[b].narrow(1, 0, n), tails_alone[p].values(l)[b].narrow(1, 0, n)));
      }
    }
  }
}

TEST_F(TinyDecoder, StepByStepEqualsAtOnce) {
  const std::vector<int64_t> tokens = text(50);
  const at::Tensor at_once = read(tokens, no_prefix(decoder_));
  const KvCache prefix = no_prefix(decoder_);
  Tails tails = Tails::behind(prefix, 1, 50);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const at::Tensor step = decoder_.forward(PackedTokens::single({tokens[i]}), prefix, tails);
    EXPECT_LT(largest_difference(step[0], at_once[static_cast<int64_t>(i)]), kTolerance) << i;
  }
}

TEST_F(TinyDecoder, ChunksMakeNoDifference) {
  const std::vector<int64_t> tokens = text(101);
  const KvCache whole = decoder_.prefill(tokens, 1000);
  for (const int64_t chunk : {1, 7, 64, 101}) {
    std::vector<int64_t> offsets;
    std::vector<at::Tensor> queries;
    const KvCache cache = decoder_.prefill(tokens, chunk, [&](int64_t layer, int64_t first, const at::Tensor& q) {
      if (layer == 1) offsets.push_back(first);
      if (layer == 1) queries.push_back(q.clone());
    });
    EXPECT_EQ(cache.next_position(), 101);
    EXPECT_EQ(offsets.back(), (100 / chunk) * chunk);
    EXPECT_EQ(at::cat(queries).size(0), 101);
    for (int64_t layer = 0; layer < 2; ++layer) {
      EXPECT_LT(largest_difference(cache.layer(layer).keys, whole.layer(layer).keys), kTolerance);
      EXPECT_LT(largest_difference(cache.layer(layer).values, whole.layer(layer).values), kTolerance);
    }
    EXPECT_EQ(cache.allocated_bytes(), cache.bytes());  // nothing copied, nothing spare
  }
}

TEST_F(TinyDecoder, SharedPrefixAndTailsEqualTheWholeText) {
  const std::vector<int64_t> tokens = text(60);
  const at::Tensor whole = read(tokens, no_prefix(decoder_));
  const KvCache prefix = decoder_.prefill({tokens.begin(), tokens.begin() + 40});
  const at::Tensor rest = read({tokens.begin() + 40, tokens.end()}, prefix);
  EXPECT_LT(largest_difference(rest, whole.narrow(0, 40, 20)), kTolerance);
}

TEST_F(TinyDecoder, PackedSequencesEqualOneByOne) {
  for (const bool with_prefix : {false, true}) {
    const KvCache prefix = with_prefix ? ragged_prefix() : no_prefix(decoder_);
    const std::vector<std::vector<int64_t>> first = {text(9), text(1, 3), text(23, 11)};
    const std::vector<std::vector<int64_t>> then = {text(2, 5), text(13, 8), {}};
    Tails together = Tails::behind(prefix, 3, 24);
    const PackedTokens packed_first = PackedTokens::pack(first), packed_then = PackedTokens::pack(then);
    const at::Tensor hidden_first = decoder_.forward(packed_first, prefix, together);
    const at::Tensor hidden_then = decoder_.forward(packed_then, prefix, together);
    for (size_t b = 0; b < 3; ++b) {
      Tails alone = Tails::behind(prefix, 1, 24);
      const auto compare = [&](const at::Tensor& hidden, const PackedTokens& packed,
                               const std::vector<int64_t>& tokens) {
        if (tokens.empty()) return;
        const at::Tensor own = decoder_.forward(PackedTokens::single(tokens), prefix, alone);
        const auto n = static_cast<int64_t>(tokens.size());
        EXPECT_LT(largest_difference(hidden.narrow(0, packed.sequence_offsets[b], n), own), kTolerance);
      };
      compare(hidden_first, packed_first, first[b]);
      compare(hidden_then, packed_then, then[b]);
      EXPECT_EQ(together.lengths()[b], alone.lengths()[0]);
    }
  }
}

TEST_F(TinyDecoder, TapHandsOutRotatedQueries) {
  const KvCache prefix = ragged_prefix();
  const std::vector<int64_t> tokens = text(12);
  const NaiveResult expected = naive_forward(tiny_spec(), weights_, prefix, tokens);
  Tails tails = Tails::behind(prefix, 1, 12);
  std::vector<int64_t> layers;
  decoder_.forward(PackedTokens::single(tokens), prefix, tails, [&](int64_t layer, const at::Tensor& queries) {
    layers.push_back(layer);
    EXPECT_EQ(queries.sizes(), at::IntArrayRef({12, 4, 16}));
    // Queries reach a size of 5 or so.
    EXPECT_LT(largest_difference(queries, expected.queries[static_cast<size_t>(layer)]), 5 * kTolerance);
  });
  EXPECT_EQ(layers, (std::vector<int64_t>{0, 1}));
}

TEST_F(TinyDecoder, LayerByLayerEqualsForward) {
  const KvCache prefix = ragged_prefix();
  const PackedTokens input = PackedTokens::pack({text(6), text(4)});
  Tails tails = Tails::behind(prefix, 2, 6), own = Tails::behind(prefix, 2, 6);
  const at::Tensor expected = decoder_.forward(input, prefix, tails);
  const std::vector<int64_t> positions = decoder_.positions(input, prefix, own);
  EXPECT_EQ(positions, (std::vector<int64_t>{90, 91, 92, 93, 94, 95, 90, 91, 92, 93}));
  at::Tensor hidden = decoder_.embed(input.tokens);
  for (int64_t layer = 0; layer < 2; ++layer) {
    hidden = decoder_.run_layer(layer, hidden, positions, input.sequence_offsets, prefix.layer(layer), own);
  }
  own.advance(input.sequence_offsets);
  EXPECT_TRUE(at::equal(decoder_.final_norm(hidden), expected));
}

TEST_F(TinyDecoder, Bfloat16StaysNearFloat32) {
  const DecoderWeights narrow = random_weights(tiny_spec(), kSeed, at::kBFloat16);
  const Decoder decoder(tiny_spec(), narrow);
  const KvCache prefix = ragged_prefix(at::kBFloat16);
  const std::vector<int64_t> tokens = text(41);
  const NaiveResult expected = naive_forward(tiny_spec(), narrow, prefix, tokens);
  Tails tails = Tails::behind(prefix, 1, 41);
  const at::Tensor hidden = decoder.forward(PackedTokens::single(tokens), prefix, tails);
  EXPECT_EQ(hidden.scalar_type(), at::kBFloat16);
  // A few dozen roundings of relative size 2^-9 on states of size 1 to 3.
  EXPECT_LT(largest_difference(hidden, expected.hidden), 0.15);
}

TEST_F(TinyDecoder, RefusesPositionsPastTheTrainedLength) {
  const Decoder decoder(tiny_spec(50), random_weights(tiny_spec(50), kSeed));
  EXPECT_EQ(decoder.prefill(text(50)).next_position(), 50);
  EXPECT_THAT([&] { (void)decoder.prefill(text(51)); },
              ThrowsMessage<Error>(HasSubstr("the text reaches position 51, the model was trained on 50 positions")));
  const KvCache prefix = decoder.prefill(text(45));
  Tails tails = Tails::behind(prefix, 1, 10);
  EXPECT_THAT([&] { (void)decoder.forward(PackedTokens::single(text(6)), prefix, tails); },
              ThrowsMessage<Error>(HasSubstr("reaches position 51")));
  EXPECT_EQ(tails.lengths()[0], 0);
}

TEST_F(TinyDecoder, RefusesTokensOutsideTheVocabulary) {
  EXPECT_THAT(
      [&] {
        (void)decoder_.prefill({3, 300});
      },
      ThrowsMessage<Error>(HasSubstr("token 300 at place 1 is outside the vocabulary of 300")));
  EXPECT_THAT([&] { (void)decoder_.prefill({-1}); }, ThrowsMessage<Error>(HasSubstr("token -1")));
}

TEST_F(TinyDecoder, RefusesWeightsThatContradictTheNumbers) {
  const auto with = [&](const std::function<void(DecoderSpec&, DecoderWeights&)>& change) {
    DecoderSpec spec = tiny_spec();
    DecoderWeights weights = weights_;
    change(spec, weights);
    return [spec, weights] { Decoder(spec, weights); };
  };
  const auto message = [](const char* part) { return ThrowsMessage<Error>(HasSubstr(part)); };
  EXPECT_THAT(with([](auto&, auto& w) {
                w.layers[1].qkv = at::zeros({64, 48});
              }),
              message("weight 'layer 1, qkv' has shape (64, 48); the model's numbers ask for (128, 48)"));
  EXPECT_THAT(with([](auto&, auto& w) { w.layers[0].down = at::Tensor(); }),
              message("weight 'layer 0, down' is missing"));
  EXPECT_THAT(with([](auto&, auto& w) { w.final_norm = w.final_norm.to(at::kBFloat16); }),
              message("'final_norm' is BFloat16"));
  EXPECT_THAT(with([](auto&, auto& w) { w.layers.pop_back(); }), message("weights of 1 layers for a model of 2"));
  EXPECT_THAT(with([](auto& s, auto&) { s.attention_bias = true; }), message("'layer 0, qkv_bias' is missing"));
  EXPECT_THAT(with([](auto&, auto& w) { w.layers[0].q_norm = at::ones({16}); }), message("know of none"));
  EXPECT_THAT(with([](auto& s, auto&) { s.n_kv_heads = 3; }), message("4 query heads cannot share 3 KV heads"));
  EXPECT_THAT(with([](auto& s, auto&) { s.head_dim = 15; }), message("head dimension 15 is odd"));
  EXPECT_THAT(with([](auto& s, auto&) { s.n_layers = 0; }), message("'layers' is 0"));
  EXPECT_THAT(with([](auto& s, auto&) {
                s.rope_frequency_divisors = {1, 2};
              }),
              message("2 rotary frequency divisors for 8"));
  EXPECT_THAT(with([](auto& s, auto&) { s.rope_scaling = RopeScaling::kLlama3; }),
              message("without the context length before the stretch"));
  EXPECT_THAT(with([](auto& s, auto&) { s.attention_output_bias = true; }),
              message("'layer 0, attention_output_bias' is missing"));
  EXPECT_THAT(with([](auto& s, auto&) { s.mlp_bias = true; }), message("'layer 0, gate_up_bias' is missing"));
  EXPECT_THAT(with([](auto&, auto& w) { w.layers[1].down_bias = at::ones({48}); }),
              message("'layer 1, down_bias' is there, but"));
  EXPECT_THAT(with([](auto& s, auto&) { s.max_positions = int64_t{1} << 40; }), message("got 1099511627776"));
}

}  // namespace
}  // namespace kvc
