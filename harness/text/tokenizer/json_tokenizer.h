// Byte-pair encoding as tokenizer.json describes it: Llama 3, Qwen 2, 2.5 and 3, SmolLM2; Llama 2 and Mistral where
// their SentencePiece vocabulary was converted to this form.
#pragma once

#include <optional>
#include <string>

#include "harness/text/tokenizer/bpe_tokenizer.h"
#include "harness/text/tokenizer/tokenizer_json.h"

namespace kvc {

struct JsonVocabulary {
  BpeVocabulary vocabulary;         // bos and end_ids are not set
  std::optional<int64_t> first_id;  // what post_processor's TemplateProcessing puts in front of a text
};

// What is understood, all else is an error that names the key:
//   normalizer     null, NFC; Prepend and Replace that make a space U+2581
//   pre_tokenizer  Sequence, Split (Regex or String, Isolated), Digits, ByteLevel (without add_prefix_space); Metaspace
//   model          BPE without dropout, subword prefixes and suffixes; ignore_merges; byte_fallback
//   decoder        as the pre-tokenizer says
//   added_tokens   special: control token; not special: user-defined, recognised in control segments too, text for
//                  decode(); lstrip, rstrip as they say; normalized makes no difference for spellings in normal form;
//                  single_word is refused
// truncation and padding never apply.
JsonVocabulary interpret_tokenizer_json(TokenizerJson file, const std::string& where);

}  // namespace kvc
