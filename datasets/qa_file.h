// Reading SQuAD (arXiv:1806.03822, JSON of version 1.1 or 2.0) and HotpotQA (arXiv:1809.09600, JSON list) for RULER's
// question answering.
#pragma once

#include <string>

#include "datasets/ruler_text.h"

namespace kvc {

// Fills `questions` (those that have an answer, in the file's order) and `passages` (distinct, in the file's order) of
// `sources`. A relative path is looked for in the working directory, then in the source folder. Throws Error(kData)
// naming file and field: another form, no question with an answer.
void read_qa_file(const std::string& path, RulerSources& sources);

}  // namespace kvc
