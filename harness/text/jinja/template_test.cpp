// Pieces of Jinja against jinja2 as transformers sets it up (scripts/golden/chat.py); where bytes come from; hostile
// templates.
#include "harness/text/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"

namespace kvc::jinja {
namespace {

using ::testing::HasSubstr;

Value value_of(const Json& json) {
  if (json.is_null()) return nullptr;
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return make_text(json.get<std::string>(), false);
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json) items.push_back(value_of(item));
    return make_list(std::move(items));
  }
  std::vector<std::pair<std::string, Value>> items;
  for (const auto& [key, item] : json.items()) items.emplace_back(key, value_of(item));
  return make_dict(std::move(items));
}

std::vector<std::pair<std::string, Value>> variables_of(const Json& json) {
  std::vector<std::pair<std::string, Value>> variables;
  for (const auto& [name, value] : json.items()) variables.emplace_back(name, value_of(value));
  return variables;
}

const Json& jinja_golden() {
  static const Json stored =
      Json::parse(read_text_file(std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/jinja.json"));
  return stored;
}

std::string rendered(const std::string& source, const Json& variables = Json::object()) {
  return Template(source, "t").render(variables_of(variables)).bytes();
}

// The fact and the place of the error.
std::string error_of(const std::string& source, const Json& variables = Json::object()) {
  try {
    return "no error, but: " + rendered(source, variables).substr(0, 200);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_THAT(e.mend(), HasSubstr("chat_template: NAME"));
    return e.where() + " " + e.fact();
  }
}

// C for control, d for data, each followed by its text.
std::string origins(const std::string& source, const Json& variables) {
  std::string text;
  for (const Segment& segment : Template(source, "t").render(variables_of(variables)).segments()) {
    text += (segment.control ? "[C:" : "[d:") + segment.text + "]";
  }
  return text;
}

TEST(Jinja, RendersAsPythonDoes) {
  const auto variables = variables_of(jinja_golden().at("variables"));
  ASSERT_GE(jinja_golden().at("cases").size(), 120U);
  int refused = 0;
  for (const Json& stored : jinja_golden().at("cases")) {
    const auto source = stored.at(0).get<std::string>();
    if (stored.at(1).is_null()) {
      ++refused;
      EXPECT_THROW(Template(source, "t").render(variables), Error) << source;
      continue;
    }
    try {
      EXPECT_EQ(Template(source, "t").render(variables).bytes(), stored.at(1).get<std::string>()) << source;
    } catch (const Error& e) {
      ADD_FAILURE() << source << "\n" << e.what();
    }
  }
  EXPECT_GE(refused, 40);
}

TEST(Jinja, EveryByteKeepsItsOrigin) {
  const Json u{{"u", " ab,Cd "}, {"l", {"x", "y"}}};
  EXPECT_EQ(origins("<{{ u }}>", u), "[C:<][d: ab,Cd ][C:>]");
  EXPECT_EQ(origins("{{ '<' + u|trim + '>' }}", u), "[C:<][d:ab,Cd][C:>]");
  EXPECT_EQ(origins("{{ '<' ~ u.strip() ~ 1 }}", u), "[C:<][d:ab,Cd][C:1]");
  EXPECT_EQ(origins("{{ u.split(',')[0] }}|{{ u[2:4] }}|{{ u[::-1] }}", u), "[d: ab][C:|][d:b,][C:|][d: dC,ba ]");
  EXPECT_EQ(origins("{{ u|upper }}{{ u.title() }}{{ u|lower }}", u), "[d: AB,CD  Ab,Cd  ab,cd ]");
  EXPECT_EQ(origins("{{ u|replace('b', 'B') }}", u), "[d: a][C:B][d:,Cd ]");
  EXPECT_EQ(origins("{{ l|join('-') }}{{ l|first }}", u), "[d:x][C:-][d:yx]");
  EXPECT_EQ(origins("{{ l|tojson }}", u), "[C:[\"][d:x][C:\", \"][d:y][C:\"]]");
  EXPECT_EQ(origins("{{ l }}", u), "[C:['][d:x][C:', '][d:y][C:']]");
  EXPECT_EQ(origins("{{ u|indent(1) }}{{ '%s' }}", Json{{"u", "a\nb"}}), "[d:a][C:\n ][d:b][C:%s]");
  EXPECT_EQ(origins("{% set x %}<{{ u }}>{% endset %}{{ x[1:] }}", Json{{"u", "a"}}), "[d:a][C:>]");
  EXPECT_EQ(origins("{% macro f(x) %}({{ x }}){% endmacro %}{{ f(u) * 2 }}", Json{{"u", "a"}}),
            "[C:(][d:a][C:)(][d:a][C:)]");
  EXPECT_EQ(origins("{% for c in u %}{{ c }}{% endfor %}{{ u if u == 'é' }}", Json{{"u", "é"}}), "[d:éé]");
  // What a text is compared with does not mark it.
  EXPECT_EQ(origins("{{ {'a': u}['a'] }}{{ u|string|default('z')|safe }}", Json{{"u", "a"}}), "[d:aa]");
}

// Elements that only the loop over them keeps alive.
TEST(Jinja, ElementsOfATextLiveAsLongAsTheLoop) {
  const Json u{{"u", "a-b"}};
  EXPECT_EQ(rendered("{{ u|select|join }}{{ u|reject('eq', '-')|join }}{{ '+'.join(u) }}{{ '+'.join({'k': 1}) }}", u),
            "a-baba+-+bk");
}

TEST(Jinja, ErrorsNameTheLine) {
  EXPECT_EQ(error_of("a\n\n{{ x.y }}"), "t:3 the chat template fails: 'x' is undefined, it has no 'y'");
  EXPECT_EQ(error_of("{% if a\n %}"), "t:2 'if' is not closed: 'endif' is missing");
  EXPECT_EQ(error_of("\n{% include 'x' %}"), "t:2 the statement 'include' is not supported");
  EXPECT_EQ(error_of("\n\n{{ raise_exception('Only users!') }}"),
            "t:3 the chat template fails: it refuses the conversation: Only users!");
  EXPECT_EQ(error_of("{{ 1 |\n nosuch }}"), "t:2 the chat template fails: the filter 'nosuch' is not supported");
  EXPECT_EQ(error_of("{{ 'a' + x }}"), "t:1 the chat template fails: '+' between a string and 'x', which is undefined");
  EXPECT_EQ(error_of("{{ 'a'.format(1) }}"),
            "t:1 the chat template fails: the function or method 'format' is not supported");
  EXPECT_EQ(error_of("{{ 'a"), "t:1 a string is not closed");
  EXPECT_EQ(error_of("{% set a = [namespace()] %}"),
            "t:1 the chat template fails: a namespace inside a list, a dict or a namespace is not supported");
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(Jinja, DeepTemplatesAreErrors) {
  const int n = 30'000;
  for (const std::string& source :
       {"{{ " + repeated("(", n) + "1" + repeated(")", n) + " }}", "{{ " + repeated("[", n) + repeated("]", n) + " }}",
        "{{ " + repeated("{1:", n) + repeated("}", n) + " }}", "{{ " + repeated("not ", n) + "1 }}",
        "{{ " + repeated("-", n) + "1 }}", "{{ 1" + repeated("+1", n) + " }}", "{{ 1" + repeated("|abs", n) + " }}",
        "{{ x" + repeated(".x", n) + " }}", "{{ x" + repeated("[0]", n) + " }}", "{{ x" + repeated("()", n) + " }}",
        "{{ 1" + repeated(" if 1 else 1", n) + " }}", "{{ 1" + repeated("**1", n) + " }}", repeated("{% if 1 %}", n),
        repeated("{% for x in y %}", n), "{% set " + repeated("(", n) + "a" + repeated(")", n) + " %}",
        repeated("{% macro a() %}", n), repeated("{% set x %}", n),
        "{{ f" + repeated("(f", n) + repeated(")", n) + " }}",
        "{{ x is in " + repeated("[", n) + repeated("]", n) + " }}"}) {
    EXPECT_THAT(error_of(source), ::testing::AnyOf(HasSubstr("nests deeper"), HasSubstr("chains more than")))
        << source.substr(0, 20);
  }
  EXPECT_EQ(rendered("{{ 1" + repeated(" or 1", 10'000) + " }}"), "1");
  EXPECT_EQ(rendered(repeated("{% if 1 %}{% endif %}", 1000)), "");
  EXPECT_THAT(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("nests deeper than 500"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(
      error_of("{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {1: ns.x} %}{% endfor %}"),
      HasSubstr("nested deeper than 64"));
}

TEST(Jinja, EndlessWorkIsAnError) {
  const std::string loops =
      "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor "
      "%}";
  EXPECT_THAT(error_of(loops), HasSubstr("too many steps"));
  EXPECT_THAT(error_of("{{ range(99999999999) }}"), HasSubstr("more than 100,000"));
  EXPECT_THAT(error_of("{{ 'x' * 9999999999 }}"), HasSubstr("too many bytes"));
  EXPECT_THAT(error_of("{{ 'xxxxxxxx' * 9223372036854775807 }}"), HasSubstr("too long"));
  EXPECT_THAT(error_of("{{ [1] * 9999999999 }}"), HasSubstr("too many steps"));
  EXPECT_THAT(error_of("{{ 9 ** 9999999 }}"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("{{ -9223372036854775807 - 1 - 1 }}"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("out of range"));
  EXPECT_EQ(rendered("{{ (-9223372036854775807 - 1) % -1 }}{{ 'abc'[::-9223372036854775807 - 1] }}"), "0c");
  const std::string bomb = "{% set ns = namespace(s='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ";
  EXPECT_THAT(error_of(bomb + "+ ns.s %}{% endfor %}"), HasSubstr("too many bytes"));
  EXPECT_THAT(error_of(bomb + "~ ns.s %}{% endfor %}"), HasSubstr("too many bytes"));
  EXPECT_THAT(error_of(bomb + ".replace('x', 'xxx') %}{% endfor %}"), HasSubstr("too many bytes"));
  EXPECT_THAT(error_of(bomb + "|tojson|tojson %}{% endfor %}"), HasSubstr("too many"));
  EXPECT_THAT(error_of("{% set s = 'x,' * 9000000 %}{{ s.split(',')|length }}"), HasSubstr("too many"));
  EXPECT_THAT(error_of("{% for i in range(99999) %}" + repeated("x", 1000) + "{% endfor %}"),
              HasSubstr("too many bytes"));
  EXPECT_THAT(error_of("{{ 1|tojson(indent=999999999999) }}"), HasSubstr("0 to 100"));
  EXPECT_THAT(error_of("{{ 'a'|indent(999999999999) }}"), HasSubstr("wider than 1000"));
  EXPECT_THAT(error_of(repeated("x", 600'000)), HasSubstr("600000 bytes"));
}

TEST(Jinja, AnyBytesGiveTextOrAnError) {
  std::uint64_t state = 7;
  const auto random = [&](size_t below) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<size_t>(state >> 33U) % below;
  };
  const auto variables = variables_of(jinja_golden().at("variables"));
  const Json& cases = jinja_golden().at("cases");
  const Limits small{20'000, 1 << 16, 1 << 16};
  int errors = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto source = cases.at(random(cases.size())).at(0).get<std::string>();
    const auto other = cases.at(random(cases.size())).at(0).get<std::string>();
    for (size_t edits = 1 + random(3); edits > 0; --edits) {
      const size_t at = random(source.size() + 1);
      if (random(3) == 0) source.insert(at, 1, static_cast<char>(random(256)));
      if (random(3) == 0) source.erase(at, random(6));
      if (random(3) == 0)
        source.insert(std::min(at, source.size()), other.substr(random(other.size() + 1), random(12)));
    }
    try {
      Template(source, "t").render(variables, small);
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 1000);
  EXPECT_LT(errors, 19'000);
}

}  // namespace
}  // namespace kvc::jinja
