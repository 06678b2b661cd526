// What a sweep survives: kills at any moment, full disks, folders that become read-only, torn and foreign lines, two
// processes at once, wrong clocks. After each, one more run must end with the results of a run that nothing disturbed:
// none lost, none doubled, none different.
//
// KVC_STRESS_KILLS (default 30) says how many kills; scripts/stress runs 1,000.

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "harness/core/json_lines.h"
#include "harness/report/report.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kStressSweep =
    "sweep: stress\nseed: 7\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 3}]\n"
    "task: [{task: fidelity, max_new_tokens: 4}, {task: exact_match, max_new_tokens: 4}]\n"
    "queries: {queries: self_study, conversations: [summarize], max_new_tokens: 4}\ntarget: [0.5, 0.2]\n"
    "method: [full_cache, streaming_llm, test_queried]\nproof_tokens: 30\n";
constexpr int64_t kRecords = 3 * 2 * (1 + 2 + 2);

class Stress : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }  // a forked child has no pool of threads
  void SetUp() override {
    options_.quiet = true;
    options_.load_model = [](const ModelConfig&) { return tiny_model(1); };
    run("untouched");
    expected_ = content("untouched");
    expected_report_ = report("untouched");
    ASSERT_EQ(static_cast<int64_t>(expected_.size()), kRecords);
  }

  SweepConfig config(const std::string& results) const {
    SweepConfig config = parse_sweep(ConfigText::from_string(kStressSweep, "s.yaml"));
    config.results = path(results);
    return config;
  }
  std::string path(const std::string& name) const { return name.front() == '/' ? name : folder_.file(name); }
  RunSummary run(const std::string& results) const { return run_sweep(config(results), options_); }

  // Every record by cell and document; fails when one stands in the files twice.
  std::map<std::string, Json> content(const std::string& results) const {
    std::map<std::string, Json> all;
    for (const auto& entry : fs::directory_iterator(path(results))) {
      if (entry.path().extension() != ".jsonl") continue;
      for (const Json& line : read_json_lines(entry.path().string()).values) {
        const Record record = Record::from_json(line, entry.path().string());
        if (record.status != "done") continue;
        EXPECT_TRUE(all.emplace(record.cell_id + record.document_id, measured_content(record)).second)
            << "measured twice: " << entry.path();
      }
    }
    return all;
  }
  // The report's text without times, and without what names the torn lines that were left out.
  std::string report(const std::string& results) const {
    write_report(path(results));
    std::ifstream file(path(results) + "/report.json");
    Json json = Json::parse(file);
    json.erase("seconds_per_document");
    json.erase("warnings");
    json.erase("references");  // how many answers were found from an earlier run
    for (Json& table : json.at("tables")) {
      for (Json& row : table.at("rows")) {
        for (Json& cell : row.at("cells")) {
          if (cell.is_object()) cell.erase("seconds");
        }
      }
    }
    return json.dump(2);
  }
  void expect_untouched(const std::string& results) const {
    EXPECT_EQ(content(results), expected_);
    EXPECT_EQ(report(results), expected_report_);
  }

  // A child process that runs the sweep. It ends with 0, with 3 (Error(kData)), 2 (Error(kUsage)) or by a signal; what
  // it threw is in `error_file`.
  template <class Before>
  pid_t start(const std::string& results, Before&& before) const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    if (::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(99);
    int code = 0;
    try {
      RunOptions options = options_;
      before(options);
      run_sweep(config(results), options);
    } catch (const Error& e) {
      const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};  // of a test that limits the size of files
      ::setrlimit(RLIMIT_FSIZE, &unlimited);
      std::ofstream(folder_.file("error")) << e.what();
      code = exit_code(e.kind());
    } catch (...) {
      code = 98;
    }
    ::_exit(code);
  }
  pid_t start(const std::string& results) const {
    return start(results, [](RunOptions&) {});
  }
  static int wait(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }
  std::string error() const {
    std::ifstream file(folder_.file("error"));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TemporaryFolder folder_;
  RunOptions options_;
  std::map<std::string, Json> expected_;
  std::string expected_report_;
};

TEST_F(Stress, KillsAtAnyMoment) {
  const char* wanted = std::getenv("KVC_STRESS_KILLS");
  const int64_t kills_wanted = wanted == nullptr ? 30 : std::atoll(wanted);
  constexpr int kSignals[] = {SIGKILL, SIGTERM, SIGINT, SIGHUP};
  std::mt19937_64 random(7);
  // As long as an undisturbed run takes: kills fall anywhere in it.
  const auto clock = [] { return std::chrono::steady_clock::now(); };
  const auto before = clock();
  wait(start("timed"));
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(clock() - before).count();
  int64_t kills = 0, rounds = 0, torn = 0;
  std::map<int, int64_t> by_signal;
  while (kills < kills_wanted) {
    fs::remove_all(path("r"));
    for (bool ended = false; !ended;) {
      const pid_t child = start("r");
      ::usleep(static_cast<useconds_t>(random() % static_cast<uint64_t>(std::max<int64_t>(1000, whole))));
      const int signal = kSignals[random() % 4];
      ::kill(child, signal);
      const int status = wait(child);
      ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
      const bool killed = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) >= 128);
      ASSERT_TRUE(ended || killed) << status << ": " << error();
      if (killed) ++by_signal[signal];
      kills += killed ? 1 : 0;
    }
    ++rounds;
    for (const auto& entry : fs::directory_iterator(path("r"))) {
      if (entry.path().extension() == ".jsonl") torn += read_json_lines(entry.path()).broken_lines.empty() ? 0 : 1;
    }
    expect_untouched("r");
    if (HasFailure()) break;
  }
  std::string counts;
  for (const auto& [signal, n] : by_signal) counts += fmt::format(" {} {}", ::strsignal(signal), n);
  fmt::print("{} kills in {} sweeps ({} files with torn lines):{}\n", kills, rounds, torn, counts);
}

// Not one byte of a record that is not whole is believed, and what is whole is not measured again.
TEST_F(Stress, ATornLineAtEveryOffset) {
  std::string file;
  for (const auto& entry : fs::directory_iterator(path("untouched"))) {
    if (entry.path().extension() == ".jsonl") file = entry.path().filename().string();
  }
  std::ifstream in(path("untouched") + "/" + file, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  fs::copy(path("untouched"), path("r"), fs::copy_options::recursive);
  fs::remove_all(path("r/references"));
  std::vector<size_t> ends;  // behind each record, without its newline
  for (size_t at = 0; (at = whole.find('\n', at)) != std::string::npos; ++at) ends.push_back(at);
  ASSERT_EQ(ends.size(), 3U);
  for (size_t size = 0; size <= whole.size(); ++size) {
    std::ofstream(path("r") + "/" + file, std::ios::binary) << whole.substr(0, size);
    const auto n_whole = std::count_if(ends.begin(), ends.end(), [&](size_t end) { return end <= size; });
    std::vector<std::string> warnings;
    const auto n_other = static_cast<size_t>(kRecords) - 3;
    ASSERT_EQ(load_records(path("r"), warnings).size(), n_other + static_cast<size_t>(n_whole)) << size;
    const bool torn = size > 0 && whole[size - 1] != '\n' && !std::count(ends.begin(), ends.end(), size);
    ASSERT_EQ(warnings.size(), torn ? 1U : 0U) << size;
    if (size % 211 != 0) continue;
    ASSERT_EQ(run("r").measured, 3 - n_whole) << size;
    expect_untouched("r");
  }
}

TEST_F(Stress, ForeignLines) {
  const std::string file = expected_.begin()->second.at("cell_id").get<std::string>() + ".jsonl";
  std::ifstream in(path("untouched") + "/" + file);
  const std::string own{std::istreambuf_iterator<char>(in), {}};
  Json other = Json::parse(own.substr(0, own.find('\n')));
  other["cell_id"] = "0123456789abcdef";
  Json newer = other;
  newer["version"] = 99;
  const std::vector<std::pair<std::string, std::string>> lines = {
      {"[1, 2]", "lacks the field 'version'"},  {"null", "lacks the field 'version'"},
      {R"({"version": 1})", "lacks the field"}, {newer.dump(), "has version 99"},
      {other.dump(), "is in another cell's"},   {R"({"version": 1, "cell_id": 7})", "a wrong field 'cell_id'"},
  };
  for (const auto& [line, message] : lines) {
    fs::remove_all(path("r"));
    fs::copy(path("untouched"), path("r"), fs::copy_options::recursive);
    std::ofstream(path("r") + "/" + file, std::ios::app) << line << "\n";
    fs::remove(path("r/documents.json"));
    const std::string error = error_of([&] { run("r"); });
    EXPECT_THAT(error, AllOf(HasSubstr(message), HasSubstr(file + ", record 4"), HasSubstr("mend: "))) << line;
    std::ofstream(path("r") + "/" + file) << own;
    EXPECT_EQ(run("r").measured, 0);
    expect_untouched("r");
  }
  // What is no JSON at all is left out, with a warning; the run goes on.
  std::ofstream(path("r") + "/" + file, std::ios::app) << std::string("\x00\xff\xfe garbage\n\n{]\n", 16);
  EXPECT_EQ(run("r").measured, 0);
  expect_untouched("r");
}

TEST_F(Stress, TwoProcessesOnOneFolder) {
  int64_t refused = 0;
  for (int round = 0; round < 6; ++round) {
    fs::remove_all(path("r"));
    const pid_t first = start("r"), second = start("r");
    const int a = wait(first), b = wait(second);
    for (const int status : {a, b}) {
      ASSERT_TRUE(WIFEXITED(status));
      ASSERT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2) << error();
      if (WEXITSTATUS(status) == 2) {
        ++refused;
        EXPECT_THAT(error(), HasSubstr("is writing to this results folder"));
      }
    }
    ASSERT_TRUE(WEXITSTATUS(a) == 0 || WEXITSTATUS(b) == 0);
    expect_untouched("r");
  }
  EXPECT_GT(refused, 0);
}

TEST_F(Stress, ClocksThatJump) {
  const pid_t child = start("r", [](RunOptions& options) {
    options.after_record = [n = 0](const Record&) mutable {
      if (++n == 9) ::raise(SIGKILL);
    };
  });
  wait(child);
  for (const int64_t years : {-30, 30}) {
    for (const auto& entry : fs::recursive_directory_iterator(path("r"))) {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() + std::chrono::hours(24 * 365 * years));
    }
    const RunSummary summary = run("r");
    EXPECT_EQ(summary.measured, years < 0 ? kRecords - 9 : 0);
    expect_untouched("r");
  }
}

// Every file may grow to a limit only: whatever is written beyond fails in the middle, as on a full disk.
TEST_F(Stress, WritesThatFailInTheMiddle) {
  int64_t failed = 0;
  for (rlim_t limit = 0; limit < 12000; limit += limit < 4000 ? 331 : 1117) {
    fs::remove_all(path("r"));
    const int status = wait(start("r", [&](RunOptions&) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit file_size{limit, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &file_size);
    }));
    ASSERT_TRUE(WIFEXITED(status)) << limit;
    if (WEXITSTATUS(status) != 0) {
      ++failed;
      EXPECT_EQ(WEXITSTATUS(status), 3) << limit;
      EXPECT_THAT(error(), HasSubstr("mend: ")) << limit;
    }
    run("r");
    expect_untouched("r");
    if (HasFailure()) FAIL() << limit;
  }
  EXPECT_GT(failed, 5);
}

// A file system of its own; needs root.
class Tmpfs {
 public:
  Tmpfs(const std::string& path, const std::string& size) : path_(path) {
    fs::create_directories(path_);
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~Tmpfs() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  void enlarge() const { ASSERT_EQ(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0); }

 private:
  std::string path_;
  bool mounted_;
};

TEST_F(Stress, AFullDisk) {
  int64_t failed = 0;
  for (int kilobytes = 4; kilobytes <= 200; kilobytes += 4) {
    const Tmpfs disk(path("disk"), fmt::format("{}k", kilobytes));
    if (!disk.mounted()) GTEST_SKIP() << "a small disk can be mounted by root only";
    const int status = wait(start("disk/r"));
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) break;
    ++failed;
    EXPECT_EQ(WEXITSTATUS(status), 3);
    EXPECT_THAT(error(), AllOf(HasSubstr("No space left on device"), HasSubstr("mend: "))) << kilobytes;
    disk.enlarge();
    run("disk/r");
    expect_untouched("disk/r");
    if (HasFailure()) FAIL() << kilobytes;
  }
  EXPECT_GT(failed, 3);
}

// Permissions bind everybody but root, so the child is nobody.
TEST_F(Stress, AFolderThatBecomesReadOnly) {
  constexpr uid_t kNobody = 65534;
  const auto set_mode = [&](unsigned folder_mode, unsigned file_mode) {
    for (const auto& entry : fs::recursive_directory_iterator(path("r"))) {
      ::chmod(entry.path().c_str(), entry.is_directory() ? folder_mode : file_mode);
    }
    ::chmod(path("r").c_str(), folder_mode);
  };
  ::chmod(folder_.file(".").c_str(), 0777);
  const int status = wait(start("r", [&](RunOptions& options) {
    if (::geteuid() == 0 && ::seteuid(kNobody) != 0) ::_exit(97);
    options.after_record = [&, n = 0](const Record&) mutable {
      if (++n == 5) set_mode(0555, 0444);
    };
  }));
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_THAT(error(), AllOf(HasSubstr("Permission denied"), HasSubstr("mend: ")));
  EXPECT_EQ(content("r").size(), 5U);
  set_mode(0755, 0644);
  EXPECT_EQ(run("r").measured, kRecords - 5);
  expect_untouched("r");
}

}  // namespace
}  // namespace kvc
