// Writing many sequences together over one shared cache or several, greedily or sampled. Each prefix is read once per
// step for all sequences behind it, each weight once per step for all sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/model/decode_settings.h"
#include "harness/model/model.h"

namespace kvc {

struct Generation {
  std::vector<int64_t> tokens;  // without the end token; with those that spell the stop text
  std::string text;             // decoded; ends before the stop text
  std::string stop_reason;      // "end" (an end token), "stop" (a stop text), or "length"
  int64_t thinking_tokens = 0;  // written between <think> and </think>, both left out
  bool thinking_cut = false;    // the budget ended the thinking
};

// Hears of each token the moment it is chosen: sequence, token.
using TokenSink = std::function<void(size_t sequence, int64_t token)>;

// prompts[b]: tokens read behind the prefix before the first new one, at least one. seeds[b]: of sequence b's own
// random stream, so that a sequence's answer does not depend on its neighbours; unused when greedy. A prompt whose last
// <think> is not closed begins in thought. Budget: s1's forced end of thinking (Muennighoff et al., arXiv:2501.19393).
// Throws Error(kUsage) for a thinking budget where the tokenizer has no </think> token.
std::vector<Generation> generate(const Model& model, const KvCache& prefix,
                                 const std::vector<std::vector<int64_t>>& prompts, const DecodeSettings& settings,
                                 const std::vector<std::uint64_t>& seeds, const TokenSink& sink = {});

// Sequences to be written behind one prefix: the arguments of generate().
struct PrefixPrompts {
  const KvCache& prefix;
  const std::vector<std::vector<int64_t>>& prompts;
  const std::vector<std::uint64_t>& seeds;
};

// The same for several prefixes of one model: element i is what generate() gives for parts[i]. Prompts are read prefix
// by prefix, then all sequences are written in one batch; on a GPU attention is computed prefix by prefix, and with
// decode_graphs the prefixes are written one after the other. The numbers have the same bits as those of each prefix
// alone where there are at most Decoder::independent_rows() sequences in all.
std::vector<std::vector<Generation>> generate(const Model& model, const std::vector<PrefixPrompts>& parts,
                                              const DecodeSettings& settings);

}  // namespace kvc
