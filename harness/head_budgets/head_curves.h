// What a document says about the heads of a model: how badly each head is served at several kept fractions, and how
// much that matters for the answers.
//
// Estimator. With the error of head h's attention output scaled by s_h (1 = as compacted at a baseline fraction b), the
// KL of the answers is to second order a quadratic form, KL(s) = 1/2 sum_hk A_hk s_h s_k. Two short passes a head give
//   alone_h = KL with only head h compacted           = A_hh / 2
//   last_h  = KL of all minus KL with h left as it was = A_hh / 2 + sum_{k != h} A_hk
// and their mean is h's Shapley value w_h: sum_h w_h = KL(1), and 2 w_h is the derivative of KL(s) by s_h at s = 1. So
// the separable loss sum_h w_h s_h^2 has the value and the gradient of the true one where all heads are compacted to b.
// s_h(r)^2 at a kept fraction r is E_h(r) / E_h(b), E_h the squared relative error of the output of the whole head
// (template and compacted entries) on the queries of the questions and answers, which no method is fitted to.
// A negative last_h (leaving the head alone makes things worse) counts as 0: errors that cancel are luck.
//
// (The reference computes the loss of every head at 51 fractions in whole passes: arXiv:2602.16284, code of its head
// budgets.) Cost of a document with L layers and H heads in all, for m baselines: the prefill, the queries, one
// compaction for all fractions, m + 1 whole passes over the questions, and 2 m H passes from a head's layer on, which
// are (L + 1) / 2L of a whole one on average.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/dataset.h"
#include "harness/api/read_document.h"
#include "harness/head_budgets/answer_probe.h"
#include "harness/head_budgets/head_allocation.h"

namespace kvc {

struct CurveSettings {
  std::vector<double> fractions = {0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3};  // ascending, in (0, 1]
  std::vector<double> baselines = {0.05};                                            // some of `fractions`, ascending
  int64_t questions = 4;       // first questions of a document that are asked; 0 = all
  int64_t answer_tokens = 16;  // of the full cache's own greedy answers
};

// Heads are numbered layer by layer: h = layer * Hkv + kv_head.
struct HeadCurves {
  // [head][fraction], 0 and then settings.fractions: ||compacted - full||_F^2 / ||full||_F^2 of the head's output.
  std::vector<std::vector<double>> errors;
  struct Baseline {
    double together = 0;        // KL with all heads compacted, nats per answer token
    std::vector<double> alone;  // [head]
    std::vector<double> last;   // [head], may be negative
  };
  std::vector<Baseline> baselines;  // one for each of settings.baselines
  int64_t answer_tokens = 0;

  Json to_json() const;
  // Throws Error(kData) at `where` unless it has the shape that `settings` ask for and finite numbers.
  static HeadCurves from_json(const Json& json, const CurveSettings& settings, const std::string& where);
};

// Prompts of the document's first questions and the full cache's answers to them. Throws Error(kData) when the document
// has no question.
std::vector<ProbeText> probe_texts(const Model& model, const KvCache& full, const Document& document,
                                   const CurveSettings& settings);

// `passed(n)` is called after n short passes of the 2 m H.
HeadCurves measure_head_curves(const Model& model, const Document& document, const CompactionMethod& method,
                               const QuerySource* source, const CurveSettings& settings, std::uint64_t seed,
                               const std::function<void(int64_t)>& passed = {});

// The loss curves of all heads from the curves of several documents: weights and errors are averaged over documents
// first. With several baselines w_h / E_h is interpolated between them (log against log fraction) and constant outside.
std::vector<LossCurve> loss_curves(const std::vector<HeadCurves>& documents, const CurveSettings& settings);

}  // namespace kvc
