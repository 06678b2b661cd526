// What LibTorch's FlashAttention kernels promise (harness/attention/flash_attention.h), as float64 loops on the CPU,
// for tests of what is packed for them.
#pragma once

#include "harness/attention/flash_attention.h"

namespace kvc {

// As library_flash_attention(), queries of any floating-point dtype. Throws Error(kInternal) for what the kernels
// refuse or misread: offsets that are not int32 or do not divide the rows, a sequence longer than most_rows or
// most_entries, rows whose numbers are not dense, query heads that are no multiple of the KV heads, grouped heads with
// single rows.
FlashResult naive_flash_attention(const PackedSequences& sequences);

}  // namespace kvc
