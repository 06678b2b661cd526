#include "harness/api/head_schedule.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace kvc {

void for_each_item(int64_t n, bool parallel, const std::function<void(int64_t)>& work) {
  if (!parallel) {
    for (int64_t i = 0; i < n; ++i) work(i);
    return;
  }
  std::vector<std::exception_ptr> errors(static_cast<size_t>(n));
  std::atomic<int64_t> next{0};
  const int n_threads = at::get_num_threads();
  const auto worker = [&] {
    const c10::InferenceMode inference;
    at::set_num_threads(1);  // of this thread; the caller's own setting is restored below
    for (int64_t i = next++; i < n; i = next++) {
      try {
        work(i);
      } catch (...) {
        errors[static_cast<size_t>(i)] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    for (int64_t w = 0; w < std::min<int64_t>(n_threads, n); ++w) workers.emplace_back(worker);
  }
  at::set_num_threads(n_threads);
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace kvc
