#include "harness/model/generate.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <span>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/sampling.h"

namespace kvc {

namespace {

// Rows of logits that exist at one time: 256 rows of a vocabulary of 150,000 are 150 MB.
constexpr int64_t kLogitRows = 256;
// Entries of tails that exist at one time when texts are scored.
constexpr int64_t kTailEntries = 8192;

[[noreturn]] void refuse(const std::string& fact, const std::string& where) {
  throw Error(ErrorKind::kInternal, fact, where, "");
}

// visit(first row, logits (n, vocab) float32 on the CPU) for all rows, a bounded number at a time.
template <class Visit>
void for_logits(const Model& model, const at::Tensor& hidden, const Visit& visit) {
  for (int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
    const int64_t n = std::min(kLogitRows, hidden.size(0) - first);
    visit(first, model.decoder().logits(hidden.narrow(0, first, n)).cpu().contiguous());
  }
}

at::Tensor last_rows(const at::Tensor& hidden, const std::vector<int64_t>& offsets) {
  std::vector<int64_t> rows;
  for (size_t b = 1; b < offsets.size(); ++b) rows.push_back(offsets[b] - 1);
  return hidden.index_select(0, at::tensor(rows, at::kLong).to(hidden.device()));
}

void check_prompts(const std::vector<std::vector<int64_t>>& prompts, const std::string& where) {
  for (size_t b = 0; b < prompts.size(); ++b) {
    if (prompts[b].empty()) refuse(fmt::format("prompt {} is empty; at least one token must be read", b), where);
  }
}

int64_t longest(const std::vector<std::vector<int64_t>>& texts) {
  size_t most = 0;
  for (const auto& text : texts) most = std::max(most, text.size());
  return static_cast<int64_t>(most);
}

// One sequence that is being written.
struct Stream {
  size_t index;   // in the result
  int64_t limit;  // tokens it may have
  std::mt19937_64 random;
};

class Generator {
 public:
  Generator(const Model& model, const KvCache& prefix, const DecodeSettings& settings)
      : model_(model), prefix_(prefix), settings_(settings), end_ids_(model.tokenizer().end_ids()) {}

  std::vector<Generation> run(const std::vector<std::vector<int64_t>>& prompts,
                              const std::vector<std::uint64_t>& seeds) {
    std::vector<Generation> results(prompts.size());
    std::vector<Stream> streams;
    for (size_t b = 0; b < prompts.size(); ++b) {
      // The last new token is never read, so it needs no position.
      const int64_t room =
          model_.spec().max_positions - prefix_.next_position() - static_cast<int64_t>(prompts[b].size());
      streams.push_back({b, std::min(settings_.max_new_tokens, room + 1), std::mt19937_64(sampled() ? seeds[b] : 0)});
    }
    const int64_t prompt_len = longest(prompts);
    Tails tails = Tails::behind(prefix_, static_cast<int64_t>(prompts.size()),
                                prompt_len + std::min<int64_t>(settings_.max_new_tokens, 32));
    PackedTokens input = PackedTokens::pack(prompts);
    while (!streams.empty()) {
      const at::Tensor hidden = model_.decoder().forward(input, prefix_, tails);
      const std::vector<int64_t> chosen = choose(last_rows(hidden, input.sequence_offsets), streams);
      input = next_input(chosen, streams, results, tails);
      // Grown by halves: long answers must not reserve what short ones never use.
      if (longest_tail(tails) >= tails.capacity()) tails.reserve(tails.capacity() + tails.capacity() / 2 + 16);
    }
    return results;
  }

 private:
  bool sampled() const { return settings_.temperature > 0; }

  static int64_t longest_tail(const Tails& tails) {
    return tails.batch() == 0 ? 0 : *std::max_element(tails.lengths().begin(), tails.lengths().end());
  }

  std::vector<int64_t> choose(const at::Tensor& hidden, std::vector<Stream>& streams) const {
    std::vector<int64_t> tokens(streams.size());
    for_logits(model_, hidden, [&](int64_t first, const at::Tensor& logits) {
      const auto width = static_cast<size_t>(logits.size(1));
      for (int64_t row = 0; row < logits.size(0); ++row) {
        const std::span<const float> scores(logits.const_data_ptr<float>() + row * logits.size(1), width);
        Stream& stream = streams[static_cast<size_t>(first + row)];
        tokens[static_cast<size_t>(first + row)] =
            sampled() ? sampled_token(scores, settings_.temperature, settings_.top_k, settings_.top_p, stream.random)
                      : greedy_token(scores);
      }
    });
    return tokens;
  }

  // Hands each stream its token; those that end leave the batch with their tails.
  PackedTokens next_input(const std::vector<int64_t>& chosen, std::vector<Stream>& streams,
                          std::vector<Generation>& results, Tails& tails) const {
    std::vector<int64_t> kept;
    std::vector<Stream> going;
    PackedTokens input;
    input.sequence_offsets.push_back(0);
    for (size_t i = 0; i < streams.size(); ++i) {
      Generation& result = results[streams[i].index];
      if (std::find(end_ids_.begin(), end_ids_.end(), chosen[i]) != end_ids_.end()) {
        result.stop_reason = "end";
        continue;
      }
      result.tokens.push_back(chosen[i]);
      if (static_cast<int64_t>(result.tokens.size()) >= streams[i].limit) {
        result.stop_reason = "length";
        continue;
      }
      kept.push_back(static_cast<int64_t>(i));
      going.push_back(streams[i]);
      input.tokens.push_back(chosen[i]);
      input.sequence_offsets.push_back(static_cast<int64_t>(input.tokens.size()));
    }
    if (going.size() < streams.size()) tails = tails.select(kept);
    streams = std::move(going);
    return input;
  }

  const Model& model_;
  const KvCache& prefix_;
  const DecodeSettings& settings_;
  std::vector<int64_t> end_ids_;
};

void check_settings(const DecodeSettings& settings) {
  if (settings.max_new_tokens < 1 || settings.temperature < 0 || settings.top_k < 0 ||
      !(settings.top_p > 0 && settings.top_p <= 1)) {
    refuse(fmt::format("decode settings {} are out of range", settings.to_json().dump()), "generate");
  }
}

// --- scoring given text
// --------------------------------------------------------------------------------------------------------

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

}  // namespace

Json DecodeSettings::to_json() const {
  return {{"max_new_tokens", max_new_tokens}, {"temperature", temperature}, {"top_k", top_k}, {"top_p", top_p}};
}

std::vector<Generation> generate(const Model& model, const KvCache& prefix,
                                 const std::vector<std::vector<int64_t>>& prompts, const DecodeSettings& settings,
                                 const std::vector<std::uint64_t>& seeds) {
  const c10::InferenceMode inference;
  check_settings(settings);
  check_prompts(prompts, "generate");
  if (settings.temperature > 0 && seeds.size() != prompts.size()) {
    refuse(fmt::format("{} seeds for {} sampled sequences", seeds.size(), prompts.size()), "generate");
  }
  if (prompts.empty()) return {};
  return Generator(model, prefix, settings).run(prompts, seeds);
}

std::vector<at::Tensor> continuation_hidden(const Model& model, const KvCache& prefix,
                                            const std::vector<std::vector<int64_t>>& prompts,
                                            const std::vector<Continuation>& continuations) {
  const c10::InferenceMode inference;
  check_prompts(prompts, "continuation_hidden");
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
      if (token < 0 || token >= model.spec().vocab_size) {
        throw Error(ErrorKind::kData,
                    fmt::format("token {} is outside the vocabulary of {}", token, model.spec().vocab_size),
                    fmt::format("continuation {}", i), "tokenizer and weights are not of the same model");
      }
      targets.push_back(token);
      owners.push_back(i);
    }
  }
  for_logits(model, at::cat(hidden), [&](int64_t first, const at::Tensor& logits) {
    const at::Tensor log_sum_exp = at::logsumexp(logits, {1});
    for (int64_t row = 0; row < logits.size(0); ++row) {
      const auto at_row = static_cast<size_t>(first + row);
      const float logit = logits.const_data_ptr<float>()[row * logits.size(1) + targets[at_row]];
      sums[owners[at_row]] +=
          static_cast<double>(logit) - static_cast<double>(log_sum_exp.const_data_ptr<float>()[row]);
    }
  });
  return sums;
}

}  // namespace kvc
