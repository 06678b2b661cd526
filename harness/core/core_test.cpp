#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include "harness/core/byte_size.h"
#include "harness/core/config_text.h"
#include "harness/core/count.h"
#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/core/options.h"
#include "harness/core/printable.h"
#include "harness/core/registry.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST(Error, HasThreeParts) {
  const Error error(ErrorKind::kData, "the file is cut short", "a.gguf", "download it again");
  EXPECT_STREQ(error.what(), "the file is cut short\n  where: a.gguf\n  mend:  download it again");
  EXPECT_EQ(exit_code(error.kind()), 3);
}

TEST(Error, SuggestsTheNearestName) {
  EXPECT_EQ(suggest_name("n_sinks", {"n_sink", "window"}), "did you mean 'n_sink'? Known: n_sink, window");
  EXPECT_EQ(suggest_name("zzz", {"n_sink", "window"}), "known: n_sink, window");
  EXPECT_EQ(nearest_name("snapvk", {"snapkv", "h2o"}), "snapkv");
}

TEST(Error, ListsSeveralProblems) {
  const std::string text = error_of([] {
    throw_if_any(ErrorKind::kUsage, {{"a is wrong", "f:1", "mend a"}, {"b is wrong", "f:2", ""}}, "f");
  });
  EXPECT_EQ(text, "2 problems in f\n1. a is wrong\n  where: f:1\n  mend:  mend a\n2. b is wrong\n  where: f:2");
}

constexpr const char* kYaml = R"(sweep: demo
target: [0.5, 1, "512 entries"]
quoted: "0.5"
method:
  - snapkv
  - {method: streaming_llm,
     n_sink: [0, 4]}
empty:
)";

TEST(ConfigText, KeepsTypesAndLines) {
  const ConfigText config = ConfigText::from_string(kYaml, "x.yaml");
  const Json& value = config.value();
  EXPECT_EQ(value["sweep"], "demo");
  EXPECT_TRUE(value["target"][0].is_number_float());
  EXPECT_TRUE(value["target"][1].is_number_integer());
  EXPECT_EQ(value["quoted"], Json("0.5"));
  EXPECT_TRUE(value["empty"].is_null());
  EXPECT_EQ(config.where("/method/1/n_sink"), "x.yaml:7, method[1].n_sink");
  EXPECT_EQ(config.where("/method/1/no_such/key"), "x.yaml:6, method[1].no_such.key");
}

TEST(ConfigText, ReadsJsonAlike) {
  const ConfigText yaml = ConfigText::from_string("a: [1, 2.5, true, null]\nb: {c: text}\n", "y");
  const ConfigText json =
      ConfigText::from_string("{\n \"a\": [1, 2.5, true, null],\n \"b\": {\"c\": \"text\"}\n}", "j");
  EXPECT_EQ(canonical_json(yaml.value()), canonical_json(json.value()));
  EXPECT_EQ(json.where("/b/c"), "j:3, b.c");
}

TEST(ConfigText, NamesTheLineOfAMistake) {
  EXPECT_THAT(error_of([] { ConfigText::from_string("a: 1\nb: [1, 2\n", "x.yaml"); }), HasSubstr("where: x.yaml:"));
  EXPECT_THAT(error_of([] { ConfigText::from_string("a: 1\nb: 2\na: 3\n", "x.yaml"); }),
              HasSubstr("duplicate key 'a'\n  where: x.yaml:3"));
  EXPECT_THAT(error_of([] { ConfigText::from_file("/no/such/file.yaml"); }), HasSubstr("cannot read the config file"));
  EXPECT_THAT(error_of([] { ConfigText::from_string(std::string(100, '['), "x.yaml"); }), HasSubstr("x.yaml"));
}

// Python's json.dumps writes other planes as surrogate pairs (RFC 8259, section 7).
TEST(ConfigText, ReadsEveryJsonText) {
  const ConfigText json = ConfigText::from_string(
      "{\"sweep\": \"\\ud83d\\udcc4 \\u00e9\",\n\"list\": [1,\n2\n,3.5e0, true,\n\"x\"],\r\n\"n\": {\"a/b\":\nnull}}\n",
      "s.json");
  EXPECT_EQ(json.value()["sweep"], "\xF0\x9F\x93\x84 \xC3\xA9");
  EXPECT_EQ(json.value()["list"], Json::parse("[1, 2, 3.5, true, \"x\"]"));
  EXPECT_EQ(json.where("/list"), "s.json:2, list");
  EXPECT_EQ(json.where("/list/0"), "s.json:2, list[0]");
  EXPECT_EQ(json.where("/list/1"), "s.json:3, list[1]");
  EXPECT_EQ(json.where("/list/2"), "s.json:4, list[2]");
  EXPECT_EQ(json.where("/list/4"), "s.json:5, list[4]");
  EXPECT_EQ(json.where("/n"), "s.json:6, n");
  // Where the name does not tell, what is JSON is read as JSON, and YAML's own brackets stay YAML.
  EXPECT_EQ(ConfigText::from_string(R"({"a": "\ud83d\udcc4"})", "options").value()["a"], "\xF0\x9F\x93\x84");
  EXPECT_EQ(ConfigText::from_string("{a: [b, 0.5]}", "options").value()["a"][0], "b");
}

TEST(ConfigText, JsonMistakesHaveLineAndColumn) {
  const auto error = [](const std::string& text) { return error_of([&] { ConfigText::from_string(text, "s.json"); }); };
  EXPECT_THAT(error("{\"a\": 1,\n \"a\": 2}"), HasSubstr("duplicate key 'a'\n  where: s.json:2:5"));
  EXPECT_THAT(error("{\"a\": [{\"b\": 1, \"b\": 2}]}"), HasSubstr("duplicate key 'b'"));
  EXPECT_THAT(error("{\"a\": 1,\n\"b\": tru}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("{\"a\": 1,\n\"b\": tru}"), HasSubstr("where: s.json:2:"));
  EXPECT_THAT(error("{\"a\": 1,}"), HasSubstr("where: s.json:1:9"));
  EXPECT_THAT(error("{\"a\": \"\\ud83d\"}"), HasSubstr("surrogate"));  // half a pair
  EXPECT_THAT(error("{} {}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error(std::string(100, '[') + std::string(100, ']')), HasSubstr("nested too deeply"));
}

TEST(ConfigText, ASecondYamlDocumentIsAnError) {
  const auto error = [](const std::string& text) { return error_of([&] { ConfigText::from_string(text, "s.yaml"); }); };
  EXPECT_THAT(error("sweep: a\n---\nsweep: b\n"), HasSubstr("the file holds 2 YAML documents; only one is read"));
  EXPECT_THAT(error("sweep: a\n---\nsweep: b\n"), HasSubstr("s.yaml:3"));
  EXPECT_THAT(error("sweep: a\n...\nsweep: b\n"), HasSubstr("only one is read"));
  EXPECT_EQ(ConfigText::from_string("---\nsweep: a\n...\n", "s.yaml").value()["sweep"], "a");
  EXPECT_TRUE(ConfigText::from_string("# nothing\n", "s.yaml").value().is_null());
}

TEST(ConfigText, AliasesDoNotMultiplyForEver) {
  std::string text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (char c = 'b'; c < 'j'; ++c) {
    text += fmt::format("{0}: &{0} [", c);
    for (int i = 0; i < 10; ++i) text += fmt::format("{}*{}", i > 0 ? ", " : "", static_cast<char>(c - 1));
    text += "]\n";
  }
  EXPECT_THAT(error_of([&] { ConfigText::from_string(text, "x.yaml"); }), HasSubstr("more than a million values"));
}

struct SinkOptions {
  int64_t n_sink = 4;
  double bound = 3.0;
  bool fast = false;
  std::string pool = "max";
  std::vector<std::string> articles;
  void fields(auto&& visit) {
    visit("n_sink", n_sink, "leading entries always kept", at_least(0));
    visit("bound", bound, "largest bias", more_than(0, 50));
    visit("fast", fast, "");
    visit("pool", pool, "", one_of({"max", "avg", "none"}));
    visit("articles", articles, "");
  }
  void check(const OptionCheck& fail) const {
    if (fast && n_sink > 0) fail("fast", "cannot be combined with n_sink", "n_sink: 0");
  }
};

TEST(Options, ReadsEveryType) {
  SinkOptions options;
  Problems problems;
  read_options(Json::parse(R"({"n_sink": 0, "bound": 2, "fast": true, "articles": [20002, "a"]})"), options, "",
               problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(options.n_sink, 0);
  EXPECT_EQ(options.bound, 2.0);
  EXPECT_THAT(options.articles, ElementsAre("20002", "a"));
  EXPECT_EQ(options_to_json(options).dump(),
            R"({"n_sink":0,"bound":2.0,"fast":true,"pool":"max","articles":["20002","a"]})");
}

TEST(Options, ReportsEveryMistakeAtOnce) {
  const ConfigText text = ConfigText::from_string("method:\n  n_sinks: 1\n  bound: high\n  n_sink: 2.5\n", "x.yaml");
  Problems problems(&text);
  SinkOptions options;
  read_options(text.value()["method"], options, "/method", problems);
  ASSERT_EQ(problems.list().size(), 3u);
  EXPECT_EQ(error_of([&] { problems.throw_if_any(); }),
            "3 problems in x.yaml\n"
            "1. 'n_sink' must be an integer; got 2.5\n  where: x.yaml:4, method.n_sink\n  mend:  default: 4\n"
            "2. 'bound' must be a number; got \"high\"\n  where: x.yaml:3, method.bound\n  mend:  default: 3.0\n"
            "3. unknown option 'n_sinks'\n  where: x.yaml:2, method.n_sinks\n"
            "  mend:  did you mean 'n_sink'? Known: n_sink, bound, fast, pool, articles");
}

std::vector<std::string> sink_problems(const Json& given) {
  Problems problems;
  SinkOptions options;
  read_options(given, options, "", problems);
  std::vector<std::string> texts;
  for (const Problem& problem : problems.list()) texts.push_back(problem.fact + " | " + problem.mend);
  return texts;
}

TEST(Options, SaysWhatAValueMustBeAndWhatItIs) {
  EXPECT_THAT(sink_problems({}), IsEmpty());
  EXPECT_THAT(sink_problems({{"n_sink", -3}, {"bound", 50.5}, {"pool", "maxx"}}),
              ElementsAre("'n_sink' must be 0 or more; got -3 | default: 4",
                          "'bound' must be above 0 and at most 50; got 50.5 | default: 3.0",
                          "'pool' must be max, avg or none; got 'maxx' | did you mean 'max'? Known: max, avg, none"));
  EXPECT_THAT(sink_problems({{"bound", 0}}), ElementsAre(HasSubstr("got 0 |")));
  EXPECT_THAT(sink_problems({{"bound", std::numeric_limits<double>::quiet_NaN()}}),
              ElementsAre(HasSubstr("got nan |")));
}

TEST(Options, ChecksSeveralValuesTogetherOnceEachIsValid) {
  EXPECT_THAT(sink_problems({{"fast", true}, {"n_sink", -1}}), ElementsAre(HasSubstr("'n_sink'")));
  EXPECT_THAT(sink_problems({{"fast", true}}), ElementsAre("'fast' cannot be combined with n_sink | n_sink: 0"));
}

TEST(Options, RulesOfIntegersTextsAndLists) {
  EXPECT_EQ(odd(7).problem(7), "");
  EXPECT_EQ(odd(7).problem(8), "must be an odd number from 1 to 7; got 8");
  EXPECT_EQ(odd().problem(-1), "must be an odd number from 1; got -1");
  EXPECT_EQ(between(0, 100).problem(Json{0, 25, 101}), "must be 0 to 100; got 101");
  EXPECT_EQ(between(0, 100).problem(Json::array()), "");
  EXPECT_EQ(named("a file").problem(""), "must name a file; got ''");
  EXPECT_EQ(named("articles").problem(Json::array()), "must name articles; got []");
  EXPECT_EQ(named("articles").problem(Json{"a", ""}), "must name articles; got ''");
  EXPECT_EQ(named("articles").problem(Json{"a"}), "");
  EXPECT_EQ(named("a file").mend("", ""), "write path: FILE");
  EXPECT_EQ(none_or(one_of({"on", "off"})).problem(""), "");
  EXPECT_EQ(none_or(one_of({"on", "off"})).problem("of"), "must be on or off (or empty); got 'of'");
}

struct RangedOptions {
  int64_t n_sink = 4;
  int64_t tokens = 256;
  std::vector<int64_t> sizes = {1};
  std::string kind = "one";
  void fields(auto&& visit) {
    visit("n_sink", n_sink, "", at_least(0));
    visit("tokens", tokens, "", between(128, 4096));
    visit("sizes", sizes, "", between(1, 8));
    visit("kind", kind, "", one_of({"one", "two"}));
  }
};

// Beyond this, sums and products of options overflow somewhere.
TEST(Options, IntegersHaveALimit) {
  for (const char* value : {"1000000001", "9223372036854775807", "18446744073709551615"}) {
    Problems problems;
    SinkOptions options;
    read_options(Json{{"n_sink", Json::parse(value)}}, options, "", problems);
    ASSERT_EQ(problems.list().size(), 1u) << value;
    EXPECT_EQ(problems.list()[0].fact, fmt::format("'n_sink' must be from -1000000000 to 1000000000; got {}", value));
  }
  // YAML reads them as floats. Where the option's own range is narrower, the message gives that one.
  const auto problem_of = [](const char* name, const Json& value) {
    Problems problems;
    RangedOptions options;
    read_options(Json{{name, value}}, options, "", problems);
    return problems.list().empty() ? "" : problems.list()[0].fact;
  };
  EXPECT_EQ(problem_of("n_sink", 1e30), "'n_sink' must be from -1000000000 to 1000000000; got 1e+30");
  EXPECT_EQ(problem_of("n_sink", -1e30), "'n_sink' must be 0 or more; got -1e+30");
  EXPECT_EQ(problem_of("tokens", 1e30), "'tokens' must be 128 to 4096; got 1e+30");
  EXPECT_EQ(problem_of("tokens", Json::parse("9223372036854775807")),
            "'tokens' must be 128 to 4096; got 9223372036854775807");
  EXPECT_EQ(problem_of("sizes", Json::array({2, 1e30})), "'sizes' must be 1 to 8; got 1e+30");
  EXPECT_EQ(problem_of("tokens", 200.5), "'tokens' must be an integer; got 200.5");
  EXPECT_EQ(problem_of("kind", 5), "'kind' must be one or two; got 5");
  EXPECT_EQ(problem_of("kind", "5"), "'kind' must be one or two; got '5'");
  Problems problems;
  SinkOptions options;
  read_options(Json{{"n_sink", kMostInteger}}, options, "", problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(options.n_sink, kMostInteger);
}

struct Shape {
  virtual ~Shape() = default;
  virtual int64_t size() const = 0;
};
struct Square : Shape {
  using Options = SinkOptions;
  explicit Square(Options options) : side(options.n_sink) {}
  int64_t size() const override { return side * side; }
  int64_t side;
};

TEST(Registry, CreatesByNameAndCompletesOptions) {
  Registry<Shape> registry;
  registry.add<Square>("square", "Euclid");
  Problems problems;
  const Json options = registry.find("square")->complete(Json{{"n_sink", 3}}, "", problems);
  EXPECT_EQ(options["pool"], "max");
  EXPECT_EQ(registry.create("square", options)->size(), 9);
  EXPECT_THAT(error_of([&] { registry.create("sqare", {}); }), HasSubstr("did you mean 'square'?"));
  EXPECT_THAT(error_of([&] { registry.add<Square>("square", "again"); }), HasSubstr("two plug-ins are named 'square'"));
}

TEST(JsonLines, CanonicalFormIgnoresKeyOrder) {
  EXPECT_EQ(canonical_json(Json::parse(R"({"b": 1, "a": {"d": 0.1, "c": []}})")), R"({"a":{"c":[],"d":0.1},"b":1})");
  EXPECT_EQ(stable_hash(""), "cbf29ce484222325");
  EXPECT_EQ(stable_hash("a"), "af63dc4c8601ec8c");  // FNV-1a's published value
  EXPECT_NE(derive_seed(7, "a"), derive_seed(7, "b"));
  EXPECT_EQ(derive_seed(7, "a"), derive_seed(7, "a"));
}

TEST(JsonLines, SurvivesATornLastLine) {
  const TemporaryFolder folder;
  const std::string path = folder.file("sub/x.jsonl");
  append_json_line(path, Json{{"n", 1}});
  std::ofstream(path, std::ios::app) << R"({"n": 2, "tor)";
  append_json_line(path, Json{{"n", 3}});
  const JsonLines lines = read_json_lines(path);
  ASSERT_EQ(lines.values.size(), 2u);
  EXPECT_EQ(lines.values[1]["n"], 3);
  EXPECT_THAT(lines.broken_lines, ElementsAre(2));
}

TEST(JsonLines, StoresBytesThatAreNoUtf8) {
  const TemporaryFolder folder;
  append_json_line(folder.file("x.jsonl"), Json{{"text",
                                                 "a\xff"
                                                 "b"}});
  EXPECT_EQ(read_json_lines(folder.file("x.jsonl")).values.at(0)["text"],
            "a\xef\xbf\xbd"
            "b");
}

TEST(JsonLines, MissingFileIsEmpty) {
  EXPECT_TRUE(read_json_lines("/no/such/file").values.empty());
}

TEST(TextFile, LastNameOfFilesAndFolders) {
  EXPECT_EQ(last_name("models/qwen/"), "qwen");
  EXPECT_EQ(last_name("models//qwen"), "qwen");
  EXPECT_EQ(last_name("models/a/../b.gguf"), "b.gguf");
  EXPECT_EQ(last_name("b.gguf"), "b.gguf");
}

TEST(TextFile, OneNameForEverySpellingOfAPath) {
  const std::string here = std::filesystem::current_path().string();
  for (const std::string& path : {std::string("a/own.jsonl"), std::string("./a/own.jsonl"),
                                  std::string("a/b/../own.jsonl"), here + "/a/own.jsonl", here + "/a//own.jsonl"}) {
    EXPECT_EQ(short_path(path), "a/own.jsonl") << path;
  }
  EXPECT_EQ(short_path("a/texts/"), "a/texts");
  EXPECT_EQ(short_path(here + "/a/texts//"), "a/texts");
  EXPECT_EQ(short_path("/no/such/own.jsonl"), "/no/such/own.jsonl");
  EXPECT_EQ(short_path("../own.jsonl"), "../own.jsonl");
  EXPECT_EQ(short_path(""), "");
}

TEST(Printable, NothingSteersATerminal) {
  EXPECT_EQ(printable("a\x1b[2J\tb\n"), "a\\x1b[2J\\x09b\\x0a");
  EXPECT_EQ(printable("\xC2\x9B"
                      "2J"),
            "\\xc2\\x9b2J");  // CSI as one character
  EXPECT_EQ(printable("a\xE2\x80\xAE"
                      "b"),
            "a\\xe2\\x80\\xaeb");                                      // right to left from here
  EXPECT_EQ(printable("a\xE2\x81\xA6\xFF"), "a\\xe2\\x81\\xa6\\xff");  // isolate; no UTF-8
  EXPECT_EQ(printable("Zo\xC3\xAB \xE2\x82\xAC \xE2\x80\x9C"), "Zo\xC3\xAB \xE2\x82\xAC \xE2\x80\x9C");
  EXPECT_EQ(printable(std::string(100, 'x')), std::string(80, 'x') + "...");
  EXPECT_EQ(printable_lines("a\r\nb\tc\rd\x1b", 100), "a\nb c\\x0dd\\x1b");
  EXPECT_EQ(printable_lines(std::string(100, 'x'), 10), std::string(10, 'x') + "...");
}

TEST(DecodeText, ReadsEveryEncoding) {
  const std::string text = "Zo\xC3\xAB \xE2\x82\xAC \xF0\x9F\x93\x84\n";
  EXPECT_EQ(decode_text(text, "utf-8", "t"), text);
  EXPECT_EQ(decode_text("\xEF\xBB\xBF" + text, "utf-8", "t"), text);
  const std::string little("Z\0o\0\xEB\0 \0\xAC\x20 \0\x3D\xD8\xC4\xDC\n\0", 18);
  std::string big = little;
  for (size_t i = 0; i < big.size(); i += 2) std::swap(big[i], big[i + 1]);
  EXPECT_EQ(decode_text("\xFF\xFE" + little, "utf-16", "t"), text);
  EXPECT_EQ(decode_text("\xFE\xFF" + big, "utf-16", "t"), text);
  EXPECT_EQ(decode_text(little, "utf-16", "t"), text);
  EXPECT_EQ(decode_text(big, "utf-16", "t"), text);
  EXPECT_EQ(decode_text("Zo\xEB\n", "latin-1", "t"), "Zo\xC3\xAB\n");
  EXPECT_EQ(decode_text("\xEB\xFF", "bytes", "t"), "\xEB\xFF");
  EXPECT_EQ(decode_text("", "utf-8", "t"), "");
}

TEST(DecodeText, RefusalsNameOffsetAndKind) {
  const auto error = [](const std::string& bytes, const std::string& encoding) {
    return error_of([&] { decode_text(bytes, encoding, "doc.txt"); });
  };
  EXPECT_THAT(error("caf\xE9 noir", "utf-8"), HasSubstr("not UTF-8: byte 0xe9 at offset 3; it seems to be Latin-1"));
  EXPECT_THAT(error("caf\xE9 noir", "utf-8"), HasSubstr("--encoding latin-1"));
  EXPECT_THAT(error(std::string("\xFF\xFEh\0i\0", 6), "utf-8"), HasSubstr("at offset 0; it seems to be UTF-16"));
  EXPECT_THAT(error(std::string("h\0i\0", 4), "utf-8"), HasSubstr("byte 0x00 at offset 1; it seems to be UTF-16"));
  EXPECT_THAT(error("%PDF-1.7\nabc", "utf-8"), HasSubstr("not a text but a PDF file"));
  EXPECT_THAT(error("%PDF-1.7\nabc", "latin-1"), HasSubstr("not a text but a PDF file"));
  EXPECT_THAT(error(std::string("ab\0\x01\x02\x90\x91\xFFzz\0\x04", 12), "utf-8"),
              HasSubstr("byte 0x00 at offset 2; it seems to be no text"));
  EXPECT_THAT(error(std::string("a\0b", 3), "utf-16"), HasSubstr("half a unit at offset 2"));
  EXPECT_THAT(error(std::string("a\0\x3D\xD8", 4), "utf-16"), HasSubstr("first half of a surrogate pair"));
  EXPECT_THAT(error(std::string("\xC4\xDC", 2), "utf-16"), HasSubstr("second half of a surrogate pair"));
  EXPECT_THAT(error("a", "utf8"), HasSubstr("did you mean 'utf-8'? Known: utf-8, utf-16, latin-1, bytes"));
}

TEST(JsonLines, UnwritablePathIsAClearError) {
  EXPECT_THAT(error_of([] { append_json_line("/proc/kvc/x.jsonl", Json{}); }), HasSubstr("/proc/kvc"));
}

// A file size limit stands for a full disk: the write fails half-way, and what was there before stays whole.
TEST(JsonLines, AFullDiskLosesNothing) {
  const TemporaryFolder folder;
  const std::string path = folder.file("x.jsonl");
  append_json_line(path, Json{{"n", 1}});
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{64, 64};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = error_of([&] { append_json_line(path, Json{{"text", std::string(4096, 'x')}}); });
    ::_exit(text.find("cannot write: File too large") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const JsonLines lines = read_json_lines(path);
  EXPECT_EQ(lines.values.size(), 1u);
  EXPECT_TRUE(lines.broken_lines.empty());
}

TEST(WriteFileAtomically, ReplacesAsAWhole) {
  const TemporaryFolder folder;
  write(folder.file("r.json"), "old");
  write_file_atomically(folder.file("r.json"), "new");
  EXPECT_EQ(read(folder.file("r.json")), "new");
  int64_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.file(""))) ++files;
  EXPECT_EQ(files, 1);
}

TEST(ByteSize, ReadsWhatItWritesAndWhatPeopleWrite) {
  EXPECT_EQ(parse_bytes("64 MiB"), 64 << 20);
  EXPECT_EQ(parse_bytes("1.5 GB"), 1'500'000'000);
  EXPECT_EQ(parse_bytes("800kB"), 800'000);
  EXPECT_EQ(parse_bytes("4096 bytes"), 4096);
  EXPECT_EQ(parse_bytes("1.9 B"), 1);
  for (const char* text : {"", "B", "MiB", "64", "64 M", "x MiB", "6 4 MiB", "1e300 GiB", "nan MB", "64 MiB "}) {
    EXPECT_FALSE(parse_bytes(text).has_value()) << text;
  }
  for (const int64_t bytes : {1LL, 1023LL, 1024LL, 3LL << 20, 5LL << 30, 1'000'000LL}) {
    EXPECT_EQ(parse_bytes(bytes_as_text(bytes)), bytes);
  }
  EXPECT_EQ(bytes_as_text(3 << 20), "3 MiB");
}

TEST(Count, SaysTheNounInItsNumber) {
  EXPECT_EQ(count(1, "document"), "1 document");
  EXPECT_EQ(count(0, "document"), "0 documents");
  EXPECT_EQ(count(2, "entry"), "2 entries");
  EXPECT_EQ(count(1, "entry"), "1 entry");
  EXPECT_EQ(count(2, "day"), "2 days");
  EXPECT_EQ(count(3, "batch"), "3 batches");
  EXPECT_EQ(count(3, "KV head"), "3 KV heads");
}

// A data file has no --encoding: the advice must be one that can be followed.
TEST(TextFile, DataFilesAreToldToBeConverted) {
  TemporaryFolder folder;
  std::ofstream(folder.file("wide.txt")) << std::string("\xFF\xFEh\0", 4);
  EXPECT_THAT(error_of([&] { read_utf8_file(folder.file("wide.txt")); }),
              AllOf(HasSubstr("seems to be UTF-16"), HasSubstr("iconv -f utf-16"), Not(HasSubstr("--encoding"))));
}

// Read as a double or wrapped around it would be another number.
TEST(ConfigText, WholeNumbersBeyondInt64AreRefused) {
  for (const std::string number : {"9223372036854775808", "18446744073709551615", "-9223372036854775809",
                                   "1000000000000000000000000000000000000000000000000000000000"}) {
    for (const auto& [text, path] :
         {std::pair{"a: 1\nseed: " + number + "\n", "s.yaml"}, {"{\"a\": 1,\n\"seed\": " + number + "}", "s.json"}}) {
      EXPECT_THAT(error_of([&] { ConfigText::from_string(text, path); }),
                  AllOf(HasSubstr("the whole number " + number.substr(0, 40)), HasSubstr("9223372036854775807"),
                        HasSubstr(std::string(path) + ":2")));
    }
  }
  EXPECT_EQ(ConfigText::from_string("a: '9223372036854775808'", "s.yaml").value().at("a"), "9223372036854775808");
  EXPECT_EQ(ConfigText::from_string("{\"a\": 9223372036854775807}", "s.json").value().at("a"), 9223372036854775807);
}

}  // namespace
}  // namespace kvc
