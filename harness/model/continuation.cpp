#include "harness/model/continuation.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/logit_rows.h"

namespace kvc {

namespace {

// Entries of tails that exist at one time when texts are scored.
constexpr int64_t kTailEntries = 8192;

[[noreturn]] void refuse(const std::string& fact, const std::string& where) {
  throw Error(ErrorKind::kInternal, fact, where, "");
}

void check_token(const Model& model, int64_t token, const std::string& where) {
  if (token >= 0 && token < model.spec().vocab_size) return;
  throw Error(ErrorKind::kData, fmt::format("token {} is outside the vocabulary of {}", token, model.spec().vocab_size),
              where, "tokenizer and weights are not of the same model");
}

class Scorer {
 public:
  Scorer(const Model& model, const KvCache& prefix, const std::vector<std::vector<int64_t>>& prompts,
         const std::vector<Continuation>& continuations)
      : model_(model),
        prefix_(prefix),
        prompts_(prompts),
        continuations_(continuations),
        hidden_(continuations.size()) {
    for (size_t i = 0; i < continuations.size(); ++i) {
      const Continuation& continuation = continuations[i];
      if (continuation.tokens.empty() || continuation.prompt < 0 ||
          continuation.prompt >= static_cast<int64_t>(prompts.size())) {
        refuse(fmt::format("continuation {} has {} tokens after prompt {} of {}", i, continuation.tokens.size(),
                           continuation.prompt, prompts.size()),
               "continuation_hidden");
      }
    }
  }

  std::vector<at::Tensor> run() {
    std::vector<std::vector<size_t>> of_prompt(prompts_.size());
    for (size_t i = 0; i < continuations_.size(); ++i) {
      of_prompt[static_cast<size_t>(continuations_[i].prompt)].push_back(i);
    }
    std::vector<size_t> group;
    int64_t most = 0;
    for (size_t p = 0; p < prompts_.size(); ++p) {
      if (of_prompt[p].empty()) continue;
      const int64_t with_p = std::max(most, static_cast<int64_t>(prompts_[p].size()));
      if (!group.empty() && with_p * static_cast<int64_t>(group.size() + 1) > kTailEntries) {
        score_prompts(group, of_prompt);
        group.clear();
        most = 0;
      }
      group.push_back(p);
      most = std::max(most, static_cast<int64_t>(prompts_[p].size()));
    }
    if (!group.empty()) score_prompts(group, of_prompt);
    return std::move(hidden_);
  }

 private:
  // Reads the prompts of the group once, then their continuations, some at a time.
  void score_prompts(const std::vector<size_t>& group, const std::vector<std::vector<size_t>>& of_prompt) {
    std::vector<std::vector<int64_t>> texts;
    for (const size_t p : group) texts.push_back(prompts_[p]);
    const PackedTokens input = PackedTokens::pack(texts);
    Tails tails = Tails::behind(prefix_, static_cast<int64_t>(texts.size()), longest(texts));
    const at::Tensor last = last_rows(model_.decoder().forward(input, prefix_, tails), input.sequence_offsets);
    std::vector<Fork> forks;
    int64_t most = 0;
    for (size_t g = 0; g < group.size(); ++g) {
      for (const size_t i : of_prompt[group[g]]) {
        const auto n_tokens = static_cast<int64_t>(continuations_[i].tokens.size());
        if (n_tokens == 1) {  // predicted by the prompt alone
          hidden_[i] = last.narrow(0, static_cast<int64_t>(g), 1);
          continue;
        }
        const int64_t with_i = std::max(most, tails.capacity() + n_tokens - 1);
        if (!forks.empty() && with_i * static_cast<int64_t>(forks.size() + 1) > kTailEntries) {
          score_forks(forks, tails, most, last);
          forks.clear();
          most = 0;
        }
        forks.push_back({i, static_cast<int64_t>(g)});
        most = std::max(most, tails.capacity() + n_tokens - 1);
      }
    }
    if (!forks.empty()) score_forks(forks, tails, most, last);
  }

  struct Fork {
    size_t continuation;
    int64_t sequence;  // in the tails of its group
  };

  void score_forks(const std::vector<Fork>& forks, const Tails& tails, int64_t capacity, const at::Tensor& last) {
    std::vector<int64_t> sequences;
    std::vector<std::vector<int64_t>> texts;
    for (const Fork& fork : forks) {
      const std::vector<int64_t>& tokens = continuations_[fork.continuation].tokens;
      sequences.push_back(fork.sequence);
      texts.emplace_back(tokens.begin(), tokens.end() - 1);  // nothing is predicted from the last token
    }
    Tails own = tails.select(sequences, capacity);
    const PackedTokens input = PackedTokens::pack(texts);
    const at::Tensor hidden = model_.decoder().forward(input, prefix_, own);
    for (size_t f = 0; f < forks.size(); ++f) {
      const int64_t first = input.sequence_offsets[f], n = input.sequence_offsets[f + 1] - first;
      hidden_[forks[f].continuation] = at::cat({last.narrow(0, forks[f].sequence, 1), hidden.narrow(0, first, n)});
    }
  }

  const Model& model_;
  const KvCache& prefix_;
  const std::vector<std::vector<int64_t>>& prompts_;
  const std::vector<Continuation>& continuations_;
  std::vector<at::Tensor> hidden_;
};

// sink(row, log p(targets[row])) for every row of `hidden`.
template <class Sink>
void for_log_probs(const Model& model, const at::Tensor& hidden, const std::vector<int64_t>& targets,
                   const Sink& sink) {
  for_device_logits(model, hidden, [&](int64_t first, const at::Tensor& logits) {
    const auto begin = targets.begin() + first;
    const at::Tensor wanted = device_numbers({begin, begin + logits.size(0)}, logits.device()).unsqueeze(1);
    // Two numbers a row leave the device.
    const at::Tensor pairs = at::cat({logits.gather(1, wanted), at::logsumexp(logits, {1}, /*keepdim=*/true)}, 1).cpu();
    const auto* found = pairs.const_data_ptr<float>();
    for (int64_t row = 0; row < logits.size(0); ++row, found += 2) {
      sink(static_cast<size_t>(first + row), static_cast<double>(found[0]) - static_cast<double>(found[1]));
    }
  });
}

}  // namespace

std::vector<at::Tensor> continuation_hidden(const Model& model, const KvCache& prefix,
                                            const std::vector<std::vector<int64_t>>& prompts,
                                            const std::vector<Continuation>& continuations) {
  const c10::InferenceMode inference;
  for (size_t p = 0; p < prompts.size(); ++p) {
    if (prompts[p].empty()) refuse(fmt::format("prompt {} is empty", p), "continuation_hidden");
  }
  return Scorer(model, prefix, prompts, continuations).run();
}

std::vector<double> continuation_log_likelihoods(const Model& model, const KvCache& prefix,
                                                 const std::vector<std::vector<int64_t>>& prompts,
                                                 const std::vector<Continuation>& continuations) {
  const c10::InferenceMode inference;
  std::vector<double> sums(continuations.size(), 0.0);
  if (continuations.empty()) return sums;
  const std::vector<at::Tensor> hidden = continuation_hidden(model, prefix, prompts, continuations);
  std::vector<int64_t> targets;
  std::vector<size_t> owners;
  for (size_t i = 0; i < continuations.size(); ++i) {
    for (const int64_t token : continuations[i].tokens) {
      check_token(model, token, fmt::format("continuation {}", i));
      targets.push_back(token);
      owners.push_back(i);
    }
  }
  for_log_probs(model, at::cat(hidden), targets, [&](size_t row, double log_prob) { sums[owners[row]] += log_prob; });
  return sums;
}

std::vector<double> text_log_probs(const Model& model, const std::vector<int64_t>& tokens,
                                   const std::function<void(int64_t read)>& progress) {
  const c10::InferenceMode inference;
  for (size_t i = 0; i < tokens.size(); ++i) check_token(model, tokens[i], fmt::format("token {} of the text", i));
  std::vector<double> log_probs;
  if (tokens.size() < 2) return log_probs;
  const auto n_read = static_cast<int64_t>(tokens.size()) - 1;  // nothing is predicted from the last token
  if (n_read > model.spec().max_positions) {
    throw Error(
        ErrorKind::kData,
        fmt::format("a text of {} tokens is longer than the model's {} positions", tokens.size(),
                    model.spec().max_positions),
        "the text",
        "score it in windows, or take a shorter one; kvc inspect tells the model's positions and what limits them");
  }
  const Decoder decoder = model.decoder().for_text_of(static_cast<int64_t>(tokens.size()));
  const KvCache nothing = decoder.empty_cache();
  Tails tails = Tails::behind(nothing, 1, n_read);
  const int64_t most = decoder.chunk_tokens();
  for (int64_t first = 0; first < n_read; first += most) {
    const int64_t n = std::min(most, n_read - first);
    const auto begin = tokens.begin() + first;
    const at::Tensor hidden = decoder.forward(PackedTokens::single({begin, begin + n}), nothing, tails);
    for_log_probs(model, hidden, {begin + 1, begin + 1 + n},
                  [&](size_t /*row*/, double log_prob) { log_probs.push_back(log_prob); });
    if (progress) progress(first + n + 1);
  }
  return log_probs;
}

}  // namespace kvc
