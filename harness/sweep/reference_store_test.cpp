#include "harness/sweep/reference_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/core/json_lines.h"
#include "harness/core/text_file.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

const Json kModel = {{"name", "a.gguf"}, {"file", "/x/a.gguf"}, {"content_hash", "h1"}, {"dtype", "float32"}};

class References : public ::testing::Test {
 protected:
  ReferenceStore open(const Json& model = kModel) const { return {folder_.file("shared"), model}; }
  static Json asked(int prompt) { return {{"prompt", {prompt, 2, 3}}}; }

  TemporaryFolder folder_;
};

TEST_F(References, AreFoundAgainByAnotherProcessAndUnderAnotherName) {
  {
    ReferenceStore store = open();
    DocumentReferences document(store, {1, 2, 3});
    EXPECT_FALSE(document.find(asked(1)));
    document.keep(asked(1), {{"tokens", {7, 8}}});
    EXPECT_EQ(document.n_made(), 1);
  }
  Json elsewhere = kModel;
  elsewhere["file"] = "/y/b.gguf";
  elsewhere["name"] = "b.gguf";
  ReferenceStore store = open(elsewhere);
  EXPECT_TRUE(store.warnings().empty());
  DocumentReferences document(store, {1, 2, 3});
  ASSERT_TRUE(document.find(asked(1)));
  EXPECT_EQ(*document.find(asked(1)), (Json{{"tokens", {7, 8}}}));
  EXPECT_EQ(document.n_made(), 0);
}

TEST_F(References, DependOnModelContextAndQuestion) {
  ReferenceStore store = open();
  DocumentReferences(store, {1, 2, 3}).keep(asked(1), {{"tokens", {7}}});
  EXPECT_FALSE(DocumentReferences(store, {1, 2, 3}).find(asked(2)));
  EXPECT_FALSE(DocumentReferences(store, {1, 2, 4}).find(asked(1)));
  EXPECT_FALSE(DocumentReferences(store, {1, 2}).find(asked(1)));
  for (const char* field : {"content_hash", "dtype", "rope_scaling"}) {
    Json other = kModel;
    other[field] = "other";
    ReferenceStore foreign = open(other);
    EXPECT_EQ(foreign.size(), 0u) << field;
    EXPECT_NE(foreign.file(), store.file());
  }
}

TEST_F(References, TornAndForeignLinesAreIgnoredWithAWarning) {
  std::string file;
  {
    ReferenceStore store = open();
    DocumentReferences document(store, {1});
    for (int i = 0; i < 4; ++i) document.keep(asked(i), {{"tokens", {i}}});
    file = store.file();
  }
  std::vector<Json> lines = read_json_lines(file).values;
  ASSERT_EQ(lines.size(), 4u);
  lines[0]["answer"]["tokens"] = {9};       // edited
  lines[1]["key"]["model"]["dtype"] = "x";  // of another model
  lines[2]["version"] = 99;
  std::string text;
  for (const Json& line : lines) text += line.dump() + "\n";
  text += "[]\n7\n{\"version\":1}\n" + lines[3].dump().substr(0, 40);
  write_file_atomically(file, text);
  ReferenceStore store = open();
  EXPECT_EQ(store.size(), 1u);
  DocumentReferences document(store, {1});
  EXPECT_FALSE(document.find(asked(0)));
  EXPECT_TRUE(document.find(asked(3)));
  ASSERT_EQ(store.warnings().size(), 2u);
  EXPECT_THAT(store.warnings()[0], HasSubstr("line 8 is not valid JSON"));
  EXPECT_THAT(store.warnings()[1], HasSubstr("6 reference answers were ignored"));
  document.keep(asked(5), {{"tokens", {5}}});  // behind the torn line
  ReferenceStore again = open();
  EXPECT_EQ(again.size(), 2u);
}

TEST_F(References, AFolderThatCannotBeMadeIsAClearError) {
  std::ofstream(folder_.file("shared")) << "a file";
  try {
    open();
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("the folder of reference answers cannot be made"));
    EXPECT_THAT(e.what(), HasSubstr("references: FOLDER"));
  }
}

// --- in a sweep ---

class ReferencesOfASweep : public References {
 protected:
  void run(const std::string& results, const std::string& references, const std::string& method = "test_full") const {
    SweepConfig config = parse_sweep(ConfigText::from_string(
        "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [test_notes]\ntask: [{task: fidelity, max_new_tokens: 3}]\n"
        "method: [" +
            method + "]\n" + (references.empty() ? "" : "references: " + references + "\n"),
        "s.yaml"));
    config.results = folder_.file(results);
    RunOptions options;
    options.quiet = true;
    options.skip_proof = true;
    options.load_model = [](const ModelConfig&) { return tiny_model(1); };
    EXPECT_EQ(run_sweep(config, options).failed, 0);
  }
  std::vector<Record> records(const std::string& results) const {
    std::vector<std::string> warnings;
    return load_records(folder_.file(results), warnings);
  }
};

TEST_F(ReferencesOfASweep, AnotherSweepReadsWhatOneHasMade) {
  run("one", folder_.file("shared"));
  run("two", folder_.file("shared"));
  run("alone", "");
  const auto one = records("one"), two = records("two"), alone = records("alone");
  ASSERT_EQ(one.size(), 2u);
  ASSERT_EQ(two.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(one[i].task_notes.at("references"), (Json{{"kept", 0}, {"made", 2}}));
    EXPECT_EQ(two[i].task_notes.at("references"), (Json{{"kept", 2}, {"made", 0}}));
    EXPECT_EQ(alone[i].task_notes.at("references"), (Json{{"kept", 0}, {"made", 2}}));
    EXPECT_EQ(one[i].answers, two[i].answers);
    EXPECT_EQ(one[i].answers, alone[i].answers);
  }
  EXPECT_FALSE(std::filesystem::exists(folder_.file("one/references")));
  EXPECT_TRUE(std::filesystem::is_directory(folder_.file("alone/references")));
}

// A kept answer is what is compared: a planted one shows in the records. One that cannot be is written anew.
TEST_F(ReferencesOfASweep, WhatIsKeptIsUsedAndWhatCannotBeIsMadeAnew) {
  run("one", folder_.file("shared"));
  const std::string file = ReferenceStore(folder_.file("shared"), tiny_model(1).identity()).file();
  const std::vector<Json> lines = read_json_lines(file).values;
  ASSERT_EQ(lines.size(), 4u);
  {
    ReferenceStore store(folder_.file("shared"), tiny_model(1).identity());
    store.keep(lines[0].at("key"), {{"tokens", {65, 66}}});
    store.keep(lines[1].at("key"), {{"tokens", {1, 2, 3, 4}}});  // longer than asked for
    store.keep(lines[2].at("key"), {{"tokens", {100000000}}});   // outside the vocabulary
    store.keep(lines[3].at("key"), {{"tokens", "x"}});
  }
  run("two", folder_.file("shared"));
  const auto one = records("one"), two = records("two");
  std::vector<Json> before, after;
  for (size_t i = 0; i < 2; ++i) {
    before.insert(before.end(), one[i].answers.begin(), one[i].answers.end());
    after.insert(after.end(), two[i].answers.begin(), two[i].answers.end());
  }
  ASSERT_EQ(after.size(), 4u);
  size_t same = 0, planted = 0;
  const std::string text = tiny_model(1).tokenizer().decode({65, 66});
  for (size_t i = 0; i < 4; ++i) {
    same += before[i] == after[i] ? 1 : 0;
    planted += after[i].at("reference_text") == text && after[i].at("n_tokens") == 2 ? 1 : 0;
  }
  EXPECT_EQ(same, 3u);
  EXPECT_EQ(planted, 1u);
}

TEST_F(ReferencesOfASweep, OtherSettingsAreOtherAnswers) {
  run("one", folder_.file("shared"));
  SweepConfig config = parse_sweep(ConfigText::from_string(
      "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [test_notes]\n"
      "task: [{task: fidelity, max_new_tokens: 3}, {task: fidelity, max_new_tokens: 4}]\nmethod: test_full\n"
      "references: " +
          folder_.file("shared") + "\n",
      "s.yaml"));
  config.results = folder_.file("two");
  RunOptions options;
  options.quiet = true;
  options.skip_proof = true;
  options.load_model = [](const ModelConfig&) { return tiny_model(1); };
  run_sweep(config, options);
  for (const Record& record : records("two")) {
    const bool other = record.cell.at("task").at("max_new_tokens") == 4;
    EXPECT_EQ(record.task_notes.at("references"),
              other ? (Json{{"kept", 0}, {"made", 2}}) : (Json{{"kept", 2}, {"made", 0}}));
  }
}

}  // namespace
}  // namespace kvc
