// From the fits of single heads to the cache of a whole model.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

// One head's fits, one for each target.
struct HeadResult {
  std::vector<HeadFit> fits;
  double prepare_s = 0;
  std::vector<double> fit_s;
};

// [prefix as it was][fit][suffix as it was] of every head of the layer; heads[h].fits[budget] is taken. Notes are added
// up in `notes`. The layer has no bias where all of it is zero.
LayerKv pack_layer(const CompactionRequest& request, const HeadResult* heads, int64_t layer, size_t budget,
                   Json& notes);
// All layers; heads are numbered layer by layer.
Compaction pack(const CompactionRequest& request, const std::vector<HeadResult>& heads, size_t budget);
// Heads run at the same time, so their times add up to more than what passed: the wall clock is shared out in
// proportion.
void attribute_times(double wall_s, const std::vector<HeadResult>& heads, std::vector<Compaction>& compactions);

}  // namespace kvc
