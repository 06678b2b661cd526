// The texts of RULER (arXiv:2404.06654, section 3 and appendix B), for any length: what is hidden, what is asked and
// what is right. The counts (keys, values, hops, repetitions), the kinds of haystack and the order in which things are
// placed are the published generator's; the sentences are our own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/random_draws.h"

namespace kvc {

struct RulerSample {
  std::string text;
  std::string question;
  std::string answer_prefix;
  std::vector<std::string> references;  // what a right answer names
  bool any_reference = false;           // one of them is enough
  std::vector<double> depth_fractions;  // of what is asked for: bytes before it, of all bytes; empty where it is spread
};

struct RulerQuestion {
  std::string id;
  std::string text;
  std::vector<std::string> answers;  // spellings, any of which is right
  std::vector<std::string> golden;   // passages, every one of which is needed
  int64_t article = -1;              // number in RulerSources::articles; -1: the file has none
};

// What the tasks are made of.
struct RulerSources {
  std::string essays;                         // the haystack of words; repeated where it is too short
  std::vector<RulerQuestion> questions;       // qa only
  std::vector<std::string> passages;          // qa only: all of the file, distinct
  std::vector<std::vector<size_t>> articles;  // qa only: numbers of the passages of each article (SQuAD)
  std::string worked_example;                 // vt only: ruler_tracking_example(), in front of every document
  int64_t index = 0;                          // number of the document: which of the questions is asked
  int64_t tokens = 0;                         // wanted length: the published generator makes cwe and fwe by it
};

// "niah_single_1" ... "qa": the thirteen of the paper; its two of question answering are one over a file of yours.
const std::vector<std::string>& ruler_tasks();

// The tokens that the published settings leave for an answer.
int64_t ruler_answer_tokens(const std::string& task);

// The least `size` that ruler_sample() takes.
int64_t ruler_least_size(const std::string& task);

// vt's worked example: a whole text of noise with a chain of names of three letters, its question and its answer. As
// many noise lines, in steps of five, as fit into 500 tokens of `count_tokens` with 30 left for an answer.
std::string ruler_tracking_example(const std::function<int64_t(std::string_view)>& count_tokens, RandomDraws draws);

// One document of `size` units of haystack (sentences of noise, words of essays, lines, words or passages). The same
// draws and a greater size give a longer text of the same hidden things. Throws Error(kData) where the sources cannot
// fill it.
RulerSample ruler_sample(const std::string& task, int64_t size, const RulerSources& sources, RandomDraws draws);

}  // namespace kvc
