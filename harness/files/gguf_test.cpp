#include "harness/files/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9, kUint64 = 10;

// Little-endian bytes, one value after the other.
class Bytes {
 public:
  template <class T>
  Bytes& add(T value) {
    const auto at = text_.size();
    text_.resize(at + sizeof(T));
    std::memcpy(text_.data() + at, &value, sizeof(T));
    return *this;
  }
  Bytes& str(const std::string& text) {
    add<uint64_t>(text.size());
    text_ += text;
    return *this;
  }
  Bytes& raw(const std::string& text) {
    text_ += text;
    return *this;
  }
  Bytes& pad_to(size_t alignment) {
    while (text_.size() % alignment != 0) text_ += '\0';
    return *this;
  }
  Bytes& start(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return raw("GGUF").add(version).add(tensors).add(keys);
  }
  Bytes& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    str(name).add<uint32_t>(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) add(dim);
    return add(type).add(offset);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

class GgufTest : public testing::Test {
 protected:
  ~GgufTest() override { std::filesystem::remove(path_); }

  std::string write(const std::string& text) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << text;
    return path_;
  }
  // What the reader says about a file of these bytes; "" when it takes them.
  std::string error_of(const std::string& text) const {
    write(text);
    return data_error_of([&] { GgufFile file(path_); });
  }

  std::string path_ =
      (std::filesystem::temp_directory_path() / ("kvc_gguf_test_" + std::to_string(::getpid()) + ".gguf")).string();
};

// The stored numbers of a float32 tensor.
std::vector<float> floats_of(const StoredTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(float));
  return values;
}

std::string small_file(uint32_t version = 3) {
  Bytes bytes;
  bytes.start(2, 7, version);
  bytes.str("general.architecture").add(kString).str("llama");
  bytes.str("n").add(kUint32).add<uint32_t>(30);
  bytes.str("big").add(kUint64).add(std::numeric_limits<uint64_t>::max());
  bytes.str("eps").add(kFloat32).add(0.5F);
  bytes.str("flag").add(kBool).add<uint8_t>(1);
  bytes.str("words").add(kArray).add(kString).add<uint64_t>(2).str("a").str("bc");
  bytes.str("ints").add(kArray).add(kInt32).add<uint64_t>(2).add<int32_t>(-7).add<int32_t>(8);
  bytes.tensor("x", {3, 2}, 0, 0).tensor("y", {2}, 0, 32);
  bytes.pad_to(32);
  for (const float v : {1.F, 2.F, 3.F, 4.F, 5.F, 6.F, 0.F, 0.F, 7.F, 8.F}) bytes.add(v);
  return bytes.text();
}

TEST_F(GgufTest, ReadsMetadataAndTensors) {
  for (const uint32_t version : {2U, 3U}) {
    const GgufFile file(write(small_file(version)));
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.string("general.architecture"), "llama");
    EXPECT_EQ(file.integer("n"), 30);
    EXPECT_EQ(file.number("n"), 30.0);
    EXPECT_EQ(file.number("eps"), 0.5);
    EXPECT_TRUE(file.boolean("flag"));
    EXPECT_THAT(file.strings("words"), ElementsAre("a", "bc"));
    EXPECT_THAT(file.integers("ints"), ElementsAre(-7, 8));
    EXPECT_THAT(file.numbers("ints"), ElementsAre(-7.0, 8.0));
    EXPECT_EQ(file.find_integer("absent"), std::nullopt);
    EXPECT_THAT(file.keys(), ElementsAre("big", "eps", "flag", "general.architecture", "ints", "n", "words"));
    ASSERT_EQ(file.tensors().size(), 2U);
    EXPECT_THAT(file.find_tensor("x")->shape, ElementsAre(2, 3));
    EXPECT_EQ(file.find_tensor("z"), nullptr);
    EXPECT_THAT(floats_of(*file.find_tensor("x")), ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_THAT(floats_of(*file.find_tensor("y")), ElementsAre(7, 8));
  }
}

TEST_F(GgufTest, GettersNameMissingKeysAndWrongTypes) {
  const GgufFile file(write(small_file()));
  EXPECT_THAT(data_error_of([&] { file.string("tokenizer.ggml.model"); }),
              HasSubstr("metadata key 'tokenizer.ggml.model' is missing"));
  EXPECT_THAT(data_error_of([&] { file.string("n"); }),
              HasSubstr("metadata key 'n' is uint32 where a string is needed"));
  EXPECT_THAT(data_error_of([&] { file.integer("eps"); }),
              HasSubstr("metadata key 'eps' is float32 where an integer is needed"));
  EXPECT_THAT(data_error_of([&] { file.find_integer("ints"); }),
              HasSubstr("'ints' is an array of int32 where an integer is needed"));
  EXPECT_THAT(data_error_of([&] { file.strings("ints"); }),
              HasSubstr("'ints' is an array of int32 where an array of strings is needed"));
  EXPECT_THAT(data_error_of([&] { file.integer("big"); }),
              HasSubstr("metadata key 'big' holds 18446744073709551615, more than 2^63 - 1"));
}

TEST_F(GgufTest, EveryTruncationIsAnError) {
  const std::string whole = small_file();
  EXPECT_EQ(error_of(whole), "");
  for (size_t size = 1; size < whole.size(); ++size) {
    const std::string error = error_of(whole.substr(0, size));
    EXPECT_THAT(error, testing::AnyOf(HasSubstr("truncated"), HasSubstr("not a GGUF file"))) << "cut at " << size;
  }
  EXPECT_THAT(error_of(whole.substr(0, whole.size() - 1)),
              HasSubstr("the file is truncated: tensor 'y' ends at byte " + std::to_string(whole.size()) + " of " +
                        std::to_string(whole.size() - 1)));
  EXPECT_THAT(error_of(""), HasSubstr("the file is empty"));
}

// Any single changed byte of a header is read without a crash; what is taken has tensors inside the file.
TEST_F(GgufTest, EveryFlippedByteIsAnErrorOrAFileWithinItsBounds) {
  const std::string whole = small_file();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned char flip : {0x01, 0x80, 0xff}) {
      std::string text = whole;
      text[at] = static_cast<char>(text[at] ^ flip);
      write(text);
      try {
        const GgufFile file(path_);
        for (const GgufTensor& tensor : file.tensors()) {
          EXPECT_GE(tensor.bytes.data(), file.bytes().data());
          EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), file.bytes().data() + file.bytes().size());
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kData);
      }
    }
  }
}

TEST_F(GgufTest, RefusesOtherFiles) {
  EXPECT_THAT(data_error_of([] { GgufFile file("/no/such/model.gguf"); }),
              HasSubstr("cannot open the file: No such file"));
  EXPECT_THAT(data_error_of([] { GgufFile file(std::filesystem::temp_directory_path().string()); }),
              HasSubstr("not a regular file"));
  EXPECT_THAT(error_of("version https://git-lfs.github.com/spec/v1\n"),
              AllOf(HasSubstr("Git LFS pointer"), HasSubstr("git lfs pull")));
  EXPECT_THAT(error_of("<!DOCTYPE html>"), HasSubstr("a web page"));
  EXPECT_THAT(error_of(Bytes().add<uint64_t>(100).raw("{\"__metadata__\"").text()), HasSubstr("safetensors"));
  EXPECT_THAT(error_of("hello, world"), HasSubstr("starts with 'hell' instead of 'GGUF'"));
  EXPECT_THAT(error_of(std::string("\x01\x02\x03\x04", 4)), HasSubstr("starts with '\\x01\\x02\\x03\\x04'"));
  EXPECT_THAT(error_of("\xff\xfe"
                       "ab"),
              HasSubstr("starts with '\\xff\\xfe"
                        "ab'"));
  EXPECT_THAT(error_of(Bytes().start(0, 0, 0x03000000).text()), HasSubstr("big-endian GGUF file (version 3)"));
  EXPECT_THAT(error_of(Bytes().start(0, 0, 1).text()), HasSubstr("GGUF version 1; versions 2 and 3 are read"));
  EXPECT_THAT(error_of(Bytes().start(0, 0, 4).text()), HasSubstr("GGUF version 4"));
}

TEST_F(GgufTest, RefusesHostileMetadata) {
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  EXPECT_THAT(error_of(Bytes().start(huge, 0).text()), HasSubstr("the header claims 18446744073709551615 tensors"));
  EXPECT_THAT(error_of(Bytes().start(0, huge).text()),
              HasSubstr("the header claims 18446744073709551615 metadata keys"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).add(huge).pad_to(64).text()),
              HasSubstr("metadata key 1 of 1 needs 18446744073709551615 bytes"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add(kString).add(huge).pad_to(64).text()),
              HasSubstr("metadata key 'k' needs 18446744073709551615 bytes"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add(kArray).add(kString).add(huge).pad_to(64).text()),
              HasSubstr("metadata key 'k' has 18446744073709551615 values"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add(kArray).add(kUint64).add(huge / 8 + 2).pad_to(64).text()),
              HasSubstr("metadata key 'k' has 2305843009213693953 values of at least 8 bytes"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add(kArray).add(kArray).add<uint64_t>(1).pad_to(64).text()),
              HasSubstr("metadata key 'k' is an array of arrays"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add<uint32_t>(13).add<uint64_t>(1).text()),
              HasSubstr("metadata key 'k' has the unknown value type 13"));
  EXPECT_THAT(error_of(Bytes().start(0, 1).str("k").add(kBool).add<uint8_t>(2).text()),
              HasSubstr("a boolean of value 2"));
  EXPECT_THAT(
      error_of(Bytes().start(0, 2).str("k").add(kBool).add<uint8_t>(1).str("k").add(kBool).add<uint8_t>(0).text()),
      HasSubstr("metadata key 'k' appears twice"));
  for (const uint32_t alignment : {0U, 24U, 1U << 21}) {
    EXPECT_THAT(error_of(Bytes().start(0, 1).str("general.alignment").add(kUint32).add(alignment).text()),
                HasSubstr("'general.alignment' is " + std::to_string(alignment)));
  }
}

TEST_F(GgufTest, RefusesHostileTensors) {
  const auto one = [&](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    return error_of(Bytes().start(1, 0).tensor("t", dims, type, offset).pad_to(32).raw(std::string(64, '\0')).text());
  };
  EXPECT_EQ(one({4, 4}, 0, 0), "");
  EXPECT_THAT(one({4, 5}, 0, 0), HasSubstr("tensor 't' ends at byte"));
  EXPECT_THAT(one({4}, 0, 96), HasSubstr("tensor 't' ends at byte"));
  EXPECT_THAT(one({4}, 0, 8), HasSubstr("tensor 't' starts at offset 8, not a multiple of 32"));
  EXPECT_THAT(one({4}, 0, uint64_t{1} << 63), HasSubstr("impossible offset 9223372036854775808"));
  EXPECT_THAT(one({0}, 0, 0), HasSubstr("tensor 't' has a dimension of 0"));
  EXPECT_THAT(one({uint64_t{1} << 63}, 0, 0), HasSubstr("tensor 't' has a dimension of 9223372036854775808"));
  EXPECT_THAT(one({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0),
              HasSubstr("tensor 't' of shape [4294967296, 4294967296] is too large"));
  EXPECT_THAT(one({}, 0, 0), HasSubstr("tensor 't' has 0 dimensions"));
  EXPECT_THAT(one({1, 1, 1, 1, 1}, 0, 0), HasSubstr("tensor 't' has 5 dimensions"));
  EXPECT_THAT(one({33}, 8, 0), HasSubstr("rows of 33 values, not a multiple of Q8_0's block of 32"));
  EXPECT_THAT(one({256}, 16, 0),
              AllOf(HasSubstr("tensor 't' is stored as IQ2_XXS, which is not supported"), HasSubstr("Q4_K")));
  EXPECT_THAT(one({256}, 77, 0), HasSubstr("tensor 't' is stored as type 77, which is not supported"));
  const std::string data(128, '\0');
  EXPECT_THAT(error_of(Bytes().start(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).pad_to(32).raw(data).text()),
              HasSubstr("two tensors are named 't'"));
  EXPECT_THAT(error_of(Bytes().start(2, 0).tensor("t", {16}, 0, 0).tensor("u", {4}, 0, 32).pad_to(32).raw(data).text()),
              HasSubstr("tensors 't' and 'u' overlap"));
}

std::string model_path() {
  return std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
}

TEST_F(GgufTest, ReadsTheDemoModel) {
  const GgufFile file(model_path());
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.tensors().size(), 272U);
  EXPECT_EQ(file.strings("tokenizer.ggml.tokens").size(), 49152U);
}

// Cut at many places of the real header (1.8 MB) and of the data: an error that says so.
TEST_F(GgufTest, RefusesTheDemoModelCutAnywhere) {
  std::ifstream in(model_path(), std::ios::binary);
  ASSERT_TRUE(in) << model_path();
  std::string start(4'000'000, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  for (size_t size = 5; size <= start.size(); size += size < 2000 ? 61 : 199'999) {
    EXPECT_THAT(error_of(start.substr(0, size)),
                AllOf(HasSubstr("truncated"), HasSubstr(path_), HasSubstr("download it again")));
  }
}

}  // namespace
}  // namespace kvc
