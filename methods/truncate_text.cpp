// Keeps t tokens of the article as text, its beginning, its end or half of each, and reads them anew (control): what a
// user does who cuts a document to fit. Against `truncate` it tells what having read the rest is worth.
#include <algorithm>

#include "methods/parts/text_method.h"

namespace kvc {
namespace {

class TruncateText final : public TextMethod {
 public:
  struct Options {
    std::string keep = "first";
    void fields(auto&& visit) {
      visit("keep", keep, "the part that stays: first, last, or ends (half of each)",
            one_of({"first", "last", "ends"}));
    }
  };
  explicit TruncateText(const Options& options) : options_(options) {}

  bool needs_target() const override { return true; }

  Rewritings rewrite(const CompactionRequest& request, const std::vector<int64_t>& lengths) const override {
    const std::vector<int64_t> article = request.context.article_tokens();
    Rewritings rewritings;
    for (const int64_t length : lengths) {
      const int64_t n_first = options_.keep == "first" ? length : options_.keep == "last" ? 0 : (length + 1) / 2;
      std::vector<int64_t> kept(article.begin(), article.begin() + n_first);
      kept.insert(kept.end(), article.end() - (length - n_first), article.end());
      rewritings.list.push_back({with_article(request.context, kept)});
    }
    return rewritings;
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(TruncateText, "truncate_text", "a part of the text alone, read again (control)");

}  // namespace
}  // namespace kvc
