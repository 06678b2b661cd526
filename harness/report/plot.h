// Accuracy (or KL) against what is kept of the cache, as SVG for a paper: one panel per data set and task, one line and
// marker per method.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

struct PlotPoint {
  double x = 0;  // measured kept fraction, > 0
  double y = 0;
  std::optional<double> low, high;  // of the bar; drawn as far as the axes reach
  bool partial = false;             // some documents failed or are missing: drawn hollow
};

struct PlotLine {
  size_t series = 0;  // index into Plot::series: the same colour and marker in every panel
  std::vector<PlotPoint> points;
};

struct PlotPanel {
  std::string title;
  std::string y_label;
  bool share = false;  // values in [0, 1], shown as per cent; otherwise the axis starts at 0
  std::vector<PlotLine> lines;
  std::vector<double> ticks;  // kept fractions, > 0
  std::optional<double> ceiling, floor;
};

struct Plot {
  std::string title;
  std::vector<std::string> series;
  std::vector<PlotPanel> panels;
  std::vector<std::string> notes;  // small lines below
};

// A whole SVG file; text stays text. Colours: Okabe & Ito, "Color Universal Design", 2008.
std::string render_svg(const Plot& plot);

// One plot per model that has a point to show, as (model label, plot). With fewer than kFewDocuments documents an
// interval by document is wider than the plot, so the bars are intervals over questions, and a note says so.
std::vector<std::pair<std::string, Plot>> plots_of(const Tabulated& tabulated);

}  // namespace kvc
