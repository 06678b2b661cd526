// The tokenizer that a GGUF file carries in its metadata.
#pragma once

#include <memory>

#include "harness/model/formats/gguf.h"
#include "harness/model/tokenizer/tokenizer.h"

namespace kvc {

// Reads tokenizer.ggml.{model, pre, tokens, token_type, merges, bos_token_id, eos_token_id, eot_token_id,
// add_bos_token}. Byte-level BPE ("gpt2") is the only kind. bos() is nullopt where the file says add_bos_token = false,
// or says nothing and is no Llama 3. end_ids(): end of text, end of turn, and those of <|im_end|>, <|endoftext|>,
// <|eot_id|>, <|end_of_text|> that are control tokens. Throws Error(kData) naming key and index for anything missing or
// contradictory, and for a vocabulary that cannot spell ordinary text.
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufFile& file);

}  // namespace kvc
