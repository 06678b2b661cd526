#include "harness/text/tokenizer/score_merges.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>
#include <unordered_set>

#include "harness/core/error.h"
#include "harness/core/utf8.h"

namespace kvc {
namespace {

constexpr size_t kLongest = 256;
// Llama 2 has two merges a token, runs of one character many; far more is a file made to fill the memory.
constexpr size_t kMergesPerToken = 32, kMoreMerges = size_t{1} << 16U;

// The scores that occur, best first.
std::vector<double> ranking(const std::vector<double>& scores) {
  std::vector<double> distinct = scores;
  std::sort(distinct.begin(), distinct.end(), std::greater<>());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  return distinct;
}

}  // namespace

std::vector<BpeMerge> merges_of_scores(const std::vector<std::string>& tokens, const std::vector<TokenKind>& kinds,
                                       const std::vector<double>& scores, const std::string& where) {
  const auto bad = [&](size_t id, const std::string& fact) {
    throw Error(ErrorKind::kData, fmt::format("token {} {}", id, fact), where,
                "the file is damaged or of another kind; fetch or convert it again");
  };
  std::unordered_set<std::string_view> normal;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!std::isfinite(scores[id])) bad(id, "has a score that is not a number");
    if (kinds[id] != TokenKind::kNormal) continue;
    if (tokens[id].size() > kLongest)
      bad(id, fmt::format("has {} bytes, at most {} are expected", tokens[id].size(), kLongest));
    normal.insert(tokens[id]);
  }
  const std::vector<double> order = ranking(scores);
  std::vector<BpeMerge> merges;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (kinds[id] != TokenKind::kNormal) continue;
    const std::string_view piece = tokens[id];
    const auto place = std::lower_bound(order.begin(), order.end(), scores[id], std::greater<>());
    const auto rank = static_cast<std::uint32_t>(place - order.begin());
    for (size_t i = 0; i < piece.size();) {
      const size_t length = utf8_length(piece, i);
      if (length == 0) bad(id, "is not valid UTF-8");
      if (length < piece.size() && !normal.contains(piece.substr(i, length))) {
        bad(id, fmt::format("holds '{}', which is not a token itself", piece.substr(i, length)));
      }
      i += length;
      const std::string_view left = piece.substr(0, i), right = piece.substr(i);
      if (right.empty() || !normal.contains(left) || !normal.contains(right)) continue;
      if (merges.size() >= kMergesPerToken * tokens.size() + kMoreMerges) bad(id, "is one of too many that can be cut");
      merges.push_back({std::string(left), std::string(right), rank});
    }
  }
  return merges;
}

}  // namespace kvc
