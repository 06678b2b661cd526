// Summaries of an article by the model itself, whole or part by part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/model/generate.h"

namespace kvc {

// How a summary is asked for: a user turn "INSTRUCTION:\n\nARTICLE\n\nSummary:", thinking off (arXiv:2602.16284); with
// `state_length` it ends "Summary (at most N words):".
struct SummaryStyle {
  std::string instruction;
  bool state_length = false;
  DecodeSettings settings;  // max_new_tokens is set here
  int64_t part_tokens = 0;  // longest part; 0: what fits the model
};

struct Summary {
  std::string text;  // well-formed UTF-8, without thoughts and outer blanks
  int64_t n_parts = 0;
  int64_t n_cut = 0;  // parts whose summary ran into its length
  int64_t thinking_tokens = 0;
  double own_s = 0;
};

struct Summaries {
  std::vector<Summary> list;
  double shared_s = 0;  // seconds of reading the article, once for all lengths
};

// One summary for each length, tokens at most (a few more where parts are joined; nullopt: as the model likes). An
// article that does not fit the model's positions together with its summary is cut into equal parts at ends of
// paragraphs, sentences or words, which tile it; the summaries of the parts are joined by empty lines. Every summary is
// the same whatever the other lengths. Throws Error(kData) when not even a short part fits. Cost: one prefill of the
// article (one for each number of parts that comes up), and the writing.
Summaries summarize_article(const Model& model, const std::vector<int64_t>& article,
                            const std::vector<std::optional<int64_t>>& lengths, const SummaryStyle& style,
                            std::uint64_t seed);

// Ends of `n_parts` parts of about equal length, ascending; the last is article.size(). A part is at most an eighth of
// its share shorter than even, so that it ends with a paragraph, else a sentence, else a word, else a character.
std::vector<int64_t> part_ends(const Tokenizer& tokenizer, const std::vector<int64_t>& article, int64_t n_parts);

// What follows the last "</think>"; nothing where a thought was not closed.
std::string without_thoughts(const std::string& text);

}  // namespace kvc
