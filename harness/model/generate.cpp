#include "harness/model/generate.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/generate_by.h"
#include "harness/model/logit_rows.h"
#include "harness/model/sampling.h"
#include "harness/model/sampling_rows.h"

namespace kvc {

namespace {

[[noreturn]] void refuse_request(const std::string& fact) {
  throw Error(ErrorKind::kInternal, fact, "generate", "");
}

// The tokens that open and close a model's thoughts, and what is put in when the budget is used up.
struct Thinking {
  std::optional<int64_t> open, close;
  std::vector<int64_t> forced;

  explicit Thinking(const Tokenizer& tokenizer) {
    open = single(tokenizer, "<think>");
    close = single(tokenizer, "</think>");
    if (open && close) forced = tokenizer.encode({{"\n", false}, {"</think>", true}, {"\n\n", false}});
  }
  bool known() const { return open && close; }

  // Whether a prompt ends in thought.
  bool begins_in(const std::vector<int64_t>& prompt) const {
    if (!known()) return false;
    for (auto token = prompt.rbegin(); token != prompt.rend(); ++token) {
      if (*token == *open) return true;
      if (*token == *close) return false;
    }
    return false;
  }

 private:
  static std::optional<int64_t> single(const Tokenizer& tokenizer, const char* spelling) {
    const std::vector<int64_t> ids = tokenizer.encode({{spelling, true}});
    return ids.size() == 1 ? std::optional(ids.front()) : std::nullopt;
  }
};

// One sequence that is being written.
struct Stream {
  size_t index;   // in the result
  int64_t limit;  // tokens it may have
  std::mt19937_64 random;
  bool thinking = false;
  std::deque<int64_t> forced;  // tokens that come next whatever the model says
  bool ended = false;          // its row stays in the batch until it is dropped with others
};

// What is written behind one prefix.
struct Part {
  const KvCache& prefix;
  std::vector<Generation> results;
  std::vector<Stream> streams;  // one for each row of the batch
  Tails tails;
  PackedTokens input;                // of the next step
  std::unique_ptr<DecodeStep> step;  // for every token but the first, where it is made in a given way
};

class Generator {
 public:
  Generator(const Model& model, const DecodeSettings& settings, const TokenSink& sink,
            std::optional<DecodeStep::Way> way)
      : model_(model),
        settings_(settings),
        sink_(sink),
        way_(way),
        end_ids_(model.tokenizer().end_ids()),
        thinking_(model.tokenizer()) {
    if (settings.thinking_budget >= 0 && !thinking_.known()) {
      throw Error(ErrorKind::kUsage, "a thinking budget is asked for, but the model has no tokens <think> and </think>",
                  "thinking_budget", "leave it out: this model does not think in marked passages");
    }
  }

  std::vector<std::vector<Generation>> run(const std::vector<PrefixPrompts>& requests) {
    std::vector<Part> parts;
    for (const PrefixPrompts& request : requests) {
      parts.push_back(start(request));
      if (request.prompts.empty()) continue;
      // Prompts are many rows: where they are read together, their products may have other bits.
      advance({&parts.back()});
      if (way_) parts.back().step = std::make_unique<DecodeStep>(model_.decoder(), request.prefix, *way_);
    }
    while (true) {
      std::vector<Part*> going;
      for (Part& part : parts) {
        if (!part.streams.empty()) going.push_back(&part);
      }
      if (going.empty()) break;
      if (way_) {
        for (Part* part : going) advance({part});
      } else {
        advance(going);
      }
    }
    std::vector<std::vector<Generation>> results;
    for (Part& part : parts) results.push_back(std::move(part.results));
    return results;
  }

 private:
  bool sampled() const { return settings_.temperature > 0; }

  static int64_t longest_tail(const Tails& tails) {
    return tails.batch() == 0 ? 0 : *std::max_element(tails.lengths().begin(), tails.lengths().end());
  }

  Part start(const PrefixPrompts& request) const {
    const auto& [prefix, prompts, seeds] = request;
    Part part{prefix,
              std::vector<Generation>(prompts.size()),
              {},
              Tails::behind(prefix, static_cast<int64_t>(prompts.size()),
                            longest(prompts) + std::min<int64_t>(settings_.max_new_tokens, 32)),
              PackedTokens::pack(prompts),
              {}};
    for (size_t b = 0; b < prompts.size(); ++b) {
      // The last new token is never read, so it needs no position.
      const int64_t room =
          model_.spec().max_positions - prefix.next_position() - static_cast<int64_t>(prompts[b].size());
      part.streams.push_back({b,
                              std::min(settings_.max_new_tokens, room + 1),
                              std::mt19937_64(sampled() ? seeds[b] : 0),
                              thinking_.begins_in(prompts[b]),
                              {},
                              false});
      Stream& stream = part.streams.back();
      if (stream.thinking && settings_.thinking_budget == 0) force_end_of_thinking(stream, part.results[b]);
    }
    return part;
  }

  // Reads the parts' inputs in one pass, chooses a token for each row, and makes the next inputs.
  void advance(const std::vector<Part*>& parts) const {
    std::vector<Stream*> rows;
    for (Part* part : parts) {
      for (Stream& stream : part->streams) rows.push_back(&stream);
    }
    const std::vector<int64_t> chosen = choose(next_logits(parts), rows);
    auto next = chosen.begin();
    for (Part* part : parts) {
      const auto end = next + static_cast<std::ptrdiff_t>(part->streams.size());
      take_tokens({next, end}, *part);
      next = end;
    }
  }

  // The logits behind each row, some at a time: (first row, n) -> (n, vocab) float32 on the model's device.
  using LogitRows = std::function<at::Tensor(int64_t first, int64_t n)>;

  LogitRows next_logits(const std::vector<Part*>& parts) const {
    if (parts.front()->step) {
      Part& part = *parts.front();
      return [all = part.step->logits(part.input.tokens, part.tails)](int64_t first, int64_t n) {
        return all.narrow(0, first, n);
      };
    }
    std::vector<PrefixPart> inputs;
    std::vector<int64_t> offsets = {0};
    for (Part* part : parts) {
      inputs.push_back({part->input, part->prefix, part->tails});
      const int64_t first = offsets.back();
      for (size_t b = 1; b < part->input.sequence_offsets.size(); ++b)
        offsets.push_back(first + part->input.sequence_offsets[b]);
    }
    const at::Tensor hidden = model_.decoder().forward(inputs);
    return [this, last = last_rows(hidden, offsets)](int64_t first, int64_t n) {
      return model_.decoder().logits(last.narrow(0, first, n));
    };
  }

  std::vector<int64_t> choose(const LogitRows& logits_of, std::span<Stream* const> streams) const {
    constexpr int64_t kRows = 256;  // of a vocabulary of 150,000 are 150 MB
    const auto batch = static_cast<int64_t>(streams.size());
    std::vector<int64_t> tokens;
    for (int64_t first = 0; first < batch; first += kRows) {
      const at::Tensor logits = logits_of(first, std::min(kRows, batch - first));
      const auto own = streams.subspan(static_cast<size_t>(first), static_cast<size_t>(logits.size(0)));
      const std::vector<int64_t> chosen = logits.is_cpu() ? choose_on_host(logits, own) : choose_on_device(logits, own);
      tokens.insert(tokens.end(), chosen.begin(), chosen.end());
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      if (streams[i]->forced.empty()) continue;
      tokens[i] = streams[i]->forced.front();
      streams[i]->forced.pop_front();
    }
    return tokens;
  }

  std::vector<int64_t> choose_on_host(const at::Tensor& logits, std::span<Stream* const> streams) const {
    const at::Tensor rows = logits.contiguous();
    const auto width = static_cast<size_t>(rows.size(1));
    std::vector<int64_t> tokens;
    for (size_t i = 0; i < streams.size(); ++i) {
      const std::span<const float> scores(rows.const_data_ptr<float>() + i * width, width);
      tokens.push_back(sampled() ? sampled_token(scores, settings_.temperature, settings_.top_k, settings_.top_p,
                                                 settings_.min_p, streams[i]->random)
                                 : greedy_token(scores));
    }
    return tokens;
  }

  // The chosen tokens are all that the host waits for.
  std::vector<int64_t> choose_on_device(const at::Tensor& logits, std::span<Stream* const> streams) const {
    if (!sampled()) return greedy_tokens(logits);
    const auto random = [&](int64_t row) -> std::mt19937_64& { return streams[static_cast<size_t>(row)]->random; };
    return sampled_tokens(logits, settings_.temperature, settings_.top_k, settings_.top_p, settings_.min_p, random);
  }

  void force_end_of_thinking(Stream& stream, Generation& result) const {
    stream.forced.assign(thinking_.forced.begin(), thinking_.forced.end());
    stream.thinking = false;
    result.thinking_cut = true;
  }

  void follow_thoughts(int64_t token, Stream& stream, Generation& result) const {
    if (!thinking_.known()) return;
    if (token == *thinking_.open || token == *thinking_.close) {
      stream.thinking = token == *thinking_.open;
    } else if (stream.thinking) {
      ++result.thinking_tokens;
    }
    if (stream.thinking && settings_.thinking_budget >= 0 && result.thinking_tokens >= settings_.thinking_budget) {
      force_end_of_thinking(stream, result);
    }
  }

  // Adds the token's text; true when that completes a stop text, which is then cut off.
  bool completes_stop(int64_t token, Generation& result) const {
    // Embeddings are often padded with rows that no token of the tokenizer has: no text, as in transformers.
    if (token >= model_.tokenizer().vocab_size() || model_.tokenizer().is_special(token)) return false;
    const size_t before = result.text.size();
    result.text += model_.tokenizer().token_bytes(token);
    size_t first = std::string::npos;
    for (const std::string& stop : settings_.stop) {
      const size_t from = before >= stop.size() ? before - stop.size() + 1 : 0;
      first = std::min(first, result.text.find(stop, from));
    }
    if (first == std::string::npos) return false;
    result.text.resize(first);
    return true;
  }

  // Whether the stream goes on behind `token`.
  bool take(int64_t token, Stream& stream, Generation& result) const {
    if (std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end()) {
      result.stop_reason = "end";
      return false;
    }
    result.tokens.push_back(token);
    if (sink_) sink_(stream.index, token);
    if (completes_stop(token, result)) {
      result.stop_reason = "stop";
      return false;
    }
    follow_thoughts(token, stream, result);
    if (static_cast<int64_t>(result.tokens.size()) < stream.limit) return true;
    result.stop_reason = "length";
    return false;
  }

  // Hands each stream its token. Those that end leave the batch with their tails: at once where a step is made for the
  // batch it gets, at halvings where it was recorded for one. Until then they write over their last entry, so that they
  // need no position that the model does not have.
  void take_tokens(const std::vector<int64_t>& chosen, Part& part) const {
    std::vector<Stream>& streams = part.streams;
    std::vector<bool> going;
    for (size_t i = 0; i < streams.size(); ++i) {
      Stream& stream = streams[i];
      if (!stream.ended) stream.ended = !take(chosen[i], stream, part.results[stream.index]);
      going.push_back(!stream.ended);
    }
    const std::vector<int64_t> kept = rows_to_keep(going, way_.has_value());
    if (kept.size() < streams.size()) {
      std::vector<Stream> left;
      for (const int64_t row : kept) left.push_back(std::move(streams[static_cast<size_t>(row)]));
      streams = std::move(left);
      part.tails = part.tails.select(kept);
    }
    part.input = {{}, {0}};
    for (size_t i = 0; i < streams.size(); ++i) {
      if (streams[i].ended) part.tails.truncate(static_cast<int64_t>(i), part.tails.lengths()[i] - 1);
      part.input.tokens.push_back(chosen[static_cast<size_t>(kept[i])]);
      part.input.sequence_offsets.push_back(static_cast<int64_t>(part.input.tokens.size()));
    }
    // Grown by halves: long answers must not reserve what short ones never use.
    const int64_t capacity = part.tails.capacity();
    if (longest_tail(part.tails) >= capacity) part.tails.reserve(capacity + capacity / 2 + 16);
  }

  const Model& model_;
  const DecodeSettings& settings_;
  const TokenSink& sink_;
  std::optional<DecodeStep::Way> way_;
  std::vector<int64_t> end_ids_;
  Thinking thinking_;
};

void check_settings(const DecodeSettings& settings) {
  check_options(settings, [&](const std::string& name, const std::string& fact, const std::string& /*mend*/) {
    refuse_request(fmt::format("decode setting {} {}", name, fact));
  });
}

std::optional<DecodeStep::Way> way_of(const Model& model) {
  return model.decode_graphs() ? std::optional(DecodeStep::Way::kGraph) : std::nullopt;
}

}  // namespace

std::vector<int64_t> rows_to_keep(const std::vector<bool>& going, bool at_halvings) {
  const auto n_going = static_cast<size_t>(std::count(going.begin(), going.end(), true));
  const bool drop = n_going < going.size() && (!at_halvings || 2 * n_going <= going.size());
  std::vector<int64_t> rows;
  for (size_t i = 0; i < going.size(); ++i) {
    if (!drop || going[i]) rows.push_back(static_cast<int64_t>(i));
  }
  return rows;
}

std::vector<Generation> generate(const Model& model, const KvCache& prefix,
                                 const std::vector<std::vector<int64_t>>& prompts, const DecodeSettings& settings,
                                 const std::vector<std::uint64_t>& seeds, const TokenSink& sink) {
  return std::move(generate_by(way_of(model), model, {{prefix, prompts, seeds}}, settings, sink).front());
}

std::vector<std::vector<Generation>> generate(const Model& model, const std::vector<PrefixPrompts>& parts,
                                              const DecodeSettings& settings) {
  return generate_by(way_of(model), model, parts, settings);
}

std::vector<std::vector<Generation>> generate_by(std::optional<DecodeStep::Way> way, const Model& model,
                                                 const std::vector<PrefixPrompts>& parts,
                                                 const DecodeSettings& settings, const TokenSink& sink) {
  const c10::InferenceMode inference;
  check_settings(settings);
  for (const auto& [prefix, prompts, seeds] : parts) {
    for (size_t b = 0; b < prompts.size(); ++b) {
      if (prompts[b].empty()) refuse_request(fmt::format("prompt {} is empty; at least one token must be read", b));
    }
    if (settings.temperature > 0 && seeds.size() != prompts.size()) {
      refuse_request(fmt::format("{} seeds for {} sampled sequences", seeds.size(), prompts.size()));
    }
  }
  return Generator(model, settings, sink, way).run(parts);
}

}  // namespace kvc
