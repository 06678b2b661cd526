// The tokenizer that a GGUF file carries in its metadata.
#pragma once

#include <memory>

#include "harness/files/gguf.h"
#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

// tokenizer.ggml.model "gpt2": byte-level BPE of tokens, token_type, merges and pre (see split_recipe()). "llama":
// SentencePiece's BPE of tokens, scores, token_type and add_space_prefix; a space is put in front of the text and of
// what follows a special token, as Meta's and llama.cpp's prompts have it.
// bos() is nullopt where the file says add_bos_token = false; where it says nothing, Llama 3 and "llama" have one, the
// others not. end_ids(): eos_token_id, eot_token_id, eom_token_id, and those of <|im_end|>, <|endoftext|>, <|eot_id|>,
// <|end_of_text|> that are control tokens. Throws Error(kData) naming key and index for anything missing or
// contradictory, and for a vocabulary that cannot spell ordinary text.
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufFile& file);

}  // namespace kvc
