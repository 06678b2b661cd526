#include "methods/parts/text_method.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <utility>

#include "harness/core/error.h"
#include "harness/core/stopwatch.h"

namespace kvc {

int64_t text_length(const HeadBudget& budget) {
  const auto n_heads = static_cast<int64_t>(budget.target_len.all().size());
  return n_heads == 0 ? 0 : total_length(budget) / n_heads;
}

Context with_article(const Context& context, const std::vector<int64_t>& article) {
  Context result{
      {context.tokens.begin(), context.tokens.begin() + context.prefix_len}, context.prefix_len, context.suffix_len};
  result.tokens.insert(result.tokens.end(), article.begin(), article.end());
  result.tokens.insert(result.tokens.end(), context.tokens.end() - context.suffix_len, context.tokens.end());
  return result;
}

std::vector<Compaction> TextMethod::compact(const CompactionRequest& request) const {
  const c10::InferenceMode inference;
  std::vector<int64_t> lengths;
  for (const HeadBudget& budget : request.budgets) lengths.push_back(text_length(budget));
  if (needs_target() == lengths.empty()) {
    throw Error(ErrorKind::kInternal, fmt::format("{} budgets for this method", lengths.size()), "compaction",
                "give budgets to methods that take a target, and none to others");
  }
  Rewritings rewritings = rewrite(request, lengths);
  std::vector<Compaction> compactions;
  for (Rewriting& rewriting : rewritings.list) {
    const Stopwatch clock;
    compactions.push_back(Compaction{request.model.decoder().prefill(rewriting.context.tokens), rewritings.shared_s,
                                     rewriting.own_s, std::move(rewriting.notes)});
    compactions.back().own_s += clock.seconds();
  }
  return compactions;
}

}  // namespace kvc
