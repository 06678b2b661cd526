#include "harness/model/model.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/model/decode_step.h"
#include "harness/model/device_care.h"
#include "harness/model/device_plan.h"
#include "harness/model/families/checkpoint.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

// The number of a "cuda:N"; nothing for other text.
std::optional<int64_t> gpu_number(const std::string& name) {
  const std::string prefix = "cuda:";
  if (!name.starts_with(prefix) || name.size() > prefix.size() + 3 || name.size() == prefix.size()) return std::nullopt;
  int64_t number = 0;
  for (const char digit : name.substr(prefix.size())) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = number * 10 + (digit - '0');
  }
  return number;
}

// Without bfloat16 instructions, a bfloat16 product is slower than a float32 one.
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

Json identify(const Checkpoint& checkpoint, const ModelConfig& config, at::ScalarType dtype, const at::Device& device) {
  Json identity;
  const std::string file = last_name(config.path);
  identity["file"] = file;
  identity["name"] = file.ends_with(".gguf") ? file.substr(0, file.size() - 5) : file;
  identity["bytes"] = checkpoint.weight_bytes();
  identity["content_hash"] = checkpoint.content_hash();
  identity["architecture"] = checkpoint.family().name;
  identity["dtype"] = dtype == at::kFloat ? "float32" : "bfloat16";
  identity["device"] = device.is_cuda() ? "cuda" : "cpu";
  if (device.is_cuda()) {
    identity["attention"] = gpu::attention_way();
    identity["fits"] = gpu_fit_name();
  }
  if (!config.thinking.empty()) identity["thinking"] = config.thinking;
  if (!config.rope_scaling.empty()) identity["rope_scaling"] = config.rope_scaling;
  if (config.decode_graphs) identity["decode_graphs"] = true;
  return identity;
}

}  // namespace

c10::Device choose_device(const std::string& name, int64_t n_gpus) {
  if (name == "cpu" || (name == "auto" && n_gpus == 0)) return at::kCPU;
  if (n_gpus == 0) {
    throw Error(
        ErrorKind::kUsage, fmt::format("device '{}' is asked for, but LibTorch finds no GPU", name),
        "model option 'device'",
        "write 'device: cpu' or 'device: auto'; for a GPU, build with a CUDA LibTorch on a machine with a driver");
  }
  const int64_t number = gpu_number(name).value_or(0);
  if (number >= n_gpus) {
    throw Error(ErrorKind::kUsage, fmt::format("device '{}' is asked for, but LibTorch finds {} GPU(s)", name, n_gpus),
                "model option 'device'", fmt::format("the last one is 'cuda:{}'", n_gpus - 1));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(number)};
}

void ModelConfig::check(const OptionCheck& fail) const {
  if (device != "auto" && device != "cpu" && device != "cuda" && !gpu_number(device)) {
    fail("device", fmt::format("must be auto, cpu, cuda or cuda:N; got '{}'", device), "default: \"auto\"");
  }
  const bool is_number = devices.size() <= 3 && devices.find_first_not_of("0123456789") == std::string::npos;
  if (devices != "auto" && (!is_number || devices.empty() || devices[0] == '0')) {
    fail("devices", fmt::format("must be a number of GPUs or auto; got '{}'", devices), "e.g. 2");
  }
}

Model Model::load(const ModelConfig& config) {
  check_options(config, [](const std::string& field, const std::string& fact, const std::string& mend) {
    throw Error(ErrorKind::kUsage, fmt::format("'{}' {}", field, fact), "model", mend);
  });
  const int64_t n_gpus = at::hasCUDA() ? static_cast<int64_t>(at::getNumGPUs()) : 0;
  const at::Device device = choose_device(config.device, n_gpus);
  const std::vector<c10::Device> devices = choose_devices(config.devices, device, n_gpus);
  prepare_device(device);
  const at::ScalarType dtype = choose_dtype(config.dtype, device);
  const Checkpoint checkpoint(config.path, nlohmann::json::parse(config.rope_scaling.dump()));
  const DecoderSpec& spec = checkpoint.spec();
  if (config.decode_graphs) {
    std::string obstacle = decode_graph_obstacle(spec, at::TensorOptions().dtype(dtype).device(device));
    if (obstacle.empty() && devices.size() > 1) obstacle = "the model is spread over several devices";
    if (!obstacle.empty()) {
      throw Error(ErrorKind::kUsage, "decode_graphs is on, but " + obstacle, "model option 'decode_graphs'",
                  "leave it out");
    }
  }
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(config.path);
  // Folders often have padding tokens beyond the embedding's rows; a text with one is refused when it is read.
  if (tokenizer->vocab_size() > spec.vocab_size && !checkpoint.is_folder()) {
    throw Error(
        ErrorKind::kData,
        fmt::format("the tokenizer knows {} tokens, the embedding {}", tokenizer->vocab_size(), spec.vocab_size),
        config.path, "the file is damaged or made by a faulty converter");
  }
  std::unique_ptr<ChatTemplate> chat_template = load_chat_template(config.path, config.chat_template);
  if (!config.thinking.empty()) {
    chat_template = with_thinking(std::move(chat_template), config.thinking == "on");
  }
  SamplingDefaults sampling;
  if (checkpoint.is_folder()) sampling = read_generation_config(config.path);
  Json identity = identify(checkpoint, config, dtype, device);
  if (devices.size() > 1) identity["devices"] = devices.size();
  return {Decoder(spec, checkpoint.weights(dtype, spread_layers(spec, devices))),
          std::move(tokenizer),
          std::move(chat_template),
          std::move(identity),
          std::move(sampling),
          config.decode_graphs};
}

Model::Model(Decoder decoder, std::unique_ptr<Tokenizer> tokenizer, std::unique_ptr<ChatTemplate> chat_template,
             Json identity, SamplingDefaults sampling_defaults, bool decode_graphs)
    : decoder_(std::move(decoder)),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      identity_(std::move(identity)),
      sampling_defaults_(std::move(sampling_defaults)),
      decode_graphs_(decode_graphs) {}

}  // namespace kvc
