// A sweep of plug-ins that count their calls, on a tiny model in a folder of its own.
#pragma once

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "harness/sweep/known_blocks.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {

using ::testing::HasSubstr;

inline std::string sweep_text(const std::string& methods, const std::string& dataset = "test_notes",
                              const std::string& more = "") {
  return "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [" + dataset +
         "]\ntask: [test_probe, test_choice]\nqueries: test_queries\n"
         "target: [0.5, 0.25, 0.1]\nmethod: [" +
         methods + "]\n" + more;
}

inline constexpr const char* kMethods = "test_full, test_keep_first, {method: test_keep_first, begin: 2}, test_queried";
inline constexpr int64_t kRecords = 2 * (1 + 3 + 3 + 3);  // documents x (method, target); test_choice can ask nothing

class Sweep : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }  // a forked child has no pool of threads
  void SetUp() override {
    calls() = Calls();
    flaky_fails() = false;
    options_.quiet = true;
    options_.skip_proof = true;
    std::ofstream(folder_.file("tiny.gguf")) << "weights 1";
    options_.load_model = [this](const ModelConfig&) {
      ++calls().loads;
      return tiny_model(model_seed_);
    };
  }

  SweepConfig config(const std::string& text) const {
    SweepConfig config = parse_sweep(ConfigText::from_string(text, "s.yaml"));
    config.results = folder_.file("results");
    for (SweepModel& model : config.models) model.config.path = folder_.file(model.config.path);
    return config;
  }
  RunSummary run(const std::string& text) const { return run_sweep(config(text), options_); }
  std::vector<Record> records() const {
    std::vector<std::string> warnings;
    auto list = load_records(folder_.file("results"), warnings);
    warnings_ = warnings;
    return list;
  }
  // What two runs must agree on: all but times and memory.
  std::vector<Json> comparable() const {
    std::vector<Json> list;
    for (Record& record : records()) {
      Json json = record.to_json();
      json.erase("seconds");
      json["provenance"].erase("started_at");
      for (const char* name : {"peak_bytes", "reference_peak_bytes", "peak_of_process"}) json["sizes"].erase(name);
      list.push_back(json);
    }
    return list;
  }
  // Runs in a child process that `work` ends; returns the raw wait status.
  template <class Work>
  int in_child(Work&& work) const {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(99);
      try {
        work();
      } catch (...) {
        ::_exit(98);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }

  TemporaryFolder folder_;
  RunOptions options_;
  std::uint64_t model_seed_ = 1;
  mutable std::vector<std::string> warnings_;
};

}  // namespace kvc
