// From the texts of a query source to its queries: read once over the full cache, or layer by layer over the compacted
// one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/query_source.h"
#include "harness/model/decoder.h"

namespace kvc {

// What the model reads for its queries: sequences that do not see each other.
struct QueryText {
  std::vector<std::vector<int64_t>> sequences;  // tokens; none is empty
  // Each begins at this cache's next position and attends to it and to itself. Null: the context's cache, as it is
  // compacted where the queries are on-policy. Any other is not compacted.
  std::shared_ptr<const KvCache> behind;
  int64_t n_skipped = 0;        // first tokens, which give no query
  bool is_context = false;      // the tokens are the context's own, read once more
  Json notes = Json::object();  // LayerQueries::notes()
};

struct ReadSettings {
  int64_t max_queries = 0;  // per KV head; rounded up to a multiple of g
  bool on_policy = false;
  std::string source;  // the query source's name, for errors
};

// Costs one forward pass of the texts; on-policy nothing yet, then one layer's pass with each LayerQueries::layer().
std::unique_ptr<LayerQueries> read_queries(const QueryRequest& request, QueryText text, const ReadSettings& settings);

// One forward pass over some of the tokens, numbered through all sequences. Short sequences are read together, long
// ones in pieces.
struct ReadPass {
  int64_t first_token = 0;
  std::vector<int64_t> sequence_offsets;  // of the pass's tokens
  std::vector<int64_t> positions;         // of each
  int64_t capacity = 0;                   // of tails to begin with; 0 = goes on with the pass before

  int64_t n_tokens() const { return sequence_offsets.back(); }
  int64_t batch() const { return static_cast<int64_t>(sequence_offsets.size()) - 1; }
};
std::vector<ReadPass> plan_passes(const std::vector<std::vector<int64_t>>& sequences, int64_t first_position,
                                  int64_t most_tokens = Decoder::kCpuChunkTokens);

// Throws Error(kData) when `source` needs more positions than the model has. `ways_out` ends the advice, e.g. "take
// context_prefill, ".
void check_positions(const std::string& source, int64_t needed, int64_t available, const std::string& ways_out);

}  // namespace kvc
