#include "methods/text_summary.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/core/utf8.h"

namespace kvc {
namespace {

constexpr int64_t kSlack = 64;         // tokens: what a part may gain by being tokenized alone
constexpr int64_t kShortestPart = 32;  // tokens: shorter ones have nothing to sum up
constexpr int64_t kFreeLength = 1024;  // tokens set aside for a summary of no given length
constexpr int64_t kHeader = 32;        // tokens at a prompt's end that are never
                                       // shared: generate() looks for <think>

bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

std::string trimmed(const std::string& text) {
  const auto begin = std::find_if_not(text.begin(), text.end(), is_blank);
  const auto end = std::find_if_not(text.rbegin(), std::make_reverse_iterator(begin), is_blank).base();
  return {begin, end};
}

std::string well_formed(const std::string& text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    result.append(text, at, length);
    at += std::max<size_t>(length, 1);
  }
  return result;
}

int64_t count_words(const std::string& text) {
  int64_t n = 0;
  for (size_t i = 0; i < text.size(); ++i) n += !is_blank(text[i]) && (i == 0 || is_blank(text[i - 1])) ? 1 : 0;
  return n;
}

// How good it is to cut between two tokens: after a paragraph, a sentence, a word, a character; below 0: not at all.
int cut_quality(const std::string& before, const std::string& after) {
  if (before.empty() || after.empty()) return -1;
  if (before.back() == '\n') return 3;
  const std::string word = trimmed(before);
  const bool blank = is_blank(before.back()) || is_blank(after.front());
  if (blank && !word.empty() && std::string(".!?\"").find(word.back()) != std::string::npos) return 2;
  if (blank) return 1;
  return (static_cast<unsigned char>(after.front()) & 0xC0U) != 0x80 ? 0 : -1;
}

// One part's question for its summary.
class Prompt {
 public:
  Prompt(const Model& model, const SummaryStyle& style, std::string text)
      : model_(model), style_(style), text_(std::move(text)) {}

  std::vector<int64_t> tokens(int64_t n_words) const {
    const std::string ask = style_.state_length ? fmt::format("Summary (at most {} words):", n_words) : "Summary:";
    RenderOptions options;
    options.generation_prompt = true;
    options.thinking = false;
    return model_.tokenizer().encode(model_.chat_template().render(
        {{"user", fmt::format("{}:\n\n{}\n\n{}", style_.instruction, text_, ask)}}, options));
  }

  // The beginning that prompts of any length have in common.
  std::vector<int64_t> shared() const {
    std::vector<int64_t> one = tokens(1);
    const std::vector<int64_t> other = tokens(22);
    const auto same = std::mismatch(one.begin(), one.end(), other.begin(), other.end()).first - one.begin();
    const auto most = std::max<int64_t>(0, static_cast<int64_t>(std::min(one.size(), other.size())) - kHeader);
    one.resize(static_cast<size_t>(std::min<int64_t>(same, most)));
    return one;
  }

  int64_t words_of(int64_t n_tokens) const {
    const auto all = static_cast<int64_t>(model_.tokenizer().encode_text(text_).size());
    return std::max<int64_t>(1, n_tokens * count_words(text_) / std::max<int64_t>(1, all));
  }

 private:
  const Model& model_;
  const SummaryStyle& style_;
  std::string text_;
};

bool has_thoughts(const Tokenizer& tokenizer) {
  return tokenizer.encode({{"<think>", true}}).size() == 1 && tokenizer.encode({{"</think>", true}}).size() == 1;
}

class Summarizer {
 public:
  Summarizer(const Model& model, const std::vector<int64_t>& article, const SummaryStyle& style, std::uint64_t seed)
      : model_(model), article_(article), style_(style), seed_(seed) {
    if (has_thoughts(model.tokenizer())) style_.settings.thinking_budget = 0;
    overhead_ = static_cast<int64_t>(Prompt(model, style, "").tokens(22).size()) + kSlack;
  }

  // The least number of parts for which a part, an eighth longer than even, and its summary fit.
  int64_t n_parts(const std::optional<int64_t>& length) const {
    const auto total = static_cast<int64_t>(article_.size());
    const int64_t room = model_.spec().max_positions - overhead_;
    for (int64_t n = 1; n == 1 || total / n >= kShortestPart; ++n) {
      const int64_t part = n == 1 ? total : (total / n + 1) * 9 / 8;
      const int64_t summary = length ? *length / n + 1 : std::min(part, kFreeLength);
      if (part + summary <= room && (style_.part_tokens == 0 || (total + n - 1) / n <= style_.part_tokens)) return n;
    }
    throw Error(ErrorKind::kData,
                fmt::format("no part of the article fits the model's {} "
                            "positions together with its summary",
                            model_.spec().max_positions),
                "summarize", "take a model with more positions");
  }

  // Adds the summaries of the parts to those of `summaries` that have `n` parts.
  void run(int64_t n, const std::vector<std::optional<int64_t>>& lengths, Summaries& summaries) const {
    const std::vector<int64_t> ends = part_ends(model_.tokenizer(), article_, n);
    int64_t begin = 0;
    for (const int64_t end : ends) {
      Stopwatch clock;
      const Prompt prompt(model_, style_,
                          model_.tokenizer().decode({article_.begin() + begin, article_.begin() + end}));
      const std::vector<int64_t> shared = prompt.shared();
      const KvCache read = model_.decoder().prefill(shared);
      summaries.shared_s += clock.lap();
      for (size_t i = 0; i < lengths.size(); ++i) {
        if (summaries.list[i].n_parts != n) continue;
        write(prompt, shared, read, lengths[i], begin, end, summaries.list[i]);
        summaries.list[i].own_s += clock.lap();
      }
      begin = end;
    }
  }

 private:
  // Tokens of the summary of a part; those of all parts and the lines between them sum to the length.
  int64_t part_length(int64_t length, int64_t n, int64_t begin, int64_t end) const {
    const auto total = static_cast<int64_t>(article_.size());
    const int64_t spread = std::max<int64_t>(0, length - (n - 1));
    return spread * end / total - spread * begin / total;
  }

  void write(const Prompt& prompt, const std::vector<int64_t>& shared, const KvCache& read,
             const std::optional<int64_t>& length, int64_t begin, int64_t end, Summary& summary) const {
    DecodeSettings settings = style_.settings;
    settings.max_new_tokens = length ? part_length(*length, summary.n_parts, begin, end) : end - begin;
    if (settings.max_new_tokens < 1) return;
    const int64_t limit = settings.max_new_tokens;
    if (settings.thinking_budget == 0) settings.max_new_tokens += 8;  // <think> and what closes it
    const std::vector<int64_t> tokens = prompt.tokens(prompt.words_of(limit));
    const bool begins = tokens.size() > shared.size() && std::equal(shared.begin(), shared.end(), tokens.begin());
    const KvCache nothing = model_.decoder().empty_cache();
    const std::vector<int64_t> rest(tokens.begin() + (begins ? static_cast<int64_t>(shared.size()) : 0), tokens.end());
    const std::vector<std::uint64_t> seeds = {derive_seed(seed_, fmt::format("summary/{}", begin))};
    const Generation written = generate(model_, begins ? read : nothing, {rest}, settings, seeds).front();
    add(written, limit, summary);
  }

  void add(const Generation& written, int64_t limit, Summary& summary) const {
    std::string text = trimmed(well_formed(without_thoughts(written.text)));
    std::vector<int64_t> tokens = model_.tokenizer().encode_text(text);
    const bool too_long = static_cast<int64_t>(tokens.size()) > limit;
    if (too_long) {
      tokens.resize(static_cast<size_t>(limit));
      text = trimmed(well_formed(model_.tokenizer().decode(tokens)));
    }
    summary.n_cut += too_long || written.stop_reason == "length" ? 1 : 0;
    summary.thinking_tokens += written.thinking_tokens;
    if (!summary.text.empty() && !text.empty()) summary.text += "\n\n";
    summary.text += text;
  }

  const Model& model_;
  const std::vector<int64_t>& article_;
  SummaryStyle style_;
  std::uint64_t seed_;
  int64_t overhead_;
};

}  // namespace

std::string without_thoughts(const std::string& text) {
  const std::string open = "<think>", close = "</think>";
  const size_t closed = text.rfind(close);
  const std::string rest = closed == std::string::npos ? text : text.substr(closed + close.size());
  return rest.substr(0, rest.find(open));
}

std::vector<int64_t> part_ends(const Tokenizer& tokenizer, const std::vector<int64_t>& article, int64_t n_parts) {
  const auto total = static_cast<int64_t>(article.size());
  const auto bytes = [&](int64_t i) { return tokenizer.token_bytes(article[static_cast<size_t>(i)]); };
  std::vector<int64_t> ends;
  int64_t begin = 0;
  for (int64_t left = n_parts; left > 1; --left) {
    const int64_t even = begin + (total - begin) / left;
    int64_t best = even;
    int quality = -2;
    for (int64_t end = even; end > begin && end >= even - (even - begin) / 8 && quality < 3; --end) {
      const int here = cut_quality(bytes(end - 1), bytes(end));
      if (here > quality) best = end, quality = here;
    }
    ends.push_back(begin = best);
  }
  ends.push_back(total);
  return ends;
}

Summaries summarize_article(const Model& model, const std::vector<int64_t>& article,
                            const std::vector<std::optional<int64_t>>& lengths, const SummaryStyle& style,
                            std::uint64_t seed) {
  const c10::InferenceMode inference;
  const Summarizer summarizer(model, article, style, seed);
  Summaries summaries;
  std::map<int64_t, bool> numbers;
  for (const auto& length : lengths) {
    Summary summary;
    summary.n_parts = summarizer.n_parts(length);
    numbers[summary.n_parts] = true;
    summaries.list.push_back(summary);
  }
  for (const auto& [n, used] : numbers) summarizer.run(n, lengths, summaries);
  return summaries;
}

}  // namespace kvc
