#include "harness/cli/parse_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

void add_option_names(const CLI::App& app, std::vector<std::string>& names) {
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const CLI::App* parsed_command(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return parsed.empty() ? nullptr : parsed.front();
}

std::string help_of(const CLI::App& app) {
  const CLI::App* command = parsed_command(app);
  return command == nullptr ? "kvc --help lists the commands" : fmt::format("see kvc {} --help", command->get_name());
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::string before(const std::string& text, const std::string& mark) {
  return text.substr(0, text.find(mark));
}

// "1e+308" of "1000...", "0.5" of "0.500000": CLI11 writes the limits of a range with all their digits.
std::string short_number(const std::string& text) {
  int64_t whole = 0;
  const char* end = text.data() + text.size();
  if (const auto [p, ec] = std::from_chars(text.data(), end, whole); ec == std::errc() && p == end) return text;
  double value = 0;
  const auto [p, ec] = std::from_chars(text.data(), end, value);
  return ec == std::errc() && p == end ? fmt::format("{:g}", value) : text;
}

bool is_no_limit(const std::string& text) {
  double value = 0;
  const auto [p, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  return ec != std::errc() || std::abs(value) >= 9.2e18;
}

// "--seed: Value -1 not in range 0 to 5" as "--seed must be 0 to 5; got -1"; nothing of another message.
std::string range_fact(const CLI::App& app, const std::string& what) {
  const size_t value = what.find(": Value "), range = what.find(" not in range "), to = what.rfind(" to ");
  if (value == std::string::npos || range == std::string::npos || to == std::string::npos || to < range) return "";
  const std::string low = what.substr(range + 14, to - range - 14), high = what.substr(to + 4);
  const std::string got = what.substr(value + 8, range - value - 8), name = what.substr(0, value);
  // CLI::PositiveNumber's least number is printed as 0; its name is a part of the option's type.
  const CLI::App* command = parsed_command(app);
  const CLI::Option* option = (command == nullptr ? app : *command).get_option_no_throw(name);
  const bool above_zero = option != nullptr && option->get_type_name().find("POSITIVE") != std::string::npos;
  const std::string limits = is_no_limit(high) ? above_zero ? "above 0" : "at least " + short_number(low)
                                               : short_number(low) + " to " + short_number(high);
  return fmt::format("{} must be {}; got {}", name, limits, got);
}

// What an option that takes a number was given instead.
std::string number_fact(const CLI::App& app, const std::string& name, const std::string& got) {
  const CLI::App* command = parsed_command(app);
  const CLI::Option* option = (command == nullptr ? app : *command).get_option_no_throw(name);
  const bool whole = option != nullptr && option->get_type_name().find("INT") != std::string::npos;
  const size_t digits = got.starts_with('-') || got.starts_with('+') ? 1 : 0;
  const bool is_integer = got.size() > digits && got.find_first_not_of("0123456789", digits) == std::string::npos;
  if (whole && is_integer && !got.starts_with('-'))
    return fmt::format("{} must be at most {}; got {}", name, std::numeric_limits<int64_t>::max(), got);
  if (whole && is_integer && option->get_type_name().find("UINT") != std::string::npos)
    return fmt::format("{} must be 0 or more; got {}", name, got);
  return fmt::format("{} must be a {}; got {}", name, whole ? "whole number" : "number", got);
}

std::string plain(const CLI::App& app, const CLI::ParseError& error) {
  const std::string what = error.what(), kind = error.get_name();
  if (const std::string range = range_fact(app, what); !range.empty()) return range;
  if (what.rfind("The following argument", 0) == 0) {
    // "The following arguments were not expected: last .. first"
    const size_t at = what.find_last_of(' ');
    return at == std::string::npos ? what : fmt::format("unexpected argument '{}'", what.substr(at + 1));
  }
  if (kind == "RequiredError" && what == "A subcommand is required") return "no command given";
  if (kind == "ArgumentMismatch" && ends_with(what, "missing")) return before(what, ":") + " needs a value";
  if (kind == "ExcludesError") {
    const size_t at = what.find(" excludes ");
    if (at != std::string::npos)
      return fmt::format("{} and {} cannot be given together", what.substr(0, at), what.substr(at + 10));
  }
  if (kind == "RequiresError") {
    const size_t at = what.find(" requires ");
    if (at != std::string::npos) return fmt::format("{} needs {}", what.substr(0, at), what.substr(at + 10));
  }
  if (kind == "ConversionError" && what.rfind("Could not convert: ", 0) == 0) {
    const std::string rest = what.substr(19);
    const size_t at = rest.find(" = ");
    if (at != std::string::npos) return number_fact(app, rest.substr(0, at), rest.substr(at + 3));
  }
  return what;
}

}  // namespace

void check_names(const CLI::App& app, int argc, const char* const* argv) {
  const std::vector<std::string> commands = command_names(app);
  const CLI::App* command = nullptr;
  if (argc > 1 && argv[1][0] != '-' && !contains(commands, argv[1]))
    throw Error(ErrorKind::kUsage, fmt::format("unknown command '{}'", argv[1]), "", suggest_name(argv[1], commands));
  for (int i = 1; i < argc && command == nullptr; ++i) {
    if (contains(commands, argv[i])) command = app.get_subcommand(argv[i]);
  }
  if (command != nullptr && command->get_allow_extras()) return;  // its other options are for another program
  std::vector<std::string> known;
  add_option_names(app, known);
  if (command != nullptr) add_option_names(*command, known);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--") return;
    const std::string name = before(word, "=");
    if (word.rfind("--", 0) != 0 || contains(known, name)) continue;
    const std::string nearest = nearest_name(name, known);
    const std::string of = command == nullptr ? "kvc" : "kvc " + command->get_name();
    throw Error(ErrorKind::kUsage, fmt::format("unknown option '{}' of {}", name, of), "",
                nearest.empty() ? fmt::format("see {} --help", of) : fmt::format("did you mean '{}'?", nearest));
  }
}

Error parse_error(const CLI::App& app, const CLI::ParseError& error) {
  return {ErrorKind::kUsage, plain(app, error), "", help_of(app)};
}

}  // namespace kvc
