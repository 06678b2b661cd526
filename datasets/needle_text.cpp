#include "datasets/needle_text.h"

#include <algorithm>
#include <array>
#include <sstream>
#include <string_view>

namespace kvc {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_letter(char c) {
  return is_lower(c) || (c >= 'A' && c <= 'Z');
}

// "Mr", "J", "U.S" before a full stop at `stop`.
bool is_abbreviation(const std::string& text, size_t stop) {
  constexpr std::array<std::string_view, 19> kTitles = {"Mr",  "Mrs", "Ms",  "Dr",  "Prof", "Capt", "Lt",
                                                        "Col", "Gen", "Sgt", "Gov", "Sen",  "Rep",  "St",
                                                        "Jr",  "Sr",  "vs",  "No",  "Rev"};
  size_t begin = stop;
  while (begin > 0 && is_letter(text[begin - 1])) --begin;
  const std::string_view word(text.data() + begin, stop - begin);
  return word.size() == 1 || std::find(kTitles.begin(), kTitles.end(), word) != kTitles.end();
}

// The end of closing quotes and brackets that start at `i`: ASCII ones and the UTF-8 forms of U+2019 and U+201D.
size_t skip_closing(const std::string& text, size_t i) {
  while (i < text.size()) {
    if (text[i] == '"' || text[i] == '\'' || text[i] == ')' || text[i] == ']') {
      ++i;
    } else if (text.compare(i, 3, "\xE2\x80\x99") == 0 || text.compare(i, 3, "\xE2\x80\x9D") == 0) {
      i += 3;
    } else {
      break;
    }
  }
  return i;
}

size_t skip_space(const std::string& text, size_t i) {
  while (i < text.size() && is_space(text[i])) ++i;
  return i;
}

}  // namespace

std::vector<std::string> split_sentences(const std::string& text) {
  std::vector<std::string> sentences;
  size_t begin = 0;
  const auto cut = [&](size_t end) {
    sentences.push_back(text.substr(begin, end - begin));
    begin = end;
  };
  for (size_t i = 0; i < text.size();) {
    if (text.compare(i, 2, "\n\n") == 0) {
      i = skip_space(text, i);
      cut(i);
      continue;
    }
    const bool stop = text[i] == '.' || text[i] == '!' || text[i] == '?';
    if (!stop || (text[i] == '.' && is_abbreviation(text, i))) {
      ++i;
      continue;
    }
    const size_t closed = skip_closing(text, i + 1);
    const size_t next = skip_space(text, closed);
    const bool ends = next > closed && next < text.size() && !is_lower(text[next]);
    if (ends) cut(next);
    i = ends ? next : closed;
  }
  if (begin < text.size()) cut(text.size());
  return sentences;
}

std::vector<std::string> split_words(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && !is_space(text[end])) ++end;
    end = skip_space(text, end);
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

const std::vector<std::string>& needle_subjects() {
  static const std::vector<std::string> subjects = [] {
    std::istringstream words(
        "castle garden lighthouse violin museum harbor library bakery tower bridge forest temple orchard stable attic "
        "cellar "
        "chapel palace cottage mansion barn windmill fountain courtyard balcony corridor kitchen pantry workshop "
        "studio theater "
        "gallery market pharmacy hospital academy school college stadium arena gymnasium factory refinery warehouse "
        "depot station "
        "airport hangar runway tunnel canal dam reservoir island lagoon glacier volcano canyon desert oasis meadow "
        "valley prairie "
        "swamp cavern cliff beach reef waterfall river lake pond spring mountain summit ridge plateau village town "
        "city capital "
        "province kingdom empire embassy consulate parliament ministry treasury bank vault mint archive monastery "
        "abbey cathedral "
        "mosque pagoda shrine pyramid obelisk statue monument pavilion gazebo greenhouse vineyard brewery distillery "
        "winery tavern inn "
        "hotel hostel resort casino carousel circus zoo aquarium observatory planetarium laboratory clinic dormitory "
        "barracks fortress "
        "citadel bunker trench watchtower gatehouse drawbridge dungeon armory stockade prison courthouse firehouse "
        "lodge cabin igloo "
        "tent wagon carriage bicycle motorcycle tractor truck trolley locomotive submarine ferry yacht canoe kayak "
        "raft schooner frigate "
        "galleon airship balloon glider helicopter rocket satellite shuttle telescope microscope compass sextant "
        "barometer "
        "thermometer clock watch calendar diary notebook ledger atlas globe map scroll tablet lantern candle "
        "chandelier mirror "
        "portrait tapestry carpet curtain cushion sofa armchair bench ladder staircase elevator piano guitar trumpet "
        "flute drum harp "
        "cello clarinet accordion banjo trombone oboe bassoon xylophone painter baker gardener farmer fisherman "
        "carpenter blacksmith "
        "tailor cobbler potter weaver miller butcher");
    std::vector<std::string> list;
    for (std::string word; words >> word;) list.push_back(word);
    return list;
  }();
  return subjects;
}

const std::vector<std::string>& needle_kinds() {
  static const std::vector<std::string> kinds = {"old",  "new",   "northern", "southern", "eastern", "western",
                                                 "red",  "blue",  "green",    "white",    "large",   "small",
                                                 "lost", "quiet", "golden",   "silver"};
  return kinds;
}

}  // namespace kvc
