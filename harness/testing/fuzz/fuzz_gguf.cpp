// Any bytes as a GGUF file: header, metadata, sizes of the model, tokenizer.
#include "harness/files/gguf.h"
#include "harness/model/families/family.h"
#include "harness/testing/fuzz/fuzz_input.h"
#include "harness/text/tokenizer/gguf_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  using namespace kvc;
  const MemoryFile bytes(data, size);
  expect_result_or_blame([&] {
    const GgufFile file(bytes.path());
    for (const GgufTensor& tensor : file.tensors()) {
      // Reads the ends of each tensor, where a wrong size shows.
      volatile auto touched = tensor.bytes.empty() ? std::byte{} : tensor.bytes.front() | tensor.bytes.back();
      (void)touched;
    }
    expect_result_or_blame([&] {
      const auto tokenizer = make_gguf_tokenizer(file);
      tokenizer->decode(tokenizer->encode({{"One <|im_end|> t\xC3\xB6 2,000 \xFF", true}, {" and data", false}}));
    });
    expect_result_or_blame([&] { find_family(file).spec(file); });
  });
  return 0;
}
