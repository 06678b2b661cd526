// The cause of one flip: the full cache of a document answers a question right, a compact one does not.
//
// In this order:
//   not reproduced  asked again, the two caches do not differ so
//   unused          the full cache's answer is a near-tie, and what the compact cache did to it is of the size of tiny
//                   noise, or no particular text mends it
//   unreachable     what the compact cache kept is enough once its biases, values, keys or the question's position are
//                   put right
//   evicted         original entries of some text, put back, bring the answer back
//   unexplained     none of it
#pragma once

#include <cstdint>

#include "harness/api/read_document.h"
#include "harness/api/task.h"
#include "harness/explain/explanation.h"

namespace kvc {

struct ExplainSettings {
  double noise = 0.05;      // standard deviation of the noise, relative to an entry's root mean square
  int64_t draws = 8;        // of noise, at least 1
  int64_t max_tests = 200;  // times a question may be asked to make a text smaller
  int64_t n_heads = 5;      // heads reported
};

struct FlipScene {
  const Model& model;
  const ReadDocument& read;  // its span is the document
  const KvCache& compact;
  const Task& task;
  std::string task_name;
  const Question& question;
  std::uint64_t ask_seed = 0;  // document_seed(..., "ask", ...)
};

// The explanation without its ids. Asks the question 2 + draws times, then about 40 times to find a text. Memory: two
// caches besides those given. Throws what the task throws.
Explanation explain_flip(const FlipScene& scene, const ExplainSettings& settings);

// The cache with noise on keys and values of the document: each number x becomes x + level * rms * N(0, 1), rms that of
// its entry's key or value. Equal seeds give equal noise.
KvCache with_noise(const KvCache& cache, const Compactable& span, double level, std::uint64_t seed);

}  // namespace kvc
