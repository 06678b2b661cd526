#include "harness/report/loss_evidence.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace kvc {
namespace {

template <size_t n>
double log_sum_exp(const std::array<double, n>& logs) {
  const double most = *std::max_element(logs.begin(), logs.end());
  if (std::isinf(most)) return most;
  double sum = 0;
  for (const double log : logs) sum += std::exp(log - most);
  return most + std::log(sum);
}

// Where `holds` turns from false (at low) to true (at high), to 1e-7 of the span; on the side where it holds.
double turning_point(double low, double high, const std::function<bool(double)>& holds) {
  for (int i = 0; i < 24; ++i) {
    const double middle = (low + high) / 2;
    (holds(middle) ? high : low) = middle;
  }
  return high;
}

constexpr double kLeast = 1e-6;  // tolerances looked at lie between this and 1 less this

}  // namespace

BetLogs lossless_gains(double tolerance, const std::vector<double>& right, double most) {
  BetLogs logs{};
  for (const double n : right) {
    for (size_t i = 0; i < kNBets; ++i) logs[i] += std::log1p(kBets[i] * tolerance * n / most / (1 - tolerance));
  }
  return logs;
}

LossEvidence::LossEvidence(double tolerance, double most) : tolerance_(tolerance), most_(most) {
  for (size_t i = 0; i < kNBets; ++i) inside_logs_[i] = std::log(kStakes[i]);
  outside_logs_.fill(-std::log(static_cast<double>(kNOutsideBets)));
}

void LossEvidence::add(const DocumentLoss& document) {
  add_inside(document);
  add_outside(document);
  ++n_;
}

void LossEvidence::add_inside(const DocumentLoss& document) {
  const double z = (document.lost - tolerance_ * document.right) / most_;
  for (size_t i = 0; i < kNBets; ++i) inside_logs_[i] += std::log1p(std::max(-1.0, -kBets[i] * z / (1 - tolerance_)));
  inside_ = std::max(inside_, log_sum_exp(inside_logs_));
}

void LossEvidence::add_outside(const DocumentLoss& document) {
  const double z = (document.lost - tolerance_ * document.right) / most_;
  for (size_t i = 0; i < kNOutsideBets; ++i) outside_logs_[i] += std::log1p(kOutsideBets[i] * z / tolerance_);
  outside_ = std::max(outside_, log_sum_exp(outside_logs_));
}

double LossEvidence::reachable(const BetLogs& gains) const {
  BetLogs logs = inside_logs_;
  for (size_t i = 0; i < kNBets; ++i) logs[i] += gains[i];
  return std::max(inside_, log_sum_exp(logs));
}

double loss_upper_bound(const std::vector<DocumentLoss>& documents, double most, double level) {
  const auto shown = [&](double tolerance) {
    LossEvidence evidence(tolerance, most);
    for (const DocumentLoss& document : documents) evidence.add_inside(document);
    return evidence.inside() >= std::log(1 / level);
  };
  return shown(1 - kLeast) ? turning_point(kLeast, 1 - kLeast, shown) : 1;
}

double loss_lower_bound(const std::vector<DocumentLoss>& documents, double most, double level) {
  const auto shown = [&](double below) {
    LossEvidence evidence(1 - below, most);
    for (const DocumentLoss& document : documents) evidence.add_outside(document);
    return evidence.outside() >= std::log(1 / level);
  };
  return shown(1 - kLeast) ? 1 - turning_point(kLeast, 1 - kLeast, shown) : 0;
}

std::optional<double> measured_loss(const std::vector<DocumentLoss>& documents) {
  double lost = 0, right = 0;
  for (const DocumentLoss& document : documents) {
    lost += document.lost;
    right += document.right;
  }
  return right > 0 ? std::optional(lost / right) : std::nullopt;
}

bool can_certify(double tolerance, const std::vector<double>& right, double most, double level) {
  return LossEvidence(tolerance, most).reachable(lossless_gains(tolerance, right, most)) >= std::log(1 / level);
}

double smallest_tolerance(const std::vector<double>& right, double most, double level) {
  const auto can = [&](double tolerance) { return can_certify(tolerance, right, most, level); };
  return can(1 - kLeast) ? turning_point(kLeast, 1 - kLeast, can) : 1;
}

int64_t lossless_documents(double tolerance, double part, double level) {
  const BetLogs gain = lossless_gains(tolerance, {part}, 1);
  const auto enough = [&](int64_t n) {
    BetLogs logs;
    for (size_t i = 0; i < kNBets; ++i) logs[i] = std::log(kStakes[i]) + static_cast<double>(n) * gain[i];
    return log_sum_exp(logs) >= std::log(1 / level);
  };
  int64_t high = 1;
  while (!enough(high)) high *= 2;
  int64_t low = high / 2;
  while (high - low > 1) (enough((low + high) / 2) ? high : low) = (low + high) / 2;
  return high;
}

std::optional<int64_t> more_documents(const std::vector<DocumentLoss>& documents, double tolerance, double most,
                                      double level) {
  const double enough = std::log(1 / level);
  LossEvidence now(tolerance, most);
  for (const DocumentLoss& document : documents) now.add(document);
  if (now.inside() >= enough) return 0;
  if (documents.empty()) return std::nullopt;
  BetLogs sums{};
  for (const DocumentLoss& document : documents) {
    const double z = (document.lost - tolerance * document.right) / most;
    for (size_t i = 0; i < kNBets; ++i) sums[i] += std::log1p(std::max(-1.0, -kBets[i] * z / (1 - tolerance)));
  }
  if (*std::max_element(sums.begin(), sums.end()) <= 0) return std::nullopt;
  const auto n = static_cast<double>(documents.size());
  const auto shown = [&](double all) {
    BetLogs logs;
    for (size_t i = 0; i < kNBets; ++i) logs[i] = std::log(kStakes[i]) + sums[i] * all / n;
    return log_sum_exp(logs) >= enough;
  };
  double all = 2 * n;
  while (!shown(all) && all < 1e9) all *= 2;
  const double needed = turning_point(n, all, shown);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(needed - n - 1e-6)));
}

}  // namespace kvc
