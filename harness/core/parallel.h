// A loop on all cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <future>
#include <thread>
#include <vector>

namespace kvc {

// Calls work(i) once for each i from 0 to n - 1, in no order and on several threads at a time. An exception ends the
// calls of its thread and is thrown again when all threads have ended.
template <class Work>
void parallel_for(size_t n, const Work& work) {
  const size_t cores = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 16);
  std::atomic<size_t> next{0};
  const auto loop = [&] {
    for (size_t i = next++; i < n; i = next++) work(i);
  };
  std::vector<std::future<void>> others;
  for (size_t k = 1; k < std::min(cores, n); ++k) others.push_back(std::async(std::launch::async, loop));
  loop();
  for (std::future<void>& other : others) other.get();
}

}  // namespace kvc
