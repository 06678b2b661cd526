#include "harness/kv/head_entries.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace kvc {

HeadEntries HeadEntries::slice(int64_t first, int64_t n) const {
  return {keys.narrow(0, first, n), values.narrow(0, first, n),
          bias.defined() ? bias.narrow(0, first, n) : at::Tensor()};
}

HeadEntries join_entries(const std::vector<HeadEntries>& pieces) {
  std::vector<at::Tensor> keys, values, bias;
  for (const HeadEntries& piece : pieces) {
    keys.push_back(piece.keys);
    values.push_back(piece.values);
    bias.push_back(piece.bias);
  }
  HeadEntries whole{at::cat(keys), at::cat(values), {}};
  if (std::any_of(bias.begin(), bias.end(), [](const at::Tensor& one) { return one.defined(); })) {
    for (size_t i = 0; i < bias.size(); ++i) {
      if (!bias[i].defined()) bias[i] = at::zeros({keys[i].size(0)}, keys[i].options().dtype(at::kFloat));
    }
    whole.bias = at::cat(bias);
  }
  return whole;
}

}  // namespace kvc
