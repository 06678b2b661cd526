// Errors for people: what went wrong, where, and how to mend it. The kind decides the exit code.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

enum class ErrorKind : std::uint8_t {
  kUsage,     // command line or config file; exit code 2
  kData,      // weights, tokenizers, data sets, caches, result files; exit code 3
  kInternal,  // a promise of our own code is broken; exit code 4
};

// The only exception this project throws on purpose. what() is the three parts as printed:
//   unknown option 'n_sinks'
//     where: configs/demo.yaml:7, method[0]
//     mend:  did you mean 'n_sink'? Known: n_sink
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string fact, std::string where, std::string mend);

  ErrorKind kind() const { return kind_; }
  const std::string& fact() const { return fact_; }
  const std::string& where() const { return where_; }
  const std::string& mend() const { return mend_; }

 private:
  ErrorKind kind_;
  std::string fact_;
  std::string where_;
  std::string mend_;
};

// One thing wrong in a file of which all problems are reported at once.
struct Problem {
  std::string fact;
  std::string where;
  std::string mend;
};

// "fact\n  where: ...\n  mend:  ..."; empty parts are left out.
std::string format_problem(const std::string& fact, const std::string& where, const std::string& mend);

// Throws Error of `kind` when `problems` is not empty: a single problem as it is, several as a
// numbered list whose first line is "N problems in SUBJECT".
void throw_if_any(ErrorKind kind, const std::vector<Problem>& problems, const std::string& subject);

int exit_code(ErrorKind kind);

// The known name closest to `name` by edit distance, or "" when none is close (distance > 1 + length/3).
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

// "did you mean 'X'? Known: A, B, X", or "known: A, B, X" when nothing is close.
std::string suggest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace kvc
