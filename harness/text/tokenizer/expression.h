// Regular expressions as tokenizer.json writes them (Oniguruma, Ruby syntax), said in PCRE2's syntax.
#pragma once

#include <string>
#include <string_view>

namespace kvc {

// The same expression for PCRE2 with UTF and UCP: \s is Unicode's White_Space (PCRE2 adds U+180E), \v and \e are single
// characters, anchors are those of lines, {,n} starts at 0, groups capture nothing. Throws Error(kData), naming the
// place in the expression, for whatever the two engines read differently and this does not translate: \w \b \h \R \K
// \G, back references, POSIX and nested classes, {n}+ and {n}?, inline options other than (?i:...), scripts and binary
// properties, ignored case where one letter may stand for two.
std::string translate_expression(std::string_view expression, const std::string& where);

}  // namespace kvc
