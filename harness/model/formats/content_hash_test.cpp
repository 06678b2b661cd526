#include "harness/model/formats/content_hash.h"

#include <gtest/gtest.h>

#include <utility>

namespace kvc {
namespace {

TEST(ContentHash, SeesEveryByteAndTheLength) {
  std::string text(3'000'001, 'a');
  const auto hash = [&] { return content_hash(std::as_bytes(std::span(text))); };
  const std::string first = hash();
  EXPECT_EQ(first.size(), 16U);
  EXPECT_EQ(hash(), first);
  for (const size_t at : {0UL, 7UL, 1UL << 20, 2'999'999UL, 3'000'000UL}) {
    text[at] = 'b';
    EXPECT_NE(hash(), first) << at;
    text[at] = 'a';
  }
  std::swap(text[5], text[6]);
  EXPECT_EQ(hash(), first);
  text += '\0';
  EXPECT_NE(hash(), first);
  EXPECT_EQ(content_hash({}).size(), 16U);
}

}  // namespace
}  // namespace kvc
