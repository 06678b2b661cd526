#include "harness/report/report_files.h"

#include <cctype>

#include "harness/report/heat_map.h"
#include "harness/report/plot.h"

namespace kvc {
namespace {

// Letters, digits, dots, dashes and underscores stay.
std::string file_part(const std::string& label) {
  std::string text;
  for (const char c : label)
    text += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ? c : '_';
  return text;
}

}  // namespace

Files plot_files(const Tabulated& tabulated) {
  const auto plots = plots_of(tabulated);
  Files files;
  for (const auto& [model, plot] : plots) {
    files.emplace_back(plots.size() == 1 ? "report.svg" : "report_" + file_part(model) + ".svg", render_svg(plot));
  }
  return files;
}

Files depth_files(const Tabulated& tabulated) {
  const auto maps = heat_maps_of(tabulated);
  Files files;
  for (const auto& [model, map] : maps) {
    files.emplace_back(maps.size() == 1 ? "report_depth.svg" : "report_depth_" + file_part(model) + ".svg",
                       render_heat_map(map));
  }
  return files;
}

Files head_files(const Tabulated& tabulated) {
  auto files = head_maps_of(tabulated);
  for (auto& [name, svg] : files)
    name = files.size() == 1 ? "report_heads.svg" : "report_heads_" + file_part(name) + ".svg";
  return files;
}

}  // namespace kvc
