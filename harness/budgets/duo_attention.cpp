// Retrieval heads keep everything, streaming heads the first and the most recent entries; which head is which stands in
// a file. Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads",
// arXiv:2410.10819. The paper's method is this rule with {method: streaming_llm, n_sink: 128}.
//
// The file is the authors' full_attention_heads.tsv: a line a layer, a number a KV head, its gate from 0 (streaming) to
// 1 (retrieval), which they find by training on passkeys, and `kvc budget --by gates` likewise. Streaming heads are as
// long as n_sink + n_recent; what is left of the target goes to the heads of highest gate, one after the other, each as
// far as it has entries; of equal gates the lower layer and head first. So the target decides how many heads are
// retrieval heads, where the paper gives their fraction, and at most one head has something between. A target of less
// than the streaming heads' lengths is shared in proportion to these.
#include <algorithm>
#include <numeric>
#include <sstream>

#include "harness/api/budget_rule.h"
#include "harness/budgets/rule_file.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

class DuoAttention final : public BudgetRule {
 public:
  struct Options {
    std::string file;
    int64_t n_sink = 128;
    int64_t n_recent = 256;
    std::string content_hash;
    void fields(auto&& visit) {
      visit("file", file, "gates of all heads, a line a layer: full_attention_heads.tsv",
            named("a file", "write {budget: duo_attention, file: full_attention_heads.tsv}"));
      visit("n_sink", n_sink, "first entries that a streaming head keeps", at_least(0));
      visit("n_recent", n_recent, "most recent entries that a streaming head keeps", at_least(0));
      visit("content_hash", content_hash, "of the file; filled in, and checked where it is given");
    }
    void check(const OptionCheck& fail) const {
      if (n_sink + n_recent < 1) fail("n_recent", "must be 1 or more where n_sink is 0; got 0", "default: 256");
    }
  };

  explicit DuoAttention(const Options& options) : options_(options) {
    const std::string text = read_text_file(found_file(options_.file));
    hash_ = stable_hash(text);
    check_content(options_.file, hash_, options_.content_hash);
    read(text);
  }

  Json identity() const override { return Json{{"content_hash", hash_}}; }

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    check_heads(request);
    const int64_t total = total_length(budget);
    const auto lengths =
        request.source_len.map([&](int64_t length) { return std::min(length, options_.n_sink + options_.n_recent); });
    int64_t spent = total_length({lengths, {}});
    if (spent > total) {
      const auto weights = lengths.map([](int64_t length) { return static_cast<double>(length); });
      budget.target_len = proportional_lengths(weights, request.source_len, total);
      return budget;
    }
    std::vector<size_t> heads(gates_.all().size());
    std::iota(heads.begin(), heads.end(), size_t{0});
    std::stable_sort(heads.begin(), heads.end(), [&](size_t a, size_t b) { return gates_.all()[a] > gates_.all()[b]; });
    budget.target_len = lengths;
    for (const size_t head : heads) {
      int64_t& length = budget.target_len.all()[head];
      const int64_t more = std::min(total - spent, request.source_len.all()[head] - length);
      length += more;
      spent += more;
    }
    return budget;
  }

 private:
  [[noreturn]] void refuse(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, options_.file,
                "write a line for each layer, in it a number from 0 to 1 for each KV head, with tabs between");
  }

  void read(const std::string& text) {
    const bool marked = text.starts_with("\xEF\xBB\xBF");  // the byte order mark that some editors write
    std::istringstream lines(marked ? text.substr(3) : text);
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string word;
      std::vector<double> gates;
      while (words >> word) {
        char* end = nullptr;
        const double gate = std::strtod(word.c_str(), &end);
        if (*end != '\0' || !(gate > -1e6 && gate < 1e6)) {
          refuse(fmt::format("line {}: must be a number; got '{}'", gates_.n_layers() + 1, word));
        }
        gates.push_back(std::clamp(gate, 0.0, 1.0));  // as the authors' code reads them
      }
      if (gates.empty()) continue;
      if (gates_.n_layers() > 0 && static_cast<int64_t>(gates.size()) != gates_.n_heads()) {
        refuse(fmt::format("line {} has {} heads, the first has {}", gates_.n_layers() + 1, gates.size(),
                           gates_.n_heads()));
      }
      gates_.add_layer(gates);
    }
    if (gates_.n_layers() == 0) refuse("the file has no heads");
  }

  void check_heads(const BudgetRequest& request) const {
    if (gates_.same_shape(request.source_len)) return;
    throw Error(
        ErrorKind::kData,
        fmt::format("the head classes are of a model with {} layers of {} KV heads; this one has {} of {}",
                    gates_.n_layers(), gates_.n_heads(), request.source_len.n_layers(), request.source_len.n_heads()),
        options_.file, other_model_mend(" --by gates"));
  }

  Options options_;
  std::string hash_;
  HeadTable<double> gates_;
};

KVC_REGISTER_BUDGET(DuoAttention, "duo_attention", "arXiv:2410.10819");

}  // namespace
}  // namespace kvc
