#include "harness/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "harness/report/svg.h"

namespace kvc {
namespace {

// Okabe-Ito without its yellow, which is too pale for a thin line on white.
constexpr std::array kColours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
constexpr std::array kDashes = {"", "7 3", "2 2.5", "9 3 2 3"};  // from the second round of colours on
constexpr size_t kFewSeries = 9;                                 // with more, panels are larger and bars paler
constexpr double kSide = 14, kLeft = 62, kRight = 74, kTop = 30, kBottom = 66;  // kLeft..kBottom around a panel's axes

std::string colour_of(size_t series) {
  return kColours[series % kColours.size()];
}

std::string dash_of(size_t series) {
  const std::string dash = kDashes[series / kColours.size() % kDashes.size()];
  return dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash);
}

// Shapes of about equal area around (x, y).
std::string marker(size_t series, double x, double y, bool hollow) {
  const std::string paint = fmt::format("fill=\"{}\" stroke=\"{}\" stroke-width=\"1.3\" stroke-linejoin=\"round\"",
                                        hollow ? "#FFFFFF" : colour_of(series), colour_of(series));
  const auto polygon = [&](const std::vector<std::pair<double, double>>& corners) {
    std::string points;
    for (const auto& [dx, dy] : corners)
      points += fmt::format("{}{:.2f},{:.2f}", points.empty() ? "" : " ", x + dx, y + dy);
    return fmt::format("<polygon points=\"{}\" {}/>\n", points, paint);
  };
  switch (series % 8) {
    case 0:
      return fmt::format("<circle cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"3.7\" {}/>\n", x, y, paint);
    case 1:
      return polygon({{-3.4, -3.4}, {3.4, -3.4}, {3.4, 3.4}, {-3.4, 3.4}});
    case 2:
      return polygon({{0, -4.7}, {4.4, 3.1}, {-4.4, 3.1}});
    case 3:
      return polygon({{0, -4.9}, {4.9, 0}, {0, 4.9}, {-4.9, 0}});
    case 4:
      return polygon({{0, 4.7}, {4.4, -3.1}, {-4.4, -3.1}});
    case 5:
      return polygon({{-1.5, -4.4},
                      {1.5, -4.4},
                      {1.5, -1.5},
                      {4.4, -1.5},
                      {4.4, 1.5},
                      {1.5, 1.5},
                      {1.5, 4.4},
                      {-1.5, 4.4},
                      {-1.5, 1.5},
                      {-4.4, 1.5},
                      {-4.4, -1.5},
                      {-1.5, -1.5}});
    case 6:
      return polygon({{0, -4.6}, {4.4, -1.4}, {2.7, 3.7}, {-2.7, 3.7}, {-4.4, -1.4}});
    default:
      return polygon({{-4.7, 0}, {3.1, -4.4}, {3.1, 4.4}});
  }
}

// 1, 2 or 5 times a power of ten, for about `n` steps over `span`.
double nice_step(double span, int n) {
  const double raw = span / n;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) return factor * power;
  }
  return 10 * power;
}

struct YAxis {
  double low = 0, high = 1, step = 0.2;
};

YAxis y_axis(const PlotPanel& panel) {
  double low = panel.share ? 1 : 0;
  double high = 0;
  const auto reach = [&](double y) {
    low = std::min(low, y);
    high = std::max(high, y);
  };
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) reach(point.y);
  }
  if (panel.ceiling) reach(*panel.ceiling);
  if (panel.floor) reach(*panel.floor);
  const double most = panel.share ? 1 : 1.25 * high;  // a bar may stretch the axis so far and is cut off there
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) {
      if (point.low && panel.share) reach(std::clamp(*point.low, 0.0, 1.0));
      if (point.high) reach(std::min(*point.high, most));
    }
  }
  YAxis axis;
  if (panel.share)
    high = std::max(high, low + 0.1);
  else
    high = std::max(high, 0.005);  // less than that is nothing to zoom into
  axis.step = nice_step(high - low, 5);
  axis.low = std::floor(low / axis.step + 1e-9) * axis.step;
  axis.high = std::ceil(high / axis.step - 1e-9) * axis.step;
  if (axis.high - high < 0.04 * (axis.high - axis.low)) axis.high += axis.step / 2;
  if (panel.share) axis.high = std::min(axis.high, 1.0);
  return axis;
}

class PanelDrawing {
 public:
  PanelDrawing(const PlotPanel& panel, double x, double y, double width, double height)
      : many_(panel.lines.size() > kFewSeries),
        panel_(panel),
        x_(x),
        y_(y),
        width_(width),
        height_(height),
        axis_(y_axis(panel)) {
    double least = 1e9, most = 0;
    const auto reach = [&](double fraction) {
      least = std::min(least, fraction);
      most = std::max(most, fraction);
    };
    for (const double tick : panel.ticks) reach(tick);
    for (const PlotLine& line : panel.lines) {
      for (const PlotPoint& point : line.points) reach(point.x);
    }
    const double span = std::max(std::log(most / least), 0.7);
    const double middle = (std::log(most) + std::log(least)) / 2;
    left_log_ = middle + 0.57 * span;  // large budgets stand on the left
    right_log_ = middle - 0.57 * span;
  }

  std::string draw() const {
    std::string svg = svg_text(x_, y_ - 11, panel_.title, {13, "start", kInk, "bold"});
    svg += grid() + x_labels() + references();
    svg += fmt::format("<g clip-path=\"url(#{})\">\n", clip_id());
    for (size_t i = 0; i < panel_.lines.size(); ++i) svg += bars(panel_.lines[i], shift(i));
    for (size_t i = 0; i < panel_.lines.size(); ++i) svg += path(panel_.lines[i], shift(i));
    svg += "</g>\n";
    for (size_t i = 0; i < panel_.lines.size(); ++i) {
      const PlotLine& line = panel_.lines[i];
      for (const PlotPoint& point : line.points)
        svg += marker(line.series, at_x(point.x) + shift(i), at_y(point.y), point.partial);
    }
    return svg;
  }

  std::string clip() const {
    return fmt::format(
        "<clipPath id=\"{}\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/></clipPath>\n",
        clip_id(), x_, y_, width_, height_);
  }

 private:
  std::string clip_id() const { return fmt::format("axes-{:.0f}-{:.0f}", x_, y_); }
  double at_x(double fraction) const {
    return x_ + width_ * (left_log_ - std::log(fraction)) / (left_log_ - right_log_);
  }
  double at_y(double value) const { return y_ + height_ * (axis_.high - value) / (axis_.high - axis_.low); }

  std::string grid() const {
    std::string svg;
    const double scale = panel_.share ? 100 : 1;
    const int digits = std::max(0, static_cast<int>(std::ceil(-std::log10(axis_.step * scale) - 1e-9)));
    for (int i = 0; axis_.low + i * axis_.step <= axis_.high + 1e-9 * axis_.step; ++i) {
      const double value = axis_.low + i * axis_.step;
      svg += svg_line(x_, at_y(value), x_ + width_, at_y(value), kGrid, 0.8);
      svg += svg_text(x_ - 7, at_y(value) + 4, fmt::format("{:.{}f}", value * scale, digits), {11.5, "end"});
    }
    for (const double tick : panel_.ticks) svg += svg_line(at_x(tick), y_, at_x(tick), y_ + height_, kGrid, 0.8);
    svg += svg_line(x_, y_, x_, y_ + height_, kInk, 1) + svg_line(x_, y_ + height_, x_ + width_, y_ + height_, kInk, 1);
    const double middle = y_ + height_ / 2;
    svg += fmt::format(
        "<text x=\"{0:.1f}\" y=\"{1:.1f}\" font-size=\"12\" text-anchor=\"middle\" fill=\"{2}\" transform=\"rotate(-90 "
        "{0:.1f} {1:.1f})\">{3}</text>\n",
        x_ - 46, middle, kInk, svg_escaped(panel_.y_label));
    return svg;
  }

  std::string x_labels() const {
    std::string svg;
    std::vector<double> ticks = panel_.ticks;
    std::sort(ticks.rbegin(), ticks.rend());
    double last = -1e9;
    const double bottom = y_ + height_;
    for (const double tick : ticks) {
      const double x = at_x(tick);
      svg += svg_line(x, bottom, x, bottom + 4, kInk, 1);
      const std::string kept = fmt::format("{:.3g}", 100 * tick);
      const std::string ratio = fmt::format("{:.3g}x", 1 / tick);
      const double half = svg_text_width(ratio.size() > kept.size() ? ratio : kept, 11.5) / 2;
      if (x - half < last + 4) continue;
      last = x + half;
      svg += svg_text(x, bottom + 17, kept, {11.5, "middle"}) + svg_text(x, bottom + 32, ratio, {11, "middle", kPale});
    }
    svg += svg_text(x_ + width_ / 2, bottom + 52, "KV cache kept (%)  /  compaction ratio", {12, "middle"});
    return svg;
  }

  // Full cache and no context, named at the right edge; the names are pushed apart where the lines are close.
  std::string references() const {
    std::string svg;
    double ceiling_y = panel_.ceiling ? at_y(*panel_.ceiling) : -1e9;
    double floor_y = panel_.floor ? at_y(*panel_.floor) : -1e9;
    if (panel_.ceiling) svg += svg_line(x_, ceiling_y, x_ + width_, ceiling_y, kPale, 1.2, " stroke-dasharray=\"6 3\"");
    if (panel_.floor) svg += svg_line(x_, floor_y, x_ + width_, floor_y, kPale, 1.2, " stroke-dasharray=\"1.5 2.5\"");
    if (std::abs(ceiling_y - floor_y) < 13) {
      double& upper = ceiling_y <= floor_y ? ceiling_y : floor_y;
      double& lower = ceiling_y <= floor_y ? floor_y : ceiling_y;
      const double push = (13 - (lower - upper)) / 2;
      upper -= push;
      lower += push;
    }
    if (panel_.ceiling) svg += svg_text(x_ + width_ + 5, ceiling_y + 4, "full cache", {11.5, "start", kPale});
    if (panel_.floor) svg += svg_text(x_ + width_ + 5, floor_y + 4, "no context", {11.5, "start", kPale});
    return svg;
  }

  // Lines stand a little apart, so that the bars of several methods at one target can be told.
  double shift(size_t place) const {
    const double n = static_cast<double>(panel_.lines.size());
    return std::min(2.6, (many_ ? 28 : 18) / n) * (static_cast<double>(place) - (n - 1) / 2);
  }

  std::string bars(const PlotLine& line, double by) const {
    std::string svg;
    for (const PlotPoint& point : line.points) {
      if (!point.low || !point.high) continue;
      const double x = at_x(point.x) + by;
      const double low = std::clamp(*point.low, axis_.low, axis_.high),
                   high = std::clamp(*point.high, axis_.low, axis_.high);
      if (high <= low) continue;
      svg += svg_line(x, at_y(low), x, at_y(high), colour_of(line.series), many_ ? 0.9 : 1.1,
                      many_ ? " stroke-opacity=\"0.3\"" : " stroke-opacity=\"0.5\"");
    }
    return svg;
  }

  std::string path(const PlotLine& line, double by) const {
    if (line.points.size() < 2) return "";
    std::string points;
    for (const PlotPoint& point : line.points)
      points += fmt::format("{}{:.2f},{:.2f}", points.empty() ? "" : " ", at_x(point.x) + by, at_y(point.y));
    return fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{}/>\n",
        points, colour_of(line.series), many_ ? 1.4 : 1.8, dash_of(line.series));
  }

  bool many_;
  const PlotPanel& panel_;
  double x_, y_, width_, height_;
  YAxis axis_;
  double left_log_ = 0, right_log_ = 0;
};

// Entries in the order of the series, wrapped at the plot's width, in columns where there are many. Moves `y` below
// itself.
std::string legend(const std::vector<std::string>& series, double width, double& y) {
  std::string svg;
  double x = kSide, widest_entry = 0;
  const auto entry_width = [](const std::string& label) { return 36 + svg_text_width(label, 12) + 14; };
  for (const std::string& label : series) widest_entry = std::max(widest_entry, entry_width(label));
  const double column = (width - kSide) / std::max(1.0, std::floor((width - kSide) / widest_entry));
  for (size_t i = 0; i < series.size(); ++i) {
    const double entry = series.size() > kFewSeries ? column : entry_width(series[i]);
    if (x > kSide && x + entry > width + 0.01) {
      x = kSide;
      y += 20;
    }
    svg += svg_line(x, y - 4, x + 28, y - 4, colour_of(i), 1.8, dash_of(i));
    svg += marker(i, x + 14, y - 4, false) + svg_text(x + 35, y, series[i], {12});
    x += entry;
  }
  y += 14;
  return svg;
}

double widest(const Plot& plot, double width) {
  for (const std::string& label : plot.series) width = std::max(width, 2 * kSide + 50 + svg_text_width(label, 12));
  for (const std::string& note : plot.notes) width = std::max(width, 2 * kSide + svg_text_width(note, 11) * 0.92);
  return std::max(width, 2 * kSide + svg_text_width(plot.title, 14) * 1.05);
}

}  // namespace

std::string render_svg(const Plot& plot) {
  const size_t n = plot.panels.size();
  const bool many = plot.series.size() > kFewSeries;
  const size_t columns = n <= 1 ? 1 : n == 2 || n == 4 || many ? 2 : 3;
  const double area_width = columns == 1 ? (many ? 560 : 420) : columns == 2 ? (many ? 420 : 330) : 260;
  const double area_height = columns == 1 ? (many ? 400 : 280) : columns == 2 ? (many ? 330 : 220) : 200;
  const double cell_width = kLeft + area_width + kRight, cell_height = kTop + area_height + kBottom;
  const double width = widest(plot, static_cast<double>(columns) * cell_width + kSide);
  double y = 26;
  std::string body = svg_text(kSide, y, plot.title, {14, "start", kInk, "bold"});
  y += 24;
  body += legend(plot.series, width - kSide, y);
  std::string clips;
  for (size_t i = 0; i < n; ++i) {
    const PanelDrawing drawing(plot.panels[i], static_cast<double>(i % columns) * cell_width + kLeft + 4,
                               y + static_cast<double>(i / columns) * cell_height + kTop, area_width, area_height);
    clips += drawing.clip();
    body += drawing.draw();
  }
  y += static_cast<double>((n + columns - 1) / columns) * cell_height + 14;
  for (const std::string& note : plot.notes) {
    body += svg_text(kSide, y, note, {11, "start", kPale});
    y += 15;
  }
  return svg_document(width, y, clips, body);
}

}  // namespace kvc
