// The model's own summary in place of the article, read anew behind the template. Prompts and sampling as published
// with Attention Matching, arXiv:2602.16284, there as a baseline.
//
// length: target  the prompt says how many words, at the article's own tokens
// per word; cut at the target
//         cut     the published prompt, which says no length; cut at the target
//         free    the published prompt, as long as the model likes (at most the
//         article): takes no target
//
// Differences from the published code: an article too long for the model is summarised in parts, and the joined summary
// is read in one go, so its positions are contiguous whatever the number of parts; the question stands right behind it;
// what the model thinks is neither kept nor counted. The summary is a note of the record.
#include <algorithm>
#include <array>
#include <utility>

#include "harness/api/special_needs.h"
#include "harness/core/stopwatch.h"
#include "methods/parts/text_method.h"
#include "methods/text_summary.h"

namespace kvc {
namespace {

const std::array<std::pair<const char*, const char*>, 5> kPrompts = {{
    {"plain", "Summarize the following text"},
    {"in_depth", "Summarize the following text in depth"},
    {"key_points",
     "Summarize the following text, providing all key points "
     "that might be necessary to answer comprehension "
     "questions"},
    {"concise", "Summarize the following text concisely"},
    {"very_concise", "Summarize the following text very concisely"},
}};

class Summarize final : public TextMethod, public SpecialNeeds {
 public:
  struct Options {
    std::string prompt = "plain";
    std::string length = "target";
    double temperature = 0;
    int64_t top_k = 20;
    double top_p = 0.8;
    int64_t part_tokens = 0;
    void fields(auto&& visit) {
      std::vector<std::string> prompts;
      for (const auto& [name, text] : kPrompts) prompts.emplace_back(name);
      visit("prompt", prompt, "plain, in_depth, key_points, concise or very_concise", one_of(prompts));
      visit("length", length, "target (asked for and cut), cut (not asked for), or free (takes no target)",
            one_of({"target", "cut", "free"}));
      sampling_fields(*this, visit);  // published: temperature 0.7; the seed is the sweep's
      visit("part_tokens", part_tokens, "a longer article is summarised in parts; 0: only where it does not fit");
    }
    void check(const OptionCheck& fail) const {
      if (part_tokens != 0 && part_tokens < 64) {
        fail("part_tokens", fmt::format("must be 0 or at least 64; got {}", part_tokens), "0: as many as fit");
      }
    }
  };
  explicit Summarize(const Options& options) : free_(options.length == "free") {
    const auto* prompt = std::find_if(kPrompts.begin(), kPrompts.end(),
                                      [&](const auto& entry) { return options.prompt == entry.first; });
    style_.instruction = prompt->second;
    style_.state_length = options.length == "target";
    style_.settings.temperature = options.temperature;
    style_.settings.top_k = options.top_k;
    style_.settings.top_p = options.top_p;
    style_.part_tokens = options.part_tokens;
  }

  std::string special_needs() const override { return "the model writes"; }
  bool needs_target() const override { return !free_; }

  Rewritings rewrite(const CompactionRequest& request, const std::vector<int64_t>& lengths) const override {
    std::vector<std::optional<int64_t>> limits(lengths.begin(), lengths.end());
    if (free_) limits.assign(1, std::nullopt);
    Summaries summaries =
        summarize_article(request.model, request.context.article_tokens(), limits, style_, request.seed);
    Rewritings rewritings{{}, summaries.shared_s};
    for (size_t i = 0; i < limits.size(); ++i) {
      const Stopwatch clock;
      const Summary& summary = summaries.list[i];
      Rewriting rewriting{in_place_of_article(request, summary.text, limits[i])};
      rewriting.notes = Json{{"summary", summary.text},
                             {"summary_tokens", rewriting.context.article_len()},
                             {"summary_parts", summary.n_parts},
                             {"summary_parts_cut", summary.n_cut}};
      if (summary.thinking_tokens > 0) rewriting.notes["summary_thinking_tokens"] = summary.thinking_tokens;
      rewriting.own_s = summary.own_s + clock.seconds();
      rewritings.list.push_back(std::move(rewriting));
    }
    return rewritings;
  }

 private:
  static Context in_place_of_article(const CompactionRequest& request, const std::string& summary,
                                     const std::optional<int64_t>& limit) {
    if (summary.empty()) return with_article(request.context, {});
    const Context context = make_context(request.model, summary);
    if (!limit || context.article_len() <= *limit) return context;
    std::vector<int64_t> tokens = context.article_tokens();
    tokens.resize(static_cast<size_t>(*limit));
    return with_article(context, tokens);
  }

  bool free_;
  SummaryStyle style_;
};

KVC_REGISTER_METHOD(Summarize, "summarize", "the model's own summary, read again; prompts of arXiv:2602.16284");

}  // namespace
}  // namespace kvc
