#include "harness/tasks/online_writer.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "harness/api/read_document.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/model/continuation.h"
#include "harness/model/logit_rows.h"
#include "harness/model/next_token_kl.h"
#include "harness/model/sampling.h"

namespace kvc {
namespace {

constexpr const char* kEndOfThought = "</think>";

// What prefix and tail hold, as one cache.
KvCache joined(const KvCache& prefix, const Tails& tails) {
  const int64_t n = tails.lengths().front();
  std::vector<LayerKv> layers;
  for (int64_t i = 0; i < prefix.n_layers(); ++i) {
    const LayerKv& layer = prefix.layer(i);
    std::vector<HeadEntries> heads;
    for (int64_t head = 0; head < prefix.n_kv_heads(); ++head) {
      const HeadEntries tail = {tails.keys(i)[0][head], tails.values(i)[0][head], {}};
      heads.push_back(join_entries({layer.head(head), tail.slice(0, n)}));
    }
    layers.push_back(pack_heads(heads));
  }
  return KvCache(std::move(layers), prefix.next_position() + n);
}

class OnlineWriter {
 public:
  OnlineWriter(const Model& model, const OnlineCompaction& online, const OnlineSettings& settings, std::uint64_t seed)
      : model_(model),
        online_(online),
        settings_(settings),
        seed_(seed),
        random_(settings.decode.temperature > 0 ? seed : 0),
        n_heads_(model.spec().n_layers * model.spec().n_kv_heads),
        forced_end_(forced_tokens()),
        prefix_(model.decoder().empty_cache()),
        tails_(Tails::behind(prefix_, 1, 1)) {}

  OnlineText write(const std::vector<int64_t>& prompt) {
    check(prompt);
    prompt_len_ = static_cast<int64_t>(prompt.size());
    read_.assign(prompt.begin(), prompt.end() - 1);
    prefix_ = model_.decoder().prefill(read_);
    tails_ = Tails::behind(prefix_, 1, 64);
    pending_ = prompt.back();
    note_peak();
    looked_at_ = logical();
    think();
    result_.thought_tokens = static_cast<int64_t>(result_.tokens.size());
    if (result_.stop_reason != "end") answer();
    const KvCache held = joined(prefix_, tails_);
    result_.next_position = held.next_position();
    result_.final_entries = held.n_entries();
    result_.final_bytes = held.bytes();
    return std::move(result_);
  }

 private:
  void think() {
    while (result_.stop_reason.empty()) {
      const auto written = static_cast<int64_t>(result_.tokens.size());
      if (settings_.decode.max_new_tokens > 0 && written >= settings_.decode.max_new_tokens) {
        result_.stop_reason = "length";
      } else if (logical() + 1 + answer_room() > model_.spec().max_positions) {
        result_.stop_reason = "length";
      } else if (!make_room(1, answer_room())) {
        result_.stop_reason = "limit";
      } else if (const std::optional<int64_t> token = next({pending_}); !token) {
        result_.stop_reason = "end";
      } else if (put(*token); ends_thought()) {
        result_.stop_reason = "stop";
      }
    }
  }

  // Behind the thought: the forced end where it has none, then up to answer_tokens.
  void answer() {
    result_.forced = result_.stop_reason != "stop";
    const std::vector<int64_t> words = result_.forced ? forced_end_ : final_words();
    result_.answer_stop_reason = "length";
    std::vector<int64_t> input = {pending_};
    for (const int64_t word : words) {
      put(word);
      input.push_back(word);
    }
    for (int64_t n = 0; n < settings_.answer_tokens; ++n) {
      // Room is kept from the beginning; a compaction that is left makes it where the thought ended early.
      const std::optional<int64_t> token = next_of_answer(input);
      if (!token) {
        result_.answer_stop_reason = "end";
        break;
      }
      put(*token);
      input = {*token};
    }
    if (result_.answer_stop_reason == "length") next_of_answer(input);  // the last one is held too
  }

  std::optional<int64_t> next_of_answer(const std::vector<int64_t>& input) {
    if (!make_room(static_cast<int64_t>(input.size()), 0)) {
      throw Error(ErrorKind::kInternal, "no room is left for the answer", "online writing", "");
    }
    return next(input);
  }

  // Reads the tokens; what the model says then, or nothing for an end token.
  std::optional<int64_t> next(const std::vector<int64_t>& tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    if (tails_.lengths().front() + n > tails_.capacity()) {
      tails_.reserve(tails_.lengths().front() + n + tails_.capacity() / 2 + 16);
    }
    const PackedTokens input = PackedTokens::single(tokens);
    const at::Tensor hidden = model_.decoder().forward(input, prefix_, tails_);
    read_.insert(read_.end(), tokens.begin(), tokens.end());
    note_peak();
    const int64_t token = choose(last_rows(hidden, input.sequence_offsets));
    const std::vector<int64_t> ends = model_.tokenizer().end_ids();
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return std::nullopt;
    return token;
  }

  int64_t choose(const at::Tensor& hidden) {
    int64_t token = 0;
    for_logits(model_, hidden, [&](int64_t, const at::Tensor& logits) {
      const std::span<const float> scores(logits.const_data_ptr<float>(), static_cast<size_t>(logits.size(1)));
      const DecodeSettings& decode = settings_.decode;
      token = decode.temperature > 0
                  ? sampled_token(scores, decode.temperature, decode.top_k, decode.top_p, decode.min_p, random_)
                  : greedy_token(scores);
    });
    return token;
  }

  void put(int64_t token) {
    result_.tokens.push_back(token);
    pending_ = token;
    // Embeddings are often padded with rows that no token of the tokenizer has: no text.
    if (token < model_.tokenizer().vocab_size()) result_.text += model_.tokenizer().token_bytes(token);
  }

  // Whether the last token completes the mark, which may be spelt by several tokens and end within one.
  bool ends_thought() {
    const bool ends = result_.text.find(kEndOfThought, searched_) != std::string::npos;
    const size_t overlap = std::string(kEndOfThought).size() - 1;
    searched_ = result_.text.size() - std::min(result_.text.size(), overlap);
    return ends;
  }

  int64_t logical() const { return static_cast<int64_t>(read_.size()); }
  int64_t held() const { return prefix_.n_entries() + n_heads_ * tails_.lengths().front(); }
  bool fits(int64_t n_tokens) const { return held() + n_heads_ * n_tokens <= n_heads_ * settings_.limit; }
  double per_head(int64_t entries) const { return static_cast<double>(entries) / static_cast<double>(n_heads_); }
  void note_peak() { result_.peak_entries = std::max(result_.peak_entries, per_head(held())); }

  // The token that ends the thought, the forced end, and the answer.
  int64_t answer_room() const { return 1 + static_cast<int64_t>(forced_end_.size()) + settings_.answer_tokens; }

  bool can_compact() const {
    return online_.method.needs_target() && compactions_at_limit_ < settings_.max_compactions;
  }

  // True when n_tokens may be read. The last compaction behind it, `reserve` more must fit, for the answer.
  bool make_room(int64_t n_tokens, int64_t reserve) {
    if (is_due()) compact();
    if (can_compact() && !fits(n_tokens)) {
      ++compactions_at_limit_;
      compact();
    }
    return fits(n_tokens + (can_compact() ? 0 : reserve));
  }

  // Once for every `every` tokens: whether a compaction would make the cache smaller now.
  bool is_due() {
    if (settings_.every == 0 || !online_.method.needs_target() || logical() - looked_at_ < settings_.every) {
      return false;
    }
    looked_at_ = logical();
    const int64_t kept_always = settings_.protected_tokens + (settings_.protect_prompt ? prompt_len_ : 0);
    const double span = per_head(held()) - static_cast<double>(kept_always);
    const double kept = kept_per_head(span, static_cast<double>(kept_always));
    return span > 1 && kept >= 1 && std::floor(kept) < span;
  }

  void compact() {
    const Stopwatch clock;
    OnlineStep step;
    step.position = logical();
    step.entries_before = per_head(held());
    Context context;
    context.tokens = read_;
    context.prefix_len = settings_.protect_prompt ? prompt_len_ : 0;
    context.suffix_len = settings_.protected_tokens;
    const ReadDocument whole(std::move(context), joined(prefix_, tails_));
    const auto seed_of = [&](const char* purpose) {
      return derive_seed(seed_, fmt::format("compaction/{}/{}", result_.steps.size(), purpose));
    };
    const auto queries = whole.queries(model_, online_.queries, seed_of("queries"));
    const HeadBudget budget = online_.budget->spread({*online_.target, whole.source_lengths(), whole.entry_sizes()});
    std::vector<Compaction> made = whole.compact(model_, online_.method, queries.get(), {budget}, seed_of("method"));
    if (made.front().cache.next_position() != whole.full.next_position()) {
      throw Error(ErrorKind::kInternal, "the method must return a cache of the same text", "online compaction",
                  "mend the method's compact()");
    }
    prefix_ = std::move(made.front().cache);
    tails_ = Tails::behind(prefix_, 1, 64);
    step.entries_after = per_head(held());
    step.seconds = clock.seconds();
    step.notes = std::move(made.front().notes);
    if (settings_.drift) {
      const Stopwatch drift_clock;
      step.drift_kl = drift();
      step.drift_s = drift_clock.seconds();
    }
    result_.steps.push_back(std::move(step));
  }

  std::optional<double> drift() const {
    if (logical() + 1 + static_cast<int64_t>(forced_end_.size()) > model_.spec().max_positions) return std::nullopt;
    const std::vector<Continuation> forced = {{0, forced_end_}};
    const auto predictions = [&](const KvCache& cache) {
      const at::Tensor hidden = continuation_hidden(model_, cache, {{pending_}}, forced).front();
      return at::log_softmax(model_.decoder().logits(hidden), -1);
    };
    const at::Tensor full = predictions(model_.decoder().prefill(read_));
    return next_token_kl(full, predictions(prefix_)).mean().item<double>();
  }

  std::vector<int64_t> forced_tokens() const {
    const std::string text = kForcedEnd;
    const size_t at = text.find(kEndOfThought), behind = at + std::string(kEndOfThought).size();
    // Behind some letter: it goes on in the middle of a text.
    return encode_behind(model_.tokenizer(), {{"x", false}},
                         {{text.substr(0, at), false}, {kEndOfThought, true}, {text.substr(behind), false}});
  }

  std::vector<int64_t> final_words() const {
    return encode_behind(model_.tokenizer(), {{kEndOfThought, true}}, {{kFinalAnswer, false}});
  }

  void check(const std::vector<int64_t>& prompt) const {
    const auto usage = [](const std::string& fact, const std::string& mend) {
      throw Error(ErrorKind::kUsage, fact, "reasoning", mend);
    };
    const auto n_prompt = static_cast<int64_t>(prompt.size());
    const int64_t least = n_prompt + answer_room();
    if (least > settings_.limit) {
      usage(fmt::format("the limit of {} entries is too small: the prompt has {} tokens, the forced answer {}",
                        settings_.limit, n_prompt, answer_room() - 1),
            fmt::format("limit: {} or more", least));
    }
    if (least > model_.spec().max_positions) {
      usage(fmt::format("prompt and answer need {} positions, the model has {}", least, model_.spec().max_positions),
            "take another model, or rope_scaling");
    }
    if (!online_.method.compacts_cache()) {
      usage("a method on the text cannot compact the cache of a text that is being written",
            "take a method on the cache: kvc list methods");
    }
    if (!online_.method.needs_target() || settings_.max_compactions == 0) return;
    const int64_t kept_always = settings_.protected_tokens + (settings_.protect_prompt ? n_prompt : 0);
    const auto span = static_cast<double>(settings_.limit - kept_always);
    const double kept = kept_per_head(span, static_cast<double>(kept_always));
    const double room = static_cast<double>(settings_.limit) - static_cast<double>(kept_always) - kept;
    if (kept < 1) {
      usage(fmt::format("the target leaves no room besides the {} protected entries", kept_always),
            "raise the target, or lower the protected tokens");
    }
    if (span < 1 || room < static_cast<double>(1 + answer_room())) {
      usage(fmt::format("a compaction at a limit of {} entries keeps {} protected ones and {:.0f} others, which leaves "
                        "{:.0f}; a forced answer needs {}",
                        settings_.limit, kept_always, kept, room, 1 + answer_room()),
            "raise the limit, or lower the target or the protected tokens");
    }
  }

  // Mean entries of a head that a compaction of `span` keeps beside `kept_always` others.
  double kept_per_head(double span, double kept_always) const {
    using Unit = TargetSize::Unit;
    const TargetSize& target = *online_.target;
    if (target.unit == Unit::kFraction) return span * target.fraction;
    if (target.unit == Unit::kEntries) return static_cast<double>(target.entries);
    const auto entry_bytes = static_cast<double>(2 * model_.spec().head_dim *
                                                 static_cast<int64_t>(model_.decoder().options().dtype().itemsize()));
    const double held = static_cast<double>(target.bytes) / entry_bytes / static_cast<double>(n_heads_);
    return std::min(span, held - kept_always);
  }

  const Model& model_;
  const OnlineCompaction& online_;
  const OnlineSettings& settings_;
  std::uint64_t seed_;
  std::mt19937_64 random_;
  int64_t n_heads_;
  std::vector<int64_t> forced_end_;
  KvCache prefix_;
  Tails tails_;
  std::vector<int64_t> read_;  // tokens whose entries the cache has, or had before they were compacted
  int64_t prompt_len_ = 0;
  int64_t pending_ = 0;    // chosen, not yet read
  int64_t looked_at_ = 0;  // tokens read when a compaction of `every` was last thought of
  int64_t compactions_at_limit_ = 0;
  size_t searched_ = 0;  // of the text, for the end of thought
  OnlineText result_;
};

}  // namespace

Json OnlineStep::to_json() const {
  return {{"position", position},
          {"entries_before", entries_before},
          {"entries_after", entries_after},
          {"seconds", seconds},
          {"drift_kl", drift_kl ? Json(*drift_kl) : Json(nullptr)},
          {"drift_s", drift_s},
          {"notes", notes}};
}

OnlineText write_online(const Model& model, const OnlineCompaction& online, const std::vector<int64_t>& prompt,
                        const OnlineSettings& settings, std::uint64_t seed) {
  const c10::InferenceMode inference;
  if (prompt.empty()) throw Error(ErrorKind::kInternal, "the prompt is empty", "online writing", "");
  return OnlineWriter(model, online, settings, seed).write(prompt);
}

}  // namespace kvc
