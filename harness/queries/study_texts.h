// The texts of one self-study, to be read for queries now or again later: as JSON in the notes of a record and back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/api/query_source.h"

namespace kvc {

struct StudyConversation {
  std::string kind;
  std::string starter;
  std::string answer;           // as written, thoughts included; empty for `repeat`,
                                // whose answer is the article
  std::vector<int64_t> prompt;  // tokens behind the context: the starter as a
                                // turn and the assistant's header
  std::vector<int64_t> said;    // tokens of the answer, as the model wrote them:
                                // text read again could be cut otherwise
  std::string stop_reason;
};

struct StudyTexts {
  std::vector<StudyConversation> conversations;
  std::uint64_t seed = 0;  // they were written from
  Json seeds;              // what role A wrote: [{kind, attempt, text, starters}]
  Json dropped;            // answers that are not read: [{kind, starter, answer, reason}]

  std::vector<std::vector<int64_t>> sequences() const;
};

// What texts belong to.
struct StudyKey {
  std::string model;               // the weights' hash
  std::string document;            // a hash of the context's tokens
  std::uint64_t seed = 0;          // they were written from
  std::vector<std::string> kinds;  // conversations that were asked for, in order

  static StudyKey of(const QueryRequest& request, const std::vector<std::string>& kinds);
};

// {"self_study": {...}}: everything above.
Json study_to_json(const StudyTexts& texts, const StudyKey& key);

// The texts of `key` in a file that holds what study_to_json() wrote, however deep inside the JSON values it has: one
// value a line (records), or one value. Of several texts of this document by this model those of key.seed are taken,
// else the only ones. Throws Error(kData): no such file, texts of other documents, models or conversations only,
// several of which none has the seed, tokens that the model does not have or that pass its positions.
StudyTexts read_study(const std::string& path, const StudyKey& key, const QueryRequest& request);

}  // namespace kvc
