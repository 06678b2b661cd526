// Queries of a text of the user's, the same for every document: what Q-Filters (arXiv:2503.02812) takes its filters
// from, and TriAttention (arXiv:2604.04921) its mean queries. The first `tokens` tokens of the file are read alone,
// without template and without the document, at the positions 0, 1, ...
//
//   {method: q_filters, queries: {queries: calibration_text, file: calibration.txt}}
//
// For methods that take from queries what all texts have in common: filters, means, spans. As reference queries of one
// document's attention they are poor ones: they never saw it, so that scores by attention weights see all entries and
// no text of the query's own (the notes heads_without_positions and heads_without_text count them). Costs a forward
// pass of the text for each document.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>

#include "harness/api/query_source.h"
#include "harness/api/special_needs.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/queries/read_queries.h"

namespace kvc {
namespace {

// Queries that know where they stand, but nothing of the document.
class QueriesOfAnotherText final : public LayerQueries {
 public:
  explicit QueriesOfAnotherText(std::unique_ptr<LayerQueries> own) : own_(std::move(own)) {}
  at::Tensor layer(int64_t layer, const KvCache* compacted_below) const override {
    return own_->layer(layer, compacted_below);
  }
  at::Tensor window(int64_t layer, int64_t n_tokens) const override { return own_->window(layer, n_tokens); }
  Json notes() const override { return own_->notes(); }
  at::Tensor positions() const override { return own_->positions(); }
  int64_t n_queries() const override { return own_->n_queries(); }
  int64_t bytes() const override { return own_->bytes(); }

 private:
  std::unique_ptr<LayerQueries> own_;
};

class CalibrationText final : public QuerySource, public SpecialNeeds {
 public:
  struct Options {
    std::string file;
    int64_t tokens = 4096;
    int64_t max_queries = 4096;
    std::string content_hash;
    void fields(auto&& visit) {
      visit("file", file, "UTF-8 text of the kind that the model will read",
            named("a text", "write {queries: calibration_text, file: FILE.txt}"));
      visit("tokens", tokens, "most tokens of it that are read, from its start", between(2, 1'000'000));
      visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random",
            at_least(1));
      visit("content_hash", content_hash, "of the file; filled in, and checked where it is given");
    }
    void complete(const std::string& pointer, Problems& problems) {
      if (file.empty()) return;  // the rule of `file` says so
      std::string hash;
      try {
        hash = stable_hash(read_utf8_file(file));
      } catch (const Error&) {
        return;  // no mistake in the options: the constructor says what is wrong with the file
      }
      if (!content_hash.empty() && content_hash != hash) {
        problems.add(fmt::format("the file is {} now, not {}", hash, content_hash), pointer + "/content_hash",
                     "bring the file back, or leave content_hash out");
      }
      content_hash = hash;
    }
  };
  // Throws Error(kData) for a file that cannot be read.
  explicit CalibrationText(const Options& options) : options_(options) { read_utf8_file(options_.file); }

  std::string special_needs() const override { return "a text"; }

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    std::vector<int64_t> tokens = request.model.tokenizer().encode_text(read_utf8_file(options_.file));
    if (tokens.size() < 2) {
      throw Error(ErrorKind::kData, fmt::format("the calibration text has {} tokens", tokens.size()), options_.file,
                  "take a longer text, thousands of tokens for filters that hold for others");
    }
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(options_.tokens)));
    check_positions("calibration_text", static_cast<int64_t>(tokens.size()), request.model.spec().max_positions,
                    fmt::format("write tokens: {}, ", request.model.spec().max_positions));
    QueryText text;
    text.behind = std::make_shared<const KvCache>(request.model.decoder().empty_cache());
    text.notes = {{"calibration_tokens", tokens.size()}};
    text.sequences = {std::move(tokens)};
    text.is_context = true;  // neither its keys nor its hidden states are kept
    return std::make_unique<QueriesOfAnotherText>(
        read_queries(request, std::move(text), {options_.max_queries, false, "calibration_text"}));
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(CalibrationText, "calibration_text", "a text of yours, as for arXiv:2503.02812's filters");

}  // namespace
}  // namespace kvc
