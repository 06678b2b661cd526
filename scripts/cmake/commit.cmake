# Writes OUTPUT, a C++ file with the commit of SOURCE_DIR and whether its sources differ from it. Run by every build; the file is only
# written when that changed, so that one small file is compiled again.
set(commit "")
set(dirty false)
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  # What the program is made of; notes and results beside it do not change it.
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} --no-optional-locks status --porcelain -- CMakeLists.txt harness methods datasets scripts/cmake
                  OUTPUT_VARIABLE changes ERROR_QUIET)
  if(NOT "${changes}" STREQUAL "")
    set(dirty true)
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT
  "namespace kvc {\nextern const char* const kBuildCommit;\nextern const bool kBuildDirty;\nconst char* const kBuildCommit = \"${commit}\";\nconst bool kBuildDirty = ${dirty};\n}  // namespace kvc\n")
