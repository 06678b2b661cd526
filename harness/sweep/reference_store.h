// Answers of full caches kept on disk, so that they are written once: <folder>/<hash of the model>.jsonl, a line for
// each answer, appended and synced the moment it is made. Several sweeps may share a folder.
//
// A line is {version, key, answer, check}. The key holds everything that affects the answer: the model's identity
// (weights, dtype, device, rope scaling; neither name nor folder), the context's tokens as a hash, and what the task
// adds (task.h, KeptAnswers). `check` is a hash of key and answer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/api/task.h"

namespace kvc {

class ReferenceStore {
 public:
  // Raised when the same request gives another answer than before; older lines then count as foreign.
  static constexpr int kVersion = 1;

  // Creates the folder and reads what it has of this model. Throws Error(kData) when it cannot be created or read.
  ReferenceStore(std::string folder, const Json& model_identity);

  // Lines that are torn, of another version, or do not fit their check: told once, and ignored.
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::string& file() const { return file_; }
  size_t size() const { return answers_.size(); }

  const Json& model() const { return model_; }
  // The answer of this key, or nullptr.
  const Json* find(const Json& key) const;
  // On disk when it returns. Throws Error(kData) when it cannot be written.
  void keep(const Json& key, const Json& answer);

 private:
  std::string file_;
  Json model_;
  std::map<std::string, Json> answers_;  // by canonical key
  std::vector<std::string> warnings_;
};

// The store as a task on one document sees it.
class DocumentReferences final : public KeptAnswers {
 public:
  DocumentReferences(ReferenceStore& store, const std::vector<int64_t>& context_tokens);
  std::optional<Json> find(const Json& asked) override;
  void keep(const Json& asked, const Json& answer) override;

  int64_t n_found() const { return n_found_; }
  int64_t n_made() const { return n_made_; }

 private:
  Json key(const Json& asked) const;

  ReferenceStore& store_;
  Json context_;
  int64_t n_found_ = 0, n_made_ = 0;
};

}  // namespace kvc
