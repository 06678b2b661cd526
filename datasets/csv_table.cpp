#include "datasets/csv_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kSeparators = ",;\t";

// Of the first row, quoted cells left out.
char guess_separator(std::string_view text) {
  std::array<int64_t, 3> counts{};
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '\n' || c == '\r') break;
    if (const size_t place = kSeparators.find(c); place != std::string_view::npos) ++counts.at(place);
  }
  return kSeparators[static_cast<size_t>(std::max_element(counts.begin(), counts.end()) - counts.begin())];
}

class Parser {
 public:
  Parser(std::string_view text, DataReader& in) : text_(text), in_(in) {}

  CsvTable run() {
    if (says_separator()) {
      table_.separator = text_[4];
      at_ = 5;
      end_line();
    } else {
      table_.separator = guess_separator(text_);
    }
    while (at_ < text_.size() && read_row()) {
    }
    return std::move(table_);
  }

 private:
  // Excel's own first line, "sep=;".
  bool says_separator() const {
    return text_.starts_with("sep=") && text_.size() > 5 && kSeparators.find(text_[4]) != std::string_view::npos &&
           (text_[5] == '\n' || text_[5] == '\r');
  }

  // At a line end: steps over it. CR LF is one.
  bool end_line() {
    if (at_ >= text_.size()) return true;
    if (text_[at_] != '\n' && text_[at_] != '\r') return false;
    at_ += text_.substr(at_, 2) == "\r\n" ? 2 : 1;
    ++line_;
    return true;
  }

  bool fail(int64_t line, const std::string& fact, const std::string& mend) {
    in_.at_line(line);
    in_.add("", fact, mend);
    return false;
  }

  // False after a problem.
  bool read_row() {
    CsvRow row{line_, {}};
    while (true) {
      row.cells.emplace_back();
      if (!read_cell(row.cells.back())) return false;
      if (end_line()) break;
      ++at_;  // a separator: a cell ends at nothing else
      if (row.cells.size() == kMostCells) {
        return fail(row.line, fmt::format("the row has more than {} cells", kMostCells),
                    "is a quote missing, or is this another kind of file?");
      }
    }
    const auto blank = [](const std::string& cell) { return strip_space(cell).empty(); };
    if (!std::all_of(row.cells.begin(), row.cells.end(), blank)) table_.rows.push_back(std::move(row));
    return true;
  }

  bool read_cell(std::string& cell) {
    if (at_ < text_.size() && text_[at_] == '"') return read_quoted(cell);
    const std::array<char, 3> ends = {table_.separator, '\r', '\n'};
    const size_t end = std::min(text_.find_first_of({ends.data(), ends.size()}, at_), text_.size());
    cell = text_.substr(at_, end - at_);
    at_ = end;
    return true;
  }

  // Two quotes inside stand for one.
  bool read_quoted(std::string& cell) {
    const int64_t opened = line_;
    ++at_;
    while (true) {
      const size_t quote = text_.find('"', at_);
      if (quote == std::string_view::npos) {
        return fail(opened, "the quote that opens a cell here is not closed",
                    "close it; a quote inside a quoted cell is written twice");
      }
      add_lines(text_.substr(at_, quote - at_), cell);
      at_ = quote + 1;
      if (at_ >= text_.size() || text_[at_] != '"') break;
      cell += '"';
      ++at_;
    }
    if (at_ < text_.size() && text_[at_] != table_.separator && text_[at_] != '\n' && text_[at_] != '\r') {
      return fail(line_, "there is text behind the closing quote of a cell",
                  "a quote inside a quoted cell is written twice; quote the whole cell or nothing of it");
    }
    return true;
  }

  // Line ends inside a cell become "\n", and count as lines of the file.
  void add_lines(std::string_view part, std::string& cell) {
    for (size_t i = 0; i < part.size(); ++i) {
      if (part[i] == '\r' && i + 1 < part.size() && part[i + 1] == '\n') continue;
      const bool ends = part[i] == '\r' || part[i] == '\n';
      line_ += ends ? 1 : 0;
      cell += ends ? '\n' : part[i];
    }
  }

  std::string_view text_;
  DataReader& in_;
  size_t at_ = 0;
  int64_t line_ = 1;
  CsvTable table_;
};

}  // namespace

CsvTable read_csv(const std::string& text, DataReader& in) {
  return Parser(text, in).run();
}

}  // namespace kvc
