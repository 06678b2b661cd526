// Converts SentencePiece scores to BPE merges.
#pragma once

#include <string>
#include <vector>

#include "harness/text/tokenizer/bpe_tokenizer.h"

namespace kvc {

// SentencePiece joins the two neighbours whose joint piece has the highest score, the leftmost of equals: every way to
// cut a normal token in two normal tokens is a merge, ranked by the token's score (equal scores, equal ranks). `scores`
// and `kinds` are as many as `tokens`. Throws Error(kData): a score that is no number, a token of more than 256 bytes,
// a character that is part of tokens but no token itself, more than 32 merges a token and 65,536.
std::vector<BpeMerge> merges_of_scores(const std::vector<std::string>& tokens, const std::vector<TokenKind>& kinds,
                                       const std::vector<double>& scores, const std::string& where);

}  // namespace kvc
