#include "harness/sweep/results_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/sweep/coverage.h"

namespace kvc {
namespace {

[[noreturn]] void fail(const std::string& fact, const std::string& path) {
  throw Error(ErrorKind::kData, fact, path, "choose a folder you may write to (--results), or mend its permissions");
}

std::string lock_text(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "12 node3 1767225600000000000" -> "process 12 on node3"
std::string holder(const std::string& path) {
  std::istringstream words(lock_text(path));
  std::string process, host;
  if (!(words >> process)) return "another process";
  return words >> host ? fmt::format("process {} on {}", process, host) : "process " + process;
}

std::string own_name() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == 0) std::strcpy(host.data(), "unknown");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("{} {} {}", ::getpid(), host.data(),
                     std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// A folder of somebody else, such as a model's, must not lose its config.json to a sweep's.
void refuse_foreign(const std::string& folder) {
  std::ifstream stream(folder + "/config.json", std::ios::binary);
  if (!stream) return;
  const Json config = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (config.is_object() && config.contains("sweep") && config.contains("method")) return;
  throw Error(ErrorKind::kUsage, "config.json was not written by a sweep", folder,
              "choose another folder with --results");
}

}  // namespace

std::optional<std::string> writer_of(const std::string& folder) {
  const std::string path = folder + "/.lock";
  const int lock = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (lock < 0) return std::nullopt;
  const bool free = ::flock(lock, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK;
  ::close(lock);
  return free ? std::nullopt : std::optional(holder(path));
}

ResultsFolder::ResultsFolder(std::string path, std::string sweep)
    : path_(std::move(path)), sweep_(sweep.empty() ? path_ : std::move(sweep)) {
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
  owner_ = own_name();
  const std::string process = owner_ + "\n";
  if (::ftruncate(lock_, 0) != 0 || ::write(lock_, process.data(), process.size()) < 0) {
    const std::string reason = std::strerror(errno);
    ::close(lock_);
    fail(fmt::format("cannot write to the results folder: {}", reason), path_);
  }
}

ResultsFolder::~ResultsFolder() {
  ::close(lock_);
}

std::map<std::string, Json> done_documents(const std::string& sweep, const std::string& cell_id) {
  std::map<std::string, Json> documents;
  for (const std::string& folder : record_folders(sweep)) {
    const std::string path = fmt::format("{}/{}.jsonl", folder, cell_id);
    const JsonLines lines = read_json_lines(path);
    for (size_t i = 0; i < lines.values.size(); ++i) {
      const std::string where = fmt::format("{}, record {}", path, i + 1);
      const Record record = Record::from_json(lines.values[i], where);
      if (record.cell_id != cell_id) {
        throw Error(ErrorKind::kData, fmt::format("a record of cell {} is in another cell's file", record.cell_id),
                    where, "move the file away and run the sweep again");
      }
      if (record.status == "done") documents[record.document_id] = record.provenance;
    }
  }
  return documents;
}

void ResultsFolder::check_owner() const {
  const std::string now = lock_text(file(".lock"));
  if (now.empty() || now == owner_) return;
  throw Error(ErrorKind::kUsage, fmt::format("{} now owns this folder; this run stops", holder(file(".lock"))), path_,
              "one run at a time in a folder; nothing that was measured is lost");
}

void ResultsFolder::append(const Record& record) const {
  const UninterruptedWrite guard;
  check_owner();
  append_json_line(file(record.cell_id + ".jsonl"), record.to_json());
}

void ResultsFolder::append_texts(const Json& line) const {
  const UninterruptedWrite guard;
  check_owner();
  append_json_line(file("texts/queries.jsonl"), line);
}

Json ResultsFolder::read_json(const std::string& name) const {
  return read_json_of_run(file(name));
}

void ResultsFolder::write_json(const std::string& name, const Json& value) const {
  const UninterruptedWrite guard;
  write_file_atomically(file(name), value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace kvc
