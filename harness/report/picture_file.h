// Pictures as files: SVG as it is; PDF and PNG through rsvg-convert (Debian: librsvg2-bin) where it is installed.
#pragma once

#include <string>

namespace kvc {

bool can_convert_pictures();

// By the end of `path`: .svg, .pdf or .png; "" is standard output, SVG. Throws Error(kUsage) for another ending, for
// PDF and PNG without rsvg-convert, and Error(kData) where it fails.
void write_picture(const std::string& path, const std::string& svg);

}  // namespace kvc
