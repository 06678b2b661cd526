// A template as a tree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/text/jinja/value.h"

namespace kvc::jinja {

enum class Op : std::uint8_t {
  kConstant,
  kName,
  kAttribute,  // parts[0].name
  kItem,       // parts[0][parts[1]]
  kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], any of the last three null
  kCall,       // parts[0](parts[1..], keywords)
  kFilter,     // parts[0] | name(parts[1..], keywords)
  kTest,       // parts[0] is name(parts[1..])
  kNot,
  kNegative,
  kPositive,
  kAnd,  // of all parts
  kOr,
  kConcat,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kRemainder,
  kPower,
  kCompare,  // parts[i] signs[i] parts[i + 1], all of them
  kChoice,   // parts[1] if parts[0] else parts[2]; parts[2] may be null
  kList,
  kTuple,
  kDict,  // key, value, key, value
};

struct Expression {
  Op op = Op::kConstant;
  int line = 1;
  int depth = 1;
  std::string name;
  Value constant;
  std::vector<std::unique_ptr<Expression>> parts;
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> keywords;
  std::vector<std::string> signs;
};
using ExpressionPtr = std::unique_ptr<Expression>;

// What an assignment writes to: a name, an attribute of a namespace, or a tuple of them.
struct Target {
  std::string name;
  std::string attribute;
  std::vector<Target> parts;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with their defaults, or null
};

struct Statement {
  enum class Kind : std::uint8_t {
    kText,
    kOutput,    // {{ expression }}
    kIf,        // branches, then otherwise
    kFor,       // target in expression if test: body; otherwise
    kSet,       // target = expression
    kSetBlock,  // target = what body writes, through the filter `expression` if there is one
    kMacro,
    kWith,         // settings for body
    kFilterBlock,  // what body writes through the filter `expression`
    kScope,        // body with variables of its own
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 1;
  Value text;
  Target target;
  ExpressionPtr expression, test;
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  std::vector<std::pair<Target, ExpressionPtr>> settings;
  Block body, otherwise;
  Macro macro;
};

// Reads a template. Throws Error(kData) with the line: a syntax error, a statement that is not supported (include,
// import, extends, block, call, autoescape, do), nesting deeper than 100, a chain of more than 200 operations.
Block parse_template(const std::string& source, const std::string& where);

}  // namespace kvc::jinja
