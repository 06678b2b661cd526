// What names the bytes of a model file in a result.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace kvc {

// 16 hexadecimal digits over all bytes and their number; the same on every machine and for every number of threads.
// About the speed of memory. Tells files apart, no protection against forgery.
// `done` hears of each part that is read, from several threads at once: what to do with its memory.
std::string content_hash(std::span<const std::byte> bytes,
                         const std::function<void(std::span<const std::byte>)>& done = {});

}  // namespace kvc
