#include "harness/sweep/self_proof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace kvc
