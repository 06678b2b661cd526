#include "harness/queries/study_conversations.h"

#include <algorithm>
#include <cctype>

#include "harness/core/error.h"

namespace kvc {
namespace {

constexpr size_t kMostStarters = 5;

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

bool is_rule(const std::string& line) {
  const std::string inner = trimmed(line);
  return inner.size() >= 3 && inner.find_first_not_of('-') == std::string::npos;
}

bool is_empty(const std::string& line) {
  return trimmed(line).empty();
}

// "1. ..." or "12) ..."
bool is_numbered(const std::string& line) {
  const size_t end = line.find_first_not_of("0123456789");
  return end != 0 && end != std::string::npos && (line[end] == '.' || line[end] == ')');
}

// The pieces between the lines that `cuts` says yes to, trimmed, empty ones left out. A cutting line is dropped or
// begins the next piece.
std::vector<std::string> cut(const std::string& text, bool (*cuts)(const std::string&), bool keeps_line) {
  std::vector<std::string> pieces(1);
  for (const std::string& line : lines_of(text)) {
    const bool here = cuts(line);
    if (here) pieces.emplace_back();
    if (!here || keeps_line) pieces.back() += line + "\n";
  }
  for (std::string& piece : pieces) piece = trimmed(piece);
  std::erase(pieces, "");
  return pieces;
}

bool announces_list(const std::string& piece) {
  return piece.ends_with(':') && piece.find_first_of("\n?") == std::string::npos;
}

bool lists_options(const std::string& piece) {
  return piece.starts_with("A)") || piece.starts_with("A.");
}

// Questions and options in turn become one piece each.
void join_options(std::vector<std::string>& pieces) {
  if (pieces.size() <= kMostStarters || pieces.size() % 2 != 0) return;
  for (size_t i = 1; i < pieces.size(); i += 2) {
    if (!lists_options(pieces[i])) return;
  }
  for (size_t i = 0; i < pieces.size() / 2; ++i) pieces[i] = pieces[2 * i] + "\n\n" + pieces[2 * i + 1];
  pieces.resize(pieces.size() / 2);
}

}  // namespace

const std::vector<StudyKind>& study_kinds() {
  static const std::vector<StudyKind> kinds = {
      {"question",
       "Write one question that tests knowledge of the context. Give enough detail that it has exactly one answer. "
       "Answer with just the question.",
       true, false, true, 4096},
      {"3_question",
       "Write 3 questions that test understanding of different parts of the context. Answer with just the 3 questions "
       "and options (do not say the correct answer), each one separated with 2 newlines.",
       true, false, true, 4096},
      {"repeat", "Repeat the previous context verbatim.", false, true, false, 0},
      {"summarize", "Summarize the main points of the context.", false, false, false, 2048},
      {"summarize_backward", "Summarize the main points of the context in reverse chronological order.", false, false,
       false, 2048},
      {"structure_json",
       "Structure the information in JSON form and include all important details like dates, times, names, and "
       "numerical values.",
       false, false, false, 2048},
      {"structure_yaml",
       "Structure the information in YAML form and include all important details like dates, times, names, and "
       "numerical values.",
       false, false, false, 2048},
      {"aggregate", "Aggregate all the key facts mentioned in the context.", false, false, false, 2048},
      {"rephrase", "Rephrase the entire context from start to finish in other words.", false, false, false, 8192}};
  return kinds;
}

std::vector<std::string> study_kind_names() {
  std::vector<std::string> names;
  for (const StudyKind& kind : study_kinds()) names.push_back(kind.name);
  return names;
}

const StudyKind& study_kind(const std::string& name) {
  for (const StudyKind& kind : study_kinds()) {
    if (kind.name == name) return kind;
  }
  throw Error(ErrorKind::kInternal, "unknown conversation '" + name + "'", "self_study", "check names first");
}

std::string after_thoughts(const std::string& text, bool thought) {
  const std::string close = "</think>";
  const size_t end = text.find(close);
  if (end != std::string::npos) return trimmed(text.substr(end + close.size()));
  const std::string whole = trimmed(text);
  return thought || whole.starts_with("<think>") ? "" : whole;
}

std::vector<std::string> find_starters(const StudyKind& kind, const std::string& text, bool thought) {
  const std::string said = after_thoughts(text, thought);
  if (said.empty()) return {};
  if (kind.name == "question") return {said};
  std::vector<std::string> pieces = cut(said, is_rule, false);
  if (pieces.size() <= 1) pieces = cut(said, is_numbered, true);
  if (pieces.size() <= 1) pieces = cut(said, is_empty, false);
  if (pieces.size() > 1 && announces_list(pieces.front())) pieces.erase(pieces.begin());
  join_options(pieces);
  if (pieces.size() > kMostStarters) return {};
  return pieces;
}

}  // namespace kvc
