// Each head's part of the whole budget by a profile of what answers look at: LU-KV, arXiv:2602.08585. The file is the
// authors', a NumPy array (99, layers, KV heads): the part of its entries that a head loses when 1 %, 2 %, ... 99 % of
// the whole cache is gone. `kvc budget --by utility` makes one for any model and method; a profile belongs to both.
//
// Of the target as a kept fraction f of all entries the row of round(100 (1 - f)) % is taken, as kvpress does; lengths
// are in proportion to what that row keeps and sum to the uniform budget's, where kvpress rounds layer by layer. What a
// head cannot take goes to the others in proportion.
#include <cmath>
#include <cstring>
#include <fstream>

#include "harness/api/budget_rule.h"
#include "harness/budgets/rule_file.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

constexpr size_t kSteps = 99, kMostBytes = 64 << 20;

class LuKv final : public BudgetRule {
 public:
  struct Options {
    std::string file;
    std::string content_hash;
    void fields(auto&& visit) {
      visit("file", file, "NumPy file of the profile, as `kvc budget --by utility` or the authors write it",
            named("a file", "write {budget: lu_kv, file: FILE.npy}"));
      visit("content_hash", content_hash, "of the file; filled in, and checked where it is given");
    }
  };

  explicit LuKv(const Options& options) : options_(options) {
    const std::string bytes = read_bytes();
    hash_ = stable_hash(bytes);
    check_content(options_.file, hash_, options_.content_hash);
    read(bytes);
  }

  Json identity() const override { return Json{{"content_hash", hash_}}; }

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    const int64_t n_layers = request.source_len.n_layers(), n_heads = request.source_len.n_heads();
    if (n_layers != static_cast<int64_t>(n_layers_) || n_heads != static_cast<int64_t>(n_heads_)) {
      throw Error(ErrorKind::kData,
                  fmt::format("the profile is of a model with {} layers of {} KV heads; this one has {} of {}",
                              n_layers_, n_heads_, n_layers, n_heads),
                  options_.file, other_model_mend(" --by utility"));
    }
    const int64_t all = total_length({request.source_len, {}}), total = total_length(budget);
    if (total == all) return budget;
    const double evicted = 1 - static_cast<double>(total) / static_cast<double>(all);
    const int64_t step = std::clamp<int64_t>(std::llround(100 * evicted) - 1, 0, kSteps - 1);
    const auto weights = HeadTable<double>::make(n_layers, n_heads, [&](int64_t layer, int64_t head) {
      const double lost = profile_[static_cast<size_t>((step * n_layers + layer) * n_heads + head)];
      return (1 - lost) * static_cast<double>(request.source_len.at(layer, head));
    });
    budget.target_len = proportional_lengths(weights, request.source_len, total);
    return budget;
  }

 private:
  [[noreturn]] void refuse(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, options_.file,
                "take a file of kvc budget --by utility: float64 or float32 numbers of shape (99, layers, KV heads)");
  }

  std::string read_bytes() const {
    std::ifstream file(found_file(options_.file), std::ios::binary);
    if (!file) refuse("the file cannot be read");
    std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (bytes.size() > kMostBytes) refuse(fmt::format("the file has {} bytes, more than a profile", bytes.size()));
    return bytes;
  }

  // Versions 1 to 3 of the format; C order, little-endian.
  void read(const std::string& bytes) {
    const std::string magic = "\x93NUMPY";
    if (bytes.size() < 12 || bytes.compare(0, magic.size(), magic) != 0) refuse("this is not a NumPy file");
    const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<unsigned char>(bytes[at])); };
    const bool wide = byte(6) >= 2;
    const size_t begin = wide ? 12 : 10;
    const size_t length = byte(8) | byte(9) << 8 | (wide ? byte(10) << 16 | byte(11) << 24 : 0);
    if (length > bytes.size() - begin) refuse("the header is cut off");
    const std::string header = bytes.substr(begin, length);
    const bool doubles = header.find("'<f8'") != std::string::npos;
    if (!doubles && header.find("'<f4'") == std::string::npos) refuse("the numbers are not float64 or float32");
    if (header.find("'fortran_order': False") == std::string::npos) refuse("the numbers are not in C order");
    size_t steps = 0;
    const size_t shape = header.find("'shape': (");
    if (shape == std::string::npos ||
        std::sscanf(header.c_str() + shape, "'shape': (%zu, %zu, %zu)", &steps, &n_layers_, &n_heads_) != 3 ||
        steps != kSteps || n_layers_ < 1 || n_heads_ < 1 || n_layers_ > 10000 || n_heads_ > 10000) {
      refuse("the shape is not (99, layers, KV heads)");
    }
    const size_t n = kSteps * n_layers_ * n_heads_, size = doubles ? 8 : 4;
    if (bytes.size() != begin + length + n * size) {
      refuse(fmt::format("the file has {} bytes of numbers, the shape asks for {}", bytes.size() - begin - length,
                         n * size));
    }
    for (size_t i = 0; i < n; ++i) {
      double value = 0;
      float narrow = 0;
      const char* const from = bytes.data() + begin + length + i * size;
      if (doubles) {
        std::memcpy(&value, from, 8);
      } else {
        std::memcpy(&narrow, from, 4);
        value = static_cast<double>(narrow);
      }
      if (!(value >= -1e-6 && value <= 1 + 1e-6)) refuse(fmt::format("number {} is {}, not between 0 and 1", i, value));
      profile_.push_back(std::clamp(value, 0.0, 1.0));
    }
  }

  Options options_;
  std::string hash_;
  size_t n_layers_ = 0, n_heads_ = 0;
  std::vector<double> profile_;  // [step][layer][head]
};

KVC_REGISTER_BUDGET(LuKv, "lu_kv", "arXiv:2602.08585");

}  // namespace
}  // namespace kvc
