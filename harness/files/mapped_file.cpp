#include "harness/files/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "harness/core/error.h"

namespace kvc {

MappedFile::MappedFile(const std::string& path, const std::string& wanted) {
  const auto refuse = [&](const std::string& fact, const std::string& mend) {
    throw Error(ErrorKind::kData, fact, path, mend);
  };
  const int fd = ::open(path.c_str(),
                        O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a named pipe would wait for a writer
  if (fd < 0) refuse(fmt::format("cannot open the file: {}", std::strerror(errno)), "check the path");
  struct stat info {};
  const bool known = ::fstat(fd, &info) == 0;
  if (!known || !S_ISREG(info.st_mode) || info.st_size == 0) {
    ::close(fd);
    refuse(known && S_ISREG(info.st_mode) ? "the file is empty" : "this is not a regular file", wanted);
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int reason = errno;
  ::close(fd);
  if (address == MAP_FAILED) {
    refuse(fmt::format("cannot map the file: {}", std::strerror(reason)), "check the free address space");
  }
  mapping_ = {address, [size](const void* at) { ::munmap(const_cast<void*>(at), size); }};
  ::madvise(address, size, MADV_WILLNEED);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto last = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace kvc
