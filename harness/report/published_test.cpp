// Every published report says what its records say: made again, it is the same to the byte.
#include <gmock/gmock.h>

#include <filesystem>
#include <string>

#include "harness/cli/list.h"
#include "harness/core/text_file.h"
#include "harness/report/report.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

TEST(Published, ReportsAreThoseOfTheirRecords) {
  const fs::path published = fs::path(KVC_SOURCE_DIR) / "results/published";
  const TemporaryFolder scratch;
  int n_folders = 0;
  for (const auto& folder : fs::directory_iterator(published)) {
    if (!fs::exists(folder.path() / "records.jsonl")) continue;
    ++n_folders;
    const fs::path copy = fs::path(scratch.path()) / folder.path().filename();
    fs::create_directories(copy);
    for (const char* name : {"records.jsonl", "config.json", "self_proof.json", "stopped.json"}) {
      if (fs::exists(folder.path() / name)) fs::copy_file(folder.path() / name, copy / name);
    }
    if (fs::exists(folder.path() / "explanations")) fs::copy(folder.path() / "explanations", copy / "explanations");
    write_report(copy.string(), option_defaults());
    for (const char* name : {"report.md", "report.csv", "report_pairs.csv", "report.json", "report.svg"}) {
      // A large report.json is left out: it is made from the records in a second.
      if (std::string(name) == "report.json" && !fs::exists(folder.path() / name)) continue;
      ASSERT_TRUE(fs::exists(folder.path() / name)) << folder.path() << " lacks " << name;
      EXPECT_TRUE(read_text_file((folder.path() / name).string()) == read_text_file((copy / name).string()))
          << folder.path() / name << " is not what its records give; make it again: kvc report "
          << folder.path().string();
    }
  }
  EXPECT_GE(n_folders, 5);
}

}  // namespace
}  // namespace kvc
