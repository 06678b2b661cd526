// Why a question that the full cache answers right is answered wrong by a compact one: a line of
// explanations/flips.jsonl in a results folder. No tensors: reports read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

// A piece of the document. UTF-8; what a token cuts out of a character is U+FFFD.
struct TextPiece {
  int64_t first_token = 0, n_tokens = 0;  // of the document as the model reads it
  int64_t first_byte = 0, n_bytes = 0;    // of the text of those tokens
  std::string text, before, after;        // the words, and a few tokens around them
};

// One KV head, on the tokens of the prompt's end and of the full cache's reply; means over them and over the query
// heads of the group.
struct HeadReading {
  int64_t layer = 0, kv_head = 0;
  double weight_full = 0;     // attention weight on the pieces, full cache
  double weight_compact = 0;  // on the entries that came from them, compact cache
  double mass_error = 0;      // log mass of the compact head less that of the full one, nats
  double output_error = 0;    // ||compact - full||_F / ||full||_F of the head's output
};

// How firmly the full cache gives its answer. Margin: how much likelier, in nats, its answer is than the other reply;
// of written replies the first token in which the two differ, of scored options the mean over tokens.
struct TieFacts {
  double noise = 0;                        // relative size of the noise on the full cache's keys and values
  int64_t draws = 0, right = 0;            // draws, and how many of them still gave the right answer
  std::optional<double> margin_full;       // nothing where the replies cannot be compared token by token
  std::optional<double> margin_compact;    // below 0: the other reply is the likelier one
  std::optional<double> margin_deviation;  // standard deviation of the margin over the draws, around margin_full
  bool near_tie = false;
};

// Causes, in the order of reports.
inline constexpr const char* kEvicted = "evicted";
inline constexpr const char* kUnreachable = "unreachable";
inline constexpr const char* kUnused = "unused";
inline constexpr const char* kUnexplained = "unexplained";
inline constexpr const char* kNotReproduced = "not reproduced";
const std::vector<std::string>& known_causes();

struct Explanation {
  static constexpr int kVersion = 1;

  std::string cell_id, document_id, question_id;
  std::string answers;   // hash of the two answers that are compared, and of the settings
  std::string cause;     // one of known_causes()
  std::string repair;    // unreachable: what mends it; evicted: what is needed besides the text; else empty
  std::string sentence;  // the finding in words
  // The smallest text that mends it, widened to whole words: restored (evicted) or repaired (unreachable). Empty for
  // other causes.
  std::vector<TextPiece> pieces;
  bool pieces_finished = true;  // false: the limit of tests ended the search
  bool pieces_needed = true;    // false: all the rest of the document mends it too
  double kept_share = 0;        // share of the pieces' entries, over all heads, that the compact cache kept
  std::vector<HeadReading> heads;
  TieFacts tie;
  std::vector<std::string> assumed;  // what had to be assumed of this cache
  std::string full_reply, compact_reply;
  int64_t asks = 0;  // times the question was asked
  double seconds = 0;

  Json to_json() const;
  // Throws Error(kData) naming the field.
  static Explanation from_json(const Json& json, const std::string& where);
};

// "results/x" -> its file of explanations.
std::string explanations_file(const std::string& results_folder);
// One for each question of each cell, the last one of those on disk. A line that is no explanation is left out and
// named in `warnings`. No file: none.
std::vector<Explanation> load_explanations(const std::string& results_folder, std::vector<std::string>& warnings);

}  // namespace kvc
