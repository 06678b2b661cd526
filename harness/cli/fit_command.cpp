// kvc fit: one compaction method on a user's own keys, values and queries; no model.

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>

#include "harness/api/compaction_method.h"
#include "harness/api/head_errors.h"
#include "harness/api/plugin_entry.h"
#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/core/output_file.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/model/formats/tensor_file.h"

namespace kvc {
namespace {

struct FitArguments {
  std::string in, out, method, target, report;
  std::optional<int64_t> group_size;  // nullopt: as the file says, or 1
  double held_out = 0;
  std::uint64_t seed = 0;
  bool force = false;
  bool quiet = false;
};

[[noreturn]] void refuse(const std::string& fact, const std::string& where, const std::string& mend) {
  throw Error(ErrorKind::kData, fact, where, mend);
}

// The tensors of one head: "K", "V", "Q" and perhaps "bias" and "Q_held_out", each behind the same prefix ("L2H0.").
struct Head {
  std::string prefix;
  at::Tensor keys, values, queries, bias, held_out;
};

class Dump {
 public:
  explicit Dump(const std::string& path) : path_(path), file_(read_tensor_file(path)) {}

  // Query heads pooled in each Q: what kvc capture wrote, unless the user says it; 1 without either.
  int64_t group_size(const std::optional<int64_t>& wanted) const {
    const auto stored = file_.metadata.find("group_size");
    if (stored == file_.metadata.end()) return wanted.value_or(1);
    int64_t value = 0;
    const std::string& text = stored->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 1)
      refuse(fmt::format("the file's group_size must be a number above 0; got '{}'", text), path_, "capture it again");
    if (wanted && *wanted != value) {
      throw Error(ErrorKind::kUsage, fmt::format("the group size must be {}, as the file says; got {}", value, *wanted),
                  "--group-size", "leave it out");
    }
    return value;
  }

  std::vector<Head> heads() const {
    std::vector<Head> list;
    for (const auto& [name, tensor] : file_.tensors) {
      if (name == "K" || name.ends_with(".K")) list.push_back(head(name.substr(0, name.size() - 1)));
    }
    if (list.empty()) {
      refuse("the file has no keys: no tensor is named 'K' or ends in '.K'", path_,
             "store K (T,d), V (T,d) and Q (n,d), float32 or bfloat16; bias (T) is optional");
    }
    return list;
  }

 private:
  Head head(const std::string& prefix) const {
    Head head{prefix, matrix(prefix + "K"), matrix(prefix + "V"), matrix(prefix + "Q"), {}, {}};
    same_width(prefix + "V", head.values, head.keys);
    same_width(prefix + "Q", head.queries, head.keys);
    if (head.values.size(0) != head.keys.size(0)) {
      refuse(fmt::format("'{0}V' has {1} rows and '{0}K' {2}", prefix, head.values.size(0), head.keys.size(0)), path_,
             "store one value for each key");
    }
    if (const auto bias = file_.tensors.find(prefix + "bias"); bias != file_.tensors.end()) {
      if (bias->second.dim() != 1 || bias->second.size(0) != head.keys.size(0) || !bias->second.is_floating_point()) {
        refuse(fmt::format("'{}bias' must be a list of {} numbers", prefix, head.keys.size(0)), path_,
               "store one bias for each key, or none");
      }
      head.bias = bias->second.to(at::kFloat);
      finite(prefix + "bias", head.bias);
    }
    if (file_.tensors.contains(prefix + "Q_held_out")) {
      head.held_out = matrix(prefix + "Q_held_out");
      same_width(prefix + "Q_held_out", head.held_out, head.keys);
    }
    return head;
  }

  at::Tensor matrix(const std::string& name) const {
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) {
      refuse(fmt::format("tensor '{}' is missing", name), path_, "store K (T,d), V (T,d) and Q (n,d) under one prefix");
    }
    const at::Tensor& tensor = found->second;
    if (tensor.dim() != 2) {
      refuse(fmt::format("'{}' has {} dimensions", name, tensor.dim()), path_, "store a matrix: (T,d) or (n,d)");
    }
    if (tensor.scalar_type() != at::kFloat && tensor.scalar_type() != at::kBFloat16) {
      refuse(fmt::format("'{}' has dtype {}", name, at::toString(tensor.scalar_type())), path_,
             "store float32 or bfloat16");
    }
    finite(name, tensor);
    return tensor;
  }
  void finite(const std::string& name, const at::Tensor& tensor) const {
    if (tensor.isfinite().all().item<bool>()) return;
    refuse(fmt::format("'{}' has values that are not finite", name), path_, "leave those entries out");
  }
  void same_width(const std::string& name, const at::Tensor& tensor, const at::Tensor& keys) const {
    if (tensor.size(1) == keys.size(1) && tensor.scalar_type() == keys.scalar_type()) return;
    refuse(fmt::format("'{}' is ({}) of {}, the keys are ({}) of {}", name, fmt::join(tensor.sizes(), ", "),
                       at::toString(tensor.scalar_type()), fmt::join(keys.sizes(), ", "),
                       at::toString(keys.scalar_type())),
           path_, "store all with the same d and dtype");
  }

  std::string path_;
  TensorFile file_;
};

int64_t target_length(const std::string& text, int64_t source_len) {
  Problems problems;
  const TargetSize target = TargetSize::from_json(text, "--target", problems);
  problems.throw_if_any();
  return uniform_budget(target, {{source_len}}).at(0, 0);
}

// Some queries set apart by a seeded draw, for judging only: the same rows of each of the `group_size` query heads that
// stand one behind the other. The order of both parts is that of the file.
std::pair<at::Tensor, at::Tensor> split(const at::Tensor& queries, int64_t group_size, double fraction,
                                        std::uint64_t seed) {
  const int64_t n = queries.size(0) / group_size;
  const auto n_held = static_cast<int64_t>(fraction * static_cast<double>(n));
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(derive_seed(seed, "held out"));
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[random() % static_cast<std::uint64_t>(i + 1)]);
  std::sort(order.begin(), order.begin() + n_held);
  std::sort(order.begin() + n_held, order.end());
  const at::Tensor all = at::tensor(order, at::kLong);
  const at::Tensor by_head = queries.view({group_size, n, queries.size(1)});
  const auto rows = [&](const at::Tensor& which) { return by_head.index_select(1, which).flatten(0, 1); };
  return {rows(all.narrow(0, n_held, n - n_held)), rows(all.narrow(0, 0, n_held))};
}

class FitCommand {
 public:
  explicit FitCommand(const FitArguments& options)
      : options_(options), chosen_(plugin_from_text<CompactionMethod>("method", options.method, "--method")) {
    method_ = dynamic_cast<const PerHeadMethod*>(chosen_.plugin.get());
    if (method_ == nullptr) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("method '{}' works on a whole model, not on one head",
                              chosen_.value.at("name").get<std::string>()),
                  "--method", "take a method that compacts each head, or use kvc compact");
    }
    if (options.held_out < 0 || options.held_out >= 1) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("the held-out fraction must be at least 0 and below 1; got {}", options.held_out),
                  "--held-out", "write for example --held-out 0.2");
    }
  }

  int run() {
    std::vector<std::string> inputs = files_named_in(chosen_.value);
    inputs.push_back(options_.in);
    check_outputs({{"--out", options_.out, has_format("kvcompact.fit")},
                   {"--report", options_.report, has_format("kvcompact.fit_report")}},
                  inputs, options_.force);
    const Dump dump(options_.in);
    const std::vector<Head> heads = dump.heads();
    group_size_ = dump.group_size(options_.group_size);
    Progress progress(options_.quiet || heads.size() < 2);
    progress.expect(static_cast<int64_t>(heads.size()));
    progress.begin();
    TensorFile out;
    out.metadata = {{"format", "kvcompact.fit.v1"},
                    {"kvc_version", KVC_VERSION},
                    {"method", chosen_.value.dump()},
                    {"seed", std::to_string(options_.seed)}};
    Json reports = Json::object();
    for (size_t i = 0; i < heads.size(); ++i) {
      progress.stage(heads[i].prefix.empty() ? "head" : heads[i].prefix);
      reports[heads[i].prefix.empty() ? "head" : heads[i].prefix.substr(0, heads[i].prefix.size() - 1)] =
          fit_head(heads[i], out);
      progress.measured();
    }
    write_tensor_file(options_.out, out);
    const Json report = {{"schema", "kvcompact.fit_report.v1"},
                         {"kvc_version", KVC_VERSION},
                         {"in", options_.in},
                         {"out", options_.out},
                         {"method", chosen_.value},
                         {"target", options_.target},
                         {"seed", options_.seed},
                         {"heads", reports}};
    if (!options_.report.empty()) write_file_atomically(options_.report, report.dump(2) + "\n");
    print_summary(reports);
    return 0;
  }

 private:
  Json fit_head(const Head& head, TensorFile& out) const {
    HeadProblem problem;
    problem.keys = head.keys;
    problem.values = head.values;
    problem.bias = head.bias;
    problem.queries = head.queries;
    problem.seed = derive_seed(options_.seed, head.prefix);
    check_groups(head);
    at::Tensor held_out = head.held_out;
    if (options_.held_out > 0 && !held_out.defined()) {
      std::tie(problem.queries, held_out) = split(head.queries, group_size_, options_.held_out, options_.seed);
    }
    // Of the queries that are fitted only: a method must not see what it is judged by.
    problem.window_queries = [&, g = group_size_](int64_t n_tokens) { return window(problem.queries, g, n_tokens); };
    const int64_t target_len = target_length(options_.target, head.keys.size(0));
    const Stopwatch clock;
    const std::clock_t begin = std::clock();
    const HeadFit fit = method_->fit(problem, {target_len}).front();
    const double seconds = clock.seconds();
    const double processor_s = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    const auto zeros = [&] { return at::zeros({target_len}, at::kFloat); };
    out.tensors[head.prefix + "indices"] = fit.indices;
    out.tensors[head.prefix + "keys"] = fit.keys;
    out.tensors[head.prefix + "bias"] = fit.bias.defined() ? fit.bias : zeros();
    out.tensors[head.prefix + "values"] = fit.values;
    Json report = {{"source_len", head.keys.size(0)}, {"target_len", target_len},
                   {"head_dim", head.keys.size(1)},   {"fit_s", seconds},
                   {"fit_processor_s", processor_s},  {"notes", fit.notes}};
    report["fit_queries"] = head_errors(problem, fit, problem.queries).to_json();
    const bool has_held_out = held_out.defined() && held_out.size(0) > 0;
    report["held_out_queries"] = has_held_out ? head_errors(problem, fit, held_out).to_json() : Json(nullptr);
    return report;
  }

  void check_groups(const Head& head) const {
    if (head.queries.size(0) % group_size_ == 0) return;
    throw Error(
        ErrorKind::kUsage,
        fmt::format("{} queries cannot be split over {} query heads", head.queries.size(0), group_size_),
        "--group-size",
        "give the number of query heads that share this KV head; Q lists their queries one head after the other");
  }

  // The last n_tokens queries of every query head, head by head.
  at::Tensor window(const at::Tensor& queries, int64_t g, int64_t n_tokens) const {
    const int64_t per_head = queries.size(0) / g;
    const int64_t n = std::min(n_tokens, per_head);
    return queries.view({g, per_head, queries.size(1)}).narrow(1, per_head - n, n).reshape({g * n, queries.size(1)});
  }

  void print_summary(const Json& reports) const {
    std::string text = fmt::format("{:<10} {:>8} {:>8} {:>9} {:>13} {:>13}  {}\n", "head", "entries", "kept", "seconds",
                                   "mass error", "output error", "queries");
    for (const auto& [name, report] : reports.items()) {
      for (const char* which : {"fit_queries", "held_out_queries"}) {
        const Json& errors = report.at(which);
        if (errors.is_null()) continue;
        text += fmt::format("{:<10} {:>8} {:>8} {:>9.3f} {:>13.3e} {:>13.3e}  {}\n", name,
                            report.at("source_len").get<int64_t>(), report.at("target_len").get<int64_t>(),
                            report.at("fit_s").get<double>(), errors.at("mass_relative_rms").get<double>(),
                            errors.at("output_relative").get<double>(),
                            which == std::string("fit_queries") ? "fitted" : "held out");
      }
    }
    print_out(text);
  }

  const FitArguments& options_;
  Resolved<CompactionMethod> chosen_;
  const PerHeadMethod* method_ = nullptr;
  int64_t group_size_ = 1;
};

}  // namespace

Runner declare_fit(CLI::App& app) {
  auto options = std::make_shared<FitArguments>();
  CLI::App* command = app.add_subcommand("fit", "compact the keys and values of your own dump with a method; no model");
  command
      ->add_option("--in", options->in,
                   "safetensors file with K (T,d), V (T,d), Q (n,d), optional bias (T) and Q_held_out (m,d); several "
                   "heads have prefixes: L2H0.K")
      ->required();
  command->add_option("--method", options->method, "am_omp, or '{method: attention_matching, bias: none}'")->required();
  command->add_option("--target", options->target, "what to keep: a fraction (0.05 or 5%) or a number of entries (204)")
      ->required();
  command->add_option("--out", options->out, "safetensors file for indices, keys, bias and values")->required();
  command->add_option("--report", options->report, "JSON file for the errors of attention mass and output");
  command->add_option(
      "--held-out", options->held_out,
      "fraction of the queries kept out of the fit, to judge it; default: none, or the file's Q_held_out");
  command
      ->add_option("--group-size", options->group_size,
                   "query heads that share a KV head, their queries one head after the other in Q; default: as the "
                   "file says (kvc capture writes it), else 1")
      ->check(CLI::PositiveNumber);
  add_seed(*command, options->seed);
  add_force(*command, options->force);
  command->add_flag("--quiet", options->quiet, "no progress on stderr");
  return [options] { return FitCommand(*options).run(); };
}

}  // namespace kvc
