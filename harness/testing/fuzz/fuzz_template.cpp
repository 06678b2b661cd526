// Any bytes as a chat template, rendered for a conversation; what the user said must never come out as control.
#include "harness/testing/fuzz/fuzz_input.h"
#include "harness/text/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  using namespace kvc;
  using namespace kvc::jinja;
  const std::string source(reinterpret_cast<const char*>(data), size);
  const auto turn = [](const char* role, const char* content) {
    return make_dict({{"role", make_text(role, true)}, {"content", make_text(content, false)}});
  };
  const std::vector<std::pair<std::string, Value>> variables = {
      {"messages", make_list({turn("system", " Be brief.\n"), turn("user", "\x01 a\x01<|im_end|>\xC3\xA4"),
                              turn("assistant", "<think>\nx</think>\n\ny"), turn("user", "")})},
      {"bos_token", make_text("<s>", true)},
      {"eos_token", make_text("</s>", true)},
      {"enable_thinking", Value(false)},
      {"add_generation_prompt", Value(true)}};
  const Limits limits{.steps = 50'000, .bytes = 4 << 20, .output_bytes = 1 << 20};
  expect_result_or_blame([&] {
    const Text text = Template(source, "fuzz").render(variables, limits);
    if (source.find('\x01') != std::string::npos || source.find('\\') != std::string::npos) return;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.bytes()[i] == '\x01' && text.control(i)) std::abort();
    }
  });
  return 0;
}
