#include "harness/model/next_token_kl.h"

namespace kvc {

at::Tensor next_token_kl(const at::Tensor& log_p, at::Tensor log_q) {
  log_q.neg_().add_(log_p).mul_(log_p.exp());  // p (log p - log q)
  return log_q.sum(-1, false, at::kDouble);
}

}  // namespace kvc
