// What the commands that let a model write share: its words as they come, and the options of decoding.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "harness/model/generate.h"
#include "harness/text/tokenizer/streaming_decoder.h"

namespace kvc {

// Text that is written to stdout as soon as it can no longer be the beginning of a stop text.
class LiveText {
 public:
  LiveText(const Tokenizer& tokenizer, const std::vector<std::string>& stops);
  void feed(int64_t token);
  // Writes what is left and a newline.
  void finish();

 private:
  // Up to `end`, or to a stop text that begins before.
  void show(size_t end);

  StreamingDecoder decoder_;
  const std::vector<std::string>& stops_;
  std::string text_;
  size_t shown_ = 0;
  size_t held_ = 0;
};

void add_decode_options(CLI::App& command, DecodeSettings& decode);

}  // namespace kvc
