// Where in the document a fact may stand to survive: accuracy by depth and ratio, one panel per method.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

struct HeatCell {
  double right = 0;  // sum of values in [0, 1]
  int64_t n = 0;     // 0: no question there
};

struct HeatColumn {
  std::string label;            // "full", "20x"
  bool reference = false;       // stands apart from what follows
  std::vector<HeatCell> cells;  // from the start of the document to its end
};

struct HeatPanel {
  std::string title;
  std::vector<HeatColumn> columns;
};

// Panels of one data set and one length of documents; all have as many cells per column.
struct HeatBand {
  std::string title;
  std::vector<HeatPanel> panels;
};

struct HeatMap {
  std::string title;
  std::vector<HeatBand> bands;
  std::vector<std::string> notes;
};

// A whole SVG file. Colours: viridis (van der Walt & Smith, 2015), whose lightness grows evenly, so that it survives
// grey print and colour blindness. A cell says "2/3" where cells have fewer than 10 questions, else per cent.
std::string render_heat_map(const HeatMap& map);

// One per model that has answers with a depth under a task whose primary metric is a share, as (model label, map).
// Depths are cut into 1 to 10 equal bins, about 3 questions each or more; documents whose lengths are 1.2 times apart
// or more stand in different bands.
std::vector<std::pair<std::string, HeatMap>> heat_maps_of(const Tabulated& tabulated);

// "#440154" for 0 to "#FDE725" for 1, clamped: the colours of the maps.
std::string heat_colour(double share);

// Task head_errors: the relative error of every head's output, layers from top to bottom, KV heads from left to right,
// a small map per method and target. One file per table, as (title, SVG).
std::vector<std::pair<std::string, std::string>> head_maps_of(const Tabulated& tabulated);

}  // namespace kvc
