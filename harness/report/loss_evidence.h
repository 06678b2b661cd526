// How sure it is, document by document, that a compact cache loses at most a tolerated share of what the full cache
// has. Valid whenever one looks and stops.
//
// A document gives a pair: right, how much the full cache has there (questions answered right, tokens, questions), and
// lost, how much of that the compact cache loses; 0 <= lost <= right <= most, `most` known before measuring. The loss
// of a method is E[lost] / E[right] over documents like these. For a tolerance a, z = (lost - a right) / most lies in
// [-a, 1 - a], and the loss is above a exactly where E[z] > 0.
//
// Evidence is the wealth of a gambler who bets against that claim (testing by betting, Waudby-Smith & Ramdas,
// "Estimating means of bounded random variables by betting", arXiv:2010.09686): product over documents of
// (1 - b z / (1 - a)) for a bet 0 <= b <= 1, and a fixed mixture of such products over kBets. Where the loss is a or
// more its expectation never exceeds 1, so the chance that it ever reaches 1 / d is at most d (Ville's inequality),
// however many documents are measured and whatever makes one stop. The other way round, with z / a in place of
// -z / (1 - a), the same wealth is evidence that the loss is above a. Documents must be exchangeable: drawn from one
// source, measured in random order. Questions of one document may depend on each other in any way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace kvc {

struct DocumentLoss {
  double lost = 0;
  double right = 0;
};

// Parts of the greatest bet, and the share of the stake on each. With half of it on 1 a loss of nothing is certain
// soon: after 328 documents for 1 % at 95 %, where an exact test of a number of documents fixed beforehand needs 299.
constexpr size_t kNBets = 7;
constexpr std::array<double, kNBets> kBets = {1, 0.95, 0.85, 0.7, 0.5, 0.3, 0.15};
constexpr std::array<double, kNBets> kStakes = {0.5, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05};
// Against the tolerance: heavy losses are found with large bets, losses just above it with small ones.
constexpr size_t kNOutsideBets = 6;
constexpr std::array<double, kNOutsideBets> kOutsideBets = {0.8, 0.5, 0.25, 0.1, 0.05, 0.02};

using BetLogs = std::array<double, kNBets>;  // of each bet's part of the wealth

// What each bet gains on documents with so much right, none of it lost: logs.
BetLogs lossless_gains(double tolerance, const std::vector<double>& right, double most);

// The evidence of one (method, size), both ways.
class LossEvidence {
 public:
  // 0 < tolerance < 1, most > 0.
  LossEvidence(double tolerance, double most);

  void add(const DocumentLoss& document);
  void add_inside(const DocumentLoss& document);  // the one or the other alone, for who asks for one side only
  void add_outside(const DocumentLoss& document);

  // Natural logs of the largest wealth so far; 0 before the first document. The loss is at most (above) the tolerance
  // with confidence 1 - d where it is at least log(1 / d).
  double inside() const { return inside_; }
  double outside() const { return outside_; }
  // What inside() becomes at best: after further documents of which nothing is lost, with these gains.
  double reachable(const BetLogs& gains) const;

  int64_t n_documents() const { return n_; }

 private:
  double tolerance_, most_;
  std::array<double, kNBets> inside_logs_;  // of each bet's part of the wealth
  std::array<double, kNOutsideBets> outside_logs_;
  double inside_ = 0, outside_ = 0;
  int64_t n_ = 0;
};

// The loss is below the upper (above the lower) bound with confidence 1 - level, at any time of looking: the largest
// (smallest) tolerance for which the evidence against it never reached 1 / level. 1 and 0 where nothing can be said.
double loss_upper_bound(const std::vector<DocumentLoss>& documents, double most, double level);
double loss_lower_bound(const std::vector<DocumentLoss>& documents, double most, double level);

// sum lost / sum right; nothing where nothing was right.
std::optional<double> measured_loss(const std::vector<DocumentLoss>& documents);

// Before measuring: whether documents with so much right could show a loss below the tolerance if nothing were lost,
// and the smallest tolerance that they could show. 1: none.
bool can_certify(double tolerance, const std::vector<double>& right, double most, double level);
double smallest_tolerance(const std::vector<double>& right, double most, double level);

// How many documents without a loss are needed, each with `right` = `part` of `most`.
int64_t lossless_documents(double tolerance, double part, double level);

// How many more documents like these (the same losses over and over) make it certain that the loss is at most the
// tolerance; 0 where they have, nothing where none would.
std::optional<int64_t> more_documents(const std::vector<DocumentLoss>& documents, double tolerance, double most,
                                      double level);

}  // namespace kvc
