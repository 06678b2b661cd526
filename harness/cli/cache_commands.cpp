// kvc capture, compact and ask: one document's cache outside of a sweep. Compact once, ask ever after.

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string>

#include "harness/api/cache_file.h"
#include "harness/api/compaction_method.h"
#include "harness/api/plugin_entry.h"
#include "harness/api/query_source.h"
#include "harness/api/read_document.h"
#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/cli/writing.h"
#include "harness/core/error.h"
#include "harness/core/output_file.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/core/text_file.h"
#include "harness/model/continuation.h"
#include "harness/model/formats/tensor_file.h"

namespace kvc {
namespace {

struct CacheArguments {
  ModelConfig model;
  std::string document, encoding = "utf-8", cache, out;
  std::string layers;
  std::string method, target, queries, budget = "uniform";
  std::string logits;
  int64_t protect = 0;
  std::vector<std::string> questions;
  DecodeSettings decode;
  std::uint64_t seed = 0;
  bool force = false;
  bool json = false;
  bool quiet = false;
};

void check_out(const CacheArguments& options, const std::string& format, const std::vector<Json>& plugins) {
  std::vector<std::string> inputs = {options.model.path, options.document, options.cache};
  for (const Json& plugin : plugins) {
    for (std::string& file : files_named_in(plugin)) inputs.push_back(std::move(file));
  }
  check_outputs({{"--out", options.out, has_format(format)}}, inputs, options.force);
}

class Notes {
 public:
  explicit Notes(bool quiet) : quiet_(quiet) {}
  template <class... Args>
  void operator()(fmt::format_string<Args...> format, Args&&... args) const {
    if (!quiet_) fmt::print(stderr, "{}\n", fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  bool quiet_;
};

// The full cache of a document's context.
SavedCache read_context(const Model& model, const std::string& text, const std::string& path, bool quiet) {
  const c10::InferenceMode inference;
  Context context = make_context(model, text);
  Progress progress(quiet || context.tokens.size() < 2000);
  progress.expect(static_cast<int64_t>(context.tokens.size()));
  progress.begin();
  const int64_t last_layer = model.spec().n_layers - 1;
  KvCache cache =
      model.decoder().prefill(context.tokens, 0, [&](int64_t layer, int64_t first_token, const at::Tensor& queries) {
        if (layer == last_layer) progress.reached(first_token + queries.size(0), "tokens read");
      });
  Json about = {{"document", last_name(path)}, {"document_hash", stable_hash(text)}, {"steps", Json::array()}};
  return {std::move(cache), std::move(context), true, std::move(about)};
}

SavedCache open_source(const Model& model, const CacheArguments& options) {
  if (options.document.empty() == options.cache.empty()) {
    throw Error(ErrorKind::kUsage, "one of --document and --cache is needed", "kvc",
                "name a text with --document, or a cache of kvc compact with --cache");
  }
  if (!options.cache.empty()) return load_cache(options.cache, model);
  return read_context(model, read_document(options.document, options.encoding), options.document, options.quiet);
}

// A cache that is made here is asked later, nobody knows what.
void refuse_question_aware(const Resolved<QuerySource>& source) {
  if (!source.plugin->question_aware()) return;
  throw Error(ErrorKind::kUsage,
              fmt::format("the query source '{}' reads the question, and here none is asked",
                          source.value.at("name").get<std::string>()),
              "--queries", "take context_prefill, repeat_prefill or dapq; question-aware sources are for sweeps");
}

// "2,14", "2-5" or "all".
std::vector<int64_t> parse_layers(const std::string& text, int64_t n_layers) {
  const auto refuse = [&](const std::string& part) {
    throw Error(ErrorKind::kUsage, fmt::format("'{}' names no layer; the model has 0 to {}", part, n_layers - 1),
                "--layers", "write 2,14 or 0-3 or all");
  };
  std::vector<int64_t> list;
  if (text == "all") {
    for (int64_t i = 0; i < n_layers; ++i) list.push_back(i);
    return list;
  }
  size_t at = 0;
  while (at <= text.size()) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, comma - at);
    const size_t dash = part.find('-');
    const auto number = [&](const std::string& digits) {
      int64_t value = -1;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || value < 0 ||
          value >= n_layers) {
        refuse(part);
      }
      return value;
    };
    const int64_t first = number(part.substr(0, dash));
    const int64_t last = dash == std::string::npos ? first : number(part.substr(dash + 1));
    for (int64_t i = first; i <= last; ++i) {
      if (std::find(list.begin(), list.end(), i) == list.end()) list.push_back(i);
    }
    if (last < first) refuse(part);
    at = comma + 1;
  }
  return list;
}

int capture(const CacheArguments& options) {
  const auto source = plugin_from_text<QuerySource>("queries", options.queries, "--queries");
  refuse_question_aware(source);
  check_out(options, "kvcompact.heads", {source.value});
  const Model model = Model::load(options.model);
  const std::vector<int64_t> layers = parse_layers(options.layers, model.spec().n_layers);
  SavedCache saved = open_source(model, options);
  const ReadDocument document(std::move(saved.context), std::move(saved.cache));
  const auto queries = document.queries(model, source.plugin.get(), derive_seed(options.seed, "queries"));
  const Compactable& span = document.span;
  TensorFile file;
  for (const int64_t layer : layers) {
    const LayerKv& kv = document.full.layer(layer);
    const at::Tensor all = queries->layer(layer, nullptr);
    for (int64_t head = 0; head < kv.n_kv_heads(); ++head) {
      const std::string at = fmt::format("L{}H{}.", layer, head);
      const int64_t length = span.source_len(kv.head_len(head));
      file.tensors[at + "K"] = kv.head_keys(head).narrow(0, span.prefix_len, length);
      file.tensors[at + "V"] = kv.head_values(head).narrow(0, span.prefix_len, length);
      file.tensors[at + "Q"] = all.select(0, head);
      if (kv.bias.defined()) file.tensors[at + "bias"] = kv.head_bias(head).narrow(0, span.prefix_len, length);
    }
  }
  file.metadata = {{"format", "kvcompact.heads.v1"},       {"kvc_version", KVC_VERSION},
                   {"queries", source.value.dump()},       {"group_size", std::to_string(model.spec().group_size())},
                   {"seed", std::to_string(options.seed)}, {"prefix_len", std::to_string(span.prefix_len)},
                   {"model", model.identity().dump()},     {"about", saved.about.dump()}};
  write_tensor_file(options.out, file);
  if (!options.quiet) {
    fmt::print(stderr, "{} heads of {} entries and {} queries each in {}\n",
               layers.size() * static_cast<size_t>(model.spec().n_kv_heads),
               span.source_len(document.full.layer(0).head_len(0)), queries->n_queries(), options.out);
  }
  return 0;
}

class CompactCommand {
 public:
  explicit CompactCommand(const CacheArguments& options)
      : options_(options),
        method_(plugin_from_text<CompactionMethod>("method", options.method, "--method")),
        budget_(plugin_from_text<BudgetRule>("budget", options.budget, "--budget")) {
    if (method_.plugin->needs_target() && options.target.empty()) {
      throw Error(ErrorKind::kUsage, fmt::format("method '{}' needs a target", name()), "--target",
                  "write --target 5%, --target 512 for a number of entries, or --target '64 MiB'");
    }
    if (!method_.plugin->needs_target() && !options.target.empty()) {
      throw Error(ErrorKind::kUsage, fmt::format("method '{}' takes no target", name()), "--target", "leave it out");
    }
    if (method_.plugin->needs_queries()) {
      const std::string queries = options.queries.empty() ? method_.plugin->published_queries() : options.queries;
      source_ = plugin_from_text<QuerySource>("queries", queries, "--queries");
      refuse_question_aware(*source_);
    } else if (!options.queries.empty()) {
      throw Error(ErrorKind::kUsage, fmt::format("method '{}' takes no queries", name()), "--queries", "leave it out");
    }
    if (!options.target.empty()) {
      Problems problems;
      target_ = TargetSize::from_json(options.target, "--target", problems);
      problems.throw_if_any();
    }
    check_out(options, "kvcompact.cache", {method_.value, budget_.value, source_ ? source_->value : Json()});
  }

  int run() {
    const Notes note(options_.quiet);
    const Model model = Model::load(options_.model);
    Stopwatch clock;
    SavedCache saved = open_source(model, options_);
    const double read_s = clock.lap();
    if (!saved.compactable) {
      throw Error(ErrorKind::kData, "the entries of this cache are not those of its document in order", options_.cache,
                  "compact the document itself");
    }
    ReadDocument document(std::move(saved.context), std::move(saved.cache));
    document.span.suffix_len += options_.protect;
    const QuerySource* source = source_ ? source_->plugin.get() : nullptr;
    const auto queries = document.queries(model, source, derive_seed(options_.seed, "queries"));
    const double queries_s = clock.lap();
    Compaction made = compact(model, document, queries.get());
    const double compact_s = clock.lap();
    Json step = {{"method", method_.value},
                 {"target", target_ ? target_->to_json() : Json(nullptr)},
                 {"queries", source_ ? source_->value : Json(nullptr)},
                 {"budget", budget_.value},
                 {"protect", options_.protect},
                 {"seed", options_.seed},
                 {"entries_before", document.full.n_entries()},
                 {"entries_after", made.cache.n_entries()},
                 {"bytes_before", document.full.bytes()},
                 {"bytes_after", made.cache.bytes()},
                 {"seconds", {{"read_s", read_s}, {"queries_s", queries_s}, {"compaction_s", compact_s}}},
                 {"notes", made.notes}};
    saved.about["steps"].push_back(step);
    const SavedCache result{std::move(made.cache), std::move(document.context), method_.plugin->compacts_cache(),
                            saved.about};
    save_cache(options_.out, result, model);
    if (options_.json) print_out(step.dump() + "\n");
    const double before = static_cast<double>(document.full.bytes());
    note(
        "{} entries ({:.1f} MiB) instead of {} ({:.1f} MiB): {:.1f}x fewer bytes; read {:.2f} s, queries {:.2f} s, "
        "compaction {:.2f} s; in {}",
        result.cache.n_entries(), static_cast<double>(result.cache.bytes()) / 1048576, document.full.n_entries(),
        before / 1048576, before / static_cast<double>(result.cache.bytes()), read_s, queries_s, compact_s,
        options_.out);
    return 0;
  }

 private:
  std::string name() const { return method_.value.at("name").get<std::string>(); }

  Compaction compact(const Model& model, const ReadDocument& document, const LayerQueries* queries) const {
    const HeadTable<int64_t> lengths = document.source_lengths();
    for (int64_t layer = 0; layer < lengths.n_layers(); ++layer) {
      for (int64_t head = 0; head < lengths.n_heads(); ++head) {
        if (lengths.at(layer, head) >= 1) continue;
        throw Error(ErrorKind::kData,
                    fmt::format("layer {}, head {} has no entry left to compact after {} protected ones", layer, head,
                                options_.protect),
                    "--protect", "protect fewer");
      }
    }
    std::vector<HeadBudget> budgets;
    if (target_) budgets.push_back(budget_.plugin->spread({*target_, lengths, document.entry_sizes()}));
    const std::uint64_t seed = derive_seed(options_.seed, "method");
    return std::move(document.compact(model, *method_.plugin, queries, std::move(budgets), seed).front());
  }

  const CacheArguments& options_;
  Resolved<CompactionMethod> method_;
  Resolved<BudgetRule> budget_;
  std::optional<Resolved<QuerySource>> source_;
  std::optional<TargetSize> target_;
};

// What other programs that read the same cache can be compared with: of question i, "questions.i.prompt" and ".answer",
// tokens (int64), and ".logits" (tokens of the answer, vocabulary), float32: row j is what token j was chosen from. An
// answer that ended at once is the end token.
void write_logits(const CacheArguments& options, const Model& model, const SavedCache& saved,
                  const std::vector<std::vector<int64_t>>& prompts, const std::vector<Generation>& answers) {
  const c10::InferenceMode inference;
  std::vector<Continuation> continuations;
  for (size_t i = 0; i < answers.size(); ++i) {
    std::vector<int64_t> tokens = answers[i].tokens;
    if (tokens.empty()) tokens = {model.tokenizer().end_ids().at(0)};
    continuations.push_back({static_cast<int64_t>(i), std::move(tokens)});
  }
  const std::vector<at::Tensor> hidden = continuation_hidden(model, saved.cache, prompts, continuations);
  TensorFile file;
  for (size_t i = 0; i < hidden.size(); ++i) {
    const std::string at = fmt::format("questions.{}.", i);
    file.tensors[at + "prompt"] = at::tensor(prompts[i], at::kLong);
    file.tensors[at + "answer"] = at::tensor(continuations[i].tokens, at::kLong);
    file.tensors[at + "logits"] = model.decoder().logits(hidden[i]).to(at::kCPU, at::kFloat);
  }
  file.metadata = {{"format", "kvcompact.logits.v1"},
                   {"kvc_version", KVC_VERSION},
                   {"next_position", std::to_string(saved.cache.next_position())},
                   {"model", model.identity().dump()}};
  write_tensor_file(options.logits, file);
}

int ask(const CacheArguments& options) {
  check_outputs({{"--logits", options.logits, has_format("kvcompact.logits")}},
                {options.model.path, options.document, options.cache}, options.force);
  const Model model = Model::load(options.model);
  const SavedCache saved = open_source(model, options);
  std::vector<std::vector<int64_t>> prompts;
  std::vector<std::uint64_t> seeds;
  for (const std::string& question : options.questions) {
    prompts.push_back(make_question_prompt(model, question));
    seeds.push_back(derive_seed(options.seed, "ask/" + question));
    const int64_t needed = saved.cache.next_position() + static_cast<int64_t>(prompts.back().size());
    if (needed >= model.spec().max_positions) {
      throw Error(ErrorKind::kData,
                  fmt::format("the question ends at position {}; the model has {}", needed, model.spec().max_positions),
                  "--question", "ask a shorter one, or take a model with more positions");
    }
  }
  // Words are shown as they come where only one answer is written.
  const bool live = prompts.size() == 1 && !options.json;
  LiveText words(model.tokenizer(), options.decode.stop);
  TokenSink sink;
  if (live) sink = [&](size_t, int64_t token) { words.feed(token); };
  const Stopwatch clock;
  const std::vector<Generation> answers = generate(model, saved.cache, prompts, options.decode, seeds, sink);
  if (live) words.finish();
  int64_t n_tokens = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    n_tokens += static_cast<int64_t>(answers[i].tokens.size());
    if (options.json) {
      const Json line = {{"question", options.questions[i]},   {"answer", answers[i].text},
                         {"ids", answers[i].tokens},           {"stop_reason", answers[i].stop_reason},
                         {"decode", options.decode.to_json()}, {"seed", options.seed}};
      print_out(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    } else if (!live) {
      print_out(fmt::format("{}\n  {}\n", options.questions[i], answers[i].text));
    }
  }
  if (!options.logits.empty()) write_logits(options, model, saved, prompts, answers);
  const Notes note(options.quiet);
  note("{} tokens in {:.2f} s over a cache of {:.1f} MiB", n_tokens, clock.seconds(),
       static_cast<double>(saved.cache.bytes()) / 1048576);
  return 0;
}

void add_source(CLI::App& command, CacheArguments& options) {
  add_model_options(command, options.model);
  command.add_option("--chat-template", options.model.chat_template,
                     "name of a built-in one; default: the model's own");
  auto* document = command.add_option("--document", options.document, "text file to read; - for standard input");
  add_encoding(command, options.encoding);
  command.add_option("--cache", options.cache, "cache that kvc compact wrote, in place of a document")
      ->excludes(document);
  add_seed(command, options.seed);
  command.add_flag("--quiet", options.quiet, "no progress on stderr");
}

}  // namespace

Runner declare_capture(CLI::App& app) {
  auto options = std::make_shared<CacheArguments>();
  CLI::App* command =
      app.add_subcommand("capture", "write keys, values and reference queries of a document's heads, for kvc fit");
  options->queries = "repeat_prefill";
  add_source(*command, *options);
  command->add_option("--queries", options->queries, "source of reference queries, or '{queries: NAME, option: value}'")
      ->capture_default_str();
  command->add_option("--layers", options->layers, "2,14 or 0-3 or all")->required();
  command->add_option("--out", options->out, "safetensors file: L2H0.K (T,d), .V (T,d), .Q (n,d) for each head")
      ->required();
  add_force(*command, options->force);
  return [options] { return capture(*options); };
}

Runner declare_compact(CLI::App& app) {
  auto options = std::make_shared<CacheArguments>();
  CLI::App* command =
      app.add_subcommand("compact", "compact a document's cache, or a compact one once more, and keep it for kvc ask");
  add_source(*command, *options);
  command->add_option("--queries", options->queries,
                      "source of reference queries, or '{queries: NAME, option: value}'; default: the one the method's "
                      "paper uses");
  command->add_option("--method", options->method, "snapkv, or '{method: attention_matching, bias: none}'")->required();
  command->add_option(
      "--target", options->target,
      "what to keep of the document: a fraction (0.05 or 5%) or a number of entries (512); or the bytes of the "
      "whole cache ('64 MiB')");
  command->add_option("--budget", options->budget, "how heads share the target: a rule of kvc list budgets")
      ->capture_default_str();
  command->add_option("--protect", options->protect, "keep this many of the last entries unchanged")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--out", options->out, "safetensors file for the cache")->required();
  add_force(*command, options->force);
  command->add_flag("--json", options->json, "sizes and seconds as JSON on stdout");
  return [options] { return CompactCommand(*options).run(); };
}

Runner declare_ask(CLI::App& app) {
  auto options = std::make_shared<CacheArguments>();
  options->decode.max_new_tokens = 256;
  CLI::App* command = app.add_subcommand("ask", "ask questions of a cache that kvc compact wrote, or of a document");
  add_source(*command, *options);
  command
      ->add_option("--question", options->questions,
                   "question to ask; repeat it for several, which are answered together")
      ->required()
      ->allow_extra_args(false);
  add_decode_options(*command, options->decode);
  command->add_flag("--json", options->json, "one JSON line a question");
  command->add_option("--logits", options->logits,
                      "safetensors file for the logits of every answer's tokens, to compare other programs with");
  add_force(*command, options->force);
  return [options] { return ask(*options); };
}

}  // namespace kvc
