// Runs a kernel over whole contexts: cuts rows and keys into blocks, spreads them over the threads, puts the pieces
// together.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/attention/ragged_attention_cpu.h"

namespace kvc {

// The rows of one sequence that share one KV head, and what they see. Row i is query head i % group of token i / group.
struct CpuAttentionTask {
  const char* queries;  // row i's elements are at queries + (i / group) token_bytes + (i % group) row_bytes
  float* output;        // row i's d floats are at output + (i / group) token_floats + (i % group) d
  float* log_sum_exp;   // row i's float is at log_sum_exp + (i / group) n_query_heads + i % group
  int64_t n_rows;
  const char* keys;       // (n_keys, d) elements, rows contiguous
  const char* values;     // (n_keys, d)
  const float* bias;      // (n_keys) or nullptr
  int64_t n_keys;         // of the last row
  int64_t first_visible;  // token 0 sees so many keys, each next token one more; 0: every row sees all
};

struct CpuAttentionShape {
  int64_t head_dim;  // a multiple of 8
  int64_t group;
  int64_t n_query_heads;
};

// Fills output and log_sum_exp of every task that has keys; the others' are left as they are.
void run_cpu_attention(const CpuAttentionKernel& kernel, const CpuAttentionShape& shape,
                       const std::vector<CpuAttentionTask>& tasks);

}  // namespace kvc
