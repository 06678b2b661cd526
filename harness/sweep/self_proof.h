// The harness proves itself before a sweep: on the beginning of a real document, with the sweep's own model and
// methods,
//   1. a budget of everything reproduces the untouched cache: same distributions, same greedy answers;
//   2. the same cell twice gives bit-equal caches, whichever other targets were asked for beside it;
//   3. two budgets give two different caches, each within its budget.
// Ports of published methods have broken each of these without anybody noticing: a dropped bias, a budget switch that
// did nothing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/sweep/document_run.h"

namespace kvc {

// Bounds of the mean KL(full || compacted) at a budget of everything, nats per token. A method that keeps every entry
// may store them in another order and fit values that equal the old ones up to rounding; the rest is the rounding of
// the compute dtype.
constexpr double kProofKlFloat32 = 1e-4;
constexpr double kProofKlBfloat16 = 1e-2;
// In bfloat16 two nearly equal tokens may change places; in float32 greedy answers must be the same token by token.
constexpr double kProofAgreementBfloat16 = 0.95;

struct ProofJob {
  const Model& model;
  const Document& document;
  std::vector<const PlannedCell*> cells;  // one of each (method, queries, target) is enough; others are looked past
  int64_t proof_tokens = 512;  // of the article, at most a third of the model's positions; 0 = the whole article
  std::function<void(const std::string&)> stage;
};

// What was found: {document, article_tokens, methods: [{method, queries, mean_kl, token_agreement, ...}]}.
// Throws Error(kData) naming the method and the figures when a proof fails. Where a document cannot be used, or a
// method or query source refuses it with an error, it says {skipped: reason} there instead: the cells concerned will
// fail by name.
Json prove(const ProofJob& job);

// What prove() found, in sentences for people: one for each method that refused, then what holds for the others.
std::vector<std::string> proof_notes(const Json& found, const std::string& dataset);

// The first n_tokens tokens of a text as text; n_tokens 0 or beyond the end: the whole text.
std::string cut_text(const Tokenizer& tokenizer, const std::string& text, int64_t n_tokens);

// Same lengths, keys, values and biases, bit by bit.
bool bit_equal(const KvCache& a, const KvCache& b);

}  // namespace kvc
