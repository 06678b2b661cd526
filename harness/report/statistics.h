// Means with intervals. Questions of one document share its text and its cache, so they are not independent: intervals
// are clustered by document wherever there are at least two.
//   y_i value of question i, N questions, G documents, m mean, e_g = sum over document g of (y_i - m)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

enum class IntervalKind : std::uint8_t {
  kNone,        // too few values for any interval
  kDocuments,   // cluster-robust by document, t with G - 1 degrees of freedom
  kBootstrap,   // percentiles of resampled documents
  kWilson,      // share of right answers, questions taken as independent (Wilson's score interval)
  kQuestionsT,  // mean of questions taken as independent, t with N - 1 degrees of freedom
};

// "documents_t", "documents_bootstrap", "questions_wilson", "questions_t", "none": the word in report.json.
std::string_view interval_name(IntervalKind kind);

struct Interval {
  IntervalKind kind = IntervalKind::kNone;
  double low = 0;  // not clipped to the range of the metric
  double high = 0;
  double standard_error = 0;  // 0 for Wilson's, whose width does not come from one
  int64_t degrees = 0;        // of freedom; 0 where no t is used

  bool exists() const { return kind != IntervalKind::kNone; }
  double half_width() const { return (high - low) / 2; }
};

// One question's value and the document it was asked of.
struct Observation {
  std::string document;
  double value = 0;
};

struct Estimate {
  double mean = 0;
  int64_t n_questions = 0;
  int64_t n_documents = 0;
  Interval interval;   // the one to show: by document, or by question where no interval by document is possible
  Interval questions;  // by question: what the documents asked say, nothing about other documents
  Interval bootstrap;  // by document, as a check of `interval`; kNone with fewer than 2 documents
};

constexpr double kLevel = 0.95;
// With fewer documents an interval by document is wider than what it is about, and tests by document see nothing.
constexpr int64_t kFewDocuments = 5;
constexpr int64_t kBootstrapDraws = 2000;
constexpr std::uint64_t kBootstrapSeed = 20240229;

// All of the above; an empty list gives an Estimate of no questions. `share`: every value is 0 or 1. An interval by
// document is not possible with one document, nor, for a share, when all e_g are 0 (e.g. everything right): then
// `interval` is `questions`.
Estimate estimate(const std::vector<Observation>& observations, bool share);

// m = sum y / N (a ratio of sums over documents, which may have different numbers of questions);
// se^2 = G/(G-1) sum_g e_g^2 / N^2; m +- t_{G-1} se. Cameron & Miller, "A practitioner's guide to cluster-robust
// inference", 2015.
Interval clustered_interval(const std::vector<Observation>& observations);

// Whole documents drawn with replacement; percentiles of the ratio of sums, linearly interpolated. The same on every
// machine.
Interval bootstrap_interval(const std::vector<Observation>& observations, int64_t draws = kBootstrapDraws,
                            std::uint64_t seed = kBootstrapSeed);

// Wilson, 1927. `successes` of `n`, n >= 1.
Interval wilson_interval(double successes, int64_t n);

// P(T <= t) with `degrees` > 0 of freedom, and its inverse for 0 < p < 1; the inverse to a relative 1e-12.
double student_t_cdf(double t, double degrees);
double student_t_quantile(double p, double degrees);

}  // namespace kvc
