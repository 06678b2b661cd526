#include "harness/files/safetensors.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "harness/core/error.h"
#include "harness/files/json_file.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string bytes_of(const StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

std::string file_of(const std::string& header, const std::string& data) {
  return raw<uint64_t>({header.size()}) + header + data;
}

// Two values of one tensor: what a header about 8 bytes of numbers says.
std::string one(const std::string& fields, const std::string& data = std::string(8, '\0')) {
  return file_of(R"({"t":{)" + fields + "}}", data);
}

std::string error_of(const std::string& text) {
  return data_error_of([&] { parse_safetensors(std::as_bytes(std::span(text)), "a.safetensors"); });
}

const std::string kTwo = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";

std::string small_folder_file() {
  return file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]},)"
                 R"("a":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},)"
                 R"("c":{"dtype":"F16","shape":[1,2],"data_offsets":[28,32]}}   )",
                 raw<float>({1, 2, 3, 4, 5, 6}) + raw<uint16_t>({0x3f80, 0xc000, 0x3c00, 0x3800}));
}

TEST(Safetensors, ReadsTensorsOfThreeTypes) {
  const std::string text = small_folder_file();
  const std::vector<StoredTensor> tensors = parse_safetensors(std::as_bytes(std::span(text)), "a.safetensors");
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_THAT(tensors[0].shape, ElementsAre(3, 2));
  EXPECT_STREQ(tensors[1].type->name, "BF16");
  EXPECT_EQ(bytes_of(tensors[0]), raw<float>({1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(bytes_of(tensors[1]), raw<uint16_t>({0x3f80, 0xc000}));
  EXPECT_EQ(bytes_of(tensors[2]), raw<uint16_t>({0x3c00, 0x3800}));
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string whole = small_folder_file();
  ASSERT_EQ(error_of(whole), "");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(error_of(whole.substr(0, size)), "") << size;
  EXPECT_THAT(
      error_of(whole.substr(0, whole.size() - 1)),
      AllOf(HasSubstr("truncated: tensor 'c' ends at byte 32 of 31"), HasSubstr("fetch or make the file again")));
  EXPECT_THAT(error_of(whole + "x"), HasSubstr("the last 1 bytes of the file belong to no tensor"));
}

TEST(Safetensors, EveryFlippedByteIsAnErrorOrAFileWithinItsBounds) {
  const std::string whole = small_folder_file();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned char flip : {0x01, 0x04, 0x80, 0xff}) {
      std::string text = whole;
      text[at] = static_cast<char>(text[at] ^ flip);
      const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
      data_error_of([&] {
        for (const StoredTensor& tensor : parse_safetensors(bytes, "a.safetensors")) {
          EXPECT_GE(tensor.bytes.data(), bytes.data());
          EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), bytes.data() + bytes.size());
        }
      });
    }
  }
}

TEST(Safetensors, RefusesOtherFilesAndHostileHeaders) {
  EXPECT_THAT(error_of("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("a Git LFS pointer"));
  EXPECT_THAT(error_of("GGUF\x03"), HasSubstr("a GGUF file"));
  EXPECT_THAT(error_of("PK\x03\x04...."), HasSubstr("a zip archive"));
  EXPECT_THAT(error_of("1234567"), HasSubstr("the file has 7 bytes"));
  EXPECT_THAT(error_of(raw<uint64_t>({std::numeric_limits<uint64_t>::max()})),
              HasSubstr("the header claims 18446744073709551615 bytes"));
  EXPECT_THAT(error_of(raw<uint64_t>({1000}) + "{}"), HasSubstr("truncated: a header of 1000 bytes"));
  EXPECT_THAT(error_of(raw<uint64_t>({0})), HasSubstr("the header is not a JSON object"));
  EXPECT_THAT(error_of(file_of("[]", "")), HasSubstr("the header is not a JSON object"));
  EXPECT_THAT(error_of(file_of("{\"t\":", "")), HasSubstr("the header is not JSON at its byte"));
  EXPECT_THAT(error_of(file_of("{\"\xff\":1}", "")), HasSubstr("the header is not JSON at its byte"));
  EXPECT_THAT(error_of(file_of("{} {}", "")), HasSubstr("the header is not JSON at its byte"));
  EXPECT_THAT(error_of(file_of("{\"t\":[1]}", "")), HasSubstr("a list where an object belongs, after the key 't'"));
  EXPECT_THAT(error_of(file_of(R"({"__metadata__":{"a":{}}})", "")), HasSubstr("an object where a text belongs"));
  // A million levels are refused at the third.
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "{\"dtype\":";
  EXPECT_THAT(error_of(file_of(deep, "")), HasSubstr("an object where dtype, shape or data_offsets belongs"));
}

TEST(Safetensors, RefusesHostileTensors) {
  EXPECT_EQ(error_of(one(kTwo)), "");
  EXPECT_THAT(error_of(file_of("{\"t\":{" + kTwo + "},\"t\":{" + kTwo + "}}", std::string(8, '\0'))),
              HasSubstr("two tensors are named 't'"));
  EXPECT_THAT(error_of(one(kTwo + R"(,"dtype":"F32")")), HasSubstr("tensor 't' has two 'dtype'"));
  EXPECT_THAT(error_of(file_of("{\"\":{" + kTwo + "}}", std::string(8, '\0'))), HasSubstr("a tensor has no name"));
  EXPECT_THAT(error_of(one(kTwo + R"(,"x":1)")), HasSubstr("unknown field 'x'"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[2])")), HasSubstr("tensor 't' has no 'data_offsets'"));
  EXPECT_THAT(error_of(one(R"("dtype":"I64","shape":[1],"data_offsets":[0,8])")),
              AllOf(HasSubstr("tensor 't' is stored as I64, which is not supported"), HasSubstr("F32, F16 or BF16")));
  EXPECT_THAT(error_of(one(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])")), HasSubstr("F8_E4M3"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])")),
              HasSubstr("tensor 't' of shape [3] in F32 takes 12 bytes; its offsets leave 8"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[],"data_offsets":[0,4])")), HasSubstr("0 dimensions"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])")), HasSubstr("impossible shape [0]"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])")),
              HasSubstr("impossible shape"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4])")), HasSubstr("5 dimensions"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])")),
              HasSubstr("more than 8 numbers in 'shape'"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])")), HasSubstr("has -2 where a number"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])")),
              HasSubstr("has 2.0 where a number"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])")), HasSubstr("data offsets [8, 0]"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])")), HasSubstr("data offsets [0]"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])")),
              HasSubstr("truncated"));
  EXPECT_THAT(error_of(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])")),
              HasSubstr("4 bytes before tensor 't' belong to none"));
  const auto two = [](const std::string& second) {
    return file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"u":{"dtype":"F32",)" + second + "}}",
                   std::string(16, '\0'));
  };
  EXPECT_EQ(error_of(two(R"("shape":[2],"data_offsets":[8,16])")), "");
  EXPECT_THAT(error_of(two(R"("shape":[3],"data_offsets":[4,16])")), HasSubstr("tensors 't' and 'u' overlap"));
  EXPECT_THAT(error_of(two(R"("shape":[1],"data_offsets":[12,16])")), HasSubstr("4 bytes before tensor 'u'"));
  EXPECT_THAT(error_of(two(R"("shape":[1],"data_offsets":[8,12])")), HasSubstr("the last 4 bytes"));
}

TEST(Safetensors, NamesInMessagesAreFitForATerminal) {
  const std::string error = error_of(file_of(R"({"\u001b[2J":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x"));
  EXPECT_THAT(error, HasSubstr("tensor '\\x1b[2J' is stored as I8"));
}

// --- folders ---

class SafetensorsFolderTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const { temporary_.write(name, text); }
  void write_shard(const std::string& file, const std::string& tensor, float value) const {
    write(file,
          file_of("{\"" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", raw<float>({value})));
  }
  void write_index(const std::string& map) const {
    write("model.safetensors.index.json", R"({"metadata":{"total_size":8},"weight_map":)" + map + "}");
  }
  std::string error() const {
    return data_error_of([&] { SafetensorsFolder folder(folder_); });
  }

  const TemporaryFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(SafetensorsFolderTest, ReadsOneFile) {
  write("model.safetensors", small_folder_file());
  const SafetensorsFolder folder(folder_);
  EXPECT_EQ(folder.tensors().size(), 3U);
  ASSERT_NE(folder.find_tensor("b"), nullptr);
  EXPECT_EQ(folder.find_tensor("d"), nullptr);
  ASSERT_EQ(folder.files().size(), 1U);
  EXPECT_EQ(folder.files()[0].name, "model.safetensors");
}

TEST_F(SafetensorsFolderTest, ReadsShards) {
  write_shard("model-00001-of-00002.safetensors", "a", 1);
  write_shard("model-00002-of-00002.safetensors", "b", 2);
  write_index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  const SafetensorsFolder folder(folder_);
  EXPECT_EQ(bytes_of(*folder.find_tensor("a")), raw<float>({1}));
  EXPECT_EQ(bytes_of(*folder.find_tensor("b")), raw<float>({2}));
  EXPECT_EQ(folder.files().size(), 2U);
}

TEST_F(SafetensorsFolderTest, RefusesShardsThatDoNotFitTheirIndex) {
  write_shard("1.safetensors", "a", 1);
  write_shard("2.safetensors", "b", 2);
  write_index(R"({"a":"1.safetensors","b":"2.safetensors","c":"3.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("the file '3.safetensors' of the index is missing"));
  write_index(R"({"a":"2.safetensors","b":"1.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("tensor 'a' is in '1.safetensors'; the index places it in '2.safetensors'"));
  write_index(R"({"a":"1.safetensors","c":"2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("tensor 'b' is in '2.safetensors'; the index does not know it"));
  write_index(R"({"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("tensor 'c' is not in '2.safetensors', where the index places it"));
  write_shard("2.safetensors", "a", 2);
  write_index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("tensor 'a' is in both '1.safetensors' and '2.safetensors'"));
}

TEST_F(SafetensorsFolderTest, RefusesHostileIndexes) {
  for (const char* name : {"../a.safetensors", "/a.safetensors", "x/../../a.safetensors", "a.bin", "", "..",
                           "b\\\\a.safetensors", "\\u0000.safetensors"}) {
    write_index(fmt::format(R"({{"a":"{}"}})", name));
    EXPECT_THAT(error(), HasSubstr("not the name of a safetensors file in this folder")) << name;
  }
  write_index(R"({"a":7})");
  EXPECT_THAT(error(), HasSubstr("weight_map places 'a' in '7'"));
  write_index("{}");
  EXPECT_THAT(error(), HasSubstr("there is no 'weight_map'"));
  write_index(R"({"a":"1.safetensors","a":"2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("the key 'a' is there twice"));
  write_index(std::string(100'000, '['));
  EXPECT_THAT(error(), HasSubstr("nested more than 32 levels deep"));
  write_index("");
  EXPECT_THAT(error(), HasSubstr("the file is not JSON"));
}

TEST_F(SafetensorsFolderTest, NamesTheWayOutWhereThereAreNoWeights) {
  EXPECT_THAT(error(), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  write("pytorch_model.bin", "x");
  EXPECT_THAT(error(), HasSubstr("a Python pickle ('pytorch_model.bin'), which is not read"));
  write("model.Q4_K_M.gguf", "x");
  EXPECT_THAT(error(), AllOf(HasSubstr("'model.Q4_K_M.gguf'"), HasSubstr("name the GGUF file itself")));
}

TEST(JsonFile, RefusesWhatIsNoPlainObject) {
  const auto error = [](const std::string& text) {
    return data_error_of([&] { parse_json_file(text, "config.json"); });
  };
  EXPECT_EQ(error(R"({"a":{"a":[1,{"a":2}]},"b":{"a":1}})"), "");
  EXPECT_THAT(error("[1]"), HasSubstr("the file is not a JSON object"));
  EXPECT_THAT(error("{\"a\":1,}"),
              HasSubstr("the file is not JSON: line 1, column 8: unexpected '}'; expected string literal"));
  EXPECT_THAT(error("<!DOCTYPE html>"), HasSubstr("a web page"));
  EXPECT_THAT(error(R"({"b":[{"a":1,"a":2}]})"), HasSubstr("the key 'a' is there twice"));
}

}  // namespace
}  // namespace kvc
