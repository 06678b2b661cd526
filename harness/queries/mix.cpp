// Queries of several sources in fixed shares (arXiv:2602.16284's code). Of max_queries N a source with fraction f is
// asked for floor(N f) queries. A source may have fewer, so all are cut to the share of the poorest: with s = min(1,
// min(given / asked)) each gives floor(asked s), a seeded subset in its order, and they follow one another as listed.
// The arithmetic is whole: no query is lost to rounding.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/queries/captured_queries.h"

namespace kvc {
namespace {

struct Part {
  std::unique_ptr<LayerQueries> queries;
  at::Tensor index;  // taken queries of each KV head; undefined = all
};

class MixedQueries final : public LayerQueries {
 public:
  explicit MixedQueries(std::vector<Part> parts) : parts_(std::move(parts)) {}

  at::Tensor layer(int64_t layer, const KvCache* compacted_below) const override {
    std::vector<at::Tensor> pieces;
    for (const Part& part : parts_) {
      const at::Tensor all = part.queries->layer(layer, compacted_below);
      pieces.push_back(part.index.defined() ? all.index_select(1, part.index.to(all.device())) : all);
    }
    return at::cat(pieces, 1);
  }
  // Of the first source that reads a text.
  at::Tensor window(int64_t layer, int64_t n_tokens) const override { return of_window().window(layer, n_tokens); }
  // Where every source knows its own.
  bool knows_reach() const override {
    return std::all_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.queries->knows_reach(); });
  }
  QueryReach reach(int64_t layer, int64_t kv_head) const override {
    if (!knows_reach()) return {};
    std::vector<at::Tensor> masses;
    for (const Part& part : parts_) {
      const at::Tensor all = part.queries->reach(layer, kv_head).text_log_mass;
      masses.push_back(part.index.defined() ? all.index_select(0, part.index.to(all.device())) : all);
    }
    return {positions(), at::cat(masses)};
  }
  QueryReach window_reach(int64_t layer, int64_t kv_head, int64_t n_tokens) const override {
    return of_window().window_reach(layer, kv_head, n_tokens);
  }
  bool on_policy() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.queries->on_policy(); });
  }
  Json notes() const override {
    Json list = Json::array();
    for (const Part& part : parts_) {
      const Json notes = part.queries->notes();
      if (!notes.empty()) list.push_back(notes);
    }
    return list.empty() ? Json::object() : Json{{"mix", list}};
  }
  at::Tensor positions() const override {
    std::vector<at::Tensor> pieces;
    for (const Part& part : parts_) {
      const at::Tensor all = part.queries->positions();
      if (!all.defined()) return {};
      pieces.push_back(part.index.defined() ? all.index_select(0, part.index) : all);
    }
    return at::cat(pieces);
  }
  bool by_query_head() const override { return parts_.size() == 1 && parts_.front().queries->by_query_head(); }
  int64_t n_queries() const override {
    int64_t total = 0;
    for (const Part& part : parts_) total += part.index.defined() ? part.index.size(0) : part.queries->n_queries();
    return total;
  }
  int64_t bytes() const override {
    int64_t total = 0;
    for (const Part& part : parts_) total += part.queries->bytes();
    return total;
  }

 private:
  const LayerQueries& of_window() const {
    for (const Part& part : parts_) {
      if (part.queries->positions().defined()) return *part.queries;
    }
    return *parts_.front().queries;
  }

  std::vector<Part> parts_;
};

class Mix final : public QuerySource {
 public:
  struct Options {
    int64_t max_queries = 4096;
    std::vector<NestedPlugin> sources;
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head of all sources together", at_least(1));
      visit("sources", sources, "[{queries: NAME, fraction: 0.7, option: value}, ...]; the fractions sum to 1",
            named("at least one source", "write [{queries: repeat_prefill, fraction: 1}]"));
    }
    void complete(const std::string& pointer, Problems& problems);
    void check(const OptionCheck& fail) const;
    int64_t quota(const Json& source) const {
      // The sum of fractions may be off by the last digits that a file writes; so may a product.
      return static_cast<int64_t>(
          std::floor(static_cast<double>(max_queries) * source.at("fraction").get<double>() + 1e-9));
    }
  };
  explicit Mix(const Options& options) : options_(options) {
    for (const NestedPlugin& source : options.sources) {
      Json given = source.value;
      given.erase("fraction");
      sources_.push_back(create_nested<QuerySource>(given));
    }
  }

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    std::vector<Part> parts;
    int64_t given = 1, asked = 1;  // the poorest source's, at most 1 together
    for (size_t i = 0; i < sources_.size(); ++i) {
      parts.push_back({sources_[i]->make({request.model, request.context, request.cache, part_seed(request, i)}), {}});
      const int64_t n = parts.back().queries->n_queries(), quota = options_.quota(options_.sources[i].value);
      if (n * asked < given * quota) given = n, asked = quota;
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      const int64_t n = parts[i].queries->n_queries();
      const int64_t taken = options_.quota(options_.sources[i].value) * given / asked;
      if (taken >= n) continue;
      parts[i].index =
          at::tensor(draw_sorted(n, taken, derive_seed(part_seed(request, i), "share")), at::TensorOptions(at::kLong));
    }
    return std::make_unique<MixedQueries>(std::move(parts));
  }

 private:
  // A source's seed goes with its place, so that two of one kind draw different numbers.
  static std::uint64_t part_seed(const QueryRequest& request, size_t place) {
    return derive_seed(request.seed, fmt::format("mix/{}", place));
  }

  Options options_;
  std::vector<std::unique_ptr<QuerySource>> sources_;
};

void Mix::Options::complete(const std::string& pointer, Problems& problems) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string at = fmt::format("{}/sources/{}", pointer, i);
    Json& value = sources[i].value;
    if (!value.is_object() || !value.contains("fraction") || !value.at("fraction").is_number()) {
      problems.add("a source of a mix without a fraction", at, "write {queries: NAME, fraction: 0.5}");
      continue;
    }
    const auto fraction = value.at("fraction").get<double>();
    value.erase("fraction");
    if (!(fraction > 0 && fraction <= 1)) {
      problems.add(fmt::format("the fraction must be above 0 and at most 1; got {}", fraction), at + "/fraction",
                   "e.g. 0.5");
      continue;
    }
    const bool has_cap = value.contains("max_queries");
    const Json cap = has_cap ? value.at("max_queries") : Json();
    if (!complete_nested<QuerySource>(value, "queries", at, problems)) continue;
    if (value.at("name") == "mix") {
      problems.add("a mix inside a mix", at, "list its sources here");
      continue;
    }
    if (value.at("name") == "question" || !value.contains("max_queries")) {
      problems.add(fmt::format("'{}' cannot be part of a mix", value.at("name").get<std::string>()), at,
                   value.at("name") == "question" ? "ask for it alone: its caches are made for one question each"
                                                  : "ask for it alone: it reads a fixed number of tokens");
      continue;
    }
    value["fraction"] = fraction;
    const int64_t share = quota(value);
    if (share < 1) {
      problems.add(fmt::format("{} of {} queries is less than one", fraction, max_queries), at + "/fraction",
                   "take a larger fraction or a larger max_queries");
    }
    if (has_cap && cap != share) {
      problems.add("a source inside a mix must not set max_queries", at + "/max_queries",
                   fmt::format("leave it out: it is fraction times the mix's max_queries, {}", share));
    }
    value["max_queries"] = share;
  }
}

void Mix::Options::check(const OptionCheck& fail) const {
  double sum = 0;
  std::set<std::string> seen;
  for (const NestedPlugin& source : sources) {
    sum += source.value.at("fraction").get<double>();
    Json named = source.value;
    named.erase("fraction");
    named.erase("max_queries");
    if (!seen.insert(canonical_json(named)).second) {
      fail("sources", fmt::format("has {} twice", source.value.at("name").get<std::string>()), "add their fractions");
    }
  }
  if (std::abs(sum - 1) > 0.01) {
    fail("sources", fmt::format("has fractions that sum to {:.4g}", sum), "write fractions that sum to 1");
  }
}

KVC_REGISTER_QUERIES(Mix, "mix", "arXiv:2602.16284, mixed queries");

}  // namespace
}  // namespace kvc
