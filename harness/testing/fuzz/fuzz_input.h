// What the fuzz targets share: bytes as files, and which endings are right.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "harness/core/error.h"

namespace kvc {

// A file in memory with a path, for readers that map files.
class MemoryFile {
 public:
  MemoryFile(const std::uint8_t* data, size_t size) : descriptor_(memfd_create("fuzz", 0)) {
    if (descriptor_ < 0 || ::write(descriptor_, data, size) != static_cast<ssize_t>(size)) std::abort();
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

// Runs `work`. An error that blames the file is a right ending; one that blames the program is not.
template <class Work>
void expect_result_or_blame(Work work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal || error.fact().empty()) std::abort();
  }
}

}  // namespace kvc
