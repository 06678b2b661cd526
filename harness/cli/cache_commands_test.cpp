// kvc fit, capture, compact and ask on the real demo model: what one command writes the next one reads.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "harness/cli/cli_test.h"
#include "harness/core/config_text.h"
#include "harness/core/text_file.h"
#include "harness/model/formats/tensor_file.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kText =
    "The lighthouse of Varna was built in 1863 by Elena Petrova. Its lamp burned whale oil until 1911, when it was "
    "given an electric light. The keeper's cat was called Admiral. In storms the keeper rang a bell every ninety "
    "seconds, day and night, and wrote each ship's name into a green book that is still kept in the town hall.";

class CacheCommands : public Cli {
 protected:
  std::string document() const { return write("document.txt", kText); }
  Outcome compact(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"compact", "--model", kModel, "--quiet", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return kvc(arguments);
  }
};

TEST_F(CacheCommands, CompactOnceAskEverAfter) {
  const std::string cache = path("cache.safetensors");
  const Outcome made =
      compact({"--document", document(), "--method", "attention_matching", "--target", "0.5", "--out", cache});
  ASSERT_EQ(made.code, 0) << made.err;
  const Json step = Json::parse(made.out);
  EXPECT_LT(step.at("entries_after").get<int64_t>(), step.at("entries_before").get<int64_t>());
  const Outcome answer =
      kvc({"ask", "--model", kModel, "--cache", cache, "--question", "When was the lighthouse built?", "--question",
           "What was the cat called?", "--max-new-tokens", "16", "--json", "--quiet"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("1863"));
  EXPECT_EQ(std::count(answer.out.begin(), answer.out.end(), '\n'), 2);

  // Once more, with the last entries protected; the file remembers both steps.
  const std::string smaller = path("smaller.safetensors");
  const Outcome again =
      compact({"--cache", cache, "--method", "snapkv", "--target", "0.5", "--protect", "4", "--out", smaller});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(Json::parse(again.out).at("entries_before"), step.at("entries_after"));
  EXPECT_EQ(Json::parse(read_tensor_file(smaller).metadata.at("about")).at("steps").size(), 2u);
}

TEST_F(CacheCommands, KeepingEverythingAnswersAsTheDocumentDoes) {
  const std::string cache = path("all.safetensors");
  ASSERT_EQ(compact({"--document", document(), "--method", "snapkv", "--target", "1.0", "--out", cache}).code, 0);
  const auto ask = [&](const std::string& source, const std::string& file) {
    return kvc({"ask", "--model", kModel, source, file, "--question", "Who built it?", "--max-new-tokens", "8",
                "--quiet"})
        .out;
  };
  const std::string answer = ask("--document", document());
  EXPECT_FALSE(answer.empty());
  EXPECT_EQ(ask("--cache", cache), answer);
}

TEST_F(CacheCommands, AskWritesTheLogitsItChoseFrom) {
  const std::string cache = path("cache.safetensors"), logits = path("logits.safetensors");
  ASSERT_EQ(
      compact({"--document", document(), "--method", "attention_matching", "--target", "0.5", "--out", cache}).code, 0);
  const std::vector<std::string> command = {"ask",
                                            "--model",
                                            kModel,
                                            "--cache",
                                            cache,
                                            "--question",
                                            "When was it built?",
                                            "--question",
                                            "Who?",
                                            "--max-new-tokens",
                                            "4",
                                            "--logits",
                                            logits,
                                            "--json",
                                            "--quiet"};
  const Outcome answer = kvc(command);
  ASSERT_EQ(answer.code, 0) << answer.err;
  TensorFile file = read_tensor_file(logits);
  EXPECT_EQ(file.metadata.at("format"), "kvcompact.logits.v1");
  const Json first = Json::parse(answer.out.substr(0, answer.out.find('\n')));
  const at::Tensor ids = file.tensors.at("questions.0.answer"), rows = file.tensors.at("questions.0.logits");
  EXPECT_EQ(std::vector<int64_t>(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()),
            first.at("ids").get<std::vector<int64_t>>());
  EXPECT_TRUE(rows.argmax(-1).equal(ids));  // greedy
  EXPECT_EQ(rows.scalar_type(), at::kFloat);
  EXPECT_TRUE(file.tensors.contains("questions.1.prompt"));
  EXPECT_EQ(kvc(command).code, 2);  // not replaced without --force
}

TEST_F(CacheCommands, CapturedHeadsAreFitted) {
  const std::string heads = path("heads.safetensors");
  const Outcome captured =
      kvc({"capture", "--model", kModel, "--document", document(), "--layers", "3,7", "--out", heads});
  ASSERT_EQ(captured.code, 0) << captured.err;
  const TensorFile dump = read_tensor_file(heads);
  EXPECT_EQ(dump.tensors.size(), 2u * 3 * 3);
  EXPECT_EQ(dump.tensors.at("L3H0.K").size(1), 64);

  const std::string out = path("compact.safetensors"), report = path("report.json");
  const Outcome fitted = kvc({"fit", "--in", heads, "--method", "attention_matching", "--target", "20", "--out", out,
                              "--report", report, "--held-out", "0.25"});
  ASSERT_EQ(fitted.code, 0) << fitted.err;
  EXPECT_THAT(fitted.out, AllOf(HasSubstr("L3H2"), HasSubstr("held out")));
  EXPECT_EQ(dump.metadata.at("group_size"), "3");
  EXPECT_THAT(
      kvc({"fit", "--in", heads, "--method", "snapkv", "--target", "20", "--out", path("other"), "--group-size", "2"})
          .err,
      HasSubstr("the group size must be 3, as the file says; got 2"));
  const TensorFile compact = read_tensor_file(out);
  EXPECT_EQ(compact.tensors.at("L7H1.indices").scalar_type(), at::kLong);
  EXPECT_EQ(compact.tensors.at("L7H1.indices").size(0), 20);
  EXPECT_EQ(compact.tensors.at("L7H1.bias").scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(compact.tensors.at("L7H1.keys"),
                        dump.tensors.at("L7H1.K").index_select(0, compact.tensors.at("L7H1.indices"))));
  const Json head = Json::parse(read_text_file(report)).at("heads").at("L3H0");
  EXPECT_EQ(head.at("target_len"), 20);
  EXPECT_GT(head.at("held_out_queries").at("n_queries"), 0);
  EXPECT_LT(head.at("fit_queries").at("output_relative").get<double>(), 1.0);
}

TEST_F(CacheCommands, AUsersOwnTensors) {
  at::manual_seed(5);
  const std::string in = path("own.safetensors"), out = path("out.safetensors");
  TensorFile file;
  file.tensors = {{"K", at::randn({30, 8}, at::kBFloat16)},
                  {"V", at::randn({30, 8}, at::kBFloat16)},
                  {"Q", at::randn({40, 8}, at::kBFloat16)},
                  {"bias", at::zeros({30})}};
  write_tensor_file(in, file);
  const std::vector<std::string> fit = {
      "fit", "--in", in, "--out", out, "--force", "--method", "attention_matching", "--target"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = fit;
    all.insert(all.end(), more.begin(), more.end());
    return kvc(all);
  };
  ASSERT_EQ(with({"0.2"}).code, 0);
  EXPECT_EQ(read_tensor_file(out).tensors.at("keys").sizes(), (std::vector<int64_t>{6, 8}));
  EXPECT_EQ(read_tensor_file(out).tensors.at("values").scalar_type(), at::kBFloat16);

  EXPECT_EQ(with({"0"}).code, 2);
  EXPECT_EQ(with({"31"}).code, 3);
  EXPECT_THAT(with({"5", "--group-size", "3"}).err, HasSubstr("40 queries cannot be split over 3 query heads"));
  EXPECT_THAT(kvc({"fit", "--in", in, "--out", out, "--method", "no_context", "--target", "3"}).err,
              HasSubstr("works on a whole model"));
  const auto broken = [&](const std::string& name, const at::Tensor& tensor, const std::string& fact) {
    TensorFile other = file;
    if (tensor.defined())
      other.tensors[name] = tensor;
    else
      other.tensors.erase(name);
    write_tensor_file(in, other);
    const Outcome outcome = with({"5"});
    EXPECT_EQ(outcome.code, 3) << fact;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(fact), HasSubstr(in))) << fact;
  };
  broken("K", {}, "the file has no keys");
  broken("V", {}, "tensor 'V' is missing");
  broken("V", at::randn({29, 8}, at::kBFloat16), "'V' has 29 rows and 'K' 30");
  broken("Q", at::randn({40, 7}, at::kBFloat16), "'Q' is (40, 7)");
  broken("Q", at::randn({40, 8}), "store all with the same d and dtype");
  broken("K", at::ones({30}, at::kBFloat16), "'K' has 1 dimensions");
  broken("bias", at::zeros({29}), "'bias' must be a list of 30 numbers");
  broken("V", at::full({30, 8}, std::nanf(""), at::kBFloat16), "'V' has values that are not finite");
}

// Before any work: each of these ends at once, without loading the model.
TEST_F(CacheCommands, NoCommandReplacesItsInputsOrForeignFiles) {
  const std::string text = document(), before = read_text_file(text), gguf = write("weights.gguf", "GGUF");
  const std::string heads = path("heads.safetensors");
  TensorFile file;
  file.metadata = {{"format", "kvcompact.heads.v1"}};
  file.tensors = {{"K", at::ones({4, 8})}, {"V", at::ones({4, 8})}, {"Q", at::ones({4, 8})}};
  write_tensor_file(heads, file);
  std::filesystem::create_symlink(text, path("link"));
  const std::vector<std::string> compact = {"compact",  "--model", kModel,     "--document", text,
                                            "--method", "snapkv",  "--target", "0.5"};
  const std::vector<std::string> capture = {"capture", "--model", kModel, "--document", text, "--layers", "0"};
  const std::vector<std::string> fit = {"fit", "--in", heads, "--method", "snapkv", "--target", "2"};
  const std::vector<std::string> budget = {"budget", "--model", kModel, "--dataset", "needle"};
  const auto refused = [&](std::vector<std::string> command, const std::vector<std::string>& more, const char* fact) {
    command.insert(command.end(), more.begin(), more.end());
    const Outcome outcome = kvc(command);
    EXPECT_NE(outcome.code, 0) << command.front();
    EXPECT_THAT(outcome.err, HasSubstr(fact)) << command.front();
  };
  for (const auto& command : {compact, capture}) {
    for (const std::string& out : {text, path("link"), path("./document.txt")})
      refused(command, {"--out", out, "--force"}, "the same file as the input");
    refused(command, {"--out", kModel, "--force"}, "the same file as the input");
  }
  refused(fit, {"--out", heads, "--force"}, "the same file as the input");
  refused(fit, {"--out", path("new"), "--report", heads, "--force"}, "the same file as the input");
  refused(fit, {"--out", path("new"), "--report", path("new")}, "the same file as --out");
  refused(budget, {"--out", kModel, "--force"}, "the same file as the input");
  refused(budget, {"--out", path("parts"), "--report", text}, "did not write it");
  for (const auto& command : {compact, capture, fit, budget}) {
    refused(command, {"--out", gguf, "--force"}, "did not write it");
    refused(command, {"--out", path("document.txt/below")}, "cannot write the output file");
    refused(command, {"--out", path("")}, "is a folder");
  }
  refused(capture, {"--out", heads}, "replace it with --force");
  EXPECT_EQ(read_text_file(text), before);
  EXPECT_EQ(read_text_file(gguf), "GGUF");
  EXPECT_FALSE(std::filesystem::exists(path("new")));
}

TEST_F(CacheCommands, MistakesAreToldWithTheWayOut) {
  const std::string text = document(), out = path("out.safetensors");
  EXPECT_THAT(compact({"--document", text, "--method", "snapkvv", "--target", "0.5", "--out", out}).err,
              HasSubstr("did you mean 'snapkv'?"));
  EXPECT_THAT(
      compact({"--document", text, "--method", "{method: snapkv, windw: 3}", "--target", "0.5", "--out", out}).err,
      AllOf(HasSubstr("unknown option 'windw'"), HasSubstr("--method")));
  EXPECT_THAT(compact({"--document", text, "--method", "snapkv", "--out", out}).err, HasSubstr("needs a target"));
  EXPECT_THAT(compact({"--document", text, "--method", "snapkv", "--target", "1.5", "--out", out}).err,
              HasSubstr("target must be above 0 and at most 1 as a fraction; got \"1.5\""));
  EXPECT_THAT(compact({"--method", "snapkv", "--target", "0.5", "--out", out}).err,
              HasSubstr("one of --document and --cache is needed"));
  EXPECT_EQ(compact({"--document", path("absent.txt"), "--method", "snapkv", "--target", "0.5", "--out", out}).code, 3);
  EXPECT_THAT(kvc({"capture", "--model", kModel, "--document", text, "--layers", "30", "--out", out}).err,
              HasSubstr("'30' names no layer; the model has 0 to 29"));
  EXPECT_THAT(kvc({"ask", "--model", kModel, "--cache", text, "--question", "x"}).err, HasSubstr("document.txt"));
  EXPECT_FALSE(std::filesystem::exists(out));
}

// A method must not see the queries that it is judged by: with half of the rows held out, only the other half can make
// it keep the last key. One row at a time looks at that key, the others at nothing.
TEST_F(CacheCommands, FitDoesNotSeeHeldOutQueries) {
  constexpr int64_t kRows = 8;
  for (const std::string group_size : {"1", "2"}) {
    int seen = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      TensorFile file;
      file.tensors["K"] = at::eye(8);
      file.tensors["V"] = at::eye(8);
      file.tensors["Q"] = at::zeros({kRows, 8});
      file.tensors["Q"][row][7] = 100;
      const std::string in = path("rows.safetensors"), out = path("kept.safetensors");
      std::filesystem::remove(out);
      write_tensor_file(in, file);
      const Outcome fitted = kvc({"fit", "--in", in, "--out", out, "--method", "{method: snapkv, kernel: 1}",
                                  "--target", "1 entries", "--held-out", "0.5", "--group-size", group_size, "--quiet"});
      ASSERT_EQ(fitted.code, 0) << fitted.err;
      seen += read_tensor_file(out).tensors.at("indices").item<int64_t>() == 7 ? 1 : 0;
    }
    EXPECT_EQ(seen, kRows / 2) << group_size;
  }
}

TEST_F(CacheCommands, DocumentsThatAreNoTextAreRefused) {
  const auto error = [&](const std::string& bytes, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "compact",  "--model",  kModel, "--document", write("odd.txt", bytes), "--method",
        "key_norm", "--target", "0.5",  "--out",      path("odd.safetensors"), "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = kvc(arguments);
    EXPECT_EQ(outcome.code, more.empty() ? 3 : 0) << outcome.err;
    return outcome.err;
  };
  EXPECT_THAT(error("caf\xE9 noir"), HasSubstr("byte 0xe9 at offset 3; it seems to be Latin-1"));
  EXPECT_THAT(error("%PDF-1.4 x"), HasSubstr("a PDF file"));
  EXPECT_EQ(error("The caf\xE9 of the lighthouse opens at nine and closes at ten.", {"--encoding", "latin-1"}), "");
}

}  // namespace
}  // namespace kvc
