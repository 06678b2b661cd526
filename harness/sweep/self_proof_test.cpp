#include "harness/sweep/self_proof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/sweep/sweep_fixture_test.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;

Json method(const std::string& name, Json facts) {
  facts["method"] = {{"name", name}};
  return facts;
}

TEST(ProofNotes, ClaimOnlyWhatWasProved) {
  const Json refused = method("snapkv", {{"skipped", "the text is too short"}});
  const Json repeats = method("summarize", Json::object());
  const Json keydiff = method("keydiff", {{"mean_kl", 2e-8}, {"budgets_differ", true}});
  const auto notes = [](const Json& methods) {
    return proof_notes({{"article_tokens", 48}, {"methods", methods}}, "jsonl");
  };
  EXPECT_THAT(notes(Json::array()), ElementsAre("self-proof on jsonl: nothing was proved"));
  EXPECT_THAT(notes(Json::array({refused})),
              ElementsAre("self-proof on jsonl: not possible for snapkv: the text is too short",
                          "self-proof on jsonl: nothing was proved"));
  EXPECT_THAT(notes(Json::array({repeats})),
              ElementsAre("self-proof on jsonl, first 48 article tokens: 1 method repeats itself bit by bit"));
  EXPECT_THAT(notes(Json::array({keydiff, repeats})),
              ElementsAre("self-proof on jsonl, first 48 article tokens: 2 methods repeat themselves bit by bit; a "
                          "budget of everything reproduces the full cache (mean KL at most 2.0e-08); budgets have "
                          "their effect"));
  EXPECT_THAT(proof_notes({{"skipped", "no document"}}, "jsonl"),
              ElementsAre("self-proof on jsonl: not possible: no document"));
}

class SelfProof : public Sweep {
 protected:
  void SetUp() override {
    Sweep::SetUp();
    options_.skip_proof = false;
  }
};

TEST_F(SelfProof, PassesAndIsNotRepeated) {
  run(sweep_text(kMethods));
  for (const Record& record : records()) EXPECT_EQ(record.provenance["self_proof"], "passed");
  std::ifstream file(folder_.file("results/self_proof.json"));
  const Json proofs = Json::parse(file);
  ASSERT_EQ(proofs.size(), 1u);
  const Json proof = proofs.front();
  EXPECT_EQ(proof["document"], "note-0");
  ASSERT_EQ(proof["methods"].size(), 4u);
  for (const Json& method : proof["methods"]) {
    EXPECT_TRUE(method["repeats"].get<bool>());
    EXPECT_LE(method["mean_kl"].get<double>(), 1e-6);
    EXPECT_TRUE(method["same_greedy_answers"].get<bool>());
  }
  EXPECT_TRUE(proof["methods"][1]["budgets_differ"].get<bool>());
  // One more record to measure with the same methods: no second proof.
  std::filesystem::remove(folder_.file("results/" + records().back().cell_id + ".jsonl"));
  calls() = Calls();
  EXPECT_EQ(run(sweep_text(kMethods)).measured, 2);
  EXPECT_EQ(calls().compacts, 2);
}

TEST_F(SelfProof, CutsTheDocument) {
  run(sweep_text("test_keep_first", "{dataset: test_notes, letters: 150}", "proof_tokens: 40\n"));
  std::ifstream file(folder_.file("results/self_proof.json"));
  EXPECT_EQ(Json::parse(file).front()["article_tokens"], 40);
}

TEST_F(SelfProof, CatchesBrokenMethods) {
  struct {
    std::string how, message;
  } cases[] = {
      {"dead_switch", "budgets of 30 and 6 entries per head give the same cache: the budget has no effect"},
      {"random", "the same cell twice gives different caches"},
      {"beside", "one target alone and together with larger ones gives different caches"},
      {"lossy", "a budget of everything must reproduce the untouched cache; mean KL is"},
      {"greedy", "entries where the budget allows"},
  };
  for (const auto& c : cases) {
    std::filesystem::remove_all(folder_.file("results"));
    std::string text = sweep_text("test_full, {method: test_broken, how: " + c.how + "}");
    if (c.how == "dead_switch") text.replace(text.find("0.5, 0.25, 0.1"), 14, "0.5, 0.4, 0.1");
    const std::string error = error_of([&] { run(text); });
    EXPECT_THAT(error, HasSubstr("self-proof failed for method 'test_broken': "));
    EXPECT_THAT(error, HasSubstr(c.message));
    EXPECT_THAT(error, HasSubstr("first 60 article tokens of document 'note-0'"));
    EXPECT_TRUE(records().empty());
  }
}

TEST_F(SelfProof, SaysWhereItIsNotPossible) {
  run(sweep_text("test_full, {method: test_queried, queries: {queries: test_queries, refuse: true}}"));
  for (const Record& record : records()) EXPECT_EQ(record.provenance["self_proof"], "passed in part");
}

TEST_F(SelfProof, HoldsInBfloat16) {
  options_.load_model = [](const ModelConfig&) { return tiny_model(1, at::kBFloat16); };
  EXPECT_EQ(run(sweep_text(kMethods)).measured, kRecords);
}

}  // namespace
}  // namespace kvc
