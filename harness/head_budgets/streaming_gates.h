// Which heads need all of a text, and which get by with its first and most recent entries: a gate for each KV head,
// found by gradient. DuoAttention's profiling; Xiao et al., arXiv:2410.10819, section 2.2.
//
//   mix        a head writes gate * (attention over all) + (1 - gate) * (attention over n_sink first and n_recent last
//              entries), while a whole text is read
//   distance   mean over the tokens of the answers of the mean square of (final hidden state - that of the model as it
//              is)
//   loss       distance + penalty * sum of |gate|
//   step       Adam from gates of 1, clamped to [0, 1]; the rate rises over the first fifth of the steps and falls over
//              the last, never below a tenth
//
// As the authors' train.py (mit-han-lab/duo-attention), sizes and rates are its defaults. Differences: a step reads one
// document, the questions and right answers of the data set behind it; the authors hide ten passkeys in essays, for
// which {dataset: needle, needles: 10} stands.
//
// Cost of a step: one pass over the text without and one with gradients, both with two attentions a head, in plain
// operations with N^2 matrices; memory: the states between the layers, L N hidden numbers, and one layer's gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/api/dataset.h"
#include "harness/core/config_text.h"
#include "harness/math/adam.h"
#include "harness/model/differentiable_decoder.h"
#include "harness/model/model.h"

namespace kvc {

struct GateSettings {
  std::int64_t n_sink = 128;
  std::int64_t n_recent = 256;
  std::int64_t steps = 2000;
  double learning_rate = 0.02;
  double penalty = 0.05;

  Json to_json() const;
  double rate_of(std::int64_t step) const;  // of the descent, steps from 0
};

// A document, its questions and answers in one row.
struct GateText {
  std::vector<std::int64_t> tokens;  // (N)
  std::vector<std::int64_t> rows;    // (R), of the answers' tokens
  at::Tensor wanted;  // (R, hidden), what the model as it is ends with there; read_as_it_is() fills it in
};

// Throws Error(kData) for a document without a question that has a right answer.
GateText gate_text(const Model& model, const Document& document);

// Of the entries that the answers' tokens see, the part that a streaming head does not: behind the first n_sink and
// more than n_recent back. A mean over the texts, in [0, 1).
double hidden_share(const std::vector<GateText>& texts, const GateSettings& settings);

// Throws Error(kUsage) for texts of which a streaming head sees all that the answers see: no gate decides anything.
void check_gate_texts(const std::vector<GateText>& texts, const GateSettings& settings);

// Why the gates will say little of the heads: texts hardly longer than what a streaming head keeps, too few steps for a
// gate to close. Each names the number that would do.
std::vector<std::string> gate_warnings(const std::vector<GateText>& texts, const GateSettings& settings);

class GateTraining {
 public:
  // `decoder` must outlive this. dtype: as DifferentiableDecoder; the gates themselves are float64.
  GateTraining(const Decoder& decoder, const GateSettings& settings, at::ScalarType dtype);

  // One pass, once for each text; the other calls need it.
  void read_as_it_is(GateText& text) const;

  double distance(const GateText& text) const;
  // The same; its gradient is added to that of gates().
  double accumulate(const GateText& text);
  // The penalty's gradient added, then one step of the descent.
  void step();

  const at::Tensor& gates() const { return gates_; }  // (L, Hkv) float64, a leaf of autograd
  std::int64_t steps_made() const { return steps_made_; }

  // For going on where it was stopped: exact to the last bit.
  Json state() const;
  // Throws Error(kData), naming `where`, for the state of another model.
  void restore(const Json& state, const std::string& where);

 private:
  StreamingMix mix(std::int64_t layer) const;
  std::vector<at::Tensor> states(const GateText& text, bool mixed) const;
  at::Tensor ends(const at::Tensor& hidden, const GateText& text) const;

  const Decoder& original_;
  GateSettings settings_;
  DifferentiableDecoder decoder_;
  std::vector<HeadEntries> nothing_before_;  // for each KV head
  at::Tensor gates_;
  Adam adam_;
  std::int64_t steps_made_ = 0;
};

// The authors' full_attention_heads.tsv: a line a layer, a number a KV head. What the budget rule 'duo_attention'
// reads.
std::string gates_as_tsv(const at::Tensor& gates);

}  // namespace kvc
