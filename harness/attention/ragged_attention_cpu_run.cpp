#include "harness/attention/ragged_attention_cpu_run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace kvc {
namespace {

// Keys are taken a span at a time and spans are combined in order, whether one thread takes all of a row block's spans
// or several share them: so the result does not depend on it.
constexpr int64_t kSpanKeys = 4 * kCpuBlockKeys;
constexpr int64_t kSmallWork = int64_t{1} << 18;  // multiply-adds below which waking threads costs more than it saves
constexpr float kNoMass = -std::numeric_limits<float>::infinity();

struct AlignedFree {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<float[], AlignedFree>;

Buffer aligned_floats(int64_t count) {
  const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<size_t>(bytes, 64));
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer(static_cast<float*>(memory));
}

int64_t state_floats(int64_t head_dim) {
  return (head_dim + 2) * kCpuLanes;
}

CpuAttentionState state_at(float* memory) {
  return {memory, memory + kCpuLanes, memory + 2 * kCpuLanes};
}

void clear(const CpuAttentionState& state, int64_t lanes, int64_t head_dim) {
  std::fill_n(state.largest, lanes, kNoMass);
  std::fill_n(state.total, lanes, 0.0F);
  std::fill_n(state.output, lanes * head_dim, 0.0F);
}

// Up to kCpuLanes rows of one task.
struct RowBlock {
  const CpuAttentionTask* task;
  const float* packed_keys;  // words of all keys; nullptr: packed block by block, or read as they lie
  const float* packed_values;
  int64_t first_row, n_rows, lanes;
  int64_t n_keys;  // seen by the last row
  int64_t n_spans() const { return (n_keys + kSpanKeys - 1) / kSpanKeys; }
};

// What one thread works with.
struct Workspace {
  explicit Workspace(int64_t d)
      : memory(
            aligned_floats(kCpuBlockKeys * kCpuLanes + d * kCpuLanes + 2 * state_floats(d) + 2 * kCpuBlockKeys * d)) {
    float* at = memory.get();
    const auto take = [&at](int64_t count) { return std::exchange(at, at + count); };
    scratch = take(kCpuBlockKeys * kCpuLanes);
    queries = take(d * kCpuLanes);
    span = state_at(take(state_floats(d)));
    whole = state_at(take(state_floats(d)));
    keys = take(kCpuBlockKeys * d);
    values = take(kCpuBlockKeys * d);
  }
  Buffer memory;
  float *scratch, *queries, *keys, *values;
  CpuAttentionState span, whole;
  alignas(64) int32_t visible[kCpuLanes];
};

class Runner {
 public:
  Runner(const CpuAttentionKernel& kernel, const CpuAttentionShape& shape) : kernel_(kernel), shape_(shape) {}
  void run(const std::vector<CpuAttentionTask>& tasks);

 private:
  void cut_rows(const std::vector<CpuAttentionTask>& tasks);
  void pack(const std::vector<CpuAttentionTask>& tasks);
  void for_each(int64_t n_items, const std::function<void(Workspace&, int64_t)>& work) const;
  void attend_whole(Workspace& workspace, const RowBlock& block) const;
  void attend_split();
  void load_queries(Workspace& workspace, const RowBlock& block) const;
  void attend_span(Workspace& workspace, const RowBlock& block, int64_t begin, const CpuAttentionState& state) const;
  void store(const RowBlock& block, const CpuAttentionState& state) const;

  int64_t element_bytes() const { return kernel_.bfloat16 ? 2 : 4; }
  int64_t key_words() const { return kernel_.pairs ? shape_.head_dim / 2 : shape_.head_dim; }
  int64_t value_words(int64_t n_keys) const { return (kernel_.pairs ? (n_keys + 1) / 2 : n_keys) * shape_.head_dim; }

  const CpuAttentionKernel& kernel_;
  CpuAttentionShape shape_;
  std::vector<RowBlock> blocks_;
  Buffer packed_;
  int64_t work_ = 0;
};

void Runner::cut_rows(const std::vector<CpuAttentionTask>& tasks) {
  for (const CpuAttentionTask& task : tasks) {
    if (task.n_keys == 0) continue;
    for (int64_t row = 0; row < task.n_rows; row += kCpuLanes) {
      RowBlock block{&task, nullptr, nullptr, row, std::min(kCpuLanes, task.n_rows - row), 0, task.n_keys};
      block.lanes = (block.n_rows + kernel_.width - 1) / kernel_.width * kernel_.width;
      if (task.first_visible > 0) block.n_keys = task.first_visible + (row + block.n_rows - 1) / shape_.group;
      work_ += block.lanes * block.n_keys * shape_.head_dim;
      blocks_.push_back(block);
    }
  }
}

// Packs all keys and values of the tasks that several row blocks read.
void Runner::pack(const std::vector<CpuAttentionTask>& tasks) {
  const int64_t d = shape_.head_dim;
  struct Piece {
    const CpuAttentionTask* task;
    float *keys, *values;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  int64_t floats = 0;
  const auto several = [](const CpuAttentionTask& task) { return task.n_rows > kCpuLanes && task.n_keys > 0; };
  for (const CpuAttentionTask& task : tasks) {
    if (several(task)) floats += (task.n_keys + 1) * d * 2;
  }
  if (kernel_.pack_values == nullptr || floats == 0) return;
  packed_ = aligned_floats(floats);
  float* at = packed_.get();
  size_t block = 0;
  for (const CpuAttentionTask& task : tasks) {
    for (; block < blocks_.size() && blocks_[block].task < &task; ++block) {
    }
    if (!several(task)) continue;
    float* keys = kernel_.pack_keys != nullptr ? std::exchange(at, at + (task.n_keys + 1) * d) : nullptr;
    float* values = std::exchange(at, at + (task.n_keys + 1) * d);
    for (; block < blocks_.size() && blocks_[block].task == &task; ++block) {
      blocks_[block].packed_keys = keys;
      blocks_[block].packed_values = values;
    }
    for (int64_t begin = 0; begin < task.n_keys; begin += kSpanKeys) {
      pieces.push_back({&task, keys, values, begin, std::min(task.n_keys, begin + kSpanKeys)});
    }
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      const int64_t offset = piece.begin * d * element_bytes(), count = piece.end - piece.begin;
      if (piece.keys != nullptr) kernel_.pack_keys(piece.task->keys + offset, count, d, piece.keys + piece.begin * d);
      kernel_.pack_values(piece.task->values + offset, count, d, piece.values + value_words(piece.begin));
    }
  });
}

// Items are handed out one by one: causal work is uneven, and so are shared machines.
void Runner::for_each(int64_t n_items, const std::function<void(Workspace&, int64_t)>& work) const {
  const int64_t threads = work_ < kSmallWork ? 1 : std::min<int64_t>(at::get_num_threads(), n_items);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    Workspace workspace(shape_.head_dim);
    for (int64_t item = next++; item < n_items; item = next++) work(workspace, item);
  });
}

void Runner::load_queries(Workspace& workspace, const RowBlock& block) const {
  const CpuAttentionTask& task = *block.task;
  const int64_t row_bytes = shape_.head_dim * element_bytes();
  const void* rows[kCpuLanes];
  for (int64_t i = 0; i < block.n_rows; ++i) {
    const int64_t row = block.first_row + i;
    rows[i] = task.queries + (row / shape_.group * shape_.n_query_heads + row % shape_.group) * row_bytes;
  }
  kernel_.pack_queries(rows, block.n_rows, block.lanes, shape_.head_dim, workspace.queries);
}

void Runner::attend_span(Workspace& workspace, const RowBlock& block, int64_t begin,
                         const CpuAttentionState& state) const {
  const CpuAttentionTask& task = *block.task;
  const int64_t d = shape_.head_dim, end = std::min(block.n_keys, begin + kSpanKeys);
  for (int64_t first = begin; first < end; first += kCpuBlockKeys) {
    const int64_t n_keys = std::min(kCpuBlockKeys, end - first);
    const char* keys = task.keys + first * d * element_bytes();
    const char* values = task.values + first * d * element_bytes();
    CpuAttentionBlock part{block.lanes, d,       n_keys,  workspace.queries, keys,
                           values,      nullptr, nullptr, workspace.scratch};
    if (kernel_.pack_keys != nullptr) {
      if (block.packed_keys == nullptr) kernel_.pack_keys(keys, n_keys, d, workspace.keys);
      part.keys = block.packed_keys != nullptr ? block.packed_keys + first * key_words() : workspace.keys;
    }
    if (kernel_.pack_values != nullptr) {
      if (block.packed_values == nullptr) kernel_.pack_values(values, n_keys, d, workspace.values);
      part.values = block.packed_values != nullptr ? block.packed_values + value_words(first) : workspace.values;
    }
    if (task.bias != nullptr) part.bias = task.bias + first;
    if (task.first_visible > 0 && task.first_visible + block.first_row / shape_.group < first + n_keys) {
      for (int64_t i = 0; i < block.lanes; ++i) {
        const int64_t row = block.first_row + std::min(i, block.n_rows - 1);
        const int64_t seen = task.first_visible + row / shape_.group - first;
        workspace.visible[i] = static_cast<int32_t>(std::clamp<int64_t>(seen, 0, n_keys));
      }
      part.visible = workspace.visible;
    }
    kernel_.attend(part, state);
  }
}

void Runner::store(const RowBlock& block, const CpuAttentionState& state) const {
  const int64_t d = shape_.head_dim;
  for (int64_t i = 0; i < block.n_rows; ++i) {
    const int64_t row = block.first_row + i;
    const int64_t head = row / shape_.group * shape_.n_query_heads + row % shape_.group;
    float* output = block.task->output + head * d;
    const float total = state.total[i], inverse = total > 0 ? 1.0F / total : 0.0F;
    for (int64_t c = 0; c < d; ++c) output[c] = state.output[c * block.lanes + i] * inverse;
    block.task->log_sum_exp[head] = total > 0 ? state.largest[i] + std::log(total) : kNoMass;
  }
}

void Runner::attend_whole(Workspace& workspace, const RowBlock& block) const {
  load_queries(workspace, block);
  clear(workspace.whole, block.lanes, shape_.head_dim);
  for (int64_t span = 0; span < block.n_spans(); ++span) {
    clear(workspace.span, block.lanes, shape_.head_dim);
    attend_span(workspace, block, span * kSpanKeys, workspace.span);
    kernel_.combine(workspace.span, block.lanes, shape_.head_dim, workspace.whole);
  }
  store(block, workspace.whole);
}

// Few row blocks over many keys: every (row block, span) is an item of its own.
void Runner::attend_split() {
  std::vector<std::pair<const RowBlock*, int64_t>> items;
  std::vector<int64_t> first_item;
  for (const RowBlock& block : blocks_) {
    first_item.push_back(static_cast<int64_t>(items.size()));
    for (int64_t span = 0; span < block.n_spans(); ++span) items.emplace_back(&block, span);
  }
  const int64_t d = shape_.head_dim;
  const Buffer states = aligned_floats(static_cast<int64_t>(items.size()) * state_floats(d));
  for_each(static_cast<int64_t>(items.size()), [&](Workspace& workspace, int64_t item) {
    const auto& [block, span] = items[static_cast<size_t>(item)];
    const CpuAttentionState state = state_at(states.get() + item * state_floats(d));
    load_queries(workspace, *block);
    clear(state, block->lanes, d);
    attend_span(workspace, *block, span * kSpanKeys, state);
  });
  for_each(static_cast<int64_t>(blocks_.size()), [&](Workspace& workspace, int64_t index) {
    const RowBlock& block = blocks_[static_cast<size_t>(index)];
    clear(workspace.whole, block.lanes, d);
    for (int64_t span = 0; span < block.n_spans(); ++span) {
      const int64_t item = first_item[static_cast<size_t>(index)] + span;
      kernel_.combine(state_at(states.get() + item * state_floats(d)), block.lanes, d, workspace.whole);
    }
    store(block, workspace.whole);
  });
}

void Runner::run(const std::vector<CpuAttentionTask>& tasks) {
  cut_rows(tasks);
  pack(tasks);
  const auto n_blocks = static_cast<int64_t>(blocks_.size());
  const int64_t threads = at::get_num_threads();
  if (threads > 1 && n_blocks < 4 * threads && work_ >= kSmallWork) return attend_split();
  // The longest first, so that no thread is left with a long one at the end.
  std::stable_sort(blocks_.begin(), blocks_.end(),
                   [](const RowBlock& a, const RowBlock& b) { return a.n_keys > b.n_keys; });
  for_each(n_blocks, [this](Workspace& workspace, int64_t index) {
    attend_whole(workspace, blocks_[static_cast<size_t>(index)]);
  });
}

}  // namespace

void run_cpu_attention(const CpuAttentionKernel& kernel, const CpuAttentionShape& shape,
                       const std::vector<CpuAttentionTask>& tasks) {
  Runner(kernel, shape).run(tasks);
}

}  // namespace kvc
