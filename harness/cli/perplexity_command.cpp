// kvc perplexity: the log-probability of each token of a text after those before it.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/error.h"
#include "harness/core/progress.h"
#include "harness/core/stopwatch.h"
#include "harness/core/text_file.h"
#include "harness/model/continuation.h"
#include "harness/model/model.h"

namespace kvc {
namespace {

struct PerplexityArguments {
  ModelConfig model;
  std::string file, encoding = "utf-8";
  int64_t window = 0;
  int64_t stride = 0;
  bool bos = false;
  bool json = false;
  bool quiet = false;
};

// Every token but the first is scored once, by the first window that holds it; windows start `stride` tokens apart.
std::vector<double> windowed_log_probs(const Model& model, const std::vector<int64_t>& ids,
                                       const PerplexityArguments& options) {
  const auto n = static_cast<int64_t>(ids.size());
  const int64_t window = options.window > 0 ? options.window : std::max<int64_t>(n, 2);
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(window / 2, 1);
  if (window < 2 || stride >= window) {
    throw Error(ErrorKind::kUsage, fmt::format("windows of {} tokens, {} apart, would skip tokens", window, stride),
                "kvc perplexity --window, --stride", "take a window of 2 or more tokens and a smaller stride");
  }
  Progress progress(options.quiet);
  progress.expect(n - 1);
  progress.begin();
  std::vector<double> log_probs;
  for (int64_t first = 0; static_cast<int64_t>(log_probs.size()) < n - 1; first += stride) {
    const int64_t last = std::min(first + window, n);
    const auto known = static_cast<int64_t>(log_probs.size());
    const auto report = [&](int64_t read) { progress.reached(std::max(first + read - 1, known), "tokens"); };
    const std::vector<double> own = text_log_probs(model, {ids.begin() + first, ids.begin() + last}, report);
    log_probs.insert(log_probs.end(), own.begin() + (known - first), own.end());
  }
  return log_probs;
}

int run_perplexity(const PerplexityArguments& options) {
  const std::string text = read_document(options.file, options.encoding);
  const Model model = Model::load(options.model);
  std::vector<int64_t> ids = model.tokenizer().encode_text(text);
  if (options.bos) {
    if (!model.tokenizer().bos()) {
      throw Error(ErrorKind::kUsage, "this model has no BOS token", "kvc perplexity --bos", "leave --bos out");
    }
    ids.insert(ids.begin(), *model.tokenizer().bos());
  }
  if (ids.size() < 2) {
    throw Error(ErrorKind::kData, fmt::format("the text must have at least 2 tokens; got {}", ids.size()), options.file,
                "take a longer text");
  }
  const Stopwatch clock;
  const std::vector<double> log_probs = windowed_log_probs(model, ids, options);
  double sum = 0;
  for (const double log_prob : log_probs) sum += log_prob;
  const double mean = -sum / static_cast<double>(log_probs.size());
  if (options.json) {
    Json result{{"ids", ids}, {"log_probs", log_probs}, {"perplexity", std::exp(mean)}};
    if (options.window > 0) result["window"] = options.window;
    result["model"] = model.identity();
    print_out(result.dump() + "\n");
  } else {
    print_out(fmt::format("perplexity {:.4f}, log-perplexity {:.5f} nats per token, over {} tokens ({:.0f} tokens/s)\n",
                          std::exp(mean), mean, log_probs.size(), static_cast<double>(ids.size()) / clock.seconds()));
  }
  return 0;
}

}  // namespace

Runner declare_perplexity(CLI::App& app) {
  auto options = std::make_shared<PerplexityArguments>();
  CLI::App* command = app.add_subcommand("perplexity", "perplexity of a text, and the log-probability of each token");
  add_model_options(*command, options->model);
  command->add_option("--file", options->file, "text to read; - for standard input")->required();
  add_encoding(*command, options->encoding);
  command->add_option("--window", options->window, "tokens read at a time; default: the whole text at once")
      ->check(CLI::Range(int64_t{2}, std::numeric_limits<int64_t>::max()));
  command->add_option("--stride", options->stride, "tokens from one window to the next; default: half a window")
      ->check(CLI::PositiveNumber);
  command->add_flag("--bos", options->bos, "put the model's BOS token in front");
  command->add_flag("--json", options->json,
                    R"({"ids", "log_probs", "perplexity"}; log_probs[i] is that of ids[i+1] after ids[0..i])");
  command->add_flag("--quiet", options->quiet, "no progress on stderr");
  return [options] { return run_perplexity(*options); };
}

}  // namespace kvc
