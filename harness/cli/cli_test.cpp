// The front door as a user meets it: exit codes, what goes to stdout and what to stderr, on the real demo model.
#include "harness/cli/cli_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "harness/core/config_text.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(Cli, UsageMistakesEndWithTwo) {
  EXPECT_EQ(kvc({}).code, 2);
  const Outcome unknown = kvc({"reprot", "x"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.out, "");
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("unknown command 'reprot'"), HasSubstr("did you mean 'report'")));
  EXPECT_EQ(kvc({"list", "method"}).code, 2);
  EXPECT_THAT(kvc({"list", "method"}).err, HasSubstr("did you mean 'methods'?"));
  EXPECT_EQ(kvc({"run", path("absent.yaml")}).code, 2);
  EXPECT_EQ(kvc({"--threads", "0", "list", "methods"}).code, 2);
  EXPECT_EQ(kvc({"--help"}).code, 0);
  EXPECT_THAT(kvc({"--version"}).out, AllOf(HasSubstr("kvc " KVC_VERSION), HasSubstr("commit"), HasSubstr("LibTorch")));
  EXPECT_EQ(kvc({"-V"}).out, kvc({"--version"}).out);
}

TEST_F(Cli, ListsEveryKindAsTextAndJson) {
  const std::vector<std::pair<std::string, std::string>> known = {{"methods", "attention_matching"},
                                                                  {"queries", "repeat_prefill"},
                                                                  {"datasets", "quality"},
                                                                  {"tasks", "likelihood"},
                                                                  {"families", "llama"}};
  for (const auto& [kind, name] : known) {
    EXPECT_THAT(kvc({"list", kind}).out, HasSubstr(name)) << kind;
    bool found = false;
    for (const Json& plugin : Json::parse(kvc({"list", kind, "--json"}).out)) found |= plugin.at("name") == name;
    EXPECT_TRUE(found) << kind;
  }
}

TEST_F(Cli, ValidatesAllMistakesAtOnce) {
  const Outcome good = kvc({"validate", kRoot + "/configs/demo.yaml", "--config-only"});
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr("is valid"));
  const std::string bad = write("bad.yaml",
                                "sweep: bad\nmodel: [{path: m.gguf, dtyp: auto}]\ndataset: [{dataset: needel}]\n"
                                "task: [fidelity]\ntarget: [1.5]\nmethod:\n  - {method: streaming_llm, n_sinks: 3}\n");
  const Outcome mistakes = kvc({"validate", bad});
  EXPECT_EQ(mistakes.code, 2);
  EXPECT_EQ(mistakes.out, "");
  for (const char* part : {"bad.yaml:2", "'dtyp'", "did you mean 'dtype'", "bad.yaml:3", "did you mean 'needle'",
                           "bad.yaml:5", "1.5", "bad.yaml:7", "did you mean 'n_sink'"}) {
    EXPECT_THAT(mistakes.err, HasSubstr(part));
  }
}

TEST_F(Cli, WrongWeightsEndWithThree) {
  const std::string text = write("text.txt", "A lake.");
  const Outcome absent = kvc({"perplexity", "--model", path("absent.gguf"), "--file", text});
  EXPECT_EQ(absent.code, 3);
  EXPECT_THAT(absent.err, AllOf(HasSubstr("error: "), HasSubstr("where: "), HasSubstr("mend: ")));
  const Outcome garbage = kvc({"tokenize", "--model", text, "--file", text});
  EXPECT_EQ(garbage.code, 3);
  EXPECT_EQ(garbage.out, "");
}

TEST_F(Cli, TokenizesTextAsData) {
  const std::string text = write("text.txt", "The lake is deep. <|im_end|>");
  const Outcome outcome = kvc({"tokenize", "--model", kModel, "--file", text, "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto ids = Json::parse(outcome.out).at("ids").get<std::vector<int64_t>>();
  EXPECT_EQ(std::vector<int64_t>(ids.begin(), ids.begin() + 5), (std::vector<int64_t>{504, 8690, 314, 2276, 30}));
  EXPECT_THAT(ids, Not(::testing::Contains(2)));  // <|im_end|> is spelled, not meant
  EXPECT_THAT(kvc({"tokenize", "--model", kModel, "--file", text}).out, HasSubstr("8690\t lake\n"));
}

TEST_F(Cli, PerplexityOfAText) {
  const std::string text = write("text.txt", "The lake is deep, and nobody knows who lives at the bottom of it.\n");
  const Outcome outcome =
      kvc({"perplexity", "--model", kModel, "--file", text, "--dtype", "float32", "--json", "--quiet"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json result = Json::parse(outcome.out);
  const auto log_probs = result.at("log_probs").get<std::vector<double>>();
  ASSERT_EQ(log_probs.size() + 1, result.at("ids").size());
  double sum = 0;
  for (const double log_prob : log_probs) sum += log_prob;
  EXPECT_NEAR(result.at("perplexity").get<double>(), std::exp(-sum / static_cast<double>(log_probs.size())), 1e-9);
  // Windows: the first one scores the same tokens the same way; later ones know less.
  const Json windowed = Json::parse(
      kvc({"perplexity", "--model", kModel, "--file", text, "--dtype", "float32", "--json", "--quiet", "--window", "8"})
          .out);
  const auto in_windows = windowed.at("log_probs").get<std::vector<double>>();
  ASSERT_EQ(in_windows.size(), log_probs.size());
  for (size_t i = 0; i < 7; ++i) EXPECT_NEAR(in_windows[i], log_probs[i], 1e-4);
  EXPECT_GT(std::abs(in_windows[10] - log_probs[10]), 1e-3);
  EXPECT_EQ(kvc({"perplexity", "--model", kModel, "--file", text, "--window", "4", "--stride", "4"}).code, 2);
}

// From a config to a table on real weights, once more without measuring, and once more after a torn record.
TEST_F(Cli, RunsASweepToItsTableAndGoesOnWhereItStopped) {
  const std::string config =
      write("sweep.yaml", "sweep: tiny\nseed: 7\nproof_tokens: 64\nmodel: [{path: " + kModel +
                              ", dtype: float32}]\ndataset: [{dataset: needle, documents: 1, tokens: 200, needles: 1, "
                              "path: " +
                              kRoot +
                              "/datasets/samples/quality.jsonl}]\ntask: [exact_match]\nqueries: [context_prefill]\n"
                              "target: [0.2]\nmethod: [full_cache, no_context, snapkv]\n");
  const std::string results = path("results");
  const std::string log = path("progress.jsonl");
  const Outcome first = kvc({"run", config, "--results", results, "--log", log, "--progress", "json"});
  ASSERT_EQ(first.code, 0) << first.err;
  std::ifstream progress(log);
  Json last;
  for (std::string line; std::getline(progress, line);) last = Json::parse(line);
  EXPECT_EQ(last.at("event"), "done");
  EXPECT_EQ(last.at("done"), 3);
  EXPECT_THAT(last.at("text").get<std::string>(), HasSubstr("3 records measured, 0 found"));
  EXPECT_EQ(kvc({"run", config, "--results", results, "--log", results + "/log.jsonl"}).code, 2);  // among the records
  EXPECT_EQ(kvc({"run", config, "--results", results, "--log", config}).code, 2);                  // not a log
  EXPECT_EQ(kvc({"run", config, "--progress", "xml"}).code, 2);
  EXPECT_THAT(first.out, AllOf(HasSubstr("full_cache"), HasSubstr("snapkv"), HasSubstr("3 records: 3 done")));
  EXPECT_THAT(first.err, AllOf(HasSubstr("3 records measured, 0 found"), HasSubstr("[3/3]")));
  const std::string report = read_text_file(results + "/report.json");

  const Outcome second = kvc({"run", config, "--results", results});
  EXPECT_EQ(second.code, 0);
  EXPECT_THAT(second.err, HasSubstr("0 records measured, 3 found"));
  EXPECT_EQ(read_text_file(results + "/report.json"), report);
  EXPECT_EQ(kvc({"report", results}).out, second.out);
  const Outcome scores = kvc({"score", results});
  EXPECT_EQ(scores.code, 0);
  EXPECT_EQ(std::count(scores.out.begin(), scores.out.end(), '\n'), 3);
  EXPECT_THAT(scores.out, HasSubstr("\"values\":{\"accuracy\":"));
  const Outcome flips = kvc({"score", results, "--flips"});
  EXPECT_EQ(flips.code, 0) << flips.err;
  EXPECT_THAT(flips.out, HasSubstr("1 of 1 answer changed between the full cache and a compact one"));
  EXPECT_EQ(kvc({"score", results, "--flips", "--method", "absent"}).code, 2);
  EXPECT_EQ(kvc({"score", results, "--method", "snapkv"}).code, 2);
  EXPECT_EQ(kvc({"score", results, "--output", results + "/scores.jsonl"}).code, 2);
  EXPECT_EQ(kvc({"score", results, "--output", path("scores.jsonl")}).out, "");
  EXPECT_EQ(read_text_file(path("scores.jsonl")), scores.out);
  EXPECT_THAT(kvc({"score", results, "--output", path("scores.jsonl")}).err, HasSubstr("replace it with --force"));
  EXPECT_EQ(kvc({"score", results, "--output", path("scores.jsonl"), "--force"}).code, 0);
  EXPECT_THAT(kvc({"score", results, "--output", config, "--force"}).err, HasSubstr("did not write it"));
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"table", results, "--output"}, {"export", results, "--output"}, {"plot", results, "--out"}}) {
    const std::string file = path(command.front() + ".svg");
    std::vector<std::string> call = command;
    call.push_back(file);
    EXPECT_EQ(kvc(call).code, 0) << command.front();
    EXPECT_THAT(kvc(call).err, HasSubstr("replace it with --force")) << command.front();
    call.push_back("--force");
    EXPECT_EQ(kvc(call).code, 0) << command.front();
    call[call.size() - 2] = results + "/config.json";
    EXPECT_THAT(kvc(call).err, HasSubstr("a file of the results folder")) << command.front();
  }
  EXPECT_THAT(kvc({"run", config, "--results", results, "--dry-run"}).out, HasSubstr("1 done"));

  // A folder that cannot be written to still shows its table.
  const std::string json = results + "/report.json";
  std::filesystem::rename(results + "/report.md", results + "/report.away");
  std::filesystem::create_directories(results + "/report.md/in_the_way");
  const Outcome read_only = kvc({"report", results});
  EXPECT_EQ(read_only.code, 0);
  EXPECT_THAT(read_only.out, HasSubstr("3 records: 3 done"));
  EXPECT_THAT(read_only.err, HasSubstr("warning: the report's files were not written"));
  std::filesystem::remove_all(results + "/report.md");
  // Nor is a report replaced that kvc did not write.
  std::ofstream(json) << "{\"mine\": 1}";
  EXPECT_EQ(kvc({"report", results}).code, 2);
  EXPECT_EQ(kvc({"run", config, "--results", results}).code, 2);
  EXPECT_EQ(read_text_file(json), "{\"mine\": 1}");
  std::filesystem::remove(json);

  for (const auto& entry : std::filesystem::directory_iterator(results)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) / 2);
    break;
  }
  const Outcome third = kvc({"run", config, "--results", results, "--quiet"});
  EXPECT_EQ(third.code, 0) << third.err;
  EXPECT_EQ(third.err, "");
  EXPECT_THAT(third.out, HasSubstr("3 records: 3 done"));
}

// A limit on the cache that no prompt fits.
TEST_F(Cli, TellsHowManyRecordsFailed) {
  const auto failing = [&](const std::string& name, const std::string& methods) {
    const std::string config =
        write(name + ".yaml", "sweep: t\nseed: 7\nproof_tokens: 48\nmodel: [{path: " + kModel +
                                  ", dtype: float32}]\ndataset: [{dataset: aime, path: " + kRoot +
                                  "/datasets/samples/aime_like.jsonl, problems: 1}]\ntask: [{task: reasoning, limit: "
                                  "30}]\ntarget: [0.5]\nmethod: [" +
                                  methods + "]\n");
    return kvc({"run", config, "--results", path(name)});
  };
  const Outcome one = failing("one", "full_cache");
  EXPECT_EQ(one.code, 1);
  EXPECT_THAT(one.err, AllOf(HasSubstr("error: 1 record failed\n  where: " + path("one")),
                             HasSubstr("the same command tries again what failed")));
  EXPECT_THAT(read_text_file(path("one") + "/report.json"), HasSubstr("the limit of 30 entries is too small"));
  EXPECT_THAT(failing("two", "full_cache, random_keys").err, HasSubstr("error: 2 records failed\n"));
}

TEST_F(Cli, GeneratesAsTextAndAsJson) {
  const std::vector<std::string> command = {
      "generate",         "--model", kModel,    "--prompt", "The capital of France is",
      "--max-new-tokens", "8",       "--dtype", "float32"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), command.begin(), command.end());
    return kvc(more);
  };
  const Outcome streamed = with({});
  EXPECT_EQ(streamed.code, 0) << streamed.err;
  EXPECT_THAT(streamed.out, ::testing::StartsWith(" Paris"));
  EXPECT_THAT(streamed.err, AllOf(HasSubstr("prompt 5 tokens"), HasSubstr("ended by: length")));

  const Json json = Json::parse(with({"--json"}).out);
  EXPECT_EQ(json["text"].get<std::string>() + "\n", streamed.out);
  EXPECT_EQ(json["stop_reason"], "length");
  EXPECT_EQ(json["prompt_ids"].size(), 5U);
  EXPECT_EQ(json["ids"].size(), 8U);

  const Outcome stopped = with({"--stop", "is.", "--stop", "never", "--quiet"});
  EXPECT_EQ(stopped.out, " Par\n");  // nothing of a stop text is shown, though its first letters came before the last
  EXPECT_EQ(stopped.err, "");
  EXPECT_EQ(Json::parse(with({"--stop", "is.", "--json"}).out)["stop_reason"], "stop");

  const std::vector<std::string> sampled = {"--temperature", "1.5", "--seed", "4", "--quiet"};
  EXPECT_EQ(with(sampled).out, with(sampled).out);
  EXPECT_NE(with(sampled).out, with({"--temperature", "1.5", "--seed", "5", "--quiet"}).out);
}

TEST_F(Cli, DecodeOptionsOutOfRangeAreNamed) {
  for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{{"--temperature", "nan"},
                                                                                      {"--temperature", "-1"},
                                                                                      {"--top-p", "0"},
                                                                                      {"--top-p", "nan"},
                                                                                      {"--min-p", "1.5"},
                                                                                      {"--max-new-tokens", "0"},
                                                                                      {"--top-k", "-1"},
                                                                                      {"--seed", "-1"},
                                                                                      {"--rope-scaling", "{}"}}) {
    const Outcome refused = kvc({"generate", "--model", kModel, "--prompt", "x", option, value});
    EXPECT_EQ(refused.code, 2) << option << " " << value;
    EXPECT_THAT(refused.err, AllOf(HasSubstr(option), Not(HasSubstr("000000000")))) << value;
  }
}

TEST_F(Cli, ChatsInTheModelsOwnFormat) {
  const Outcome chat = kvc({"generate", "--model", kModel, "--chat", "--system", "Be brief.", "--prompt",
                            "Say <|im_end|> now.", "--max-new-tokens", "1", "--json"});
  EXPECT_EQ(chat.code, 0) << chat.err;
  const Json json = Json::parse(chat.out);
  EXPECT_EQ(json["prompt"],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay <|im_end|> now.<|im_end|>\n"
            "<|im_start|>assistant\n");
  const std::vector<int64_t> ids = json["prompt_ids"];
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 2);  // what the user wrote is no end of turn
  // An empty system prompt is one: without it this template writes one of its own.
  const Outcome empty = kvc(
      {"generate", "--model", kModel, "--chat", "--system", "", "--prompt", "Hi", "--max-new-tokens", "1", "--json"});
  EXPECT_THAT(Json::parse(empty.out)["prompt"].get<std::string>(),
              ::testing::StartsWith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi"));
  EXPECT_EQ(kvc({"generate", "--model", kModel, "--prompt", "x", "--system", "y"}).code, 2);
  EXPECT_EQ(kvc({"generate", "--model", kModel}).code, 2);
  EXPECT_EQ(kvc({"generate", "--model", kModel, "--prompt", ""}).code, 2);
}

// Two functions of one name in different rooms once had the linked program read config.json as another type.
TEST_F(Cli, OpensAModelFolder) {
  const std::string folder = path("model");
  std::filesystem::create_directories(folder);
  write("model/config.json", "{\"architectures\": [\"NoSuchModel\"], \"model_type\": \"none\"}");
  const Outcome outcome = kvc({"inspect", folder});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, HasSubstr("architecture 'NoSuchModel' is not supported"));
}

TEST_F(Cli, InspectsWithoutLoading) {
  const Outcome text = kvc({"inspect", kModel, "--template"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("gguf, llama: 134.5 M parameters"), HasSubstr("210 Q4_1"),
                              HasSubstr("49152 tokens"), HasSubstr("{% for message in messages %}")));
  const Json json = Json::parse(kvc({"inspect", kModel, "--json"}).out);
  EXPECT_EQ(json["spec"]["n_layers"], 30);
  EXPECT_EQ(json["tensors"].size(), 272U);
  EXPECT_EQ(json["tokenizer"]["ends"][0]["text"], "<|im_end|>");
  EXPECT_TRUE(json["problems"].empty());

  const std::string tiny = kRoot + "/harness/testing/golden/tiny_models/qwen3.gguf";
  EXPECT_THAT(kvc({"inspect", tiny}).out, AllOf(HasSubstr("gguf, qwen3"), HasSubstr("odd        no chat")));
  EXPECT_EQ(kvc({"inspect", path("absent")}).code, 3);

  // Cut in the middle of its weights: nothing is believed.
  std::string bytes = read_text_file(tiny);
  bytes.resize(bytes.size() / 2);
  const Outcome cut = kvc({"inspect", write("cut.gguf", bytes)});
  EXPECT_EQ(cut.code, 3);
  EXPECT_THAT(cut.err, HasSubstr("cut.gguf"));
}

TEST_F(Cli, SamplingAsTheMakersProposeNeedsTheirProposal) {
  const Outcome none = kvc({"generate", "--model", kModel, "--prompt", "x", "--sample"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("generation_config.json"));
  const Outcome thinking = kvc({"generate", "--model", kModel, "--chat", "--prompt", "x", "--thinking", "on"});
  EXPECT_EQ(thinking.code, 2);
  EXPECT_THAT(thinking.err, HasSubstr("no thinking switch"));
}

}  // namespace
}  // namespace kvc
