// Bytes of text per second of every kind of tokenizer, with a fresh word cache and with a warm one, and the time to
// build a tokenizer. Two texts: two articles, and the varied text of the golden tests, which is as hard as text gets.
// KVC_TOKENIZER_PATHS names more model paths, divided by ':'. scripts/compare_tokenizers.py measures the Python
// packages beside.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "harness/core/json_lines.h"
#include "harness/core/text_file.h"
#include "harness/testing/varied_text.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

const std::string kRoot = KVC_SOURCE_DIR;

std::string articles() {
  std::string all;
  for (const Json& record : read_json_lines(kRoot + "/datasets/samples/quality.jsonl").values) {
    all += record.at("article").get<std::string>();
  }
  return all;
}

std::vector<std::string> paths() {
  std::vector<std::string> list = {kRoot + "/models/smollm2-135m-instruct.gguf"};
  for (const char* name : {"llama3", "qwen", "llama2", "llama2_first"}) {
    list.push_back(kRoot + "/harness/testing/golden/tokenizers/" + name);
  }
  std::stringstream more(std::getenv("KVC_TOKENIZER_PATHS") == nullptr ? "" : std::getenv("KVC_TOKENIZER_PATHS"));
  for (std::string path; std::getline(more, path, ':');) list.push_back(path);
  return list;
}

void build(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(load_tokenizer(path));
}

void encode(benchmark::State& state, const std::string& path, const std::string& text, bool warm) {
  auto tokenizer = load_tokenizer(path);
  if (warm) tokenizer->encode_text(text);
  for (auto _ : state) {
    if (!warm) {
      state.PauseTiming();
      tokenizer = load_tokenizer(path);
      state.ResumeTiming();
    }
    benchmark::DoNotOptimize(tokenizer->encode_text(text));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

const bool kRegistered = [] {
  for (const std::string& path : paths()) {
    const auto add = [&](const std::string& what, auto run) {
      benchmark::RegisterBenchmark((what + "/" + path.substr(path.rfind('/') + 1)).c_str(), run)
          ->Unit(benchmark::kMillisecond);
    };
    add("tokenizer_build", [=](benchmark::State& state) { build(state, path); });
    for (const bool warm : {false, true}) {
      const std::string state_name = warm ? "/warm" : "/cold";
      add("tokenizer_articles" + state_name, [=](benchmark::State& state) { encode(state, path, articles(), warm); });
      add("tokenizer_varied" + state_name, [=](benchmark::State& state) {
        static const std::string text = varied_text(tokenizer_golden("text.json").at("recipe"));
        encode(state, path, text, warm);
      });
      if (const char* file = std::getenv("KVC_TOKENIZER_TEXT")) {
        const std::string text = read_text_file(file, size_t{1} << 30U);
        add("tokenizer_file" + state_name, [=](benchmark::State& state) { encode(state, path, text, warm); });
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace kvc
