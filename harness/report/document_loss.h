// What a compact cache loses on a document of what the full cache has there, from the two records.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/loss_evidence.h"
#include "harness/sweep/record.h"

namespace kvc {

// What counts as a loss, and how much of it is tolerated.
//   accuracy   of the questions that the full cache answers right, the share that goes wrong (any task with a metric
//              "accuracy")
//   agreement  of the full cache's own greedy tokens, the share at which another token is the likeliest (fidelity)
//   kl         mean over questions of KL(full || compact) in nats per token, each at most kl_bound (fidelity)
struct LossSettings {
  std::string metric = "accuracy";
  double tolerance = 0.01;  // a share in (0, 1); kl: nats in (0, kl_bound)
  double kl_bound = 2;      // nats; what lies above counts as this much, since nothing unbounded can be certified
  double confidence = 0.95;
  bool give_up = true;   // leave what the documents left cannot certify
  bool halving = false;  // of methods that are alike undecided, measure only the better half further, again and again

  double unit() const { return metric == "kl" ? kl_bound : 1; }  // of a loss of 1 in DocumentLoss
  double level() const { return 1 - confidence; }
};

const std::vector<std::string>& loss_metrics();  // accuracy, agreement, kl

// Whether the task's answers tell this loss.
bool has_loss(const std::string& metric, const std::string& task);

// Greatest `right` that a document of so many questions can have; `task` is {name, options...}.
double most_right(const LossSettings& settings, const Json& task, int64_t n_questions);

// What is kept of a record: by question what it is worth (accuracy), or the document's loss.
struct DocumentScore {
  std::vector<std::pair<std::string, double>> questions;
  DocumentLoss loss;
};

// Throws Error(kData) for answers that cannot be judged.
DocumentScore document_score(const LossSettings& settings, const Record& record);

// Of a method's score beside the full cache's. Questions that only one of them has count for nothing in `lost`; a right
// answer of the full cache that the method lacks is lost.
DocumentLoss document_loss(const LossSettings& settings, const DocumentScore& method, const DocumentScore& full);

}  // namespace kvc
