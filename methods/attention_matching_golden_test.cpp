// Attention Matching with the pursuit against stored results of another implementation.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/math/attention.h"
#include "harness/testing/method_heads.h"

namespace kvc {
namespace {

HeadProblem head_of(const Json& c) {
  if (c.contains("captured")) return captured_head(c.at("captured").get<std::string>());
  const auto T = c.at("T").get<int64_t>(), n = c.at("n").get<int64_t>(), d = c.at("d").get<int64_t>();
  const auto seed = c.at("seed").get<std::uint64_t>();
  const at::Tensor centres = synthetic({8, d}, seed + 9);
  const auto of = [&](int64_t rows, int64_t step) {
    return centres.index_select(0, (at::arange(rows, at::kLong) * step).remainder(8));
  };
  HeadProblem head;
  head.queries = (synthetic({n, d}, seed) + of(n, 3)) * c.at("sharpness").get<double>();
  head.keys = synthetic({T, d}, seed + 1) + of(T, 5);
  head.values = synthetic({T, d}, seed + 2);
  if (c.at("old_bias").get<bool>()) head.bias = synthetic({T}, seed + 3);
  return head;
}

// Norms of the errors of mass and output, the mass in units of exp(m).
std::pair<double, double> residuals(const HeadProblem& head, const HeadFit& fit) {
  const auto logits = [&](const at::Tensor& keys, const at::Tensor& bias) {
    at::Tensor s =
        at::mm(head.queries.to(at::kDouble), keys.to(at::kDouble).t()) / std::sqrt(static_cast<double>(keys.size(1)));
    return bias.defined() ? s + bias.to(at::kDouble) : s;
  };
  const at::Tensor full = logits(head.keys, head.bias), kept = logits(fit.keys, fit.bias);
  const at::Tensor largest = full.amax(1, /*keepdim=*/true);
  const at::Tensor mass = (full - largest).exp().sum(1) - (kept - largest).exp().sum(1);
  const at::Tensor output = at::mm(at::softmax(full, 1), head.values.to(at::kDouble)) -
                            at::mm(at::softmax(kept, 1), fit.values.to(at::kDouble));
  return {mass.norm().item<double>(), output.norm().item<double>()};
}

TEST(MatchingPursuitGolden, PicksBiasesAndErrorsAreThoseOfTheStoredLoop) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/attention_matching_omp.json");
  ASSERT_TRUE(file) << "harness/testing/golden/attention_matching_omp.json is missing";
  const Json golden = Json::parse(file);
  ASSERT_EQ(golden.at("cases").size(), 19U);
  int64_t n_dropped = 0;
  for (const Json& c : golden.at("cases")) {
    SCOPED_TRACE(c.value("captured", Json(c.value("seed", 0)).dump()) + ", t " + c.at("t").dump() + ", smallest gap " +
                 c.at("smallest_gap").dump());
    const HeadProblem head = head_of(c);
    const auto method = Registry<CompactionMethod>::instance().create(
        "am_omp",
        {{"k_choice", c.at("k_choice")}, {"nnls_interval", c.at("nnls_interval")}, {"drop_below", c.at("drop_below")}});
    const HeadFit fit = dynamic_cast<const PerHeadMethod&>(*method).fit(head, {c.at("t").get<int64_t>()})[0];
    const std::vector<int64_t> found(fit.indices.const_data_ptr<int64_t>(),
                                     fit.indices.const_data_ptr<int64_t>() + fit.indices.numel());
    EXPECT_EQ(found, c.at("indices").get<std::vector<int64_t>>());
    EXPECT_EQ(fit.notes.at("keys_dropped"), c.at("n_dropped"));
    n_dropped += c.at("n_dropped").get<int64_t>();
    const auto bias = c.at("bias").get<std::vector<double>>();
    for (size_t j = 0; j < bias.size(); ++j) {
      EXPECT_NEAR(fit.bias[static_cast<int64_t>(j)].item<double>(), bias[j], 1e-3 * std::max(1.0, std::abs(bias[j])));
    }
    const auto [mass, output] = residuals(head, fit);
    EXPECT_LE(mass, c.at("mass_residual").get<double>() * 1.001 + 1e-6 * c.at("mass").get<double>());
    EXPECT_LE(output, c.at("output_residual").get<double>() * 1.001 + 1e-5 * c.at("output").get<double>());
  }
  EXPECT_GT(n_dropped, 0) << "no case drops anything";
}

}  // namespace
}  // namespace kvc
