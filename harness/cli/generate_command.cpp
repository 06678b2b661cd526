// kvc generate: continues a text or answers as a chat, and shows the words as they come.

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/cli/writing.h"
#include "harness/core/error.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/core/text_file.h"
#include "harness/model/generate.h"
#include "harness/model/model.h"

namespace kvc {
namespace {

struct GenerateArguments {
  ModelConfig model;
  DecodeSettings decode;
  std::optional<std::string> prompt;
  std::string prompt_file, encoding = "utf-8";
  std::optional<std::string> system;  // an empty one is one: the template writes no default
  bool chat = false;
  bool special = false;
  bool no_bos = false;
  std::uint64_t seed = 0;
  bool sample = false;
  std::set<std::string> given;  // decode options on the command line
  bool json = false;
  bool quiet = false;
};

std::vector<Segment> prompt_segments(const Model& model, const GenerateArguments& options) {
  const std::string text = options.prompt ? *options.prompt : read_document(options.prompt_file, options.encoding);
  if (!options.chat) return {{text, options.special}};
  std::vector<ChatTurn> turns;
  if (options.system) turns.push_back({"system", *options.system});
  turns.push_back({"user", text});
  RenderOptions render;
  render.generation_prompt = true;
  return model.chat_template().render(turns, render);
}

std::vector<int64_t> prompt_tokens(const Model& model, const GenerateArguments& options,
                                   const std::vector<Segment>& segments) {
  std::vector<int64_t> tokens = model.tokenizer().encode(segments);
  const std::optional<int64_t> bos = model.tokenizer().bos();
  // A chat template writes its own.
  if (bos && !options.chat && !options.no_bos && (tokens.empty() || tokens.front() != *bos)) {
    tokens.insert(tokens.begin(), *bos);
  }
  if (tokens.empty()) {
    throw Error(ErrorKind::kUsage, "the prompt has no tokens, and this model puts no BOS token in front",
                "kvc generate", "give a prompt of at least one word");
  }
  const auto n_tokens = static_cast<int64_t>(tokens.size());
  if (n_tokens > model.spec().max_positions) {
    throw Error(ErrorKind::kData,
                fmt::format("the prompt has {} tokens, the model {} positions", n_tokens, model.spec().max_positions),
                "kvc generate", "take a shorter prompt, or a model with more positions");
  }
  return tokens;
}

// All but the last token, which generate() reads itself.
KvCache read_prompt(const Model& model, const std::vector<int64_t>& tokens, bool quiet) {
  const std::vector<int64_t> first(tokens.begin(), tokens.end() - 1);
  Progress progress(quiet || tokens.size() < 2000);
  progress.expect(static_cast<int64_t>(first.size()));
  progress.begin();
  const int64_t last_layer = model.spec().n_layers - 1;
  return model.decoder().prefill(first, 0, [&](int64_t layer, int64_t first_token, const at::Tensor& queries) {
    if (layer == last_layer) progress.reached(first_token + queries.size(0), "tokens read");
  });
}

Json as_json(const Model& model, const GenerateArguments& options, const std::vector<Segment>& segments,
             const std::vector<int64_t>& prompt, const Generation& generation) {
  std::string text;
  for (const Segment& segment : segments) text += segment.text;
  Json result{{"prompt", text},
              {"prompt_ids", prompt},
              {"text", generation.text},
              {"ids", generation.tokens},
              {"stop_reason", generation.stop_reason},
              {"decode", options.decode.to_json()},
              {"seed", options.seed}};
  if (generation.thinking_tokens > 0) {
    result["thinking_tokens"] = generation.thinking_tokens;
    result["thinking_cut"] = generation.thinking_cut;
  }
  result["model"] = model.identity();
  return result;
}

// With --sample: what the model's makers propose, where the command line says nothing else.
DecodeSettings decode_settings(const Model& model, const GenerateArguments& options) {
  DecodeSettings decode = options.decode;
  if (!options.sample) return decode;
  const SamplingDefaults& proposed = model.sampling_defaults();
  if (!proposed.do_sample.value_or(true) ||
      !(proposed.temperature || proposed.top_k || proposed.top_p || proposed.min_p)) {
    throw Error(ErrorKind::kUsage, "generation_config.json recommends no sampling", "kvc generate --sample",
                "leave --sample out and give --temperature, --top-k, --top-p or --min-p");
  }
  if (!options.given.contains("--temperature")) decode.temperature = proposed.temperature.value_or(1.0);
  if (!options.given.contains("--top-k")) decode.top_k = proposed.top_k.value_or(0);
  if (!options.given.contains("--top-p")) decode.top_p = proposed.top_p.value_or(1.0);
  if (!options.given.contains("--min-p")) decode.min_p = proposed.min_p.value_or(0.0);
  return decode;
}

// What the makers propose and generate() does not do must not pass for done.
void tell_what_is_left_out(const Model& model) {
  const double penalty = model.sampling_defaults().repetition_penalty.value_or(1.0);
  if (penalty == 1.0) return;
  fmt::print(stderr, "note: generation_config.json recommends repetition_penalty {}; it is reported but ignored\n",
             penalty);
}

int run_generate(GenerateArguments options) {
  const Model model = Model::load(options.model);
  if (!options.quiet) tell_what_is_left_out(model);
  options.decode = decode_settings(model, options);
  const std::vector<Segment> segments = prompt_segments(model, options);
  const std::vector<int64_t> prompt = prompt_tokens(model, options, segments);
  Stopwatch clock;
  const KvCache prefix = read_prompt(model, prompt, options.quiet);
  const double prefill_s = clock.lap();
  LiveText live(model.tokenizer(), options.decode.stop);
  TokenSink sink;
  if (!options.json) sink = [&](size_t, int64_t token) { live.feed(token); };
  const Generation generation =
      generate(model, prefix, {{prompt.back()}}, options.decode, {derive_seed(options.seed, "generate")}, sink).front();
  const double decode_s = clock.lap();
  if (options.json) {
    print_out(
        as_json(model, options, segments, prompt, generation).dump(-1, ' ', false, Json::error_handler_t::replace) +
        "\n");
    return 0;
  }
  live.finish();
  if (options.quiet) return 0;
  fmt::print(stderr, "prompt {} tokens in {:.2f} s; {} new in {:.2f} s ({:.1f} tokens/s); ended by: {}{}\n",
             prompt.size(), prefill_s, generation.tokens.size(), decode_s,
             static_cast<double>(generation.tokens.size()) / decode_s, generation.stop_reason,
             generation.thinking_cut ? "; the thinking was cut at its budget" : "");
  return 0;
}

}  // namespace

Runner declare_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateArguments>();
  options->decode.max_new_tokens = 256;
  CLI::App* command =
      app.add_subcommand("generate", "continue a text, or answer as a chat, with the words shown as they are written");
  add_model_options(*command, options->model);
  command->add_option("--chat-template", options->model.chat_template,
                      "name of a built-in one; default: the model's own");
  auto* prompt = command->add_option("--prompt", options->prompt, "text to continue; with --chat what the user says");
  add_encoding(*command, options->encoding);
  command->add_option("--prompt-file", options->prompt_file, "the same from a file; - for standard input")
      ->excludes(prompt);
  auto* chat = command->add_flag("--chat", options->chat, "the prompt is a user's turn in the model's chat format");
  command->add_option("--system", options->system, "system prompt")->needs(chat);
  command->add_option("--thinking", options->model.thinking, "on or off, where the chat template has the switch")
      ->check(CLI::IsMember({"on", "off"}))
      ->needs(chat);
  command->add_flag("--special", options->special, "special tokens spelled in the prompt are read as such")
      ->excludes(chat);
  command->add_flag("--no-bos", options->no_bos, "put no BOS token in front of a plain prompt")->excludes(chat);
  add_decode_options(*command, options->decode);
  command->add_flag("--sample", options->sample,
                    "sample as generation_config.json recommends; options given here override it");
  add_seed(*command, options->seed, "random seed of the sampling");
  command->add_flag("--json", options->json, "prompt, ids, text and settings as JSON, nothing streamed");
  command->add_flag("--quiet", options->quiet, "nothing on stderr");
  command->callback([command, options] {
    for (const char* name : {"--temperature", "--top-k", "--top-p", "--min-p"}) {
      if (command->count(name) > 0) options->given.insert(name);
    }
    if (!options->prompt && options->prompt_file.empty()) {
      throw CLI::RequiredError(command->get_name() + ": --prompt or --prompt-file");
    }
  });
  return [options] { return run_generate(*options); };
}

}  // namespace kvc
