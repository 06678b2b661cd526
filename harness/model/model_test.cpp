// The real demo model against `transformers` on real text, and what Model::load refuses.
#include "harness/model/model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "harness/core/error.h"
#include "harness/model/families/family.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string model_path() {
  return std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
}

ModelConfig config(const std::string& dtype) {
  ModelConfig result;
  result.path = model_path();
  result.dtype = dtype;
  result.device = "cpu";
  return result;
}

Json golden_logits() {
  std::ifstream in(std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/logits.json");
  if (!in) throw std::runtime_error("harness/testing/golden/logits.json is missing");
  return Json::parse(in);
}

// (tokens, vocabulary) float32
at::Tensor log_probs(const Model& model, const std::vector<int64_t>& ids) {
  const DecoderSpec& spec = model.spec();
  const KvCache prefix = KvCache::empty(spec.n_layers, spec.n_kv_heads, spec.head_dim, model.decoder().options());
  Tails tails = Tails::behind(prefix, 1, static_cast<int64_t>(ids.size()));
  return model.decoder().logits(model.decoder().forward(PackedTokens::single(ids), prefix, tails)).log_softmax(-1);
}

struct Deviation {
  double largest = 0;    // of a log-probability, nats: next tokens and sampled whole rows
  double mean_next = 0;  // mean |deviation| over the next tokens
  double bias_next = 0;  // mean signed deviation over the next tokens
  int64_t wrong_top = 0;
};

Deviation compare(const at::Tensor& measured, const Json& golden, double clear_margin) {
  Deviation result;
  const auto ids = golden.at("ids").get<std::vector<int64_t>>();
  const auto next = golden.at("next_log_prob").get<std::vector<double>>();
  const auto top = golden.at("top").get<std::vector<int64_t>>();
  const auto margin = golden.at("top_margin").get<std::vector<double>>();
  const at::Tensor argmax = measured.argmax(-1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    if (margin[i] > clear_margin && argmax[row].item<int64_t>() != top[i]) ++result.wrong_top;
    if (i + 1 == ids.size()) break;
    const double difference = measured[row][ids[i + 1]].item<double>() - next[i];
    result.largest = std::max(result.largest, std::abs(difference));
    result.mean_next += std::abs(difference) / static_cast<double>(next.size());
    result.bias_next += difference / static_cast<double>(next.size());
  }
  const auto stride = golden.at("vocabulary_stride").get<int64_t>();
  for (const Json& row : golden.at("rows")) {
    const at::Tensor expected = at::tensor(row.at("log_probs").get<std::vector<double>>());
    const at::Tensor got =
        measured[row.at("position").get<int64_t>()].slice(0, 0, std::nullopt, stride).to(at::kDouble);
    result.largest = std::max(result.largest, (got - expected).abs().max().item<double>());
  }
  return result;
}

TEST(Model, Float32LogProbabilitiesAreThoseOfTransformers) {
  const Json golden = golden_logits();
  const Model model = Model::load(config("float32"));
  const Deviation deviation = compare(log_probs(model, golden.at("ids").get<std::vector<int64_t>>()), golden, 0.0);
  RecordProperty("largest", std::to_string(deviation.largest));
  EXPECT_LT(deviation.largest, 1e-3);
  EXPECT_EQ(deviation.wrong_top, 0);
}

// bfloat16 keeps 8 bits: a rounding is 2^-9 relative. 60 residual additions of independent roundings and logits of up
// to about 20 give tenths of a nat at single tokens, which cancel in the mean; a wrong weight or rotation gives several
// nats. The top token must stay where it leads by half a nat.
TEST(Model, Bfloat16LogProbabilitiesAreNearThoseOfTransformers) {
  const Json golden = golden_logits();
  const Model model = Model::load(config("bfloat16"));
  const Deviation deviation = compare(log_probs(model, golden.at("ids").get<std::vector<int64_t>>()), golden, 0.5);
  RecordProperty("largest", std::to_string(deviation.largest));
  RecordProperty("mean_next", std::to_string(deviation.mean_next));
  RecordProperty("bias_next", std::to_string(deviation.bias_next));
  EXPECT_LT(deviation.largest, 1.0);
  EXPECT_LT(deviation.mean_next, 0.1);
  EXPECT_LT(std::abs(deviation.bias_next), 0.02);
  EXPECT_EQ(deviation.wrong_top, 0);
}

TEST(Model, KnowsItsShapeAndWhereItCameFrom) {
  const Model model = Model::load(config("bfloat16"));
  const DecoderSpec& spec = model.spec();
  EXPECT_EQ(spec.n_layers, 30);
  EXPECT_EQ(spec.n_query_heads, 9);
  EXPECT_EQ(spec.n_kv_heads, 3);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.max_positions, 8192);
  EXPECT_EQ(spec.vocab_size, 49152);
  EXPECT_EQ(spec.rope_base, 100000.0);
  EXPECT_TRUE(spec.tied_embeddings);
  const Json& identity = model.identity();
  EXPECT_EQ(identity.at("file"), "smollm2-135m-instruct.gguf");
  EXPECT_EQ(identity.at("name"), "smollm2-135m-instruct");
  EXPECT_EQ(identity.at("bytes"), 98362432);
  EXPECT_EQ(identity.at("architecture"), "llama");
  EXPECT_EQ(identity.at("dtype"), "bfloat16");
  EXPECT_EQ(identity.at("device"), "cpu");
  EXPECT_EQ(identity.at("content_hash").get<std::string>().size(), 16U);
  EXPECT_EQ(model.chat_template().name(), "model");
}

std::string load_error(const ModelConfig& asked) {
  try {
    Model::load(asked);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Model, RefusesWrongOptions) {
  ModelConfig wrong = config("bfloat61");
  EXPECT_THAT(load_error(wrong), AllOf(HasSubstr("'dtype' must be auto, bfloat16 or float32; got 'bfloat61'"),
                                       HasSubstr("did you mean 'bfloat16'?")));
  wrong = config("auto");
  wrong.path = "";
  EXPECT_THAT(load_error(wrong), HasSubstr("'path' must name a GGUF file or a model folder"));
  wrong.path = "/no/such/file.gguf";
  EXPECT_THAT(load_error(wrong), HasSubstr("cannot open the file"));
  wrong = config("auto");
  wrong.chat_template = "alpaca";
  EXPECT_THAT(load_error(wrong), HasSubstr("got 'alpaca'"));
  if (!at::hasCUDA()) {
    wrong = config("auto");
    wrong.device = "cuda";
    EXPECT_THAT(load_error(wrong), AllOf(HasSubstr("LibTorch finds no GPU"), HasSubstr("device: cpu")));
  }
}

TEST(Model, ChoosesAmongSeveralGpus) {
  const auto chosen = [](const std::string& name, int64_t n_gpus) { return choose_device(name, n_gpus).str(); };
  EXPECT_EQ(chosen("cpu", 2), "cpu");
  EXPECT_EQ(chosen("auto", 0), "cpu");
  EXPECT_EQ(chosen("auto", 2), "cuda:0");
  EXPECT_EQ(chosen("cuda", 2), "cuda:0");
  EXPECT_EQ(chosen("cuda:1", 2), "cuda:1");
  EXPECT_EQ(chosen("cuda:10", 16), "cuda:10");
  EXPECT_THAT([&] { (void)chosen("cuda:2", 2); },
              ThrowsMessage<Error>(AllOf(HasSubstr("finds 2 GPU(s)"), HasSubstr("the last one is 'cuda:1'"))));
  EXPECT_THAT([&] { (void)chosen("cuda:1", 0); }, ThrowsMessage<Error>(HasSubstr("finds no GPU")));
  for (const char* name : {"cuda:", "cuda:x", "cuda:1x", "gpu", "cuda:-1"}) {
    ModelConfig wrong = config("auto");
    wrong.device = name;
    EXPECT_THAT(load_error(wrong),
                HasSubstr("'device' must be auto, cpu, cuda or cuda:N; got '" + std::string(name) + "'"));
  }
}

TEST(Model, RefusesWrongNumbersOfDevices) {
  for (const char* devices : {"0", "two", "", "02", "1000", "-1"}) {
    ModelConfig wrong = config("auto");
    wrong.devices = devices;
    EXPECT_THAT(load_error(wrong),
                HasSubstr("'devices' must be a number of GPUs or auto; got '" + std::string(devices) + "'"));
  }
  ModelConfig wrong = config("auto");
  wrong.device = "cpu";
  wrong.devices = "2";
  EXPECT_THAT(load_error(wrong), HasSubstr("the model is on the CPU"));
}

// A folder of the golden tiny models, with what its makers say about sampling.
class FolderModel : public testing::Test {
 protected:
  FolderModel() {
    namespace fs = std::filesystem;
    const fs::path golden = fs::path(KVC_SOURCE_DIR) / "harness/testing/golden/tiny_models";
    fs::create_directories(folder_);
    fs::copy_file(golden / "llama.safetensors", folder_ / "model.safetensors");
    fs::copy_file(golden / "tokenizer.json", folder_ / "tokenizer.json");
    std::ifstream in(golden / "cases.json");
    std::ofstream(folder_ / "config.json") << Json::parse(in).at("cases").at(0).at("config").dump();
    std::ofstream(folder_ / "generation_config.json")
        << R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [260, 258]})";
  }

  ModelConfig config() const {
    ModelConfig result;
    result.path = folder_.string() + "/";
    result.dtype = "float32";
    result.device = "cpu";
    return result;
  }

  const TemporaryFolder temporary_;
  const std::filesystem::path folder_ = temporary_.file("Tiny-Llama");
};

TEST_F(FolderModel, KnowsItsShapeWhereItCameFromAndHowToSample) {
  const Model model = Model::load(config());
  EXPECT_EQ(model.spec().max_positions, 256);
  const Json& identity = model.identity();
  EXPECT_EQ(identity.at("file"), "Tiny-Llama");
  EXPECT_EQ(identity.at("name"), "Tiny-Llama");
  EXPECT_EQ(identity.at("architecture"), "llama");
  EXPECT_EQ(identity.at("bytes"), std::filesystem::file_size(folder_ / "model.safetensors"));
  EXPECT_FALSE(identity.contains("rope_scaling"));
  const SamplingDefaults& sampling = model.sampling_defaults();
  EXPECT_EQ(sampling.do_sample, true);
  EXPECT_EQ(sampling.temperature, 0.6);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_EQ(sampling.top_p, 0.95);
  EXPECT_EQ(sampling.min_p, std::nullopt);
  EXPECT_THAT(sampling.end_ids, testing::ElementsAre(260, 258));
  EXPECT_THAT(model.tokenizer().end_ids(), testing::ElementsAre(260, 258));  // the list, nothing beside it
}

TEST_F(FolderModel, StretchesItsContextWhenAsked) {
  ModelConfig asked = config();
  asked.rope_scaling = {{"rope_type", "yarn"}, {"factor", 4.0}};
  const Model model = Model::load(asked);
  EXPECT_EQ(model.spec().max_positions, 1024);
  EXPECT_EQ(model.identity().at("rope_scaling").dump(), R"({"rope_type":"yarn","factor":4.0})");
  asked.rope_scaling = {{"factor", 4.0}};
  EXPECT_THAT(load_error(asked), AllOf(HasSubstr("names no 'rope_type'"), HasSubstr("model option 'rope_scaling'")));
  asked.rope_scaling = {{"rope_type", "yarn"}, {"factr", 4.0}};
  EXPECT_THAT(load_error(asked), AllOf(HasSubstr("'factr' is not known"), HasSubstr("model option 'rope_scaling'")));
}

TEST_F(FolderModel, WithoutConfigOrTokenizerIsRefused) {
  std::filesystem::remove(folder_ / "tokenizer.json");
  EXPECT_THAT(load_error(config()), HasSubstr("neither tokenizer.json nor tokenizer.model"));
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_THAT(load_error(config()), HasSubstr("config.json"));
  std::ofstream(folder_ / "b.gguf") << "GGUF";
  EXPECT_THAT(load_error(config()), AllOf(HasSubstr("no config.json"), HasSubstr("name the GGUF file in it: b.gguf")));
  ASSERT_EQ(::mkfifo((folder_ / "config.json").c_str(), 0600), 0);  // nobody writes into it: reading would not end
  EXPECT_THAT(load_error(config()), HasSubstr("not a file but a folder, a pipe or a device"));
}

TEST(Model, ListsFamilies) {
  ASSERT_FALSE(model_families().empty());
  for (const ModelFamily& family : model_families()) {
    EXPECT_FALSE(family.name.empty());
    EXPECT_FALSE(family.description.empty());
  }
}

}  // namespace
}  // namespace kvc
