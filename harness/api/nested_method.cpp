#include "harness/api/nested_method.h"

#include <fmt/format.h>

namespace kvc {
namespace {

void complete_queries(Json& queries, const CompactionMethod& method, const std::string& outer,
                      const std::string& pointer, Problems& problems) {
  if (method.needs_queries()) {
    if (queries.is_null()) queries = method.published_queries();
    if (!complete_nested<QuerySource>(queries, "queries", pointer + "/queries", problems)) return;
    if (create_nested<QuerySource>(queries)->question_aware()) {
      problems.add(fmt::format("'{}' is made before a question is asked, so it cannot use the query source '{}'", outer,
                               queries.at("name").get<std::string>()),
                   pointer + "/queries", "take context_prefill, repeat_prefill or dapq");
    }
  } else if (!queries.is_null()) {
    problems.add("this method takes no queries", pointer + "/queries", "delete the key");
  }
}

}  // namespace

bool refuse_itself(const Json& value, const std::string& outer, const std::string& pointer, Problems& problems) {
  const Json name = value.is_object() ? value.value("method", value.value("name", Json())) : value;
  if (name != outer) return false;
  problems.add(fmt::format("a {0} method within a {0} one", outer), pointer, "name another method");
  return true;
}

void NestedMethod::complete(Json& value, const std::string& outer, const std::string& pointer, Problems& problems,
                            Budget budget) {
  if (refuse_itself(value, outer, pointer, problems)) return;
  Json method = value, queries, rule = "uniform";
  if (method.is_object()) {
    queries = method.value("queries", Json());
    method.erase("queries");
    if (budget == Budget::kOwn) {
      rule = method.value("budget", rule);
      method.erase("budget");
    }
  }
  if (!complete_nested<CompactionMethod>(method, "method", pointer, problems)) return;
  const auto plugin = create_nested<CompactionMethod>(method);
  if (!plugin->compacts_cache() || !plugin->needs_target()) {
    problems.add("method '" + method.at("name").get<std::string>() + "' takes no target", pointer,
                 "take attention_matching, snapkv or the like");
    return;
  }
  complete_queries(queries, *plugin, outer, pointer, problems);
  if (budget == Budget::kOwn) complete_nested<BudgetRule>(rule, "budget", pointer + "/budget", problems);
  value = method;
  if (!queries.is_null()) value["queries"] = queries;
  if (budget == Budget::kOwn) value["budget"] = rule;
}

NestedMethod::NestedMethod(Json value) {
  if (value.contains("queries")) queries = create_nested<QuerySource>(value.at("queries"));
  if (value.contains("budget")) budget = create_nested<BudgetRule>(value.at("budget"));
  value.erase("queries");
  value.erase("budget");
  method = create_nested<CompactionMethod>(value);
}

}  // namespace kvc
