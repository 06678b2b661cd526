// Writing under a hard limit on the cache: when it is full it is compacted, and the text goes on where it was, as long
// as compactions are left; then the answer is asked for. Also every so many tokens, if wished. One text at a time. The
// online use of Attention Matching, arXiv:2602.16284, with any method on the cache.
//
// Letters: H = L * Hkv heads. "Entries" without more are entries per head, the mean over the heads: a ragged cache of
// `limit` entries occupies what `limit` tokens do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/task.h"
#include "harness/model/generate.h"

namespace kvc {

struct OnlineSettings {
  int64_t limit = 2048;           // most entries that are ever held when a token is read
  int64_t protected_tokens = 20;  // last tokens that a compaction leaves as they are
  bool protect_prompt = false;    // the prompt's entries too
  int64_t max_compactions = 6;    // at the limit; those of `every` do not count
  // Above 0: whenever so many more tokens were read behind the prompt the cache is compacted too, if that makes it
  // smaller. As eviction while decoding is published: R-KV (arXiv:2505.24133), TriAttention (2604.04921).
  int64_t every = 0;
  int64_t answer_tokens = 16;  // longest answer behind "Final Answer: "
  bool drift = true;           // compare with the uncompacted cache after each compaction
  DecodeSettings decode;       // sampling; max_new_tokens 0 = as many as limit and positions allow
};

// One compaction while writing.
struct OnlineStep {
  int64_t position = 0;  // tokens read when it happened
  double entries_before = 0;
  double entries_after = 0;
  double seconds = 0;  // queries and fits
  // KL(uncompacted || compacted) over the tokens of the forced end, nats per token; nothing where the text no longer
  // fits the model, or it was not asked for.
  std::optional<double> drift_kl;
  double drift_s = 0;  // what measuring it took
  Json notes;          // the method's
  Json to_json() const;
};

struct OnlineText {
  std::vector<int64_t> tokens;     // all that was written and forced behind the prompt, in order; without the end token
  std::string text;                // the same, special tokens spelt out
  std::string stop_reason;         // of the thought: "end" (end token), "stop" ("</think>"), "limit" (cache full, no
                                   // compaction left), "length" (max_new_tokens, or the model's positions)
  int64_t thought_tokens = 0;      // written before the forced end
  bool forced = false;             // the end of the thought was put in
  std::string answer_stop_reason;  // of the answer behind the forced end: "end", "length", or "" where none was asked
  double peak_entries = 0;         // most that were held at any step
  int64_t next_position = 0;       // tokens that the cache has read: prompt and all of `tokens`
  int64_t final_entries = 0;       // held at the end, over all heads
  int64_t final_bytes = 0;
  std::vector<OnlineStep> steps;
};

// `online` gives method, queries, target and budget; a method without a target frees nothing and is the baseline. Every
// token, the last one included, is read exactly once; positions are those of the whole text. Cost: a step of the
// decoder per token; a compaction: queries and fits over what is held; drift: one prefill of the text so far, outside
// the limit. Throws Error(kUsage) with the numbers where prompt, target and answer do not fit under the limit, and for
// methods on the text.
OnlineText write_online(const Model& model, const OnlineCompaction& online, const std::vector<int64_t>& prompt,
                        const OnlineSettings& settings, std::uint64_t seed);

// What is put in when thinking ends without an answer (arXiv:2602.16284), and behind "</think>".
inline constexpr const char* kForcedEnd = "\nI need to respond with the answer.\n</think>Final Answer: ";
inline constexpr const char* kFinalAnswer = "Final Answer: ";

}  // namespace kvc
