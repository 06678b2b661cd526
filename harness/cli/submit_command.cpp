// kvc submit: a sweep as an array of Slurm jobs, one a shard, and a job behind it that merges them.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/process.h"
#include "harness/core/json_lines.h"
#include "harness/core/progress.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/shard.h"
#include "harness/sweep/sweep_config.h"
#include "harness/sweep/sweep_plan.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

struct SubmitArguments {
  std::string config, results;
  std::int64_t shards = 0;
  bool dry_run = false;
  bool skip_proof = false;
  bool only_when_all_done = false;
  bool no_plan = false;
};

std::string shell_word(const std::string& text) {
  if (!text.empty() &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") ==
          std::string::npos)
    return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

// [1, 2, 3, 7] -> "1-3,7"
std::string ranges_text(const std::vector<std::int64_t>& list) {
  std::string text;
  for (size_t i = 0; i < list.size();) {
    size_t last = i;
    while (last + 1 < list.size() && list[last + 1] == list[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", list[i]);
    if (last > i) text += fmt::format("-{}", list[last]);
    i = last + 1;
  }
  return text;
}

class Submission {
 public:
  Submission(const SubmitArguments& options, std::vector<std::string> sbatch_options)
      : options_(options), sbatch_options_(std::move(sbatch_options)), config_(load_sweep(options.config)) {
    if (!options_.results.empty()) config_.results = options_.results;
    if (config_.stop_when) {
      throw Error(ErrorKind::kUsage, "a sweep with stop_when cannot be divided into shards", options.config,
                  "delete stop_when, or run the sweep whole: kvc run");
    }
    folder_ = config_.results + "/slurm";
  }

  int run() {
    const std::vector<std::int64_t> shards = shards_to_submit();
    if (shards.empty()) return 0;
    write_script("shards.sh", shards_script());
    write_script("merge.sh", merge_script());
    std::vector<std::string> array = {"sbatch",
                                      "--parsable",
                                      fmt::format("--array={}", ranges_text(shards)),
                                      "--requeue",
                                      "--open-mode=append",
                                      fmt::format("--job-name={}", config_.name),
                                      fmt::format("--output={}/shard-%a.log", folder_)};
    if (!gives_time() && !options_.no_plan) array.push_back(time_limit());
    array.insert(array.end(), sbatch_options_.begin(), sbatch_options_.end());
    array.push_back(folder_ + "/shards.sh");
    if (options_.dry_run) return show(array);
    const std::string job = submit(array);
    keep_job(job);
    const std::string merge = submit(merge_command(job));
    fmt::print("{} of {} shards submitted as job {} (array {}), the merge behind them as job {}; logs in {}\n",
               shards.size(), options_.shards, job, ranges_text(shards), merge, folder_);
    return 0;
  }

 private:
  bool gives_time() const {
    return std::any_of(sbatch_options_.begin(), sbatch_options_.end(), [](const std::string& option) {
      return option.starts_with("--time") || option.starts_with("-t");
    });
  }

  // Half as much again as the plan gives the slowest shard, and ten minutes: a task that is cut off by its limit is not
  // requeued by Slurm.
  std::string time_limit() const {
    const Plan plan = plan_sweep(config_, {false, options_.skip_proof, Model::load});
    const double slowest = plan.slowest_shard(options_.shards);
    const auto minutes = static_cast<std::int64_t>(std::ceil((1.5 * slowest + 600) / 60));
    fmt::print("time limit: {} min a shard; the slowest is planned to take {} on hardware like this machine's\n",
               minutes, duration_text(slowest));
    return fmt::format("--time={}", minutes);
  }

  // Shards with something missing that are neither queued nor running.
  std::vector<std::int64_t> shards_to_submit() const {
    const Coverage coverage = coverage_of(config_.results);
    std::set<std::int64_t> missing;
    if (coverage.expected > 0 && coverage.complete()) {
      fmt::print("nothing to submit: all {} results are there; kvc merge {}/shards/* --into {}\n", coverage.expected,
                 config_.results, config_.results);
      return {};
    }
    const bool told = coverage.expected > 0 && coverage.unopened.empty() && coverage.shards == options_.shards;
    for (std::int64_t i = 1; i <= options_.shards && !told; ++i) missing.insert(i);
    for (const Gap& gap : coverage.gaps) {
      if (told) missing.insert(gap.shard);
    }
    const std::set<std::int64_t> active = options_.dry_run ? std::set<std::int64_t>{} : active_shards();
    std::vector<std::int64_t> list;
    std::set_difference(missing.begin(), missing.end(), active.begin(), active.end(), std::back_inserter(list));
    if (list.empty()) {
      fmt::print("nothing to submit: the {} shards with something missing are queued or running\n", missing.size());
    }
    return list;
  }

  // Of earlier submissions. Slurm forgets a finished job after minutes and then calls its id invalid.
  std::set<std::int64_t> active_shards() const {
    std::set<std::int64_t> active;
    const Json jobs = read_json_of_run(folder_ + "/jobs.json");
    if (!jobs.is_array()) return active;
    for (const Json& job : jobs) {
      if (!job.is_object() || job.value("shards", Json()) != options_.shards || !job.value("id", Json()).is_string())
        continue;
      const ProcessResult queue =
          run_process({"squeue", "--noheader", "--array", "--format=%K", "--jobs=" + job.at("id").get<std::string>()});
      if (!queue.started || queue.code != 0) continue;
      std::istringstream words(queue.out);
      for (std::int64_t index = 0; words >> index;) active.insert(index);
    }
    return active;
  }

  void keep_job(const std::string& id) const {
    Json jobs = read_json_of_run(folder_ + "/jobs.json");
    if (!jobs.is_array()) jobs = Json::array();
    jobs.push_back(Json{{"id", id}, {"shards", options_.shards}});
    write_file_atomically(folder_ + "/jobs.json", jobs.dump(2) + "\n");
  }

  std::string kvc() const {
    std::error_code error;
    const fs::path self = fs::read_symlink("/proc/self/exe", error);
    return shell_word(error ? "kvc" : self.string());
  }

  std::string head() const {
    return fmt::format(
        "#!/bin/bash\n# Written by: kvc submit {} --shards {}\ncd {} || exit 2\n"
        "threads=${{SLURM_CPUS_PER_TASK:-${{SLURM_CPUS_ON_NODE:-}}}}\n",
        options_.config, options_.shards, shell_word(fs::current_path().string()));
  }

  // exec: signals of the scheduler reach kvc, which ends with its records whole; a requeued task goes on from there.
  std::string shards_script() const {
    return head() +
           fmt::format(
               "exec {} ${{threads:+--threads $threads}} run {} --results {} --shard \"$SLURM_ARRAY_TASK_ID/{}\"{}\n",
               kvc(), shell_word(options_.config), shell_word(config_.results), options_.shards,
               options_.skip_proof ? " --skip-proof" : "");
  }

  std::string merge_script() const {
    return head() + fmt::format("exec {} merge {}/shards/*-of-{} --into {}\n", kvc(), shell_word(config_.results),
                                options_.shards, shell_word(config_.results));
  }

  void write_script(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    write_file_atomically(path, text);
    ::chmod(path.c_str(), 0755);
  }

  std::vector<std::string> merge_command(const std::string& job) const {
    std::vector<std::string> command = {
        "sbatch",
        "--parsable",
        fmt::format("--job-name={}-merge", config_.name),
        fmt::format("--dependency={}:{}", options_.only_when_all_done ? "afterok" : "afterany", job),
        "--kill-on-invalid-dep=yes",
        "--open-mode=append",
        fmt::format("--output={}/merge.log", folder_)};
    // Where the shards may run, the merge may; it needs none of their devices, nodes or hours.
    for (size_t i = 0; i < sbatch_options_.size(); ++i) {
      const std::string& option = sbatch_options_[i];
      for (const char* name : {"--partition", "--account", "--qos", "--reservation"}) {
        if (option.starts_with(std::string(name) + "=")) command.push_back(option);
        if (option == name && i + 1 < sbatch_options_.size()) {
          command.push_back(fmt::format("{}={}", name, sbatch_options_[i + 1]));
        }
      }
    }
    command.push_back(folder_ + "/merge.sh");
    return command;
  }

  int show(const std::vector<std::string>& array) const {
    const auto line = [](const std::vector<std::string>& words) {
      std::vector<std::string> safe;
      for (const std::string& word : words) safe.push_back(shell_word(word));
      return fmt::format("{}", fmt::join(safe, " "));
    };
    fmt::print("nothing was submitted; these would be:\n  {}\n  {}\n", line(array), line(merge_command("JOB")));
    return 0;
  }

  // Its job id.
  static std::string submit(const std::vector<std::string>& command) {
    const ProcessResult result = run_process(command);
    if (!result.started) {
      throw Error(ErrorKind::kUsage, "there is no sbatch on this machine", "PATH",
                  "call it on a login node of the cluster; --dry-run writes the job scripts and shows the commands. "
                  "Without Slurm: kvc run CONFIG --shard 3/16 by any scheduler (scripts/slurm/README.md)");
    }
    const std::string id = result.out.substr(0, result.out.find_first_of(";\n"));
    if (result.code != 0 || id.empty() || id.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorKind::kUsage, fmt::format("sbatch refused the job: {}", result.out),
                  fmt::format("{}", fmt::join(command, " ")), "mend the options behind --shards; they are sbatch's");
    }
    return id;
  }

  const SubmitArguments& options_;
  std::vector<std::string> sbatch_options_;
  SweepConfig config_;
  std::string folder_;
};

}  // namespace

Runner declare_submit(CLI::App& app) {
  auto options = std::make_shared<SubmitArguments>();
  CLI::App* command =
      app.add_subcommand("submit", "submit a sweep to Slurm: an array of shards, and a job that merges them");
  command->add_option("config", options->config, "sweep file, YAML or JSON")->required();
  command->add_option("--shards", options->shards, "number of parts, each a task of the array")
      ->required()
      ->check(CLI::Range(std::int64_t{1}, kMaxShards));
  command->add_option("--results", options->results, "folder of the records; default: the one the file names");
  command->add_flag("--skip-proof", options->skip_proof, "skip the self-proof; every record says so");
  command->add_flag("--merge-when-all-done", options->only_when_all_done,
                    "merge only if every shard ended well; default: merge what is there and list what is missing");
  command->add_flag("--no-plan", options->no_plan,
                    "leave the time limit to the partition; default, without --time: from a plan made on this machine");
  command->add_flag("--dry-run", options->dry_run,
                    "write the job scripts and show the sbatch commands, submit nothing");
  command->footer(
      "Every other option is handed to sbatch, e.g. --partition gpu --gres gpu:1 --mem 40G.\n"
      "A second call submits the shards that miss something and are neither queued nor running.");
  command->fallthrough(false)->allow_extras();
  return [options, command] { return Submission(*options, command->remaining()).run(); };
}

}  // namespace kvc
