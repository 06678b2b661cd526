// What a budget search has measured, on disk: a first line {format, settings}, then one line {kind, key, value} for
// each result, synced before the next is measured. Locked against a second writer.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "harness/core/config_text.h"

namespace kvc {

class CurvesFile {
 public:
  // Opens or creates the file. Throws Error(kData): it cannot be written, another process holds it, it holds something
  // else, or it was measured with other settings (the first one is named). A torn line is left out; of a file whose
  // first line is torn nothing is known, and it begins anew.
  CurvesFile(std::string path, const Json& settings);
  ~CurvesFile();
  CurvesFile(const CurvesFile&) = delete;
  CurvesFile& operator=(const CurvesFile&) = delete;

  const std::string& path() const { return path_; }
  bool empty() const { return entries_.empty(); }
  // What stands under `kind` and `key`, the last of several; null if nothing.
  Json find(const std::string& kind, const std::string& key) const;
  // On disk when it returns; a signal waits for it.
  void keep(const std::string& kind, const std::string& key, const Json& value);

 private:
  [[noreturn]] void refuse(const std::string& fact, const std::string& mend) const;
  void read(const Json& settings);
  void begin_anew(const Json& head) const;
  void check_settings(const Json& measured, const Json& now) const;

  std::string path_;
  int lock_ = -1;
  std::map<std::pair<std::string, std::string>, Json> entries_;
};

}  // namespace kvc
