// Every family and RoPE scaling against what transformers computes in float32 (scripts/golden/tiny_models.py): the same
// weights as a folder and as a GGUF file. And that ways to read a text which must agree do.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "harness/model/continuation.h"
#include "harness/model/generate.h"
#include "harness/model/model.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

// Of the largest |logit| of a case, in float32. Measured: 0.5e-6 to 1.2e-6; another rotation gives half of it or more
// (CasesDiffer).
constexpr double kTolerance = 1e-4;
// Between two ways of this program, float32 sums in another order: measured 0.6e-6 to 1.6e-6.
constexpr double kOwnTolerance = 1e-5;
// In bfloat16 each of the few dozen roundings on the way is 2^-9 relative: measured 0.008 to 0.021.
constexpr double kBfloat16Tolerance = 0.05;

const fs::path& golden_folder() {
  static const fs::path folder = fs::path(KVC_SOURCE_DIR) / "harness/testing/golden/tiny_models";
  return folder;
}

const Json& golden() {
  static const Json all = [] {
    std::ifstream in(golden_folder() / "cases.json");
    if (!in) throw std::runtime_error("harness/testing/golden/tiny_models/cases.json is missing");
    return Json::parse(in);
  }();
  return all;
}

const Json& case_named(const std::string& name) {
  for (const Json& each : golden().at("cases")) {
    if (each.at("name") == name) return each;
  }
  throw std::runtime_error("no golden case '" + name + "'");
}

std::vector<int64_t> text() {
  return golden().at("ids").get<std::vector<int64_t>>();
}

// (rows, vocabulary) float32: the logits at golden()["rows"].
at::Tensor golden_rows(const std::string& name) {
  const Json& cases = golden().at("cases");
  int64_t index = 0;
  while (cases.at(static_cast<size_t>(index)).at("name") != name) ++index;
  const auto n_rows = static_cast<int64_t>(golden().at("rows").size());
  const auto vocabulary = golden().at("vocabulary").get<int64_t>();
  at::Tensor rows = at::empty({n_rows, vocabulary}, at::kFloat);
  std::ifstream in(golden_folder() / "logits.f32", std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(rows.nbytes());
  in.seekg(index * bytes);
  if (!in.read(static_cast<char*>(rows.data_ptr()), bytes)) throw std::runtime_error("logits.f32 is too short");
  return rows;
}

// A model folder put together from the golden files; removed with the object.
class ModelFolder {
 public:
  explicit ModelFolder(const Json& each)
      : path_(fs::temp_directory_path() /
              ("kvc-family-" + std::to_string(::getpid()) + "-" + each.at("name").get<std::string>())) {
    fs::create_directories(path_);
    for (const auto& [inside, stored] : each.at("files").items()) {
      fs::copy_file(golden_folder() / stored.get<std::string>(), path_ / inside, fs::copy_options::overwrite_existing);
    }
    std::ofstream(path_ / "config.json") << each.at("config").dump() << "\n";
  }
  ~ModelFolder() { fs::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

Model load(const std::string& path, const std::string& dtype) {
  ModelConfig config;
  config.path = path;
  config.dtype = dtype;
  config.device = "cpu";
  return Model::load(config);
}

KvCache nothing(const Model& model) {
  const DecoderSpec& spec = model.spec();
  return KvCache::empty(spec.n_layers, spec.n_kv_heads, spec.head_dim, model.decoder().options());
}

// Logits of all tokens, read `step` at a time: (N, vocabulary) float32.
at::Tensor read(const Model& model, const std::vector<int64_t>& tokens, int64_t step) {
  const KvCache prefix = nothing(model);
  const auto n = static_cast<int64_t>(tokens.size());
  Tails tails = Tails::behind(prefix, 1, n);
  std::vector<at::Tensor> logits;
  for (int64_t first = 0; first < n; first += step) {
    const std::vector<int64_t> part(tokens.begin() + first, tokens.begin() + std::min(n, first + step));
    logits.push_back(model.decoder().logits(model.decoder().forward(PackedTokens::single(part), prefix, tails)));
  }
  return at::cat(logits);
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  const double difference = (a - b).abs().max().item<double>();
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

struct Source {
  const char* name;
  bool gguf;
};

constexpr Source kSources[] = {{"llama", false},
                               {"llama_biases", false},
                               {"llama_linear", false},
                               {"llama_dynamic", false},
                               {"llama3", false},
                               {"llama_yarn", false},
                               {"llama_yarn_unrounded", false},
                               {"qwen2", false},
                               {"qwen2_yarn", false},
                               {"qwen2_head", false},
                               {"qwen3", false},
                               {"mistral", false},
                               {"llama_f16", false},
                               {"llama_f32", false},
                               {"llama", true},
                               {"llama_biases", true},
                               {"llama3", true},
                               {"qwen2", true},
                               {"qwen2_yarn", true},
                               {"qwen3", true}};

class FamilyLogits : public ::testing::TestWithParam<Source> {
 protected:
  const Json& expected() const { return case_named(GetParam().name); }
  double largest() const { return expected().at("largest").get<double>(); }
  Model model(const std::string& dtype = "float32") const {
    if (GetParam().gguf) return load((golden_folder() / expected().at("gguf").get<std::string>()).string(), dtype);
    const ModelFolder folder(expected());
    return load(folder.path(), dtype);
  }
  double error_at_rows(const at::Tensor& logits) const {
    const at::Tensor rows = at::tensor(golden().at("rows").get<std::vector<int64_t>>(), at::kLong);
    return largest_difference(logits.index_select(0, rows), golden_rows(GetParam().name)) / largest();
  }
};

TEST_P(FamilyLogits, AreThoseOfTransformers) {
  const Model tiny = model();
  const at::Tensor logits = read(tiny, text(), 160);
  const double error = error_at_rows(logits);
  RecordProperty("relative_error", std::to_string(error * 1e6) + "e-6");
  EXPECT_LT(error, kTolerance);
  const at::Tensor top = logits.argmax(-1);
  const auto expected_top = expected().at("top").get<std::vector<int64_t>>();
  ASSERT_EQ(expected_top.size(), 160U);
  for (int64_t i = 0; i < 160; ++i) EXPECT_EQ(top[i].item<int64_t>(), expected_top[static_cast<size_t>(i)]) << i;
  EXPECT_EQ(tiny.tokenizer().encode({{golden().at("text").get<std::string>(), false}}, nullptr), text());
}

TEST_P(FamilyLogits, ReadInPiecesAreTheSame) {
  const Model tiny = model();
  const std::vector<int64_t> tokens = text();
  const at::Tensor at_once = read(tiny, tokens, 160);
  double most = 0;
  for (const int64_t step : {1, 7, 64}) {
    const double error = largest_difference(read(tiny, tokens, step), at_once) / largest();
    EXPECT_LT(error, kOwnTolerance) << step;
    most = std::max(most, error);
  }
  RecordProperty("relative_error", std::to_string(most * 1e6) + "e-6");
  for (const int64_t chunk : {13, 1024}) {
    const KvCache cache = tiny.decoder().prefill({tokens.begin(), tokens.begin() + 150}, chunk);
    Tails tails = Tails::behind(cache, 1, 10);
    const std::vector<int64_t> rest(tokens.begin() + 150, tokens.end());
    const at::Tensor behind = tiny.decoder().logits(tiny.decoder().forward(PackedTokens::single(rest), cache, tails));
    EXPECT_LT(largest_difference(behind, at_once.narrow(0, 150, 10)), kOwnTolerance * largest()) << chunk;
  }
}

TEST_P(FamilyLogits, GreedyTokensAloneAndInABatchAreThoseOfTransformers) {
  const Model tiny = model();
  const std::vector<int64_t> tokens = text();
  const auto n_prompt = golden().at("n_prompt").get<int64_t>();
  DecodeSettings settings;
  settings.max_new_tokens = golden().at("n_new").get<int64_t>();
  std::vector<std::vector<int64_t>> prompts = {{tokens.begin(), tokens.begin() + n_prompt}};
  for (int64_t b = 1; b < 16; ++b) prompts.emplace_back(tokens.begin() + b, tokens.begin() + b + 3 * b);
  const KvCache prefix = nothing(tiny);
  const std::vector<Generation> together =
      generate(tiny, prefix, prompts, settings, std::vector<std::uint64_t>(prompts.size(), 1));
  for (size_t b = 0; b < prompts.size(); ++b) {
    const std::vector<Generation> alone = generate(tiny, prefix, {prompts[b]}, settings, {1});
    EXPECT_EQ(together[b].tokens, alone[0].tokens) << "sequence " << b;
  }
  const Json& greedy = expected().at("greedy");
  if (greedy.is_null()) return;  // dynamic scaling: transformers mixes rotations of many lengths in one cache
  const std::vector<int64_t> ends = tiny.tokenizer().end_ids();
  EXPECT_NE(std::find(ends.begin(), ends.end(), golden().at("end").get<int64_t>()), ends.end());
  auto wanted = greedy.get<std::vector<int64_t>>();  // the golden text goes on behind an end
  wanted.erase(std::find_first_of(wanted.begin(), wanted.end(), ends.begin(), ends.end()), wanted.end());
  EXPECT_EQ(together[0].tokens, wanted);
}

TEST_P(FamilyLogits, Bfloat16StaysNear) {
  const Model tiny = model("bfloat16");
  const double error = error_at_rows(read(tiny, text(), 160));
  RecordProperty("relative_error", std::to_string(error));
  EXPECT_LT(error, kBfloat16Tolerance);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, FamilyLogits, ::testing::ValuesIn(kSources), [](const auto& source) {
  return std::string(source.param.name) + (source.param.gguf ? "_gguf" : "_folder");
});

TEST(FamilyLogits, EveryGoldenCaseIsTested) {
  std::set<std::pair<std::string, bool>> tested, wanted;
  for (const Source& source : kSources) tested.emplace(source.name, source.gguf);
  for (const Json& each : golden().at("cases")) {
    wanted.emplace(each.at("name").get<std::string>(), false);
    if (!each.at("gguf").is_null()) wanted.emplace(each.at("name").get<std::string>(), true);
  }
  EXPECT_EQ(tested, wanted);
}

// The same weights under another rotation give other logits: the comparison above would see a wrong one.
TEST(FamilyLogits, CasesDiffer) {
  const std::vector<std::string> rotations = {"llama",  "llama_linear", "llama_dynamic",
                                              "llama3", "llama_yarn",   "llama_yarn_unrounded"};
  for (size_t a = 0; a < rotations.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      EXPECT_GT(largest_difference(golden_rows(rotations[a]), golden_rows(rotations[b])), 1.0)
          << rotations[a] << " and " << rotations[b];
    }
  }
}

// transformers takes dynamic frequencies from the length of the text it is given.
TEST(FamilyLogits, DynamicScalingOfAShortTextIsNone) {
  const ModelFolder folder(case_named("llama_dynamic"));
  const Model tiny = load(folder.path(), "float32");
  const ModelFolder plain_folder(case_named("llama"));
  const Model plain = load(plain_folder.path(), "float32");
  std::vector<int64_t> tokens = text();
  tokens.resize(60);
  const Decoder short_texts = tiny.decoder().for_text_of(60);
  const KvCache prefix = nothing(tiny);
  Tails tails = Tails::behind(prefix, 1, 60), plain_tails = Tails::behind(prefix, 1, 60);
  const PackedTokens input = PackedTokens::single(tokens);
  EXPECT_TRUE(
      at::equal(short_texts.forward(input, prefix, tails), plain.decoder().forward(input, prefix, plain_tails)));
  const std::vector<double> scored = text_log_probs(tiny, tokens), plain_scored = text_log_probs(plain, tokens);
  EXPECT_EQ(scored, plain_scored);
}

}  // namespace
}  // namespace kvc
