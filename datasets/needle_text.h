// Text pieces for the needle data set.
#pragma once

#include <string>
#include <vector>

namespace kvc {

// At least 200 distinct one-word nouns, in lower case.
const std::vector<std::string>& needle_subjects();

// Adjectives that make another subject of one: "castle", "old castle".
const std::vector<std::string>& needle_kinds();

// Cuts a text behind its sentences; every piece keeps the white space that follows it, and all pieces together are the
// text. A sentence ends in . ! or ?, perhaps with closing quotes, before white space and no lower-case letter; titles
// ("Mr.") and initials end none. An empty line ends one as well.
std::vector<std::string> split_sentences(const std::string& text);

// The same behind words.
std::vector<std::string> split_words(const std::string& text);

}  // namespace kvc
