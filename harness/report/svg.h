// Pieces of an SVG file; text stays text.
#pragma once

#include <functional>
#include <string>

namespace kvc {

constexpr const char* kInk = "#222222";
constexpr const char* kPale = "#555555";
constexpr const char* kGrid = "#E4E4E4";

struct SvgStyle {
  double size = 12;
  const char* anchor = "start";
  const char* colour = kInk;
  const char* weight = "normal";
};

std::string svg_escaped(const std::string& text);
double svg_text_width(const std::string& text, double size);  // an upper estimate, in the unit of `size`
std::string svg_text(double x, double y, const std::string& text, const SvgStyle& style);
std::string svg_line(double x1, double y1, double x2, double y2, const std::string& colour, double width,
                     const std::string& more = "");
std::string svg_box(double x, double y, double width, double height, const std::string& fill,
                    const std::string& more = "");
// An upright bar of the colours of 0 (bottom) to 1.
std::string svg_colour_bar(double x, double y, double width, double height,
                           const std::function<std::string(double)>& colour);
std::string svg_document(double width, double height, const std::string& definitions, const std::string& body);

}  // namespace kvc
