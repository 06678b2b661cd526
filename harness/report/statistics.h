// Means with 95 % intervals. Questions about one document share its text and its cache, so they are not independent:
// with kFewDocuments documents or more, intervals are clustered by document.
//   y_i value of question i, N questions, G documents, m mean, e_g = sum over document g of (y_i - m)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvc {

// What values a metric can take; its interval stays inside.
enum class MetricScale : std::uint8_t {
  kShare,            // in [0, 1]: Wilson's interval
  kPositive,         // >= 0, skewed (KL, perplexity): t on the log of the mean
  kReal,             // any number: t
  kShareDifference,  // of two shares, in [-1, 1]: t, or exact where nothing spreads
};

enum class IntervalKind : std::uint8_t {
  kNone,             // too few values for any interval
  kDocuments,        // clustered by document, t with G - 1 degrees of freedom
  kDocumentsWilson,  // Wilson's with the effective number of questions and t with G - 1 degrees of freedom
  kDocumentsLog,     // clustered by document, t on the log of the mean
  kBootstrap,        // percentiles of resampled documents
  kWilson,           // of questions taken as independent
  kQuestionsT,       // the same by t, N - 1 degrees of freedom
  kQuestionsLog,     // the same on the log of the mean
  kExact,            // Clopper-Pearson's on the changed answers
};

// "documents_t", "documents_wilson", "documents_log", "documents_bootstrap", "questions_wilson", "questions_t",
// "questions_log", "exact", "none": the word in report.json.
std::string_view interval_name(IntervalKind kind);

struct Interval {
  IntervalKind kind = IntervalKind::kNone;
  double low = 0;
  double high = 0;
  double standard_error = 0;  // of the mean, for the log kinds of its log; 0 for those that do not come from one
  int64_t degrees = 0;        // of freedom; 0 where no t is used

  bool exists() const { return kind != IntervalKind::kNone; }
  bool by_document() const {
    return kind == IntervalKind::kDocuments || kind == IntervalKind::kDocumentsWilson ||
           kind == IntervalKind::kDocumentsLog || kind == IntervalKind::kBootstrap;
  }
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
  double mean_of_documents = 0;  // of the documents' means: a document counts once, however many questions it has
  Interval interval;             // the one to show: by document, below kFewDocuments documents by question
  Interval questions;            // by question: what the documents asked say, nothing about other documents
  Interval bootstrap;            // by document, as a check of `interval`; kNone with fewer than 2 documents
  std::vector<std::pair<std::string, double>> document_means;  // below kFewDocuments documents only
};

constexpr double kLevel = 0.95;
// With fewer documents an interval by document is wider than what it is about, and tests by document see nothing.
constexpr int64_t kFewDocuments = 5;
constexpr double kNoSpread = 1e-12;  // smaller differences and standard errors are round-off
constexpr int64_t kBootstrapDraws = 2000;
constexpr std::uint64_t kBootstrapSeed = 20240229;

// All of the above; an empty list gives an Estimate of no questions.
//   kShare            Wilson with n_eff = N / max(1, design effect) for the number of questions and t(G-1) for z; the
//                     design effect is se^2 / (m (1 - m) / N), 1 where m is 0 or 1
//   kPositive         m exp(+- t se / m); none where every value is 0
//   kReal             m +- t se
//   kShareDifference  the same, cut off at -1 and 1; where se is 0, exact_difference_interval
// with se and t as in clustered_interval. By question, each question stands for a document (Wilson's z is then normal).
Estimate estimate(const std::vector<Observation>& observations, MetricScale scale);

// m = sum y / N (a ratio of sums over documents, which may have different numbers of questions);
// se^2 = G/(G-1) sum_g e_g^2 / N^2; m +- t_{G-1} se. Cameron & Miller, "A practitioner's guide to cluster-robust
// inference", 2015. kNone with one document.
Interval clustered_interval(const std::vector<Observation>& observations);

// Whole documents drawn with replacement; percentiles of the ratio of sums, linearly interpolated. The same on every
// machine.
Interval bootstrap_interval(const std::vector<Observation>& observations, int64_t draws = kBootstrapDraws,
                            std::uint64_t seed = kBootstrapSeed);

// Wilson, 1927. `successes` of `n`, n >= 1.
Interval wilson_interval(double successes, int64_t n);

// Both ends of Clopper and Pearson's (1934) exact interval of a share: `successes` of `n` at `level`.
std::pair<double, double> clopper_pearson(int64_t successes, int64_t n, double level);

// Of the mean of `n` differences of shares, `wins` above 0 and `losses` below. None changed: +- (1 - 0.05^(1/n)), since
// the mean is no further from 0 than the share of answers that change, and (1 - share)^n is the chance to see none (the
// rule of three). Otherwise the ends of two Clopper-Pearson intervals of 97.5 %. `binary`: every difference is -1,
// 0, 1.
Interval exact_difference_interval(int64_t wins, int64_t losses, int64_t n, bool binary);

// P(T <= t) with `degrees` > 0 of freedom, and its inverse for 0 < p < 1.
double student_t_cdf(double t, double degrees);
double student_t_quantile(double p, double degrees);

}  // namespace kvc
