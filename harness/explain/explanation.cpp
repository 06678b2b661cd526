#include "harness/explain/explanation.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "harness/core/count.h"
#include "harness/core/json_lines.h"

namespace kvc {
namespace {

// Checked access to the fields of a line.
class Line {
 public:
  Line(const Json& json, const std::string& where) : json_(json), where_(where) {
    if (!json.is_object()) fail("an explanation must be an object");
  }
  std::string text(const char* name) const {
    const Json& value = at(name);
    if (!value.is_string()) fail(fmt::format("field '{}' must be a text", name));
    return value.get<std::string>();
  }
  double number(const char* name) const {
    const Json& value = at(name);
    if (!value.is_number()) fail(fmt::format("field '{}' must be a number", name));
    return value.get<double>();
  }
  std::optional<double> optional_number(const char* name) const {
    return at(name).is_null() ? std::nullopt : std::optional(number(name));
  }
  int64_t integer(const char* name) const {
    const Json& value = at(name);
    if (!value.is_number_integer() || value.get<int64_t>() < 0)
      fail(fmt::format("field '{}' must be a whole number from 0", name));
    return value.get<int64_t>();
  }
  bool flag(const char* name) const {
    const Json& value = at(name);
    if (!value.is_boolean()) fail(fmt::format("field '{}' must be true or false", name));
    return value.get<bool>();
  }
  std::vector<Line> list(const char* name) const {
    const Json& value = at(name);
    if (!value.is_array()) fail(fmt::format("field '{}' must be a list", name));
    std::vector<Line> lines;
    for (const Json& item : value) lines.emplace_back(item, where_);
    return lines;
  }
  Line part(const char* name) const { return {at(name), where_}; }
  std::vector<std::string> texts(const char* name) const {
    const Json& value = at(name);
    const auto is_text = [](const Json& item) { return item.is_string(); };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text))
      fail(fmt::format("field '{}' must be a list of texts", name));
    return value.get<std::vector<std::string>>();
  }
  [[noreturn]] void fail(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, where_, "delete the line and run kvc explain again");
  }

 private:
  const Json& at(const char* name) const {
    const auto found = json_.find(name);
    if (found == json_.end()) fail(fmt::format("field '{}' is missing", name));
    return *found;
  }

  const Json& json_;
  std::string where_;
};

Json number_or_null(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json pieces_json(const std::vector<TextPiece>& pieces) {
  Json list = Json::array();
  for (const TextPiece& piece : pieces) {
    list.push_back({{"first_token", piece.first_token},
                    {"n_tokens", piece.n_tokens},
                    {"first_byte", piece.first_byte},
                    {"n_bytes", piece.n_bytes},
                    {"text", piece.text},
                    {"before", piece.before},
                    {"after", piece.after}});
  }
  return list;
}

Json heads_json(const std::vector<HeadReading>& heads) {
  Json list = Json::array();
  for (const HeadReading& head : heads) {
    list.push_back({{"layer", head.layer},
                    {"kv_head", head.kv_head},
                    {"weight_full", head.weight_full},
                    {"weight_compact", head.weight_compact},
                    {"mass_error", head.mass_error},
                    {"output_error", head.output_error}});
  }
  return list;
}

Json tie_json(const TieFacts& tie) {
  return {{"noise", tie.noise},
          {"draws", tie.draws},
          {"right", tie.right},
          {"margin_full", number_or_null(tie.margin_full)},
          {"margin_compact", number_or_null(tie.margin_compact)},
          {"margin_deviation", number_or_null(tie.margin_deviation)},
          {"near_tie", tie.near_tie}};
}

}  // namespace

const std::vector<std::string>& known_causes() {
  static const std::vector<std::string> causes = {kEvicted, kUnreachable, kUnused, kUnexplained, kNotReproduced};
  return causes;
}

Json Explanation::to_json() const {
  return {{"version", kVersion},
          {"cell_id", cell_id},
          {"document_id", document_id},
          {"question_id", question_id},
          {"answers", answers},
          {"cause", cause},
          {"repair", repair},
          {"sentence", sentence},
          {"pieces", pieces_json(pieces)},
          {"pieces_finished", pieces_finished},
          {"pieces_needed", pieces_needed},
          {"kept_share", kept_share},
          {"heads", heads_json(heads)},
          {"tie", tie_json(tie)},
          {"assumed", assumed},
          {"full_reply", full_reply},
          {"compact_reply", compact_reply},
          {"asks", asks},
          {"seconds", seconds}};
}

Explanation Explanation::from_json(const Json& json, const std::string& where) {
  const Line line(json, where);
  if (line.integer("version") != kVersion) {
    line.fail(fmt::format("the explanation has version {}, but this program reads version {}", line.integer("version"),
                          kVersion));
  }
  Explanation e;
  e.cell_id = line.text("cell_id");
  e.document_id = line.text("document_id");
  e.question_id = line.text("question_id");
  e.answers = line.text("answers");
  e.cause = line.text("cause");
  const std::vector<std::string>& causes = known_causes();
  if (std::find(causes.begin(), causes.end(), e.cause) == causes.end()) line.fail("unknown cause '" + e.cause + "'");
  e.repair = line.text("repair");
  e.sentence = line.text("sentence");
  for (const Line& piece : line.list("pieces")) {
    e.pieces.push_back({piece.integer("first_token"), piece.integer("n_tokens"), piece.integer("first_byte"),
                        piece.integer("n_bytes"), piece.text("text"), piece.text("before"), piece.text("after")});
  }
  e.pieces_finished = line.flag("pieces_finished");
  e.pieces_needed = line.flag("pieces_needed");
  e.kept_share = line.number("kept_share");
  for (const Line& head : line.list("heads")) {
    e.heads.push_back({head.integer("layer"), head.integer("kv_head"), head.number("weight_full"),
                       head.number("weight_compact"), head.number("mass_error"), head.number("output_error")});
  }
  const Line tie = line.part("tie");
  e.tie = {tie.number("noise"),
           tie.integer("draws"),
           tie.integer("right"),
           tie.optional_number("margin_full"),
           tie.optional_number("margin_compact"),
           tie.optional_number("margin_deviation"),
           tie.flag("near_tie")};
  e.assumed = line.texts("assumed");
  e.full_reply = line.text("full_reply");
  e.compact_reply = line.text("compact_reply");
  e.asks = line.integer("asks");
  e.seconds = line.number("seconds");
  return e;
}

std::string explanations_file(const std::string& results_folder) {
  return results_folder + "/explanations/flips.jsonl";
}

std::vector<Explanation> load_explanations(const std::string& results_folder, std::vector<std::string>& warnings) {
  const std::string path = explanations_file(results_folder);
  const JsonLines lines = read_json_lines(path);
  std::vector<Explanation> list;
  std::map<std::tuple<std::string, std::string, std::string>, size_t> places;
  for (size_t i = 0; i < lines.values.size(); ++i) {
    try {
      Explanation one = Explanation::from_json(lines.values[i], fmt::format("{}, explanation {}", path, i + 1));
      const auto [place, is_new] =
          places.emplace(std::tuple(one.cell_id, one.document_id, one.question_id), list.size());
      if (is_new)
        list.push_back(std::move(one));
      else
        list[place->second] = std::move(one);
    } catch (const Error& error) {
      warnings.push_back(fmt::format("{}: {}; left out", error.where(), error.fact()));
    }
  }
  if (!lines.broken_lines.empty())
    warnings.push_back(
        fmt::format("{}: {} not valid JSON; left out", path, count(std::ssize(lines.broken_lines), "line")));
  return list;
}

}  // namespace kvc
