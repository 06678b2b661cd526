#include "harness/report/plot_axis.h"

#include <algorithm>
#include <cmath>

namespace kvc {
namespace {

// 1, 2 or 5 times a power of ten, for about `n` steps over `span`.
double nice_step(double span, int n) {
  const double raw = span / n;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) return factor * power;
  }
  return 10 * power;
}

// 1, 2 and 5 (over more than two decades 1 alone) times powers of ten within [low, high].
std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  const bool wide = high / low > 100;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high * 1.001; power *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (wide && factor != 1.0) continue;
      if (factor * power >= low * 0.999 && factor * power <= high * 1.001) ticks.push_back(factor * power);
    }
  }
  return ticks;
}

PlotScale log_axis(const PlotPanel& panel) {
  double low = HUGE_VAL, high = 0;
  const auto reach = [&](double y) {
    if (y > 0) low = std::min(low, y);
    high = std::max(high, y);
  };
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) reach(point.y);
  }
  if (panel.floor) reach(*panel.floor);
  PlotScale axis{low / 1.3, high * 1.4, true, {}};
  axis.ticks = log_ticks(axis.low, axis.high);
  return axis;
}

}  // namespace

PlotScale y_axis(const PlotPanel& panel, const std::vector<PlotSeries>& series) {
  if (panel.log_y) return log_axis(panel);
  double low = panel.share ? 1 : 0;
  double high = 0;
  const auto reach = [&](double y) {
    low = std::min(low, y);
    high = std::max(high, y);
  };
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) reach(point.y);
  }
  if (panel.band) {
    reach(0);
    reach(1.5 * panel.band->y);
  }
  if (panel.ceiling) reach(*panel.ceiling);
  if (panel.floor) reach(*panel.floor);
  const double most = panel.share ? 1 : 1.25 * high;  // a bar may stretch the axis so far and is cut off there
  for (const PlotLine& line : panel.lines) {
    if (series[line.series].style.colour < 0) continue;
    for (const PlotPoint& point : line.points) {
      if (point.low && panel.share) reach(std::clamp(*point.low, 0.0, 1.0));
      if (point.high) reach(std::min(*point.high, most));
    }
  }
  high = panel.share ? std::max(high, low + 0.1) : std::max(high, 0.005);  // less than that is nothing to zoom into
  PlotScale axis;
  const double step = nice_step(high - low, 5);
  axis.low = std::floor(low / step + 1e-9) * step;
  axis.high = std::ceil(high / step - 1e-9) * step;
  if (axis.high - high < 0.04 * (axis.high - axis.low)) axis.high += step / 2;
  if (panel.share) axis.high = std::min(axis.high, 1.0);
  for (int i = 0; axis.low + i * step <= axis.high + 1e-9 * step; ++i) axis.ticks.push_back(axis.low + i * step);
  return axis;
}

PlotScale x_axis(const PlotPanel& panel) {
  double least = HUGE_VAL, most = 0;
  const auto reach = [&](double x) {
    least = std::min(least, x);
    most = std::max(most, x);
  };
  for (const double tick : panel.ticks) reach(tick);
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) reach(point.x);
  }
  const double span = std::max(std::log(most / least), 0.7), middle = (std::log(most) + std::log(least)) / 2;
  PlotScale axis{std::exp(middle - 0.55 * span), std::exp(middle + 0.55 * span), true, panel.ticks};
  if (axis.ticks.empty()) axis.ticks = log_ticks(axis.low, axis.high);
  return axis;
}

}  // namespace kvc
