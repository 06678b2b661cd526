// How many entries each head should lose at every size of the whole cache, by what the answers to come would have
// looked at: LU-KV's offline profile. Tang, Jiao, Chen, Liu, Li, Chen, "Predicting Future Utility: Global Combinatorial
// Optimization for Task-Agnostic KV Cache Eviction", arXiv:2602.08585.
//
//   utility of entry j of a KV head = max over the answer's steps and the group's query heads of
//                                     A_j |W_o v_j|_2 / sum of |W_o v|_2 over the layer's query heads and entries
//
// A head loses its entries in the order of a method's scores, lowest first; what it has lost is a sum of utilities,
// made convex from below (its lower hull). Of all heads the one that loses least gives the next entry, until 1 %, 2 %,
// ... 99 % of all entries are gone. Profiles are averaged over questions and documents.
//
// Follows the authors' scripts (curve_data/step1, step2 of their repository, with --layerwise): every head keeps 1 % of
// its entries; the steps are those that read a token of the answer. Differences: the article's entries alone can be
// lost, as always here, where the scripts protect some first and last ones; several questions are asked of one
// document.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/api/dataset.h"
#include "harness/api/read_document.h"
#include "harness/head_budgets/head_curves.h"

namespace kvc {

constexpr int64_t kProfileSteps = 99;

// [step][head], heads numbered layer by layer: the part of its entries that a head has lost when (step + 1) % of all
// are gone.
using UtilityProfile = std::vector<std::vector<double>>;

// utilities and scores: [head] lists of one length for all heads; lowest scores are lost first, of equal ones the later
// entry. Throws Error(kInternal) for lists of different lengths.
UtilityProfile profile_of(const std::vector<std::vector<double>>& utilities,
                          const std::vector<std::vector<float>>& scores);

// Utilities of the article's entries, [head][entry] for each of the texts, which are read on the full cache.
std::vector<std::vector<std::vector<double>>> future_utilities(const Model& model, const ReadDocument& read,
                                                               const std::vector<ProbeText>& texts);

// The mean profile over the document's first settings.questions questions and the full cache's answers to them. Throws
// Error(kUsage) for a method without scores, Error(kData) for a document without a question.
UtilityProfile measure_utility(const Model& model, const Document& document, const CompactionMethod& method,
                               const QuerySource* source, const CurveSettings& settings, std::uint64_t seed);

// A NumPy file of float64 numbers, (99, layers, KV heads): what the budget rule 'lu_kv' reads.
std::string profile_as_npy(const UtilityProfile& profile, int64_t n_kv_heads);

}  // namespace kvc
