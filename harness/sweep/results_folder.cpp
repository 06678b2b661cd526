#include "harness/sweep/results_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"

namespace kvc {
namespace {

[[noreturn]] void fail(const std::string& fact, const std::string& path) {
  throw Error(ErrorKind::kData, fact, path, "choose a folder you may write to (--results), or mend its permissions");
}

std::string holder(const std::string& path) {
  std::ifstream file(path);
  std::string process;
  file >> process;
  return process.empty() ? "another process" : "process " + process;
}

// A folder of somebody else, such as a model's, must not lose its config.json to a sweep's.
void refuse_foreign(const std::string& folder) {
  std::ifstream stream(folder + "/config.json", std::ios::binary);
  if (!stream) return;
  const Json config = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (config.is_object() && config.contains("sweep") && config.contains("method")) return;
  throw Error(ErrorKind::kUsage, "the folder holds a config.json that no sweep wrote", folder,
              "choose another folder with --results");
}

}  // namespace

ResultsFolder::ResultsFolder(std::string path) : path_(std::move(path)) {
  refuse_foreign(path_);
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) fail("cannot create the results folder: " + error.message(), path_);
  const std::string lock_path = file(".lock");
  lock_ = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) fail(fmt::format("cannot write to the results folder: {}", std::strerror(errno)), path_);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    ::close(lock_);
    if (reason != EWOULDBLOCK) fail(fmt::format("cannot lock the results folder: {}", std::strerror(reason)), path_);
    throw Error(ErrorKind::kUsage, fmt::format("{} is writing to this results folder", holder(lock_path)), path_,
                "wait until it is done, or choose another folder with --results");
  }
  const std::string process = fmt::format("{}\n", ::getpid());
  if (::ftruncate(lock_, 0) != 0 || ::write(lock_, process.data(), process.size()) < 0) {
    const std::string reason = std::strerror(errno);
    ::close(lock_);
    fail(fmt::format("cannot write to the results folder: {}", reason), path_);
  }
}

ResultsFolder::~ResultsFolder() {
  ::close(lock_);
}

std::map<std::string, Json> ResultsFolder::done(const std::string& cell_id) const {
  std::map<std::string, Json> documents;
  const std::string path = file(cell_id + ".jsonl");
  const JsonLines lines = read_json_lines(path);
  for (size_t i = 0; i < lines.values.size(); ++i) {
    const std::string where = fmt::format("{}, record {}", path, i + 1);
    const Record record = Record::from_json(lines.values[i], where);
    if (record.cell_id != cell_id) {
      throw Error(ErrorKind::kData, fmt::format("a record of cell {} stands in another cell's file", record.cell_id),
                  where, "move the file away and run the sweep again");
    }
    if (record.status == "done") {
      documents[record.document_id] = record.provenance;
    } else {
      documents.erase(record.document_id);
    }
  }
  return documents;
}

void ResultsFolder::append(const Record& record) const {
  const UninterruptedWrite guard;
  append_json_line(file(record.cell_id + ".jsonl"), record.to_json());
}

void ResultsFolder::append_texts(const Json& line) const {
  const UninterruptedWrite guard;
  append_json_line(file("texts/queries.jsonl"), line);
}

Json ResultsFolder::read_json(const std::string& name) const {
  std::ifstream stream(file(name), std::ios::binary);
  if (!stream) return nullptr;
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) {
    throw Error(ErrorKind::kData, "the file is no JSON", file(name), "delete it; the next run writes it anew");
  }
  return value;
}

void ResultsFolder::write_json(const std::string& name, const Json& value) const {
  const UninterruptedWrite guard;
  write_file_atomically(file(name), value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace kvc
