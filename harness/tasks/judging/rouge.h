// ROUGE-L (Lin 2004) as the two Python packages compute it by which benchmarks define their scores. They differ.
#pragma once

#include <string>

namespace kvc {

struct RougeScore {
  double precision = 0, recall = 0, f = 0;
};

// Package `rouge` 1.0.1, rouge-l: sentences end at a full stop, words at white space; each word counts once however
// often it stands; of every pair of sentences the words of one longest common subsequence are joined. f has 1e-8 in its
// denominator, as there. An empty side: 0. Departure: the package gives up on sentences of about a thousand words
// (its recursion ends), and LongBench then counts 0; here they are scored.
RougeScore rouge_l(const std::string& answer, const std::string& reference);

// Package `rouge-score` 0.1.2, rougeLsum without stemming: sentences are lines, words are runs of a-z and 0-9 in small
// letters, each counted as often as it stands on both sides.
RougeScore rouge_l_sum(const std::string& answer, const std::string& reference);

}  // namespace kvc
