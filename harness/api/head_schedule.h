// Work on many heads at the same time.
#pragma once

#include <cstdint>
#include <functional>

namespace kvc {

// Runs work(i) for i in [0, n), on all threads of LibTorch when `parallel`. Every worker computes alone with one
// thread, so the result of an item depends neither on the number of workers nor on who took it. The exception of the
// lowest item is rethrown when all have ended.
void for_each_item(int64_t n, bool parallel, const std::function<void(int64_t)>& work);

}  // namespace kvc
