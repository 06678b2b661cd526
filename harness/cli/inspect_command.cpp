// kvc inspect: what a model's files hold, what is odd about them, and whether they would load. Reads headers only.

#include <fmt/format.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/error.h"
#include "harness/model/families/inspect.h"
#include "harness/text/chat_template.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

struct InspectArguments {
  std::string path;
  bool tensors = false;
  bool chat_template = false;
  bool json = false;
};

struct Facts {
  ModelFacts model;
  std::unique_ptr<Tokenizer> tokenizer;  // null: see problems
  std::string template_source;           // "" where there is none
  std::vector<std::string> problems;     // why the model would not load
};

std::string one_line(const Error& error) {
  return error.fact() + (error.where().empty() ? "" : " (" + error.where() + ")");
}

// A chat that every template of the supported families accepts.
std::optional<std::string> template_refusal(const ChatTemplate& chat_template) {
  try {
    RenderOptions options;
    options.generation_prompt = true;
    chat_template.render({{"user", "Hello"}}, options);
    return std::nullopt;
  } catch (const Error& error) {
    return one_line(error);
  }
}

Facts look_at(const std::string& path) {
  Facts facts;
  facts.model = inspect_model(path);
  if (!facts.model.weight_problem.empty()) facts.problems.push_back(facts.model.weight_problem);
  try {
    facts.tokenizer = load_tokenizer(path);
    if (facts.tokenizer->vocab_size() > facts.model.spec.vocab_size) {
      // Folders often have padding tokens that the weights know nothing of.
      std::vector<std::string>& list = facts.model.format == "gguf" ? facts.problems : facts.model.oddities;
      list.push_back(fmt::format("the tokenizer has {} tokens, but the embedding {}", facts.tokenizer->vocab_size(),
                                 facts.model.spec.vocab_size));
    }
  } catch (const Error& error) {
    facts.problems.push_back(one_line(error));
  }
  const std::unique_ptr<ChatTemplate> chat_template = load_chat_template(path, "");
  facts.template_source = chat_template->source();
  if (const auto refusal = template_refusal(*chat_template)) {
    facts.model.oddities.push_back("no chat without the option 'chat_template': " + *refusal);
  }
  return facts;
}

std::string size_text(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (bytes < 10'000) return fmt::format("{} bytes", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} KiB", size / 1024);
  return size < 1e10 ? fmt::format("{:.1f} MiB", size / 1024 / 1024)
                     : fmt::format("{:.2f} GiB", size / 1024 / 1024 / 1024);
}

struct TypeTotal {
  int64_t count = 0, bytes = 0;
};

std::map<std::string, TypeTotal> by_type(const std::vector<TensorFact>& tensors) {
  std::map<std::string, TypeTotal> totals;
  for (const TensorFact& tensor : tensors) {
    ++totals[tensor.type].count;
    totals[tensor.type].bytes += tensor.bytes;
  }
  return totals;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : " x ") + std::to_string(size);
  return text;
}

// Keys and values of one token, all layers and KV heads.
int64_t cache_numbers_per_token(const DecoderSpec& spec) {
  return 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim;
}

std::string escaped(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte == 0x7F ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return text;
}

Json tokenizer_json(const Tokenizer& tokenizer) {
  const auto token = [&](int64_t id) { return Json{{"id", id}, {"text", tokenizer.token_bytes(id)}}; };
  Json ends = Json::array();
  for (const int64_t id : tokenizer.end_ids()) ends.push_back(token(id));
  return {{"tokens", tokenizer.vocab_size()},
          {"bos", tokenizer.bos() ? token(*tokenizer.bos()) : Json(nullptr)},
          {"ends", std::move(ends)}};
}

Json as_json(const Facts& facts) {
  Json tensors = Json::array();
  for (const TensorFact& tensor : facts.model.tensors) {
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"type", tensor.type}, {"bytes", tensor.bytes}});
  }
  return {{"format", facts.model.format},
          {"architecture", facts.model.architecture},
          {"spec", to_json(facts.model.spec)},
          {"parameters", facts.model.parameters},
          {"bytes", facts.model.total_bytes},
          {"tensors", std::move(tensors)},
          {"tokenizer", facts.tokenizer ? tokenizer_json(*facts.tokenizer) : Json(nullptr)},
          {"chat_template", facts.template_source.empty() ? Json(nullptr) : Json(facts.template_source)},
          {"sampling_defaults", Json(facts.model.sampling.to_json())},
          {"gpu_attention", gpu::attention_way()},
          {"oddities", facts.model.oddities},
          {"problems", facts.problems}};
}

std::string spec_lines(const ModelFacts& model) {
  const DecoderSpec& spec = model.spec;
  const int64_t per_token = cache_numbers_per_token(spec);
  std::string text = fmt::format("{}, {}: {:.1f} M parameters, {}\n", model.format, model.architecture,
                                 static_cast<double>(model.parameters) / 1e6, size_text(model.total_bytes));
  text += fmt::format("  memory     {} of weights in float32, {} in bfloat16\n", size_text(4 * model.parameters),
                      size_text(2 * model.parameters));
  text += fmt::format("  KV cache   {} per token in float32; {} at all {} positions\n", size_text(4 * per_token),
                      size_text(4 * per_token * spec.max_positions), spec.max_positions);
  const Json numbers = to_json(spec);
  for (const auto& [name, value] : numbers.items()) text += fmt::format("  {:<28} {}\n", name, value.dump());
  return text;
}

std::string tokenizer_lines(const Tokenizer& tokenizer) {
  const auto token = [&](int64_t id) { return fmt::format("{} '{}'", id, escaped(tokenizer.token_bytes(id))); };
  std::string ends;
  for (const int64_t id : tokenizer.end_ids()) ends += (ends.empty() ? "" : ", ") + token(id);
  return fmt::format("tokenizer  {} tokens; BOS: {}; generation stops at {}\n", tokenizer.vocab_size(),
                     tokenizer.bos() ? token(*tokenizer.bos()) : "none", ends);
}

std::string as_text(const Facts& facts, const InspectArguments& options) {
  std::string text = options.path + ": " + spec_lines(facts.model);
  text += fmt::format("tensors    {}", facts.model.tensors.size());
  for (const auto& [type, total] : by_type(facts.model.tensors)) {
    text += fmt::format("; {} {} ({})", total.count, type, size_text(total.bytes));
  }
  text += "\n";
  if (options.tensors) {
    for (const TensorFact& tensor : facts.model.tensors) {
      text += fmt::format("  {:<44} {:<6} {:>20} {:>12}\n", tensor.name, tensor.type, shape_text(tensor.shape),
                          size_text(tensor.bytes));
    }
  }
  if (facts.tokenizer) text += tokenizer_lines(*facts.tokenizer);
  text += facts.template_source.empty()
              ? "template   none\n"
              : fmt::format("template   the model's own, {} bytes\n", facts.template_source.size());
  if (options.chat_template) text += facts.template_source + "\n";
  const auto sampling = facts.model.sampling.to_json();
  if (!sampling.empty()) text += fmt::format("sampling   {}\n", sampling.dump());
  text += fmt::format("on a GPU   attention by {}\n", gpu::attention_way());
  for (const std::string& oddity : facts.model.oddities) text += "odd        " + escaped(oddity) + "\n";
  return text;
}

int run_inspect(const InspectArguments& options) {
  const Facts facts = look_at(options.path);
  print_out(options.json ? as_json(facts).dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                         : as_text(facts, options));
  std::vector<Problem> problems;
  for (const std::string& problem : facts.problems) problems.push_back({problem, options.path, ""});
  throw_if_any(ErrorKind::kData, problems, options.path);
  return 0;
}

}  // namespace

Runner declare_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "inspect", "show what is in a model's files and what is unusual; fails if they would not load");
  command->add_option("path", options->path, "GGUF file, or folder as downloaded from a model hub")->required();
  command->add_flag("--tensors", options->tensors, "list every tensor");
  command->add_flag("--template", options->chat_template, "print the chat template");
  command->add_flag("--json", options->json, "everything, as JSON");
  return [options] { return run_inspect(*options); };
}

}  // namespace kvc
