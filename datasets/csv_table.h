// Tables as spreadsheets save them: RFC 4180, and what Excel, LibreOffice and Numbers write instead of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "datasets/data_file.h"

namespace kvc {

struct CsvRow {
  int64_t line = 0;  // in which it begins, from 1; a quoted cell may go over several
  std::vector<std::string> cells;
};

struct CsvTable {
  char separator = ',';
  std::vector<CsvRow> rows;  // the first is the header; rows of nothing but empty cells are left out
};

// `text` is UTF-8 without byte order mark. Lines end in LF, CRLF or CR. The separator is the one of comma, semicolon
// and tab that the first row has most of, or what a first line "sep=;" says. A quote inside an unquoted cell is a
// character like any other. Problems with their lines go to `in`: a quote that is not closed, text behind a closing
// quote, more than kMostCells cells in a row; reading ends at the first of them.
CsvTable read_csv(const std::string& text, DataReader& in);

inline constexpr size_t kMostCells = 256;

}  // namespace kvc
