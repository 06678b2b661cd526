// What methods that merge evicted entries into kept ones share.
//
// Letters: T entries of a head, t kept ones, E = T - t evicted ones, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

// The entries of a head in two, both in the order of their positions.
struct Split {
  at::Tensor kept;     // (t) int64
  at::Tensor evicted;  // (E) int64
};
Split split_entries(const at::Tensor& kept, int64_t source_len);
// The same by sorting, for devices: the host knows both sizes and waits for nothing.
Split split_entries_by_sorting(const at::Tensor& kept, int64_t source_len);

// Sums of the rows that belong to each of n_groups groups: (n_groups, d) float64. rows (E, d) float64, group (E) int64.
// The same bits on every run, also on a GPU: sorted and summed up in one order, never added in a race.
at::Tensor group_sums(const at::Tensor& rows, const at::Tensor& group, int64_t n_groups);

// Sums of rows[first_i .. last_i): (n, d) float64. rows (E, d) float64; first, last (n) int64 with first <= last.
at::Tensor range_sums(const at::Tensor& rows, const at::Tensor& first, const at::Tensor& last);

// Values (T, d) float64 after every entry of `gives` (T) bool, in order of position, has given its own, and what it was
// given, in equal parts to the m entries behind it, or to all where there are fewer: (T, d). The last entry has none
// behind it and must not give. On the CPU.
at::Tensor pass_values_on(const at::Tensor& values, const at::Tensor& gives, int64_t m);
// The same for devices, where a chain of T steps would take seconds: a triangular system for each `block` entries, all
// factored at once, T / block steps of ten launches. Memory 16 T block bytes. Within rounding the same numbers, and the
// same bits on every run.
at::Tensor pass_values_on_in_blocks(const at::Tensor& values, const at::Tensor& gives, int64_t m, int64_t block = 256);

}  // namespace kvc
