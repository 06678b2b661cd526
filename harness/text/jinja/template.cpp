#include "harness/text/jinja/template.h"

#include <map>

#include "harness/text/jinja/fail.h"

namespace kvc::jinja {
namespace {

constexpr int kMaxEvaluations = 500;  // of evaluations inside each other, macros included

// Variables; a block inside another sees those of the outer one, and sets its own.
struct Scope {
  explicit Scope(Scope* outer_scope) : outer(outer_scope) {}
  Scope* outer;
  std::map<std::string, Value, std::less<>> variables;
};

enum class Flow : std::uint8_t { kOn, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(Run& run, Scope& root) : run_(run), root_(root) {}

  Flow execute(const Block& block, Scope& scope, Text& out) {
    for (const auto& statement : block) {
      const Flow flow = execute(*statement, scope, out);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

 private:
  using Kind = Statement::Kind;

  class Deeper {
   public:
    explicit Deeper(Run& run) : run_(run) {
      run_.step();
      if (++run_.depth > kMaxEvaluations) run_.fail("it nests deeper than 500 levels");
    }
    ~Deeper() { --run_.depth; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Run& run_;
  };

  // --- statements ---------------------------------------------------------------------------------------------------

  Flow execute(const Statement& statement, Scope& scope, Text& out) {
    const Deeper deeper(run_);
    run_.line = statement.line;
    switch (statement.kind) {
      case Kind::kText:
        run_.write(out, *statement.text.text());
        return Flow::kOn;
      case Kind::kOutput:
        output(evaluate(*statement.expression, scope), out);
        return Flow::kOn;
      case Kind::kIf:
        return choose(statement, scope, out);
      case Kind::kFor:
        return loop(statement, scope, out);
      case Kind::kSet:
        assign(statement.target, evaluate(*statement.expression, scope), scope);
        return Flow::kOn;
      case Kind::kSetBlock:
        assign(statement.target, written(statement, scope), scope);
        return Flow::kOn;
      case Kind::kFilterBlock:
        output(written(statement, scope), out);
        return Flow::kOn;
      case Kind::kMacro:
        define(statement, scope);
        return Flow::kOn;
      case Kind::kWith:
      case Kind::kScope:
        return inner(statement, scope, out);
      case Kind::kBreak:
        return Flow::kBreak;
      case Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kOn;
  }

  void output(const Value& value, Text& out) {
    if (const Text* text = value.text()) return run_.write(out, *text);
    run_.write(out, run_.print(value));
  }

  Flow choose(const Statement& statement, Scope& scope, Text& out) {
    for (const auto& [test, body] : statement.branches) {
      if (is_true(evaluate(*test, scope))) return execute(body, scope, out);
    }
    return execute(statement.otherwise, scope, out);
  }

  Flow inner(const Statement& statement, Scope& scope, Text& out) {
    Scope own(&scope);
    for (const auto& [target, expression] : statement.settings) assign(target, evaluate(*expression, scope), own);
    return execute(statement.body, own, out);
  }

  // What the body writes, through the statement's filters.
  Value written(const Statement& statement, Scope& scope) {
    Scope own(&scope);
    Text text;
    execute(statement.body, own, text);
    if (statement.expression == nullptr) return text;
    own.variables[""] = std::move(text);
    return evaluate(*statement.expression, own);
  }

  std::shared_ptr<const List> visited(const Statement& statement, Scope& scope) {
    std::shared_ptr<const List> all = run_.elements(evaluate(*statement.expression, scope));
    if (statement.test == nullptr) return all;
    std::vector<Value> kept;
    for (const Value& value : all->items) {
      Scope own(&scope);
      assign(statement.target, value, own);
      if (is_true(evaluate(*statement.test, own))) kept.push_back(value);
    }
    return std::get<std::shared_ptr<const List>>(run_.list(std::move(kept)).data);
  }

  Flow loop(const Statement& statement, Scope& scope, Text& out) {
    const std::shared_ptr<const List> items = visited(statement, scope);
    if (items->items.empty()) return execute(statement.otherwise, scope, out);
    for (size_t i = 0; i < items->items.size(); ++i) {
      Scope own(&scope);
      Value state;
      state.data = std::make_shared<const Loop>(Loop{items, i});
      own.variables["loop"] = std::move(state);
      assign(statement.target, items->items[i], own);
      if (execute(statement.body, own, out) == Flow::kBreak) break;
    }
    return Flow::kOn;
  }

  void assign(const Target& target, Value value, Scope& scope) {
    run_.step();
    if (target.parts.empty() && target.attribute.empty()) {
      scope.variables.insert_or_assign(target.name, std::move(value));
      return;
    }
    if (target.parts.empty()) {
      Namespace* space = look_up(target.name, scope).name_space();
      if (space == nullptr)
        run_.fail(fmt::format("'{}' is not a namespace, its attributes cannot be set", target.name));
      run_.check_kept(value);
      space->attributes.insert_or_assign(target.attribute, std::move(value));
      return;
    }
    const std::shared_ptr<const List> items = run_.elements(value);
    if (items->items.size() != target.parts.size()) {
      run_.fail(fmt::format("{} values are assigned to {} names", items->items.size(), target.parts.size()));
    }
    for (size_t i = 0; i < target.parts.size(); ++i) assign(target.parts[i], items->items[i], scope);
  }

  void define(const Statement& statement, Scope& scope) {
    auto made = std::make_shared<Callable>();
    made->name = statement.macro.name;
    made->macro = &statement.macro;
    bodies_[&statement.macro] = &statement.body;
    Value value;
    value.data = std::shared_ptr<const Callable>(std::move(made));
    scope.variables.insert_or_assign(statement.macro.name, std::move(value));
  }

  // A macro sees its arguments and the variables of the template's outermost level.
  Value call_macro(const Macro& macro, const Arguments& arguments) {
    const int line = run_.line;
    Scope own(&root_);
    if (arguments.values.size() > macro.parameters.size()) {
      run_.fail(fmt::format("the macro '{}' takes at most {} arguments", macro.name, macro.parameters.size()));
    }
    for (const auto& [name, value] : arguments.keywords) {
      bool known = false;
      for (const auto& parameter : macro.parameters) known = known || parameter.first == name;
      if (!known) run_.fail(fmt::format("the macro '{}' has no argument '{}'", macro.name, excerpt(name)));
      own.variables[name] = value;
    }
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const auto& [name, fallback] = macro.parameters[i];
      if (i < arguments.values.size()) {
        own.variables[name] = arguments.values[i];
      } else if (!own.variables.contains(name)) {
        own.variables[name] = fallback == nullptr ? Value(Undefined{name}) : evaluate(*fallback, own);
      }
    }
    Text text;
    execute(*bodies_.at(&macro), own, text);
    run_.line = line;
    return text;
  }

  // --- expressions --------------------------------------------------------------------------------------------------

  Value look_up(const std::string& name, const Scope& scope) {
    for (const Scope* at = &scope; at != nullptr; at = at->outer) {
      run_.step();
      const auto found = at->variables.find(name);
      if (found != at->variables.end()) return found->second;
    }
    return global_function(name);
  }

  Arguments arguments_of(const Expression& expression, Scope& scope) {
    Arguments arguments;
    for (size_t i = 1; i < expression.parts.size(); ++i) {
      arguments.values.push_back(evaluate(*expression.parts[i], scope));
    }
    for (const auto& [name, value] : expression.keywords) {
      arguments.keywords.emplace_back(name, evaluate(*value, scope));
    }
    return arguments;
  }

  Value part(const Expression& expression, size_t index, Scope& scope) {
    return evaluate(*expression.parts[index], scope);
  }

  Value evaluate(const Expression& expression, Scope& scope) {
    const Deeper deeper(run_);
    run_.line = expression.line;
    switch (expression.op) {
      case Op::kConstant:
        return expression.constant;
      case Op::kName:
        return look_up(expression.name, scope);
      case Op::kAttribute:
        return attribute(run_, part(expression, 0, scope), expression.name);
      case Op::kItem:
        return subscript(expression, scope);
      case Op::kSlice:
        return cut(expression, scope);
      case Op::kCall:
        return call(expression, scope);
      case Op::kFilter:
        return filtered(expression, scope);
      case Op::kTest:
        return tested(expression, scope);
      case Op::kNot:
        return !is_true(part(expression, 0, scope));
      case Op::kNegative:
        return negated(run_, part(expression, 0, scope));
      case Op::kPositive:
        return arithmetic(run_, '+', int64_t{0}, part(expression, 0, scope));
      case Op::kAnd:
      case Op::kOr:
        return logic(expression, scope);
      case Op::kConcat:
        return joined(expression, scope);
      case Op::kCompare:
        return compared(expression, scope);
      case Op::kChoice:
        if (is_true(part(expression, 0, scope))) return part(expression, 1, scope);
        return expression.parts[2] == nullptr ? Value(Undefined{"a choice"}) : part(expression, 2, scope);
      case Op::kList:
      case Op::kTuple:
        return run_.list(arguments_from(expression, scope), expression.op == Op::kTuple);
      case Op::kDict:
        return made_dict(expression, scope);
      default:
        return computed(expression, scope);
    }
  }

  Value subscript(const Expression& expression, Scope& scope) {
    const Value value = part(expression, 0, scope), key = part(expression, 1, scope);
    return item(run_, value, key);
  }

  Value cut(const Expression& expression, Scope& scope) {
    const Value value = part(expression, 0, scope);
    std::vector<Value> bounds(3, Value(nullptr));
    for (size_t i = 0; i < 3; ++i) {
      if (expression.parts[i + 1] != nullptr) bounds[i] = part(expression, i + 1, scope);
    }
    return slice(run_, value, &bounds[0], &bounds[1], &bounds[2]);
  }

  Value call(const Expression& expression, Scope& scope) {
    const Value callee = part(expression, 0, scope);
    const Arguments arguments = arguments_of(expression, scope);
    run_.line = expression.line;
    if (callee.callable() == nullptr) {
      const std::string& name = expression.parts[0]->name;
      run_.fail(callee.is_undefined()
                    ? fmt::format("the function or method '{}' is not supported", excerpt(name))
                    : fmt::format("'{}' is {}, it cannot be called", excerpt(name), kind_name(callee)));
    }
    if (const Macro* macro = callee.callable()->macro) return call_macro(*macro, arguments);
    return call_function(run_, *callee.callable(), arguments);
  }

  Value filtered(const Expression& expression, Scope& scope) {
    const Value subject = part(expression, 0, scope);
    const Arguments arguments = arguments_of(expression, scope);
    run_.line = expression.line;
    return apply_filter(run_, expression.name, subject, arguments);
  }

  Value tested(const Expression& expression, Scope& scope) {
    const Value subject = part(expression, 0, scope);
    const Arguments arguments = arguments_of(expression, scope);
    return apply_test(run_, expression.name, subject, arguments);
  }

  // The last value looked at, as in Python.
  Value logic(const Expression& expression, Scope& scope) {
    Value value;
    for (const auto& operand : expression.parts) {
      value = evaluate(*operand, scope);
      if (is_true(value) == (expression.op == Op::kOr)) break;
    }
    return value;
  }

  Value joined(const Expression& expression, Scope& scope) {
    Text text;
    for (const auto& operand : expression.parts) output(evaluate(*operand, scope), text);
    return text;
  }

  bool compare(const std::string& sign, const Value& a, const Value& b) {
    if (sign == "==") return run_.equal(a, b);
    if (sign == "!=") return !run_.equal(a, b);
    if (sign == "in") return run_.contains(b, a);
    if (sign == "not in") return !run_.contains(b, a);
    if (sign == "<") return run_.less(a, b, "<");
    if (sign == ">") return run_.less(b, a, ">");
    return sign == "<=" ? !run_.less(b, a, "<=") : !run_.less(a, b, ">=");
  }

  Value compared(const Expression& expression, Scope& scope) {
    Value left = part(expression, 0, scope);
    for (size_t i = 0; i < expression.signs.size(); ++i) {
      Value right = part(expression, i + 1, scope);
      if (!compare(expression.signs[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  std::vector<Value> arguments_from(const Expression& expression, Scope& scope) {
    std::vector<Value> values;
    for (const auto& operand : expression.parts) values.push_back(evaluate(*operand, scope));
    return values;
  }

  Value made_dict(const Expression& expression, Scope& scope) {
    std::vector<Value> values = arguments_from(expression, scope);
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i + 1 < values.size(); i += 2) {
      items.emplace_back(std::move(values[i]), std::move(values[i + 1]));
    }
    return run_.dict(std::move(items));
  }

  Value computed(const Expression& expression, Scope& scope) {
    const Value a = part(expression, 0, scope), b = part(expression, 1, scope);
    run_.line = expression.line;
    char sign = '+';
    if (expression.op == Op::kSubtract) sign = '-';
    if (expression.op == Op::kMultiply) sign = '*';
    if (expression.op == Op::kDivide) sign = '/';
    if (expression.op == Op::kFloorDivide) sign = '\\';
    if (expression.op == Op::kRemainder) sign = '%';
    if (expression.op == Op::kPower) sign = '^';
    return arithmetic(run_, sign, a, b);
  }

  Run& run_;
  Scope& root_;
  std::map<const Macro*, const Block*> bodies_;
};

}  // namespace

Template::Template(std::string source, std::string where)
    : source_(std::move(source)), where_(std::move(where)), body_(parse_template(source_, where_)) {}

Text Template::render(const std::vector<std::pair<std::string, Value>>& variables, const Limits& limits,
                      const Date& date) const {
  Run run(where_, limits, date);
  Scope root(nullptr);
  for (const auto& [name, value] : variables) root.variables.insert_or_assign(name, value);
  Text out;
  Interpreter(run, root).execute(body_, root, out);
  return out;
}

}  // namespace kvc::jinja
