// Each head's part of the whole budget from a JSON file: {"L0H0": 0.012, "L0H1": 0.004, ...}, layer and KV head from 0,
// the parts summing to 1. A head that the file leaves out has the uniform part. `kvc budget` makes such files; the ones
// published with Attention Matching (arXiv:2602.16284) read alike.
//
// No head keeps more than `cap` of its entries: what it cannot take goes to the others in proportion (water-filling).
#include <cmath>
#include <map>

#include "harness/api/budget_rule.h"
#include "harness/budgets/rule_file.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using HeadIndex = std::pair<int64_t, int64_t>;

// "L12H3"; nothing when the text is not of that form.
std::optional<HeadIndex> parse_head(const std::string& key) {
  const size_t h = key.find('H');
  const auto number = [](const std::string& digits) -> std::optional<int64_t> {
    if (digits.empty() || digits.size() > 6 || digits.find_first_not_of("0123456789") != std::string::npos) return {};
    return std::stoll(digits);
  };
  if (key.empty() || key[0] != 'L' || h == std::string::npos) return std::nullopt;
  const auto layer = number(key.substr(1, h - 1));
  const auto head = number(key.substr(h + 1));
  if (!layer || !head) return std::nullopt;
  return HeadIndex{*layer, *head};
}

class Proportions final : public BudgetRule {
 public:
  struct Options {
    std::string file;
    double cap = 1.0;
    std::string content_hash;
    void fields(auto&& visit) {
      visit("file", file, "JSON file of every head's part, as `kvc budget` writes it",
            named("a file", "write {budget: proportions, file: FILE.json}"));
      visit("cap", cap, "most that a head keeps of its own entries, above 0 and at most 1", more_than(0, 1));
      visit("content_hash", content_hash, "of the file; filled in, and checked where it is given");
    }
  };

  explicit Proportions(const Options& options) : options_(options) {
    const std::string text = read_text_file(found_file(options_.file));
    hash_ = stable_hash(text);
    check_content(options_.file, hash_, options_.content_hash);
    read(text);
  }

  Json identity() const override { return Json{{"content_hash", hash_}}; }

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    check_heads(request);
    const HeadTable<int64_t>& source_len = request.source_len;
    const double even = 1.0 / static_cast<double>(source_len.all().size());
    const auto weights =
        HeadTable<double>::make(source_len.n_layers(), source_len.n_heads(), [&](int64_t layer, int64_t head) {
          const auto found = parts_.find({layer, head});
          return found == parts_.end() ? even : found->second;
        });
    const auto room = source_len.map([&](int64_t length) {
      return static_cast<int64_t>(std::floor(options_.cap * static_cast<double>(length) + 1e-9));
    });
    const int64_t total = total_length(budget), room_total = total_length({room, {}});
    if (total > room_total) {
      throw Error(ErrorKind::kData,
                  fmt::format("a target of {} entries is more than a cap of {} leaves room for ({})", total,
                              options_.cap, room_total),
                  options_.file, "raise 'cap' to at least the target");
    }
    budget.target_len = proportional_lengths(weights, room, total);
    return budget;
  }

 private:
  [[noreturn]] void refuse(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, options_.file, "write {\"L0H0\": 0.5, \"L0H1\": 0.5}: shares that sum to 1");
  }

  void read(const std::string& text) {
    const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object() || object.empty()) refuse("must be a JSON object of heads and shares");
    double sum = 0;
    for (const auto& [key, value] : object.items()) {
      const auto head = parse_head(key);
      if (!head) refuse(fmt::format("a head must be written like L0H0; got '{}'", key));
      if (!value.is_number()) refuse(fmt::format("the share of {} must be a number; got {}", key, value.dump()));
      const double part = value.get<double>();
      if (!(part >= 0 && part <= 1)) refuse(fmt::format("the share of {} must be 0 to 1; got {}", key, part));
      if (!parts_.emplace(*head, part).second) refuse(fmt::format("duplicate head {}", key));
      sum += part;
    }
    if (sum > 1.001) refuse(fmt::format("the shares must sum to 1; got {:.6g}", sum));
    if (sum <= 0) refuse("all shares are 0");
    sum_ = sum;
  }

  // A file made for another model has heads that this one has not, or too few to sum to 1.
  void check_heads(const BudgetRequest& request) const {
    const int64_t n_layers = request.source_len.n_layers(), n_heads = request.source_len.n_heads();
    for (const auto& [head, part] : parts_) {
      const auto [l, h] = head;
      if (l >= n_layers || h >= n_heads) {
        throw Error(
            ErrorKind::kData,
            fmt::format("the model has no head L{}H{} (it has {} layers of {} KV heads)", l, h, n_layers, n_heads),
            options_.file, other_model_mend(""));
      }
    }
    if (parts_.size() == request.source_len.all().size() && sum_ < 0.999)
      refuse(fmt::format("the shares must sum to 1; got {:.6g}", sum_));
  }

  Options options_;
  std::string hash_;
  std::map<HeadIndex, double> parts_;
  double sum_ = 0;
};

KVC_REGISTER_BUDGET(Proportions, "proportions", "arXiv:2602.16284");

}  // namespace
}  // namespace kvc
