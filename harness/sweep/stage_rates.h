// How long a sweep's stages take, from records that were measured: of earlier runs on the same hardware, or of a short
// calibration. Predicts the seconds of cells that are not measured yet.
//
// Letters: T tokens of a document's context, q questions asked of it.
//   prefill, queries, compaction: seconds grow as c T^p; p from records of two sizes, else one of each stage
//   reference: seconds per question grow as c T^p
//   ask: seconds per question = a + b * entries per head left of the document (what each step must read); caches that
//   were asked in one batch apart from those that were asked alone, where there are records of both
// Tasks that compact while they write: seconds per question of the same task, method and target, whose texts end where
// they end.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/sweep/cell.h"
#include "harness/sweep/record.h"

namespace kvc {

// Seconds of one cell on one document, what it shares with earlier cells of the same document left out.
struct CellSeconds {
  double prefill = 0, queries = 0, compaction = 0, reference = 0, ask = 0;
  double total() const { return prefill + queries + compaction + reference + ask; }
  CellSeconds& operator+=(const CellSeconds& other);
};

// One cell to be measured on one document.
struct CellWork {
  const Cell* cell = nullptr;
  std::int64_t context_tokens = 0;
  std::int64_t questions = 0;
};

class StageRates {
 public:
  // Failed records add nothing.
  void add(const Record& record);
  // A record whose asking is not typical: only its compaction counts.
  void add_compaction(const Record& record);

  bool knows_ask(const Cell& cell) const;
  bool knows_compaction(const Cell& cell) const;
  bool knows(const Cell& cell) const { return knows_ask(cell) && knows_compaction(cell); }

  // Of all cells of one document, in the order in which they are measured; what several share counts in the first.
  // A cell that is not known counts 0.
  std::vector<CellSeconds> predict(const std::vector<CellWork>& document) const;

  // Resident memory at the peak with a document of so many tokens; 0 when nothing was added.
  double peak_bytes(double tokens) const { return straight_line(peak_, tokens); }

  // Bytes of a record of the task, on average over those added.
  double record_bytes(const Cell& cell, std::int64_t questions) const;

 private:
  struct Point {
    double size, seconds;
  };
  using Points = std::vector<Point>;
  struct Mean {
    double sum = 0, n = 0;
    double value() const { return n > 0 ? sum / n : 0; }
  };

  // c T^p through the points; with points of one size p is `exponent`. Where they grow more slowly than T^slowest,
  // which is what a fixed cost does to small sizes, T^slowest through those of the largest size.
  static double power_law(const Points& points, double size, double exponent, double slowest);
  // a + b x through the points, neither below 0.
  static double straight_line(const Points& points, double x);
  // Points of a task whose caches were asked in batches, or alone; the other ones where there are none.
  const Points& ask_points(const std::string& task, bool together) const;
  // By target where it was measured, between the nearest two else.
  double own_seconds(const Cell& cell, double tokens) const;
  // A target as a share of a document of so many tokens; what has none keeps all. Targets in bytes: 1 before any record
  // of the model says how large its entries are.
  double fraction_of(const Json& model, const std::optional<TargetSize>& target, double tokens) const;
  void add_online(const Record& record);

  Points peak_;
  std::map<std::string, Points> prefill_, queries_, shared_, reference_, ask_, ask_together_;
  std::map<std::string, std::map<double, Points>> own_;  // by kept fraction
  std::map<std::string, Mean> record_bytes_;             // of a question, by task and data set
  std::map<std::string, Mean> token_bytes_;              // of the full cache, by model
  std::map<std::string, Mean> online_;                   // seconds of a question, by task, method and target
};

}  // namespace kvc
