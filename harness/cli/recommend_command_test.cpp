// kvc recommend and stop_when as a user meets them, on the demo model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "harness/cli/cli_test.h"
#include "harness/core/config_text.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Recommend : public Cli {
 protected:
  static std::string needle(int documents) {
    return "{dataset: needle, documents: " + std::to_string(documents) + ", tokens: 160, needles: 1, path: " + kRoot +
           "/datasets/samples/quality_excerpts.jsonl}";
  }
  Outcome recommend(const std::vector<std::string>& more, const std::string& data) const {
    std::vector<std::string> all = {"recommend", "--model", kModel, "--data", data};
    const std::vector<std::string> defaults = {"--dtype",   "float32",   "--methods", "streaming_llm",
                                               "--targets", "0.9, 0.05", "--results", path("results")};
    for (size_t i = 0; i < defaults.size(); i += 2) {
      if (std::find(more.begin(), more.end(), defaults[i]) == more.end())
        all.insert(all.end(), defaults.begin() + static_cast<std::ptrdiff_t>(i),
                   defaults.begin() + static_cast<std::ptrdiff_t>(i) + 2);
    }
    all.insert(all.end(), {"--skip-proof", "--quiet"});
    all.insert(all.end(), more.begin(), more.end());
    return kvc(all);
  }
  std::string lines(int n, const std::string& question) const {
    std::string text;
    for (int i = 0; i < n; ++i)
      text += "{\"context\": \"The harbour was dug in 1911. It is number " + std::to_string(i) +
              ".\", \"questions\": [" + question + "]}\n";
    return write("own.jsonl", text);
  }
  static constexpr const char* kFree = "{\"question\": \"When was the harbour dug?\", \"answer\": \"1911\"}";
};

// The tokens of fidelity: what nearly everything keeps loses little, what a twentieth keeps loses much.
TEST_F(Recommend, EndsInACertifiedSizeAndGoesOnWhereItWasLeft) {
  const std::vector<std::string> asked = {"--metric", "agreement", "--tolerance", "45%"};
  std::vector<std::string> hurried = asked;
  hurried.insert(hurried.end(), {"--within", "0.001s"});
  const Outcome first = recommend(hurried, needle(16));
  EXPECT_EQ(first.code, 2);
  EXPECT_THAT(first.err, HasSubstr("the time was over before anything was measured"));
  const Outcome outcome = recommend(asked, needle(16));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("Keep 90 % of the cache with streaming_llm"), HasSubstr("95 % confidence"),
                                 HasSubstr("kvc compact --model"), HasSubstr("--target 0.9")));
  const Json json = Json::parse(read_text_file(path("results/recommend.json")));
  EXPECT_EQ(json.at("format"), "kvcompact.recommendation");
  EXPECT_EQ(json.at("certified"), true);
  EXPECT_EQ(json.at("methods").at(0).at("certified"), 0.9);
  EXPECT_EQ(json.at("methods").at(0).at("sizes").at(0).at("state"), "certified");
  EXPECT_NE(json.at("methods").at(0).at("sizes").at(1).at("state"), "certified");
  EXPECT_LE(json.at("methods").at(0).at("sizes").at(0).at("at_most").get<double>(), 0.45);
  EXPECT_LT(json.at("documents").at("measured").get<int>(), 16);  // decided before the last document
  EXPECT_THAT(read_text_file(path("results/recommend.svg")), HasSubstr("tolerated"));
  EXPECT_TRUE(std::filesystem::exists(path("results/report.html")));

  EXPECT_THAT(read_text_file(path("results/recommend.yaml")), HasSubstr("\"halving\":true"));

  // The same again measures nothing; nor does its sweep file, and nothing counts as missing.
  const std::string text = outcome.out;
  EXPECT_EQ(recommend(asked, needle(16)).out, text);
  const Outcome run = kvc({"run", path("results/recommend.yaml"), "--no-plan"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.err, HasSubstr("0 records measured"));
  EXPECT_EQ(kvc({"report", path("results")}).err, "");
  EXPECT_THAT(read_text_file(path("results/report.md")), HasSubstr("### left early"));

  const Outcome other = recommend(asked, needle(17));
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, AllOf(HasSubstr("results of another dataset"), HasSubstr("--results")));
}

// A folder as it lies there, with questions.csv and without: then the model writes the questions.
TEST_F(Recommend, TakesAFolderOfTexts) {
  std::filesystem::create_directories(path("texts"));
  std::string questions = "document,question,answer\n";
  for (int i = 0; i < 12; ++i) {
    write("texts/quay" + std::to_string(i) + ".txt",
          "The harbour was dug in 19" + std::to_string(10 + i) + ". Its light is " + std::to_string(3 * i + 2) +
              " metres high and is lit at dusk by the harbour master, who lives beside it.");
    questions += "quay" + std::to_string(i) + ",When was the harbour dug?,19" + std::to_string(10 + i) + "\n";
  }
  write("texts/questions.csv", questions);
  const std::vector<std::string> asked = {"--metric", "agreement", "--tolerance", "45%"};
  const Outcome outcome = recommend(asked, path("texts"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("Keep 90 % of the cache with streaming_llm"), HasSubstr("kvc compact")));

  std::filesystem::remove(path("texts/questions.csv"));
  for (int i = 3; i < 12; ++i) std::filesystem::remove(path("texts/quay" + std::to_string(i) + ".txt"));
  std::vector<std::string> unasked = asked;
  unasked.insert(unasked.end(), {"--results", path("written"), "--anyway"});
  const Outcome written = recommend(unasked, path("texts"));
  ASSERT_EQ(written.code, 0) << written.err;
  EXPECT_THAT(read_text_file(path("written/report.md")), HasSubstr("written by the model itself"));
  const Outcome accuracy = recommend({"--results", path("judged")}, path("texts"));
  EXPECT_EQ(accuracy.code, 3);
  EXPECT_THAT(accuracy.err, HasSubstr("--metric"));
}

TEST_F(Recommend, SaysBeforehandWhatTheDocumentsCannotCertify) {
  const Outcome refused = recommend({"--tolerance", "1%"}, lines(30, kFree));
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err,
              AllOf(HasSubstr("a loss of at most 1 % cannot be certified with 30 documents"),
                    HasSubstr("328 documents without any loss are needed for 1 method"),
                    HasSubstr("smallest tolerance that 30 documents can certify is 10.4 %"), HasSubstr("--anyway")));
  EXPECT_FALSE(std::filesystem::exists(path("results")));
  const Outcome anyway =
      recommend({"--anyway", "--metric", "kl", "--tolerance", "0.01", "--targets", "0.9, 0.6"}, lines(3, kFree));
  EXPECT_EQ(anyway.code, 0) << anyway.err;
  EXPECT_THAT(anyway.err, HasSubstr("Measuring all the same"));
  EXPECT_THAT(anyway.out, HasSubstr("No size is certified"));
}

TEST_F(Recommend, NamesWhatIsWrongWithTheData) {
  EXPECT_THAT(recommend({}, lines(1, kFree)).err, HasSubstr("one document says nothing about other documents"));
  EXPECT_EQ(recommend({}, lines(1, kFree)).code, 3);
  const Outcome none = recommend({"--task", "likelihood"}, lines(5, kFree));
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("no question of the data can measure accuracy: likelihood can ask none of them"));
  // A question that the model cannot answer: nothing can be lost.
  const Outcome wrong = recommend(
      {"--tolerance", "45%"}, lines(8, "{\"question\": \"What is the harbour master's name?\", \"answer\": \"Zx9q\"}"));
  EXPECT_EQ(wrong.code, 3);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("nothing can be lost"), HasSubstr("--metric kl or agreement")));
}

TEST_F(Recommend, ReplacesNoFileThatItDidNotWrite) {
  std::filesystem::create_directories(path("results"));
  for (const std::string name : {"recommend.txt", "recommend.yaml", "recommend.svg", "recommend.json"}) {
    const std::string file = write("results/" + name, "mine");
    const Outcome outcome = recommend({"--metric", "agreement", "--tolerance", "45%"}, needle(16));
    EXPECT_EQ(outcome.code, 2) << name;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("would replace a file"), HasSubstr(name)));
    EXPECT_EQ(read_text_file(file), "mine");
    std::filesystem::remove(file);
  }
  EXPECT_EQ(recommend({"--metric", "agreement", "--tolerance", "45%", "--every-method"}, needle(16)).code, 0);
  EXPECT_THAT(read_text_file(path("results/recommend.yaml")), HasSubstr("\"halving\":false"));
}

TEST_F(Recommend, NamesWhatIsWrongWithTheCommand) {
  const std::string data = lines(20, kFree);
  for (const auto& [more, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--metric", "acuracy"}, "did you mean 'accuracy'"},
           {{"--tolerance", "0"}, "must be above 0 and below 1"},
           {{"--tolerance", "much"}, "write --tolerance 1%"},
           {{"--metric", "kl", "--tolerance", "5%"}, "in nats per token"},
           {{"--confidence", "20%"}, "must be at least 50 %"},
           {{"--task", "fidelity"}, "has no metric for accuracy"},
           {{"--methods", "no_context"}, "takes no target"},
           {{"--methods", "snapkw"}, "unknown method 'snapkw'"},
           {{"--within", "soon"}, "a time must be like 6h"}}) {
    const Outcome outcome = recommend(more, data);
    EXPECT_EQ(outcome.code, 2) << expected;
    EXPECT_THAT(outcome.err, HasSubstr(expected));
  }
}

TEST_F(Recommend, ASweepStopsWhereItIsDecided) {
  const auto sweep = [&](const std::string& methods, const std::string& stop) {
    return write("s.yaml", "sweep: s\nresults: " + path("sweep") + "\nmodel: {path: " + kModel +
                               ", dtype: float32}\ndataset: " + needle(8) +
                               "\ntask: {task: fidelity, max_new_tokens: 4}\ntarget: [0.9, 0.05]\nmethod: [" + methods +
                               "]\nstop_when: " + stop + "\n");
  };
  const std::string file = sweep("full_cache, streaming_llm", "{rule: decided, tolerance: {agreement: 10 %}}");
  const Outcome run = kvc({"run", file, "--no-plan", "--skip-proof"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("Stopped early"), HasSubstr("1 cell left early as decided")));
  const Json stopped = Json::parse(read_text_file(path("sweep/stopped.json")));
  ASSERT_EQ(stopped.size(), 1U);
  EXPECT_EQ(stopped.front().at("state"), "outside");
  EXPECT_GT(stopped.front().at("low").get<double>(), 0.1);
  EXPECT_LT(stopped.front().at("documents").get<int>(), 8);
  const Json report = Json::parse(read_text_file(path("sweep/report.json")));
  EXPECT_EQ(report.at("records").at("missing"), 0);
  const Outcome shard = kvc({"run", file, "--shard", "1/2"});
  EXPECT_EQ(shard.code, 2);
  EXPECT_THAT(shard.err, HasSubstr("cannot be divided into shards"));
  EXPECT_THAT(kvc({"submit", file, "--shards", "2", "--dry-run"}).err, HasSubstr("cannot be divided into shards"));
  EXPECT_THAT(
      kvc({"validate", sweep("streaming_llm", "{rule: decided, tolerance: {accuracy: 0.1}}"), "--config-only"}).err,
      HasSubstr("no task of the sweep measures what stop_when is about"));
}

}  // namespace
}  // namespace kvc
