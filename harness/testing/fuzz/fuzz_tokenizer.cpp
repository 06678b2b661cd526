// Any bytes as tokenizer.json (when they begin with a brace) or tokenizer.model.
#include "harness/testing/fuzz/fuzz_input.h"
#include "harness/text/tokenizer/json_tokenizer.h"
#include "harness/text/tokenizer/sentencepiece_tokenizer.h"

namespace {

void use(const kvc::Tokenizer& tokenizer) {
  const std::string text = "One <|im_end|></s> t\xC3\xB6 \xE4\xB8\xAD 2,000\r\n   \xFF";
  tokenizer.decode(tokenizer.encode({{text, true}, {text, false}}));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  using namespace kvc;
  const std::string text(reinterpret_cast<const char*>(data), size);
  expect_result_or_blame([&] {
    if (text.starts_with("{")) {
      JsonVocabulary json = interpret_tokenizer_json(parse_tokenizer_json(text, "fuzz"), "fuzz");
      json.vocabulary.end_ids = {0};
      use(BpeTokenizer(std::move(json.vocabulary)));
    } else {
      use(SentencePieceTokenizer(text, FolderTokens(), "fuzz"));
    }
  });
  return 0;
}
