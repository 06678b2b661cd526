// A hash of a model file's bytes, stored in every result.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace kvc {

// 16 hexadecimal digits over all bytes and their number; the same on every machine and for every number of threads.
// About the speed of memory. Tells files apart; no protection against forgery.
// `done` is called with each part that has been read, from several threads at once, to release its memory.
std::string content_hash(std::span<const std::byte> bytes,
                         const std::function<void(std::span<const std::byte>)>& done = {});

}  // namespace kvc
