// Two stages: a method on the text, then a method on the cache of what it left. Summarise-then-compact is an experiment
// of arXiv:2602.16284; here any pair.
//
//   {method: stacked, first: summarize, first_target: 0.2, then: {method: attention_matching, queries: repeat_prefill}}
//
// The target is the fraction of the article's own tokens kept in the end, by both stages together. The first keeps
// first_target of them, the second so many of its tokens that the target is met; where the first leaves fewer than the
// target (a short summary), the second keeps them all. Ratios multiply: target 0.05 with first_target 0.2 keeps a
// quarter of the summary.
//
// Differences from the published code: new tokens stand right behind the shorter text, not thousands of positions
// later. The reference queries are those of the shorter text too.
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/api/nested_method.h"
#include "harness/api/read_document.h"
#include "harness/api/special_needs.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "methods/parts/text_method.h"

namespace kvc {
namespace {

void complete_first(Json& value, const std::string& pointer, Problems& problems) {
  if (refuse_itself(value, "stacked", pointer, problems)) return;
  if (!complete_nested<CompactionMethod>(value, "method", pointer, problems)) return;
  const auto method = create_nested<CompactionMethod>(value);
  if (dynamic_cast<const TextMethod*>(method.get()) != nullptr) return;
  problems.add("method '" + value.at("name").get<std::string>() + "' does not work on the text", pointer,
               "the first stage is summarize, truncate_text or the like; methods on the cache go under 'then'");
}

class Stacked final : public CompactionMethod, public SpecialNeeds {
 public:
  struct Options {
    NestedPlugin first{"summarize"};
    NestedPlugin then{{{"method", "attention_matching"}, {"queries", "repeat_prefill"}}};
    double first_target = 0;
    void fields(auto&& visit) {
      visit("first", first, "method on the text, whose result is read again");
      visit("then", then, "method on that cache, with its own queries and budget: {method: NAME, queries: NAME}");
      visit("first_target", first_target,
            "fraction of the article that the first stage keeps; the target is that of both together; 0: the root of "
            "the target, so that both keep the same fraction",
            between(0, 1));
    }
    void complete(const std::string& pointer, Problems& problems) {
      complete_first(first.value, pointer + "/first", problems);
      NestedMethod::complete(then.value, "stacked", pointer + "/then", problems, NestedMethod::Budget::kOwn);
    }
    void check(const OptionCheck& fail) const {
      if (first_target > 0 && !create_nested<CompactionMethod>(first.value)->needs_target()) {
        fail("first_target", "is given, but the first stage takes no target", "delete one of the two");
      }
    }
  };

  explicit Stacked(const Options& options)
      : first_target_(options.first_target),
        first_(create_nested<CompactionMethod>(options.first.value)),
        second_(options.then.value) {}

  std::string special_needs() const override {
    const auto* first = dynamic_cast<const SpecialNeeds*>(first_.get());
    return first == nullptr ? "" : first->special_needs();
  }
  bool needs_target() const override { return true; }
  bool compacts_cache() const override { return false; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const c10::InferenceMode inference;
    std::vector<int64_t> totals, lengths, distinct;
    for (const HeadBudget& budget : request.budgets) {
      totals.push_back(text_length(budget));
      lengths.push_back(first_length(totals.back(), request.context.article_len()));
    }
    distinct = lengths;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());

    const auto& text_method = dynamic_cast<const TextMethod&>(*first_);
    Rewritings rewritings = text_method.rewrite(request, first_->needs_target() ? distinct : std::vector<int64_t>{});
    std::vector<std::optional<Compaction>> results(totals.size());
    for (size_t r = 0; r < rewritings.list.size(); ++r) {
      std::vector<size_t> members;
      std::vector<int64_t> targets;
      for (size_t i = 0; i < totals.size(); ++i) {
        if (first_->needs_target() && lengths[i] != distinct[r]) continue;
        members.push_back(i);
        targets.push_back(totals[i]);
      }
      std::vector<Compaction> made = second_stage(request, rewritings.list[r], targets);
      for (size_t m = 0; m < members.size(); ++m) {
        made[m].shared_s += rewritings.shared_s;
        results[members[m]] = std::move(made[m]);
      }
    }
    std::vector<Compaction> list;
    for (auto& result : results) list.push_back(std::move(*result));
    return list;
  }

 private:
  // Tokens that the first stage may keep.
  int64_t first_length(int64_t total, int64_t article_len) const {
    if (first_target_ == 0) {
      const double root = std::sqrt(static_cast<double>(total) * static_cast<double>(article_len));
      return std::clamp(static_cast<int64_t>(std::llround(root)), total, article_len);
    }
    // As for the target, a product such as 0.3 * 10 = 2.9999999999999996 counts as whole.
    const auto length = static_cast<int64_t>(std::floor(first_target_ * static_cast<double>(article_len) + 1e-9));
    if (length >= total) return length;
    throw Error(ErrorKind::kUsage,
                fmt::format("the first stage keeps {} tokens, fewer than the target of {}", length, total),
                fmt::format("first_target: {}", first_target_), "raise first_target, or lower the target");
  }

  std::vector<Compaction> second_stage(const CompactionRequest& request, Rewriting& rewriting,
                                       const std::vector<int64_t>& targets) const {
    Stopwatch clock;
    const Context& context = rewriting.context;
    const KvCache cache = request.model.decoder().prefill(context.tokens);
    std::unique_ptr<LayerQueries> queries;
    if (second_.queries != nullptr && context.article_len() > 0) {
      queries = second_.queries->make({request.model, context, cache, derive_seed(request.seed, "stacked/queries")});
    }
    const double shared_s = rewriting.own_s + clock.seconds();
    std::vector<Compaction> made;
    if (context.article_len() == 0) {
      for (size_t i = 0; i < targets.size(); ++i) made.push_back(Compaction{cache.clone()});
    } else {
      const CompactionRequest second{request.model,
                                     context,
                                     cache,
                                     {context.prefix_len, context.suffix_len},
                                     queries.get(),
                                     budgets(targets, cache, context),
                                     derive_seed(request.seed, "stacked/then")};
      made = second_.method->compact(second);
    }
    for (Compaction& compaction : made) {
      compaction.shared_s += shared_s;
      compaction.notes = Json{{"first", rewriting.notes},
                              {"first_tokens", context.article_len()},
                              {"then", compaction.notes},
                              {"then_queries", queries == nullptr ? 0 : queries->n_queries()}};
    }
    return made;
  }

  std::vector<HeadBudget> budgets(const std::vector<int64_t>& targets, const KvCache& cache,
                                  const Context& context) const {
    const HeadTable<int64_t> source_len = every_head(cache, context.article_len()).target_len;
    std::vector<HeadBudget> list;
    for (const int64_t total : targets) {
      TargetSize target;
      target.unit = TargetSize::Unit::kEntries;
      target.entries = std::min(total, context.article_len());
      list.push_back(target.entries > 0 ? second_.budget->spread({target, source_len}) : every_head(cache, 0));
    }
    return list;
  }

  double first_target_;
  std::unique_ptr<CompactionMethod> first_;
  NestedMethod second_;
};

KVC_REGISTER_METHOD(Stacked, "stacked", "a method on the text, then one on its cache, as in arXiv:2602.16284");

}  // namespace
}  // namespace kvc
