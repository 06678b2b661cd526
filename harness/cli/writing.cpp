#include "harness/cli/writing.h"

#include <algorithm>

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

namespace {

// CLI11's own ranges let NaN pass, and print the largest number there is where a range has no end.
CLI::Validator number_from(double least, double most, bool least_too, const std::string& range) {
  return {[=](const std::string& text) -> std::string {
            double value = 0;
            const bool inside =
                CLI::detail::lexical_cast(text, value) && value <= most && (least_too ? value >= least : value > least);
            return inside ? "" : "must be " + range + "; got " + text;
          },
          ""};
}

}  // namespace

void add_decode_options(CLI::App& command, DecodeSettings& decode) {
  command.add_option("--max-new-tokens", decode.max_new_tokens, "longest answer, in tokens")
      ->check(number_from(0, 1e9, false, "a number above 0"))
      ->capture_default_str();
  command.add_option("--temperature", decode.temperature, "sampling temperature; 0: greedy decoding")
      ->check(number_from(0, 100, true, "between 0 and 100"))
      ->capture_default_str();
  command.add_option("--top-k", decode.top_k, "sample from this many of the likeliest tokens; 0: from all")
      ->check(number_from(0, 1e9, true, "0 or more"));
  command
      .add_option("--top-p", decode.top_p,
                  "nucleus sampling: from the smallest set of tokens with this total probability")
      ->check(number_from(0, 1, false, "above 0 and at most 1"));
  command.add_option("--min-p", decode.min_p, "drop tokens below this fraction of the likeliest token's probability")
      ->check(number_from(0, 1, true, "between 0 and 1"));
  command.add_option("--stop", decode.stop, "a text that ends the answer; may be given several times")
      ->each([](const std::string& text) {
        if (text.empty()) throw CLI::ValidationError("--stop", "is empty; give a text");
      })
      ->allow_extra_args(false);
  command
      .add_option("--thinking-budget", decode.thinking_budget,
                  "longest thought, in tokens, before </think> is inserted; default: no limit")
      ->check(number_from(0, 1e9, true, "0 or more"));
}

}  // namespace kvc
