// What tests ask of errors and of texts.
#pragma once

#include <gtest/gtest.h>

#include <concepts>
#include <string>

#include "harness/core/error.h"

namespace kvc {

// The message of the Error that `call` throws; "no error" where it throws none.
template <std::invocable Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// The same; an error of another kind fails the test.
template <std::invocable Call>
std::string error_of(ErrorKind kind, Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "no error";
}

// The same of a data error, which must say where and how to mend; "" where none is thrown.
template <std::invocable Call>
std::string data_error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData) << error.what();
    EXPECT_FALSE(error.where().empty() || error.mend().empty()) << error.what();
    return error.what();
  }
  return "";
}

inline size_t occurrences(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace kvc
