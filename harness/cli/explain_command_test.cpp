// kvc explain through the front door, on the demo model: a sweep, its lost answers, the report that shows them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "harness/cli/cli_test.h"
#include "harness/core/config_text.h"
#include "harness/core/json_lines.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ExplainCommand : public Cli {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << "no demo model: " << kModel;
  }

  // Documents of 160 tokens with three codes, of which streaming_llm keeps the ends.
  std::string sweep(const std::string& methods = "full_cache, streaming_llm") {
    const std::string file =
        write("s.yaml", "sweep: s\nseed: 11\nproof_tokens: 64\nresults: " + path("r") + "\nmodel: [{path: " + kModel +
                            ", dtype: float32}]\ndataset: [{dataset: needle, path: " + kRoot +
                            "/datasets/samples/quality_excerpts.jsonl, documents: 2, tokens: 160, needles: 3}]\ntask: "
                            "[{task: exact_match, max_new_tokens: 5}]\ntarget: [0.3]\nmethod: [" +
                            methods + "]\n");
    const Outcome run = kvc({"run", file, "--quiet", "--no-plan", "--skip-proof"});
    EXPECT_EQ(run.code, 0) << run.err;
    return path("r");
  }
  Outcome explain(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"explain", path("r"), "--draws", "2", "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return kvc(arguments);
  }
};

TEST_F(ExplainCommand, FromLostAnswersToTheReport) {
  const std::string folder = sweep();
  const Outcome first = explain({"--limit", "1", "--json"});
  ASSERT_EQ(first.code, 0) << first.err;
  const Json result = Json::parse(first.out);
  ASSERT_GE(result.at("flips").get<int64_t>(), 2) << first.out;
  EXPECT_EQ(result.at("explained_now"), 1);
  EXPECT_EQ(result.at("left_out"), result.at("flips").get<int64_t>() - 1);
  const Json one = result.at("explanations").at(0);
  EXPECT_EQ(one.at("cause"), "evicted") << one.dump(1);
  EXPECT_FALSE(one.at("pieces").empty());
  // The words are those of the document, where they are said to stand.
  const std::string said = one.at("full_reply").get<std::string>();
  EXPECT_THAT(one.at("pieces").dump(), HasSubstr(said.substr(said.find_first_of("0123456789"), 4)));

  // What is explained is not explained again, and a limit that grows adds to it.
  const Outcome again = explain({"--limit", "2"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("2 explained (1 of them before)"));
  EXPECT_EQ(read_json_lines(folder + "/explanations/flips.jsonl").values.size(), 2u);

  // Hostile words stay words.
  Json hostile = one;
  hostile["pieces"][0]["text"] = "</script><script>alert(1)</script>\x1b[31m";
  append_json_line(folder + "/explanations/flips.jsonl", hostile);
  ASSERT_EQ(kvc({"report", folder}).code, 0);
  EXPECT_THAT(read_text_file(folder + "/report.md"), HasSubstr("why answers were lost"));
  EXPECT_THAT(read_text_file(folder + "/report.md"), HasSubstr("evicted"));
  const std::string page = read_text_file(folder + "/report.html");
  EXPECT_THAT(page, HasSubstr(R"("causes":{"header":["method","target","explained","evicted")"));
  EXPECT_THAT(page, HasSubstr(R"(\u003c/script>\u003cscript>alert(1))"));
  EXPECT_THAT(page, Not(HasSubstr("<script>alert(1)")));
  EXPECT_THAT(explain({"--limit", "1"}).out, Not(HasSubstr("\x1b")));
}

TEST_F(ExplainCommand, BadInput) {
  const std::string folder = sweep("full_cache, {method: streaming_llm, n_sink: 0}");
  EXPECT_THAT(explain({"--question", "needle_1_castl"}).err, HasSubstr("no record has the question 'needle_1_castl'"));
  EXPECT_EQ(explain({"--method", "snapkv"}).code, 2);
  EXPECT_THAT(explain({"--model", path("none.gguf")}).err, HasSubstr("none.gguf"));
  EXPECT_EQ(kvc({"explain", path("nowhere")}).code, 3);

  // Records of other weights.
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::string text = read_text_file(entry.path());
    const std::string hash =
        Json::parse(text.substr(0, text.find('\n'))).at("provenance").at("model").at("content_hash").get<std::string>();
    for (size_t at = text.find(hash); at != std::string::npos; at = text.find(hash, at))
      text.replace(at, 16, "0000000000000000");
    std::ofstream(entry.path()) << text;
  }
  const Outcome other = explain({});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, HasSubstr("the model's weights and dtype must be that of the records"));
  EXPECT_THAT(other.err, HasSubstr("--model PATH"));
  EXPECT_FALSE(std::filesystem::exists(folder + "/explanations/flips.jsonl"));
}

TEST_F(ExplainCommand, NothingLostIsSaid) {
  sweep("full_cache, {method: streaming_llm, target: 1.0}");
  const Outcome none = explain({});
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_THAT(none.out, HasSubstr("No flips: of "));
}

}  // namespace
}  // namespace kvc
