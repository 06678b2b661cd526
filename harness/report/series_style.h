// Which methods of a report are drawn in colour, and how: the same method looks the same from one report to the next.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

struct SeriesStyle {
  int colour = -1;  // index into kSeriesColours; -1: grey
  int marker = 0;   // 0 to 7
};

// Okabe & Ito, "Color Universal Design", 2008, without its yellow (too pale for a line on white), and a violet.
inline constexpr const char* kSeriesColours[] = {"#0072B2", "#D55E00", "#009E73", "#B8578F",
                                                 "#C98A00", "#3A9FD8", "#111111", "#7A5FB5"};
constexpr int kNSeriesColours = 8;
constexpr const char* kSeriesGrey = "#9AA1A9";

// At most this many methods are coloured; a report of no more methods than kAllColoured has no grey line.
constexpr size_t kColoured = 6;
constexpr size_t kAllColoured = 8;

// Rows of methods by Row::label(), best first: mean over the tables of a method's rank by its mean over targets.
std::vector<std::string> methods_by_rank(const Tabulated& tabulated);

// By Row::label(). The colour and the marker follow from the name; where two of the coloured share a colour, the one
// that ranks lower takes the next free one. No two of the first kNSeriesColours have the same colour. `coloured`:
// labels to colour instead of the best.
std::map<std::string, SeriesStyle> series_styles(const Tabulated& tabulated,
                                                 const std::vector<std::string>& coloured = {});

}  // namespace kvc
