// Any bytes as a safetensors file.
#include "harness/files/safetensors.h"
#include "harness/testing/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  using namespace kvc;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  expect_result_or_blame([&] {
    size_t total = 0;
    for (const StoredTensor& tensor : parse_safetensors(bytes, "fuzz")) {
      if (tensor.name.empty() || tensor.type == nullptr || tensor.shape.empty()) std::abort();
      if (tensor.bytes.data() < bytes.data() || tensor.bytes.data() + tensor.bytes.size() > bytes.data() + size) {
        std::abort();
      }
      total += tensor.bytes.size();
    }
    if (total > size) std::abort();
  });
  return 0;
}
