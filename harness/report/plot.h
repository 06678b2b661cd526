// Accuracy (or any metric) against what is kept of the cache, as SVG for a paper: one panel per data set and task.
// Lines are named at their ends. Of more than kAllColoured methods the best few are coloured, the rest is grey, and the
// names are a list beside the axes, in the order of the values at one size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/series_style.h"
#include "harness/report/tabulate.h"

namespace kvc {

enum class PlotAxis : std::uint8_t { kKept, kRatio, kBytes, kSeconds };

// What is drawn; what is left empty is not restricted.
struct PlotChoice {
  std::string metric;   // empty: each task's primary metric
  std::string dataset;  // label, or name of the data set
  std::string task;
  PlotAxis x = PlotAxis::kKept;
  std::vector<std::string> methods;  // labels or names; those named are all coloured
};

struct PlotPoint {
  double x = 0;  // > 0: measured kept fraction, compaction ratio, bytes or seconds
  double y = 0;
  std::optional<double> low, high;  // of the bar; drawn as far as the axes reach
  bool partial = false;             // some documents failed or are missing: drawn hollow
};

struct PlotLine {
  size_t series = 0;  // index into Plot::series: the same colour and marker in every panel
  std::vector<PlotPoint> points;
};

// Losses that are tolerated: a line at `y`, shaded below from the largest size down to `kept` where that is set.
struct PlotBand {
  double y = 0;
  std::optional<double> kept;
};

struct PlotPanel {
  std::string title;
  std::string y_label;
  bool share = false;  // values in [0, 1], shown as per cent; otherwise the axis starts at 0
  bool log_y = false;  // values span more than kLogSpan
  PlotAxis x = PlotAxis::kKept;
  std::vector<PlotLine> lines;
  std::vector<double> ticks;  // of x, > 0; empty: 1, 2 and 5 times powers of ten
  std::optional<double> ceiling, floor;
  std::optional<PlotBand> band;
};

constexpr double kLogSpan = 30;  // largest over smallest positive value

struct PlotSeries {
  std::string name;  // as written beside the axes
  SeriesStyle style;
  bool question_aware = false;  // not ranked with the others: last in a list
};

struct Plot {
  std::string title;
  std::vector<PlotSeries> series;
  std::vector<PlotPanel> panels;
  std::vector<std::string> notes;  // small lines below, wrapped
};

// A whole SVG file, 340 pixels a panel (a column of a paper at 96 pixels per inch), at most two panels wide; text stays
// text.
std::string render_svg(const Plot& plot);

// One plot per model that has a point to show, as (model label, plot). With fewer than kFewDocuments documents an
// interval by document is wider than the plot, so the bars are intervals over questions, and a note says so.
std::vector<std::pair<std::string, Plot>> plots_of(const Tabulated& tabulated, const PlotChoice& choice = {});

}  // namespace kvc
