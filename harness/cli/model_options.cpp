#include "harness/cli/model_options.h"

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "harness/core/error.h"

namespace kvc {

void add_encoding(CLI::App& command, std::string& encoding) {
  command.add_option("--encoding", encoding,
                     "of the text: utf-8, utf-16, latin-1, or bytes as they are; default utf-8");
}

void add_model_options(CLI::App& command, ModelConfig& config) {
  command.add_option("--model", config.path, "GGUF file, or folder as downloaded from a model hub")->required();
  command.add_option("--dtype", config.dtype,
                     "float32, bfloat16 or auto (bfloat16 where the hardware multiplies it fast)");
  command.add_option("--device", config.device, "cpu, cuda, cuda:1 (the second GPU) or auto");
  command.add_option("--devices", config.devices,
                     "GPUs over which the layers are spread, from --device on: a number or auto (all)");
  command.add_flag("--decode-graphs", config.decode_graphs,
                   "on a GPU, the steps of writing an answer run as CUDA graphs; untried on one so far");
  command.add_option_function<std::string>(
      "--rope-scaling",
      [&config](const std::string& text) {
        config.rope_scaling = Json::parse(text, nullptr, /*allow_exceptions=*/false);
        if (!config.rope_scaling.is_object() || config.rope_scaling.empty()) {
          throw CLI::ValidationError(
              "--rope-scaling",
              R"(must be a JSON object with a rope_type, for example {"rope_type": "yarn", "factor": 2})");
        }
      },
      R"(stretches the context, as JSON: {"rope_type": "yarn", "factor": 2}; default: the model's own)");
}

void add_seed(CLI::App& command, std::uint64_t& seed, const std::string& help) {
  command.add_option_function<std::string>(
      "--seed",
      [&seed](const std::string& text) {
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value < 0) {
          throw CLI::ValidationError("--seed", "must be a whole number from 0 to 9223372036854775807; got " + text);
        }
        seed = static_cast<std::uint64_t>(value);
      },
      help + "; default 0");
}

void add_force(CLI::App& command, bool& force) {
  command.add_flag("--force", force, "replace an output file that this command wrote before");
}

void print_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  throw Error(ErrorKind::kData, std::string("cannot write the output: ") + std::strerror(errno), "standard output",
              "make room, or send it elsewhere");
}

}  // namespace kvc
