# LibTorch as the target kvc_torch (system includes). Looked for in CMAKE_PREFIX_PATH, then in .deps/python/torch, which scripts/setup fills
# from pip's wheel.
#
# It is linked by hand, not through find_package(Torch): the package of a CUDA build refuses to configure where nvcc is missing, though a
# program that compiles no kernel needs only the libraries. So one way serves CPU and CUDA builds, with or without nvcc.
set(KVC_CUDA AUTO CACHE STRING "AUTO: use the GPU half of LibTorch where it has one; ON: demand it; OFF: CPU only")
set_property(CACHE KVC_CUDA PROPERTY STRINGS AUTO ON OFF)

find_library(KVC_TORCH_CPU torch_cpu PATH_SUFFIXES lib torch/lib
             PATHS ${CMAKE_SOURCE_DIR}/.deps/python/torch)
if(NOT KVC_TORCH_CPU)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup (it installs one into .deps/), or name yours with "
                      "-DCMAKE_PREFIX_PATH=/path/to/libtorch")
endif()
get_filename_component(torch_lib ${KVC_TORCH_CPU} DIRECTORY)
get_filename_component(torch_root ${torch_lib} DIRECTORY)
if(NOT EXISTS ${torch_root}/include/ATen/ATen.h)
  message(FATAL_ERROR "${torch_root} has LibTorch's libraries but not its headers (include/ATen/ATen.h)")
endif()

set(torch_version "of unknown version")
if(EXISTS ${torch_root}/include/torch/headeronly/version.h)
  file(STRINGS ${torch_root}/include/torch/headeronly/version.h line REGEX "TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
  string(REGEX MATCHALL "[0-9]+" torch_version "${line}")
  list(JOIN torch_version "." torch_version)
elseif(EXISTS ${torch_root}/version.py)
  file(STRINGS ${torch_root}/version.py line REGEX "^__version__")
  string(REGEX MATCH "[0-9][0-9.]+" torch_version "${line}")
endif()

if(torch_version MATCHES "^[0-9]" AND torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${torch_version} in ${torch_root} is too old: 2.11 or newer is needed. Name a newer "
                      "one with -DCMAKE_PREFIX_PATH=/path/to/libtorch, or run scripts/setup")
endif()

set(torch_has_cuda OFF)
if(EXISTS ${torch_lib}/libtorch_cuda.so)
  set(torch_has_cuda ON)
endif()
set(torch_cuda_version "")  # e.g. 13.0
if(NOT torch_has_cuda OR KVC_CUDA STREQUAL "OFF")
  # none
elseif(EXISTS ${torch_root}/version.py)
  file(STRINGS ${torch_root}/version.py line REGEX "^cuda.*= *'[0-9]+")
  string(REGEX MATCH "'([0-9.]+)" found "${line}")
  set(torch_cuda_version "${CMAKE_MATCH_1}")
else()
  set(torch_cuda_version "of unknown version")
endif()
if(KVC_CUDA STREQUAL "ON" AND NOT torch_has_cuda)
  message(FATAL_ERROR "KVC_CUDA=ON, but the LibTorch in ${torch_root} was built without CUDA")
endif()

add_library(kvc_torch INTERFACE)
# Behind the system's own headers: LibTorch ships a copy of fmt whose functions it does not export.
target_compile_options(kvc_torch INTERFACE "SHELL:-idirafter ${torch_root}/include")
# at::parallel_for is a template: compiled without OpenMP it runs on one thread and says nothing. libgomp.so.1 is loaded once, whoever asks first.
# (The fuzz build is clang's, has no OpenMP of its own and needs but one thread.)
if(NOT KVC_FUZZ)
  target_compile_options(kvc_torch INTERFACE -fopenmp)
  target_link_options(kvc_torch INTERFACE -fopenmp)
endif()
target_link_directories(kvc_torch INTERFACE ${torch_lib})
target_link_options(kvc_torch INTERFACE -Wl,-rpath,${torch_lib})
if(torch_has_cuda AND NOT KVC_CUDA STREQUAL "OFF")
  # Nothing refers to libtorch_cuda by symbol: its operators register themselves when it is loaded.
  target_link_libraries(kvc_torch INTERFACE -Wl,--push-state,--no-as-needed torch_cuda c10_cuda -Wl,--pop-state)
  set(torch_kind "with CUDA")
else()
  set(torch_kind "CPU")
endif()
target_link_libraries(kvc_torch INTERFACE torch_cpu c10)
message(STATUS "LibTorch ${torch_version} (${torch_kind}) in ${torch_root}")
