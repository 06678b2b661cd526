#include "harness/sweep/run_info.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>

namespace kvc {
namespace {

// New memory of the system's that is touched and given back, between two calls.
std::int64_t peak_with(size_t bytes) {
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(block, MAP_FAILED);
  for (size_t i = 0; i < bytes; i += 4096) static_cast<volatile char*>(block)[i] = 1;
  munmap(block, bytes);
  return take_host_peak().bytes;
}

TEST(HostPeak, IsThatSinceTheLastCall) {
  (void)take_host_peak();
  if (take_host_peak().of_process) GTEST_SKIP() << "this system keeps no mark that can be set back";
  constexpr size_t kBlock = size_t{256} << 20;
  const std::int64_t before = peak_with(4096), with_block = peak_with(kBlock), after = peak_with(4096);
  EXPECT_GT(with_block, before + static_cast<std::int64_t>(kBlock) * 9 / 10);
  EXPECT_LT(after, with_block - static_cast<std::int64_t>(kBlock) / 2);
}

}  // namespace
}  // namespace kvc
