// The page of report.html and what it is made of; see harness/report/html and scripts/cmake/html_assets.cmake.
#pragma once

namespace kvc {

extern const char* const kHtmlPage;  // with @TITLE@, @CSS@, @DATA@, @BLOCKS@, @JS@ to be filled in
extern const char* const kHtmlStyle;
extern const char* const kHtmlScript;

}  // namespace kvc
