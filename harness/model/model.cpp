#include "harness/model/model.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/families/family.h"
#include "harness/model/formats/content_hash.h"
#include "harness/model/formats/gguf.h"
#include "harness/model/tokenizer/gguf_tokenizer.h"

namespace kvc {
namespace {

at::Device choose_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const bool has_gpu = at::hasCUDA();
  if (has_gpu) return {at::kCUDA, 0};
  if (name == "auto") return at::kCPU;
  throw Error(
      ErrorKind::kUsage, "device 'cuda' is asked for, but LibTorch finds no GPU", "model option 'device'",
      "write 'device: cpu' or 'device: auto'; for a GPU, build with a CUDA LibTorch on a machine with a driver");
}

// Without instructions for it, a bfloat16 product is slower than a float32 one.
bool multiplies_bfloat16_fast() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

at::ScalarType choose_dtype(const std::string& name, const at::Device& device) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  return device.is_cuda() || multiplies_bfloat16_fast() ? at::kBFloat16 : at::kFloat;
}

void check_choice(const OptionCheck& fail, const char* field, const std::string& value,
                  const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) == known.end()) {
    fail(field, fmt::format("is '{}'", value), suggest_name(value, known));
  }
}

}  // namespace

void ModelConfig::check(const OptionCheck& fail) const {
  if (path.empty()) fail("path", "is missing", "name a GGUF file");
  check_choice(fail, "dtype", dtype, {"auto", "bfloat16", "float32"});
  check_choice(fail, "device", device, {"auto", "cpu", "cuda"});
  if (!chat_template.empty()) check_choice(fail, "chat_template", chat_template, chat_template_names());
}

Model Model::load(const ModelConfig& config) {
  config.check([](const std::string& field, const std::string& fact, const std::string& mend) {
    throw Error(ErrorKind::kUsage, fmt::format("'{}' {}", field, fact), "model", mend);
  });
  const at::Device device = choose_device(config.device);
  const at::ScalarType dtype = choose_dtype(config.dtype, device);
  const GgufFile file(config.path);
  const ModelFamily& family = find_family(file);
  const DecoderSpec spec = family.spec(file);
  std::unique_ptr<Tokenizer> tokenizer = make_gguf_tokenizer(file);
  if (tokenizer->vocab_size() > spec.vocab_size) {
    throw Error(
        ErrorKind::kData,
        fmt::format("the tokenizer knows {} tokens, the embedding {}", tokenizer->vocab_size(), spec.vocab_size),
        config.path, "the file is damaged or made by a faulty converter");
  }
  std::unique_ptr<ChatTemplate> chat_template = load_chat_template(config.path, config.chat_template);
  Json identity;
  identity["file"] = std::filesystem::path(config.path).filename().string();
  identity["bytes"] = file.bytes().size();
  identity["content_hash"] = content_hash(file.bytes());
  identity["architecture"] = family.name;
  identity["dtype"] = dtype == at::kFloat ? "float32" : "bfloat16";
  identity["device"] = device.is_cuda() ? "cuda" : "cpu";
  return {Decoder(spec, family.weights(file, spec, dtype, device)), std::move(tokenizer), std::move(chat_template),
          std::move(identity)};
}

Model::Model(Decoder decoder, std::unique_ptr<Tokenizer> tokenizer, std::unique_ptr<ChatTemplate> chat_template,
             Json identity)
    : decoder_(std::move(decoder)),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      identity_(std::move(identity)) {}

}  // namespace kvc
