#include "harness/explain/explain_flip.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/explain/asker.h"
#include "harness/explain/head_readings.h"
#include "harness/explain/mended_cache.h"
#include "harness/text/tokenizer/streaming_decoder.h"

namespace kvc {
namespace {

constexpr double kNearTie = 2;       // margins of fewer deviations than this can be turned by noise
constexpr double kSameEvidence = 8;  // shifts of the margin of fewer deviations than this, and of less than
constexpr double kSmallShift = 1;    // so many nats, are what noise does too
constexpr int64_t kTokensAround = 12;

std::string decoded(const Tokenizer& tokenizer, const std::vector<int64_t>& tokens, int64_t first, int64_t end) {
  StreamingDecoder decoder(tokenizer);
  std::string text;
  for (int64_t i = first; i < end; ++i) text += decoder.feed(tokens[static_cast<size_t>(i)]);
  return text + decoder.flush();
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Spans widened to whole words, by at most kTokensAround tokens on each side; those that then touch become one.
TokenSpans whole_words(const Tokenizer& tokenizer, const std::vector<int64_t>& tokens, const TokenSpans& spans,
                       const TokenSpan& document) {
  const auto bytes = [&](int64_t i) { return tokenizer.token_bytes(tokens[static_cast<size_t>(i)]); };
  // Whether a word goes on from token i - 1 to token i.
  const auto goes_on = [&](int64_t i) {
    const std::string before = bytes(i - 1), here = bytes(i);
    return !before.empty() && !here.empty() && !is_space(before.back()) && !is_space(here.front());
  };
  TokenSpans list;
  for (const TokenSpan& span : spans) {
    TokenSpan wide = span;
    while (wide.first > document.first && span.first - wide.first < kTokensAround && goes_on(wide.first)) --wide.first;
    while (wide.end < document.end && wide.end - span.end < kTokensAround && goes_on(wide.end)) ++wide.end;
    if (!list.empty() && wide.first <= list.back().end)
      list.back().end = std::max(list.back().end, wide.end);
    else
      list.push_back(wide);
  }
  return list;
}

class FlipStudy {
 public:
  FlipStudy(const FlipScene& scene, const ExplainSettings& settings)
      : scene_(scene),
        settings_(settings),
        asker_(scene.model, scene.task, scene.task_name, scene.question, scene.read.full, scene.ask_seed) {
    const auto n = static_cast<int64_t>(scene.read.context.tokens.size());
    document_ = {scene.read.span.prefix_len, n - scene.read.span.suffix_len};
  }

  Explanation run() {
    const Stopwatch clock;
    const Reply full = asker_.ask(scene_.read.full);
    const Reply compact = asker_.ask(scene_.compact);
    found_.full_reply = reply_text(scene_.question, full.answer);
    found_.compact_reply = reply_text(scene_.question, compact.answer);
    if (!full.right() || compact.right()) {
      not_reproduced(full, compact);
    } else {
      MendedCache mended(scene_.read.full, scene_.compact, document_);
      mended_ = &mended;
      const HeadReadings heads(scene_.model, scene_.read.full, read_text(scene_.model, scene_.question, full.answer));
      weights_ = heads.token_weights(document_);
      mended.set_mass_bias(heads.mass_bias(scene_.compact, mended, document_));
      note_assumptions();
      look_for_tie(full, compact);
      find_cause();
      found_.heads = heads.readings(scene_.compact, mended, spans_);
      found_.heads.resize(std::min(found_.heads.size(), static_cast<size_t>(settings_.n_heads)));
      describe_pieces();
    }
    found_.asks = asker_.n_asked();
    found_.seconds = clock.seconds();
    return std::move(found_);
  }

 private:
  void not_reproduced(const Reply& full, const Reply& compact) {
    found_.cause = kNotReproduced;
    found_.sentence = fmt::format("Asked again, the full cache's answer is {} and the compact cache's is {}.",
                                  full.right() ? "right" : "wrong", compact.right() ? "right" : "wrong");
  }

  void note_assumptions() {
    const EntrySources& sources = mended_->sources();
    const int64_t all = sources.by_key + sources.by_value + sources.unknown;
    if (sources.unknown > 0) {
      found_.assumed.push_back(fmt::format(
          "{} of {} entries have neither the key nor the value of an entry of the full cache (merged, trained, or of "
          "another text): they stay as they are, and text that is put back stands beside them",
          sources.unknown, all));
    }
    if (sources.by_value > 0)
      found_.assumed.push_back(
          fmt::format("{} of {} entries have changed keys: recognised by their values", sources.by_value, all));
    if (scene_.compact.next_position() != scene_.read.full.next_position())
      found_.assumed.push_back(fmt::format(
          "the compact cache has positions of its own: with text put back, the question stands at position {}, not {}",
          scene_.read.full.next_position(), scene_.compact.next_position()));
  }

  void look_for_tie(const Reply& full, const Reply& compact) {
    const AnswerMargin margin(scene_.model, scene_.question, full.answer, compact.answer);
    TieFacts& tie = found_.tie;
    tie.noise = settings_.noise;
    tie.margin_full = margin.on(scene_.read.full, full.answer);
    tie.margin_compact = margin.on(scene_.compact, compact.answer);
    double squares = 0;
    for (tie.draws = 0; tie.draws < settings_.draws; ++tie.draws) {
      const std::uint64_t seed = derive_seed(scene_.ask_seed, fmt::format("noise/{}", tie.draws));
      const KvCache noisy = with_noise(scene_.read.full, scene_.read.span, settings_.noise, seed);
      const Reply reply = asker_.ask(noisy);
      tie.right += reply.right() ? 1 : 0;
      if (tie.margin_full) squares += std::pow(margin.on(noisy, reply.answer).value_or(0) - *tie.margin_full, 2);
    }
    if (tie.margin_full) tie.margin_deviation = std::sqrt(squares / static_cast<double>(tie.draws));
    tie.near_tie = tie.right < tie.draws || (tie.margin_full && *tie.margin_full < kNearTie * *tie.margin_deviation);
  }

  void find_cause() {
    const TieFacts& tie = found_.tie;
    const bool same_evidence =
        tie.margin_full && tie.margin_compact &&
        *tie.margin_full - *tie.margin_compact < std::min(kSmallShift, kSameEvidence * *tie.margin_deviation);
    if (tie.near_tie && same_evidence) return unused("what the compaction did to it is of the size of that noise");
    for (const Repair repair : mended_->possible_repairs()) {
      if (mends(mended_->repaired(repair, {document_}))) return unreachable(repair);
    }
    if (mends(mended_->restored({document_}))) return evicted(std::nullopt);
    for (const Repair repair : mended_->possible_repairs()) {
      if (repair != Repair::kPosition && mends(mended_->restored({document_}, repair))) return evicted(repair);
    }
    found_.cause = kUnexplained;
    found_.sentence =
        "Neither putting the kept entries right nor putting the whole document back beside them brings the answer "
        "back.";
  }

  bool mends(const KvCache& cache) { return asker_.ask(cache).right(); }

  void unused(const std::string& why) {
    const TieFacts& tie = found_.tie;
    found_.cause = kUnused;
    found_.repair.clear();
    found_.sentence =
        fmt::format("A near-tie: noise of {:.3g} on the full cache keeps the answer right in {} of {} draws, and {}.",
                    tie.noise, tie.right, tie.draws, why);
  }

  // The smallest text that mends, in whole words where those do too, and whether all the rest of the document does.
  template <class Make>
  void find_text(const Make& cache_of) {
    const SmallestSpans smallest = smallest_spans(
        document_, weights_, [&](const TokenSpans& spans) { return mends(cache_of(spans)); }, settings_.max_tests);
    spans_ = smallest.spans;
    const TokenSpans words = whole_words(scene_.model.tokenizer(), scene_.read.context.tokens, spans_, document_);
    if (words != spans_ && mends(cache_of(words))) spans_ = words;
    found_.pieces_finished = smallest.finished;
    const TokenSpans rest = complement(spans_, document_);
    found_.pieces_needed = rest.empty() || !mends(cache_of(rest));
    found_.kept_share = mended_->kept_share(spans_);
  }

  void unreachable(Repair repair) {
    if (repair != Repair::kPosition) {
      find_text([&](const TokenSpans& spans) { return mended_->repaired(repair, spans); });
      if (found_.tie.near_tie && !found_.pieces_needed) return no_particular_text();
    }
    found_.cause = kUnreachable;
    found_.repair = repair_name(repair);
    found_.sentence = fmt::format("What was kept is enough: {} brings the answer back.", in_words(repair));
  }

  void evicted(const std::optional<Repair>& repair) {
    find_text([&](const TokenSpans& spans) { return mended_->restored(spans, repair); });
    if (found_.tie.near_tie && !found_.pieces_needed) return no_particular_text();
    found_.cause = kEvicted;
    if (repair) found_.repair = repair_name(*repair);
    found_.sentence = fmt::format("{} token{} of text, put back, bring{} the answer back{}{}.", n_tokens(spans_),
                                  n_tokens(spans_) == 1 ? "" : "s", n_tokens(spans_) == 1 ? "s" : "",
                                  repair ? " together with " + in_words(*repair) : "",
                                  found_.pieces_needed ? "" : "; so does all the rest of the document without them");
  }

  void no_particular_text() {
    spans_.clear();
    found_.pieces_finished = found_.pieces_needed = true;
    found_.kept_share = 0;
    unused("no particular text mends it");
  }

  static std::string in_words(Repair repair) {
    switch (repair) {
      case Repair::kBias:
        return "setting the biases of kept entries to 0";
      case Repair::kMass:
        return "giving the kept entries of each head the full cache's attention mass";
      case Repair::kValues:
        return "the original values of kept entries";
      case Repair::kKeys:
        return "the original keys of kept entries";
      case Repair::kFit:
        return "the original keys and values of kept entries, with biases of 0";
      case Repair::kPosition:
        return "asking at the position that the question has behind the full cache";
    }
    return "";
  }

  void describe_pieces() {
    const std::vector<int64_t>& tokens = scene_.read.context.tokens;
    const Tokenizer& tokenizer = scene_.model.tokenizer();
    const auto bytes = [&](int64_t first, int64_t end) {
      int64_t n = 0;
      for (int64_t i = first; i < end; ++i)
        n += static_cast<int64_t>(tokenizer.token_bytes(tokens[static_cast<size_t>(i)]).size());
      return n;
    };
    for (const TokenSpan& span : spans_) {
      const int64_t before = std::max(document_.first, span.first - kTokensAround);
      const int64_t after = std::min(document_.end, span.end + kTokensAround);
      found_.pieces.push_back({span.first - document_.first, span.size(), bytes(document_.first, span.first),
                               bytes(span.first, span.end), decoded(tokenizer, tokens, span.first, span.end),
                               decoded(tokenizer, tokens, before, span.first),
                               decoded(tokenizer, tokens, span.end, after)});
    }
  }

  const FlipScene& scene_;
  const ExplainSettings& settings_;
  Asker asker_;
  TokenSpan document_;
  MendedCache* mended_ = nullptr;
  std::vector<double> weights_;  // of the document's tokens, in the full cache
  TokenSpans spans_;
  Explanation found_;
};

}  // namespace

KvCache with_noise(const KvCache& cache, const Compactable& span, double level, std::uint64_t seed) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto noisy = [&](const at::Tensor& rows) {
    const at::Tensor exact = rows.to(at::kFloat);
    const at::Tensor rms = exact.square().mean(1, /*keepdim=*/true).sqrt();
    const at::Tensor noise = at::randn(rows.sizes(), generator, at::TensorOptions(at::kFloat)).to(rows.device());
    return (exact + noise * rms * level).to(rows.scalar_type());
  };
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < cache.n_layers(); ++l) {
    std::vector<HeadEntries> heads;
    for (int64_t h = 0; h < cache.n_kv_heads(); ++h) {
      const HeadEntries head = cache.layer(l).head(h);
      const int64_t n = span.source_len(head.size());
      HeadEntries middle = head.slice(span.prefix_len, n);
      middle.keys = noisy(middle.keys);
      middle.values = noisy(middle.values);
      heads.push_back(
          join_entries({head.slice(0, span.prefix_len), middle, head.slice(span.prefix_len + n, span.suffix_len)}));
    }
    layers.push_back(pack_heads(heads));
  }
  return {std::move(layers), cache.next_position()};
}

Explanation explain_flip(const FlipScene& scene, const ExplainSettings& settings) {
  const c10::InferenceMode inference;
  return FlipStudy(scene, settings).run();
}

}  // namespace kvc
