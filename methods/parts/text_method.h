// Methods that shorten the text and let the model read what is left: template, shorter article, template, at positions
// of their own from 0 on, so the question stands right behind them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

// A context with another article.
struct Rewriting {
  Context context;
  double own_s = 0;
  Json notes = Json::object();
};

struct Rewritings {
  std::vector<Rewriting> list;
  double shared_s = 0;  // seconds spent once for all of them
};

class TextMethod : public CompactionMethod {
 public:
  bool compacts_cache() const final { return false; }

  // One rewriting for each of `lengths`, most tokens of article to keep, in [0, T]; each as if asked for alone. Exactly
  // one, and `lengths` empty, when needs_target() is false. Looks at the request's model, context and seed only.
  virtual Rewritings rewrite(const CompactionRequest& request, const std::vector<int64_t>& lengths) const = 0;

  // Reads the rewritings; a budget is the mean over its heads, rounded down.
  std::vector<Compaction> compact(const CompactionRequest& request) const final;
};

// Tokens of article that fit a budget: the mean over heads, rounded down.
int64_t text_length(const HeadBudget& budget);

// `context` with `article` between the tokens of its template.
Context with_article(const Context& context, const std::vector<int64_t>& article);

}  // namespace kvc
