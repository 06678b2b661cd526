// The smallest cache of each method whose loss is certainly within a tolerance, decided document by document.
//
// Sizes of one method are tested from large to small, each only if the one before it is certified (fixed sequence), so
// that a method needs no correction for its number of sizes; the chance to be wrong is divided over the methods, and
// what a method that certified all its sizes no longer needs goes to the others (Bretz et al., "A graphical approach to
// sequentially rejective multiple test procedures", 2009). This is learn-then-test (Angelopoulos et al.,
// arXiv:2110.01052) with the evidence of loss_evidence.h for p-values, which may be looked at after every document. All
// that is certified holds at once with the confidence asked: where the first size of a method whose loss is above the
// tolerance is j, a false certificate needs evidence for j, and that it ever reaches 1 / level has at most that chance.
//
// Documents go where they decide. A (method, size) gets the next one while it is undecided; it is left when it is
// certified, decidedly outside the tolerance, out of reach of the documents that are left, behind a larger size that is
// one of these, or when its method can no longer keep less than what another has certified. What is asked about a
// document depends on the documents before it alone.
//
// With LossSettings::halving the methods also race (successive halving; Jamieson & Talwalkar, arXiv:1502.07943): of m
// methods, the better half goes on after N / 2^R, N / 2^(R-1), ..., N / 2 documents (at least 3), where 2^R >= m and N
// documents without a loss certify a method. Better: within the tolerance at a smaller size so far, then the smaller
// loss there. A method that drops out is certified no further, so that the guarantee stays as it is; its part of the
// chance to be wrong goes to nobody.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/report/document_loss.h"
#include "harness/sweep/stop_rule.h"

namespace kvc {

// A cell's {name, options...} of one kind ("method", "target", ...); null where the cell has none.
Json cell_part(const Json& cell, const char* name);

enum class CellState : std::uint8_t {
  kUndecided,
  kCertified,   // the loss is at most the tolerance, and that of all larger sizes
  kOutside,     // the loss is above the tolerance
  kOutOfReach,  // if nothing more were lost, the documents left would not certify it
  kBehind,      // a larger size of the method cannot be certified
  kDropped,     // another method has certified as little as this one could at best
  kHalved,      // other methods did better on the documents so far, and the race goes on with them
  kFailed,      // could not be measured on a document
};

// "undecided", "certified", "outside", "out_of_reach", "behind", "dropped", "halved", "failed": the word in files.
std::string_view state_name(CellState state);

struct CertifiedCell {
  RuledCell ruled;
  CellState state = CellState::kUndecided;
  std::vector<DocumentLoss> losses;
  LossEvidence evidence;
  bool reached = false;  // evidence enough, waiting for larger sizes
  std::string error;     // of kFailed
};

// One method, its sizes from large to small.
struct Chain {
  std::vector<size_t> cells;  // indices into cells()
  size_t n_certified = 0;     // of them, from the first
  double share = 0;           // of the chance to be wrong
};

enum class RuleKind : std::uint8_t {
  kCertify,  // as above
  kDecided,  // every cell by itself, left only when decidedly outside
};

// Of one task in a block. Cells without a target (full_cache, no_context) are never decided on; full_cache is what the
// others are compared with.
class Certification {
 public:
  // Only cells and documents of `block` that ask `task` count. Throws Error(kUsage) where accuracy has no full_cache.
  Certification(LossSettings settings, RuleKind kind, const RuledBlock& block, const Json& task);

  bool has(const std::string& cell_id) const { return place_.contains(cell_id); }
  void add(const Record& record);  // of a cell that it has; others are passed over
  void add(const std::string& cell_id, const std::string& document_id, DocumentScore score);
  bool wants(const std::string& cell_id, const std::string& document_id);
  Json stopped();

  // After the documents that are complete.
  const std::vector<CertifiedCell>& cells();
  const std::vector<Chain>& chains();
  double most() const { return most_; }
  int64_t n_left_out() const { return n_left_out_; }    // documents that the full cache could not be asked about
  int64_t n_documents() const { return n_documents_; }  // complete, without those
  int64_t n_all_documents() const { return static_cast<int64_t>(order_.size()); }
  std::vector<double> right_at_most() const;  // of all documents
  const LossSettings& settings() const { return settings_; }
  // For a (method, size), confidence divided by two for its sides: valid at any time of looking.
  std::pair<double, double> interval(const CertifiedCell& cell) const;
  // The loss is at most this, of all (method, size) at once.
  double bound(const CertifiedCell& cell) const;

 private:
  struct Entry {
    bool failed = false;
    std::string error;
    DocumentScore score;
  };
  struct Place {
    std::string id;
    double most = 0;                         // right at most
    std::optional<std::set<size_t>> wanted;  // once the documents before are complete
    std::map<size_t, Entry> entries;
  };

  void advance();
  bool complete(const Place& place) const;
  void take(const Place& place);
  std::set<size_t> wanted_now() const;
  const std::set<size_t>& wanted_next();
  void decide();
  void certify();
  void give_up();
  double level_at_best(const Chain& chain) const;
  bool close_chains();
  void drop_losers();
  void halve();
  LossSettings settings_;
  RuleKind kind_;
  std::vector<CertifiedCell> cells_;
  std::optional<size_t> full_;
  std::vector<Chain> chains_;
  std::map<std::string, size_t> place_;  // of a cell, by id
  std::vector<Place> order_;
  std::map<std::string, size_t> document_place_;  // by id
  std::vector<BetLogs> gains_;                    // of document i and all behind it, if nothing is lost
  size_t next_ = 0;                               // first document that is not complete
  double most_ = 0;
  int64_t n_left_out_ = 0, n_documents_ = 0;
  std::vector<int64_t> halvings_;  // after so many documents
  size_t n_halved_ = 0;            // of them
};

// What a sweep file's stop_when says, for a block with several tasks: one Certification for each task that tells a loss
// with a tolerance; cells of other tasks want every document.
struct StopSettings {
  RuleKind kind = RuleKind::kDecided;
  std::map<std::string, double> tolerance;  // by loss metric; agreement goes before kl
  double kl_bound = 2;
  double confidence = 0.95;
  bool give_up = true;
  bool halving = false;
};
std::unique_ptr<StopRule> make_stop_rule(const StopSettings& settings, const RuledBlock& block);

}  // namespace kvc
