// kvc doctor: whether this machine, a model and data are fit for a sweep, in a few seconds. Reads headers only.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/cli/starter.h"
#include "harness/core/build_info.h"
#include "harness/core/text_file.h"
#include "harness/model/families/inspect.h"
#include "harness/sweep/run_info.h"
#include "harness/text/chat_template.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr double kGiB = 1024.0 * 1024 * 1024;

struct DoctorArguments {
  std::string model, data, results = "results";
  bool json = false;
};

struct Finding {
  std::string state;  // "OK", "warning" or "problem"
  std::string subject, fact, cure;
};

class Doctor {
 public:
  explicit Doctor(const DoctorArguments& options) : options_(options) {}

  std::vector<Finding> run() {
    program();
    threads();
    memory();
    disk();
    gpu();
    model();
    data();
    return std::move(findings_);
  }

 private:
  void ok(const std::string& subject, const std::string& fact) { findings_.push_back({"OK", subject, fact, ""}); }
  void warn(const std::string& subject, const std::string& fact, const std::string& cure) {
    findings_.push_back({"warning", subject, fact, cure});
  }
  void bad(const std::string& subject, const std::string& fact, const std::string& cure) {
    findings_.push_back({"problem", subject, fact, cure});
  }
  void bad(const std::string& subject, const Error& error) {
    bad(subject, error.where().empty() ? error.fact() : error.fact() + " (" + error.where() + ")", error.mend());
  }

  void program() {
    const BuildInfo& info = build_info();
    const std::string fact = fmt::format("kvc {}, commit {}{}, {}, LibTorch {}", info.version,
                                         info.commit.empty() ? "unknown" : info.commit.substr(0, 12),
                                         info.dirty ? " with changes" : "", info.compiler, info.libtorch);
    if (info.build_type == "Release")
      ok("program", fact);
    else
      warn("program", fact + ", built as " + info.build_type, "build with scripts/build for full speed");
  }

  void threads() {
    const unsigned cores = std::thread::hardware_concurrency();
    const int used = at::get_num_threads();
    const std::string fact = fmt::format("{} of {} cores; CPU features: {}", used, cores, cpu_features());
    if (used > static_cast<int>(cores))
      warn("threads", fact, "more threads than cores slow each other down: unset OMP_NUM_THREADS, or --threads");
    else if (cpu_features() != "unknown" && cpu_features().find("avx2") == std::string::npos &&
             std::string(machine()) == "x86_64")
      warn("threads", fact, "this processor has no AVX2; expect a fraction of the speed");
    else
      ok("threads", fact);
  }

  static std::string machine() {
    utsname name{};
    return ::uname(&name) == 0 ? name.machine : "";
  }

  void memory() {
    const double free = static_cast<double>(::sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
    const double all = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
    const std::string fact = fmt::format("{:.1f} GiB, {:.1f} of them unused", all / kGiB, free / kGiB);
    if (all < 2 * kGiB)
      warn("memory", fact, "enough for the smallest models only");
    else
      ok("memory", fact);
    memory_ = all;
  }

  void disk() {
    std::error_code error;
    fs::path folder = options_.results;
    while (!fs::exists(folder, error) && folder.has_parent_path()) folder = folder.parent_path();
    if (!fs::exists(folder, error)) folder = ".";
    const fs::space_info space = fs::space(folder, error);
    const std::string where = fmt::format("results would go to {}", options_.results);
    if (error) return bad("disk", where + ": " + error.message(), "choose another folder with --results");
    const std::string fact = fmt::format("{}, {:.1f} GiB free", where, static_cast<double>(space.available) / kGiB);
    if (::access(folder.c_str(), W_OK) != 0)
      bad("disk", fact + ", not writable", "choose another folder with --results");
    else if (static_cast<double>(space.available) < 0.5 * kGiB)
      warn("disk", fact, "make room; a sweep's records take some megabytes, saved caches more");
    else
      ok("disk", fact);
  }

  void gpu() {
    if (build_info().cuda.empty()) return ok("GPU", "not used: this LibTorch is built without CUDA");
    if (!at::hasCUDA()) {
      return warn("GPU", fmt::format("LibTorch has CUDA {} but finds no GPU; the CPU is used", build_info().cuda),
                  "check nvidia-smi and CUDA_VISIBLE_DEVICES, if there should be one");
    }
    ok("GPU", fmt::format("{} device(s), CUDA {}, attention by {}", at::getNumGPUs(), build_info().cuda,
                          gpu::attention_way()));
  }

  // The model asked for, or the first one in models/.
  std::string find_model() const {
    if (!options_.model.empty()) return options_.model;
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("models", error)) {
      if (entry.path().extension() == ".gguf" || fs::exists(entry.path() / "config.json"))
        found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found.empty() ? "" : found.front();
  }

  void model() {
    const std::string path = find_model();
    if (path.empty()) return warn("model", "none given, and none in models/", "name one with --model");
    try {
      const ModelFacts facts = inspect_model(path);
      if (!facts.weight_problem.empty()) return bad("model", facts.weight_problem, "see kvc inspect " + path);
      tokenizer_ = load_tokenizer(path);
      RenderOptions render;
      render.generation_prompt = true;
      load_chat_template(path, "")->render({{"user", "Hello"}}, render);
      const double bytes = 4.0 * static_cast<double>(facts.parameters);
      const std::string fact =
          fmt::format("{}: {}, {:.1f} M parameters, {:.1f} GiB in float32", path, facts.architecture,
                      static_cast<double>(facts.parameters) / 1e6, bytes / kGiB);
      if (bytes / 2 > memory_)
        bad("model", fact + fmt::format("; this machine has {:.1f} GiB", memory_ / kGiB), "take a smaller model");
      else if (bytes > memory_)
        warn("model", fact, "use --dtype bfloat16, which halves it");
      else
        ok("model", fact);
    } catch (const Error& error) {
      bad("model", error);
    }
  }

  void data() {
    if (options_.data.empty()) return ok("data", "none given; --data checks a file, a folder or a data set");
    try {
      const FoundData found = find_data(options_.data, tokenizer_.get());
      ok("data", fmt::format("{}: data set {}, {}", options_.data, found.dataset, found.counts()));
      for (const std::string& note : found.notes) ok("data", note);
    } catch (const Error& error) {
      bad("data", error);
    }
  }

  const DoctorArguments& options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  double memory_ = 0;
  std::vector<Finding> findings_;
};

int run_doctor(const DoctorArguments& options) {
  const std::vector<Finding> findings = Doctor(options).run();
  int problems = 0;
  Json list = Json::array();
  std::string text;
  for (const Finding& f : findings) {
    problems += f.state == "problem" ? 1 : 0;
    list.push_back({{"state", f.state}, {"subject", f.subject}, {"fact", f.fact}, {"cure", f.cure}});
    text += fmt::format("{:<8} {:<8} {}\n", f.state, f.subject, f.fact);
    if (!f.cure.empty()) text += fmt::format("{:<17} -> {}\n", "", f.cure);
  }
  print_out(options.json ? list.dump(2) + "\n" : text);
  return problems == 0 ? 0 : exit_code(ErrorKind::kData);
}

}  // namespace

Runner declare_doctor(CLI::App& app) {
  auto options = std::make_shared<DoctorArguments>();
  CLI::App* command =
      app.add_subcommand("doctor", "check program, machine, model and data; each line OK, warning or problem");
  command->add_option("--model", options->model, "GGUF file or model folder; default: the first in models/");
  command->add_option("--data", options->data, "data file, folder of texts, or name of a data set");
  command->add_option("--results", options->results, "folder in which results would be written")->capture_default_str();
  command->add_flag("--json", options->json, "as JSON");
  return [options] { return run_doctor(*options); };
}

}  // namespace kvc
