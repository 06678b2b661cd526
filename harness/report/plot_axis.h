// The ranges and ticks of a plot's axes.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/report/plot.h"

namespace kvc {

struct PlotScale {
  double low = 0, high = 1;
  bool log = false;
  std::vector<double> ticks;
  double part(double value) const {  // 0 at low, 1 at high
    return log ? std::log(std::max(value, low) / low) / std::log(high / low) : (value - low) / (high - low);
  }
};

// Holds every value and, of coloured lines, their bars as far as they are not endless.
PlotScale y_axis(const PlotPanel& panel, const std::vector<PlotSeries>& series);
// Logarithmic; holds every size.
PlotScale x_axis(const PlotPanel& panel);

}  // namespace kvc
