// One entry of a sweep file, "snapkv" or {method: snapkv, window: 32}: name and options, checked against a registry.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "harness/api/budget_rule.h"
#include "harness/core/registry.h"

namespace kvc {

// A section is a list; a single item stands for a list of one.
Json as_list(const Json& value);
// Where item `index` of a section stands.
std::string item_pointer(const Json& section, const std::string& pointer, size_t index);

// {a: [1, 2], b: 3} -> {a: 1, b: 3}, {a: 2, b: 3}; options that are lists themselves stay whole.
std::vector<Json> variants(const Json& given, const std::vector<OptionInfo>& options, const std::string& pointer,
                           Problems& problems);

// {name, options...}
Json with_name(const std::string& name, const Json& options);

// The name and the options of an entry; `key` is what a mapping calls the name ("method"). False after a problem.
bool split_entry(const Json& entry, const std::string& key, const std::vector<std::string>& names,
                 const std::string& pointer, Problems& problems, std::string& name, Json& options);

// One entry of a section, resolved.
template <class Interface>
struct Resolved {
  Json value;  // {name, options...}
  std::shared_ptr<Interface> plugin;
};

// All variants of one entry; those with problems are left out. `of_files`, where given, takes the problems of files
// that an entry names rightly and that are missing or not what they should be (Error(kData)).
template <class Interface>
std::vector<Resolved<Interface>> resolve(const std::string& name, const Json& options, const std::string& pointer,
                                         Problems& problems, Problems* of_files = nullptr) {
  std::vector<Resolved<Interface>> list;
  const auto& entry = *Registry<Interface>::instance().find(name);
  for (const Json& variant : variants(options, entry.options, pointer, problems)) {
    const size_t before = problems.list().size();
    const Json complete = entry.complete(variant, pointer, problems);
    if (problems.list().size() != before) continue;
    try {
      std::shared_ptr<Interface> plugin = entry.create(complete);
      list.push_back({with_name(name, complete), plugin});
      // What a budget's file says is part of the cell: another file, another cell.
      if constexpr (std::is_same_v<Interface, BudgetRule>) list.back().value.update(plugin->identity());
    } catch (const Error& e) {
      const bool of_file = of_files != nullptr && e.kind() == ErrorKind::kData;
      (of_file ? *of_files : problems)
          .add(e.where().empty() ? e.fact() : fmt::format("{} ({})", e.fact(), e.where()), pointer, e.mend());
    }
  }
  return list;
}

// The one plug-in that `text` names: "snapkv", or "{method: snapkv, window: 32}" with `key` "method". `origin` stands
// for the file in errors ("--method"). Throws Error(kUsage) with all problems; an option that is a list of choices is
// one, for there is no axis here.
template <class Interface>
Resolved<Interface> plugin_from_text(const std::string& key, const std::string& text, const std::string& origin) {
  const ConfigText config = ConfigText::from_string(text, origin);
  Problems problems(&config);
  std::string name;
  Json options;
  std::vector<Resolved<Interface>> list;
  if (split_entry(config.value(), key, Registry<Interface>::instance().names(), "", problems, name, options)) {
    list = resolve<Interface>(name, options, "", problems);
  }
  if (list.size() > 1) problems.add("more than one choice of an option", "", "name one");
  problems.throw_if_any();
  return list.front();
}

}  // namespace kvc
