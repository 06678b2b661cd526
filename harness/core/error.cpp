#include "harness/core/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace kvc {

Error::Error(ErrorKind kind, std::string fact, std::string where, std::string mend)
    : std::runtime_error(format_problem(fact, where, mend)),
      kind_(kind),
      fact_(std::move(fact)),
      where_(std::move(where)),
      mend_(std::move(mend)) {}

std::string format_problem(const std::string& fact, const std::string& where, const std::string& mend) {
  std::string text = fact;
  if (!where.empty()) text += "\n  where: " + where;
  if (!mend.empty()) text += "\n  mend:  " + mend;
  return text;
}

void throw_if_any(ErrorKind kind, const std::vector<Problem>& problems, const std::string& subject) {
  if (problems.empty()) return;
  if (problems.size() == 1) {
    throw Error(kind, problems[0].fact, problems[0].where, problems[0].mend);
  }
  std::string text = fmt::format("{} problems in {}", problems.size(), subject);
  for (size_t i = 0; i < problems.size(); ++i) {
    text += fmt::format("\n{}. {}", i + 1, format_problem(problems[i].fact, problems[i].where, problems[i].mend));
  }
  throw Error(kind, text, "", "");
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kData:
      return 3;
    case ErrorKind::kInternal:
      return 4;
  }
  return 4;
}

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = 2 + name.size() / 3;
  for (const std::string& candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string suggest_name(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(name, known);
  const std::string list = known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "));
  if (nearest.empty()) return "known: " + list;
  return fmt::format("did you mean '{}'? Known: {}", nearest, list);
}

}  // namespace kvc
