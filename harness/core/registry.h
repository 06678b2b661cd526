// Registry<Interface>: name -> factory, source and options of every plug-in. A plug-in file registers itself with one
// line at namespace scope; its object file must be linked whole (CMake OBJECT library), or the linker drops it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/options.h"

namespace kvc {

template <class Interface>
class Registry {
 public:
  struct Entry {
    std::string source;  // paper or origin, e.g. "arXiv:2404.14469"
    std::vector<OptionInfo> options;
    // Options as given -> all options with defaults filled in; problems are added at `pointer`.
    std::function<Json(const Json&, const std::string& pointer, Problems&)> complete;
    // From completed options; throws Error(kUsage) if they are wrong.
    std::function<std::unique_ptr<Interface>(const Json&)> create;
  };

  static Registry& instance() {
    static Registry registry;
    return registry;
  }

  template <class Plugin>
  bool add(const std::string& name, const std::string& source) {
    using Options = typename Plugin::Options;
    Entry entry;
    entry.source = source;
    entry.options = describe_options<Options>();
    entry.complete = [](const Json& given, const std::string& pointer, Problems& problems) {
      Options options;
      read_options(given, options, pointer, problems);
      return options_to_json(options);
    };
    entry.create = [](const Json& given) -> std::unique_ptr<Interface> {
      Options options;
      Problems problems;
      read_options(given, options, "", problems);
      problems.throw_if_any();
      return std::make_unique<Plugin>(options);
    };
    if (!entries_.emplace(name, std::move(entry)).second) {
      throw Error(ErrorKind::kInternal, "two plug-ins are named '" + name + "'", source, "rename one");
    }
    return true;
  }

  const std::map<std::string, Entry>& entries() const { return entries_; }

  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& [name, entry] : entries_) list.push_back(name);
    return list;
  }

  const Entry* find(const std::string& name) const {
    const auto it = entries_.find(name);
    return it == entries_.end() ? nullptr : &it->second;
  }

  // Throws Error(kUsage) with a suggestion for an unknown name.
  std::unique_ptr<Interface> create(const std::string& name, const Json& options) const {
    const Entry* entry = find(name);
    if (entry == nullptr)
      throw Error(ErrorKind::kUsage, "unknown name '" + name + "'", "", suggest_name(name, names()));
    return entry->create(options);
  }

 private:
  std::map<std::string, Entry> entries_;
};

// `value`, NAME or {key: NAME, option: value}, becomes {name: NAME, all options}, which is taken too; what is wrong
// with it becomes problems at `pointer`, and the result is false.
template <class Interface>
bool complete_nested(Json& value, const std::string& key, const std::string& pointer, Problems& problems) {
  const auto& registry = Registry<Interface>::instance();
  Json given = value.is_string() ? Json{{key, value}} : value;
  const std::string named = given.is_object() && given.contains(key) ? key : "name";
  if (!given.is_object() || !given.contains(named) || !given.at(named).is_string()) {
    problems.add("a plug-in without a name", pointer, "write a name, or {" + key + ": NAME, option: value}");
    return false;
  }
  const auto name = given.at(named).template get<std::string>();
  const auto* entry = registry.find(name);
  if (entry == nullptr) {
    problems.add("unknown " + key + " '" + name + "'", value.is_string() ? pointer : pointer + "/" + named,
                 suggest_name(name, registry.names()));
    return false;
  }
  given.erase(named);
  const size_t before = problems.list().size();
  const Json complete = entry->complete(given, pointer, problems);
  value = Json{{"name", name}};
  value.update(complete);
  return problems.list().size() == before;
}

// From a value that complete_nested() has filled in. Throws Error(kUsage) if it is wrong.
template <class Interface>
std::unique_ptr<Interface> create_nested(const Json& value) {
  Json options = value;
  options.erase("name");
  return Registry<Interface>::instance().create(value.at("name").template get<std::string>(), options);
}

// One line at namespace scope registers a plug-in class under a name. The name of the helper variable never matters.
#define KVC_JOIN_INNER(a, b) a##b
#define KVC_JOIN(a, b) KVC_JOIN_INNER(a, b)
#define KVC_REGISTER(Interface, Class, name, source)                      \
  [[maybe_unused]] static const bool KVC_JOIN(kRegistered, __COUNTER__) = \
      ::kvc::Registry<Interface>::instance().template add<Class>(name, source)

}  // namespace kvc
