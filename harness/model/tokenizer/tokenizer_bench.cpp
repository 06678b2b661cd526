// Bytes of article text per second, with a fresh word cache and with a warm one, and the time to build the tokenizer.
#include <benchmark/benchmark.h>

#include <string>

#include "harness/core/json_lines.h"
#include "harness/model/tokenizer/gguf_tokenizer.h"

namespace kvc {
namespace {

const std::string kRoot = KVC_SOURCE_DIR;

const std::string& articles() {
  static const std::string text = [] {
    std::string all;
    for (const Json& record : read_json_lines(kRoot + "/datasets/samples/quality.jsonl").values) {
      all += record.at("article").get<std::string>();
    }
    return all;
  }();
  return text;
}

const GgufFile& file() {
  static const GgufFile demo(kRoot + "/models/smollm2-135m-instruct.gguf");
  return demo;
}

void build_tokenizer(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(make_gguf_tokenizer(file()));
}
BENCHMARK(build_tokenizer)->Unit(benchmark::kMillisecond);

void encode_articles(benchmark::State& state) {
  const bool warm = state.range(0) != 0;
  auto tokenizer = make_gguf_tokenizer(file());
  if (warm) tokenizer->encode_text(articles());
  for (auto _ : state) {
    if (!warm) {
      state.PauseTiming();
      tokenizer = make_gguf_tokenizer(file());
      state.ResumeTiming();
    }
    benchmark::DoNotOptimize(tokenizer->encode_text(articles()));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(articles().size()));
}
BENCHMARK(encode_articles)->ArgName("warm")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace kvc
