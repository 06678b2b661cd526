// The weights of a folder: one safetensors file, or several with an index.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/json_file.h"
#include "harness/files/safetensors.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr size_t kMostShards = 4096;
constexpr const char* kDamaged = "the file is damaged or made by a faulty converter: fetch it again";

[[noreturn]] void refuse(const std::string& fact, const std::string& where, const std::string& mend = kDamaged) {
  throw Error(ErrorKind::kData, fact, where, mend);
}

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

[[noreturn]] void refuse_no_weights(const std::string& folder) {
  std::error_code ignored;
  std::string others;
  for (auto it = std::filesystem::directory_iterator(folder, ignored); it != std::filesystem::directory_iterator();
       it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".gguf")) {
      refuse(fmt::format("the folder has neither {} nor {}, but '{}'", kSingle, kIndex, printable(name)), folder,
             "name the GGUF file itself as the model");
    }
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt")) others = name;
  }
  if (!others.empty()) {
    refuse(fmt::format("the folder's weights are a Python pickle ('{}'), which "
                       "is not read as it may run any code",
                       printable(others)),
           folder, "fetch the model's safetensors files, or a GGUF file of it");
  }
  refuse(fmt::format("the folder has neither {} nor {}", kSingle, kIndex), folder,
         "fetch the model's safetensors files into it");
}

// Tensor -> file, from the index. A file name is one name in the folder, never
// a path out of it.
std::map<std::string, std::string> read_index(const std::string& path) {
  const json index = read_json_file(path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) refuse("there is no 'weight_map'", path);
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!name.ends_with(".safetensors") || name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
      refuse(fmt::format("weight_map places '{}' in '{}', which is not the name of a "
                         "safetensors file in this folder",
                         printable(tensor), printable(file.is_string() ? name : file.dump(-1, ' ', true))),
             path);
    }
    file_of.emplace(tensor, name);
  }
  return file_of;
}

}  // namespace

SafetensorsFolder::SafetensorsFolder(const std::string& folder) : TensorSource(folder) {
  if (exists(folder + "/" + kSingle)) {
    read_single(kSingle);
  } else if (exists(folder + "/" + kIndex)) {
    read_sharded(kIndex);
  } else {
    refuse_no_weights(folder);
  }
}

void SafetensorsFolder::read_single(const std::string& name) {
  const std::string file = path() + "/" + name;
  files_.push_back({name, MappedFile(file, "fetch the model's safetensors files")});
  set_tensors(parse_safetensors(files_.back().mapped.bytes(), file));
}

void SafetensorsFolder::read_sharded(const std::string& index_name) {
  const std::string index = path() + "/" + index_name;
  const std::map<std::string, std::string> file_of = read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, file] : file_of) names.insert(file);
  if (names.size() > kMostShards) refuse(fmt::format("weight_map names {} files", names.size()), index);
  std::vector<StoredTensor> all;
  std::map<std::string, std::string> found;
  for (const std::string& name : names) {
    const std::string file = path() + "/" + name;
    if (!exists(file))
      refuse(fmt::format("the file '{}' of the index is missing", printable(name)), path(), "fetch it");
    files_.push_back({name, MappedFile(file, "fetch the model's safetensors files")});
    for (StoredTensor& tensor : parse_safetensors(files_.back().mapped.bytes(), file)) {
      const auto [known, first] = found.emplace(tensor.name, name);
      if (!first) {
        refuse(fmt::format("tensor '{}' is in both '{}' and '{}'", printable(tensor.name), known->second, name),
               path());
      }
      const auto placed = file_of.find(tensor.name);
      if (placed == file_of.end() || placed->second != name) {
        refuse(fmt::format("tensor '{}' is in '{}'; the index {}", printable(tensor.name), printable(name),
                           placed == file_of.end() ? "does not know it"
                                                   : fmt::format("places it in '{}'", printable(placed->second))),
               index, "the files are not of the same model: fetch them again");
      }
      all.push_back(std::move(tensor));
    }
  }
  for (const auto& [tensor, file] : file_of) {
    if (!found.contains(tensor)) {
      refuse(fmt::format("tensor '{}' is not in '{}', where the index places it", printable(tensor), printable(file)),
             index, "the files are not of the same model: fetch them again");
    }
  }
  set_tensors(std::move(all));
}

}  // namespace kvc
