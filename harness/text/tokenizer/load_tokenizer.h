// The tokenizer of a model as downloaded: a GGUF file, or a folder with tokenizer.json or tokenizer.model.
#pragma once

#include <memory>
#include <string>

#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

// A GGUF file: see gguf_tokenizer.h. A folder: tokenizer.json if it is there (see json_tokenizer.h), else
// tokenizer.model (see sentencepiece_tokenizer.h).
// end_ids() of a folder: eos_token_id of generation_config.json, else of config.json, and nothing beside it, as
// transformers has it; where neither names one, eos_token of tokenizer_config.json and <|im_end|>, <|endoftext|>,
// <|eot_id|>, <|end_of_text|> where they are control tokens.
// Throws Error(kData): neither file in the folder, a file damaged or of a kind that is not supported, no end token.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);

}  // namespace kvc
