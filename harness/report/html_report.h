// report.html: one file that a browser opens without a network or a server. The page, its style and its script are the
// files of harness/report/html, built into the program; the numbers are report.json's, in fewer digits; the answers are
// packed by document (zlib, base64) and unpacked when somebody reads them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/explain/explanation.h"
#include "harness/report/answer_texts.h"
#include "harness/report/tabulate.h"

namespace kvc {

struct HtmlExtras {
  std::string name;                            // of the sweep
  std::string counts;                          // "234 records: 230 done, 4 failed."
  std::vector<std::string> summary;            // what stands out
  Json self_proof, config;                     // as the results folder has them; null where it has none
  std::vector<Explanation> explanations = {};  // of lost answers
};

std::string render_html(const Tabulated& tabulated, const AnswerTexts& texts, const HtmlExtras& extras);

// Zlib's format in base64.
std::string packed_base64(std::string_view bytes);

}  // namespace kvc
