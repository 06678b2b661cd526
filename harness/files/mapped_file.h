// A memory-mapped file.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace kvc {

class MappedFile {
 public:
  // Read-only. Throws Error(kData) with the system's reason, and for what is no
  // regular file or empty; `wanted` is the way out: "name a GGUF file". The
  // file must not be shortened while it is mapped: the system then ends the
  // program (SIGBUS).
  MappedFile(const std::string& path, const std::string& wanted);

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::shared_ptr<const void> mapping_;
  std::span<const std::byte> bytes_;
};

// Gives back the memory of the whole pages inside `bytes`, a part of a
// MappedFile: what was read once need not stay beside the tensors made of it.
// They stay readable; the system fetches them from the file again.
void release_pages(std::span<const std::byte> bytes);

}  // namespace kvc
