#include "harness/core/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class OutputFiles : public ::testing::Test {
 protected:
  ~OutputFiles() override { fs::permissions(folder_, fs::perms::owner_all); }

  std::string path(const std::string& name) const { return temporary_.file(name); }
  std::string write(const std::string& name, const std::string& text) const { return temporary_.write(name, text); }
  // "" when the output is fine.
  static std::string refusal(const std::string& out, const std::vector<std::string>& inputs = {},
                             bool replace = false) {
    return refusal(std::vector<OutputFile>{{"--out", out, has_format("kvcompact.cache")}}, inputs, replace);
  }
  static std::string refusal(const std::vector<OutputFile>& outputs, const std::vector<std::string>& inputs,
                             bool replace) {
    try {
      check_outputs(outputs, inputs, replace);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
  static std::string safetensors(const std::string& format) {
    const std::string header = R"({"__metadata__":{"format":")" + format + R"("}})";
    std::string bytes(8, '\0');
    bytes[0] = static_cast<char>(header.size());
    return bytes + header;
  }

 private:
  const TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

TEST_F(OutputFiles, AnInputIsNeverReplacedByWhateverName) {
  const std::string input = write("same.txt", "a document"), name = "the same file as the input";
  EXPECT_THAT(refusal(input, {"", "-", input}, true), AllOf(HasSubstr(name), HasSubstr("--out " + input)));
  EXPECT_THAT(refusal(path("../") + fs::path(path("")).parent_path().filename().string() + "/same.txt", {input}, true),
              HasSubstr(name));
  fs::create_symlink(input, path("link"));
  fs::create_hard_link(input, path("hard"));
  EXPECT_THAT(refusal(path("link"), {input}, true), HasSubstr(name));
  EXPECT_THAT(refusal(path("hard"), {input}, true), HasSubstr(name));
  EXPECT_THAT(refusal(input, {path("link")}, true), HasSubstr(name));
  // Nor one that kvc wrote itself.
  const std::string cache = write("cache", safetensors("kvcompact.cache.v1"));
  EXPECT_THAT(refusal(cache, {cache}, true), HasSubstr(name));
  // Nor is a file put among those of a model.
  fs::create_directories(path("model"));
  EXPECT_THAT(refusal(path("model/new.safetensors"), {path("model")}), HasSubstr("inside the input folder"));
}

TEST_F(OutputFiles, OnlyItsOwnKindIsReplacedAndOnlyWhenTold) {
  const std::string foreign = "this command did not write it";
  for (const bool replace : {false, true}) {
    EXPECT_THAT(refusal(write("weights.gguf", "GGUF\3"), {}, replace), HasSubstr(foreign));
    EXPECT_THAT(refusal(write("empty", ""), {}, replace), HasSubstr(foreign));
    EXPECT_THAT(refusal(write("text", "kvcompact.cache.v1"), {}, replace), HasSubstr(foreign));
    EXPECT_THAT(refusal(write("other", safetensors("kvcompact.heads.v1")), {}, replace), HasSubstr(foreign));
    EXPECT_THAT(refusal(write("longer", safetensors("kvcompact.cached.v1")), {}, replace), HasSubstr(foreign));
    EXPECT_THAT(refusal(path(""), {}, replace), HasSubstr("is a folder"));
    EXPECT_THAT(refusal("/dev/null", {}, replace), HasSubstr("not a regular file"));
  }
  const std::string own = write("own", safetensors("kvcompact.cache.v1"));
  EXPECT_THAT(refusal(own), HasSubstr("replace it with --force"));
  EXPECT_EQ(refusal(own, {}, true), "");
  fs::create_symlink(path("nowhere"), path("dangling"));
  EXPECT_THAT(refusal(path("dangling"), {}, true), HasSubstr("a link to a file that does not exist"));
  EXPECT_EQ(refusal(path("new")), "");
  EXPECT_FALSE(fs::exists(path("new")));
}

TEST_F(OutputFiles, TwoOutputsAreTwoFiles) {
  const std::vector<OutputFile> twice = {{"--out", path("a.json"), {}}, {"--report", path("./A.json"), {}}};
  EXPECT_THAT(refusal(twice, {}, false), AllOf(HasSubstr("the same file as --out"), HasSubstr("--report")));
  EXPECT_EQ(refusal({{"--out", "", {}}, {"--report", "", {}}}, {}, false), "");
}

TEST_F(OutputFiles, WhatCannotBeWrittenIsRefusedBeforehand) {
  EXPECT_THAT(refusal(write("file", "x") + "/below"), HasSubstr("cannot write the output file: Not a directory"));
  EXPECT_THAT(refusal(path(std::string(300, 'x'))), HasSubstr("File name too long"));
  EXPECT_THAT(refusal("/proc/kvc/out"), HasSubstr("cannot write the output file"));
  EXPECT_EQ(refusal(path("new/deeper/out")), "");
  EXPECT_FALSE(fs::exists(path("new")));
  if (::geteuid() == 0) return;  // root may write everywhere
  fs::permissions(path(""), fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(refusal(path("out")), HasSubstr("Permission denied"));
}

TEST_F(OutputFiles, FormatsAreReadFromTheFile) {
  EXPECT_EQ(file_format(write("report.json", "{\n \"schema\": \"kvcompact.report\"\n}\n")), "kvcompact.report");
  EXPECT_EQ(file_format(write("lines", "{\"format\":\"kvcompact.head_curves.v1\"}\n{\"torn")),
            "kvcompact.head_curves.v1");
  EXPECT_EQ(file_format(write("tensors", safetensors("kvcompact.fit.v1"))), "kvcompact.fit.v1");
  for (const char* text : {"", "{", "[]", "{\"format\": 3}", "x", "\xff\xff\xff\xff\xff\xff\xff\xff"})
    EXPECT_EQ(file_format(write("odd", text)), "") << text;
  EXPECT_EQ(file_format(path("absent")), "");
}

TEST_F(OutputFiles, FilesOfAPlugin) {
  const std::string file = write("own.jsonl", "{}");
  const Json options = {{"name", "quality"}, {"path", file}, {"articles", {"20002", path("absent")}}};
  EXPECT_THAT(files_named_in(options), ::testing::ElementsAre(file));
}

}  // namespace
}  // namespace kvc
