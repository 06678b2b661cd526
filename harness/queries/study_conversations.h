// The conversations of self-study (arXiv:2602.16284): who says what, and how the questions that the model made up are
// found in its answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvc {

// Role A makes up starters from a seed prompt, or there is one fixed starter; role B answers a starter. Both see the
// context.
struct StudyKind {
  std::string name;
  std::string prompt;       // to role A where it writes, else the starter itself
  bool made_up = false;     // role A writes the starters
  bool repeats = false;     // the answer is the article; nothing is written
  bool thinks = false;      // role B, where the model can; role A always does
  int64_t most_tokens = 0;  // that role B writes, thoughts included
};

inline constexpr int64_t kMostStarterTokens = 8192;  // that role A writes, thoughts included

const std::vector<StudyKind>& study_kinds();
std::vector<std::string> study_kind_names();
const StudyKind& study_kind(const std::string& name);  // of a name in the list

// What stands behind the first "</think>", trimmed. Without the tag the whole text, or nothing where the writer was in
// thought (`thought`, or the text opens one): what is there then is a thought that was cut off.
std::string after_thoughts(const std::string& text, bool thought);

// The starters in what role A wrote; empty where it failed. `question`: everything behind the thoughts. `3_question`:
// cut at lines of three or more dashes, else before "1." or "1)" at the beginning of a line, else at empty lines; a
// first line that only announces the list ("Here are 3 questions:") is none. More than five pieces are questions and
// their options in turn (every second one begins with "A)" or "A."), or a failure.
std::vector<std::string> find_starters(const StudyKind& kind, const std::string& text, bool thought);

}  // namespace kvc
