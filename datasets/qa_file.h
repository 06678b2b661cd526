// Reading SQuAD (arXiv:1806.03822, JSON of version 1.1 or 2.0) and HotpotQA (arXiv:1809.09600, JSON list) for RULER's
// question answering.
#pragma once

#include <string>

#include "datasets/ruler_text.h"

namespace kvc {

// Fills `questions` (those that have an answer, in the file's order), `passages` (distinct, in the file's order) and,
// of SQuAD, `articles` of `sources`. A relative path is looked for in the working directory, then in the source folder.
// Throws Error(kData) with every problem and its field: another form or version, an empty passage, an id or a key
// twice; or that no question has an answer.
void read_qa_file(const std::string& path, RulerSources& sources);

}  // namespace kvc
