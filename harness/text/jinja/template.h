// A template of the Jinja language, as models are shipped with one for conversations. What is known of the language is
// what such templates use: output, if, for, set, macro, with, filter and generation tags, white space control, and the
// expressions, filters, tests and methods named in syntax.h, filters.cpp and functions.cpp; the rest is an error that
// names it. Judged against Python's jinja2 in template_test.cpp and ../chat_template_test.cpp.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/text/jinja/run.h"
#include "harness/text/jinja/syntax.h"
#include "harness/text/jinja/value.h"

namespace kvc::jinja {

class Template {
 public:
  // `where` names the file and key for errors, which add the line. Throws Error(kData), see parse_template().
  Template(std::string source, std::string where);

  const std::string& source() const { return source_; }
  const std::string& where() const { return where_; }

  // What the template writes. Text of the template is control, text of `variables` is what they say it is.
  // `date` is what strftime_now() tells. Throws Error(kData): the template refuses (raise_exception), fails, uses what
  // is not supported, or goes beyond the limits.
  Text render(const std::vector<std::pair<std::string, Value>>& variables, const Limits& limits = {},
              const Date& date = {}) const;

 private:
  std::string source_;
  std::string where_;
  Block body_;
};

}  // namespace kvc::jinja
