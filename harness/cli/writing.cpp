#include "harness/cli/writing.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "harness/cli/model_options.h"

namespace kvc {

LiveText::LiveText(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
    : decoder_(tokenizer), stops_(stops) {
  for (const std::string& stop : stops) held_ = std::max(held_, stop.size() - 1);
}

void LiveText::feed(int64_t token) {
  text_ += decoder_.feed(token);
  show(text_.size() - std::min(text_.size(), held_));
}

void LiveText::finish() {
  text_ += decoder_.flush();
  show(text_.size());
  print_out("\n");
}

void LiveText::show(size_t end) {
  for (const std::string& stop : stops_) end = std::min(end, text_.find(stop, shown_));
  while (end > shown_ && end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xC0U) == 0x80U) --end;
  if (end <= shown_) return;
  print_out(text_.substr(shown_, end - shown_));
  shown_ = end;
}

void add_decode_options(CLI::App& command, DecodeSettings& decode) {
  decode.fields([&](const char* name, auto& field, const char* help, const OptionRule& rule) {
    std::string option = fmt::format("--{}", name);
    std::replace(option.begin(), option.end(), '_', '-');
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_arithmetic_v<Field>) {
      command.add_option(option, field, help)->capture_default_str()->check([rule](const std::string& text) {
        Field value{};
        return CLI::detail::lexical_cast(text, value) ? rule.problem(value) : std::string();
      });
    } else {
      command.add_option(option, field, fmt::format("{}; may be given several times", help))
          ->allow_extra_args(false)
          ->check([rule](const std::string& text) { return rule.problem(text); });
    }
  });
}

}  // namespace kvc
