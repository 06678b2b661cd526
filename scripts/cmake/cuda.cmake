# This project's CUDA kernels (harness/attention/*.cu: raw pointers and a stream, no torch header) and the tests that need a GPU.
#
# Where LibTorch has CUDA and nvcc is found, nvcc compiles them into kvc_attention and the program calls them; else a GPU runs LibTorch's
# operations. gpu::attention_way() says which.
# On the host they run in attention_test (harness/testing/cuda_emulation.h), in every build.
find_program(KVC_NVCC nvcc HINTS ENV CUDA_HOME PATH_SUFFIXES bin PATHS /usr/local/cuda)
# Machine code for these, and code that the driver translates for newer GPUs.
set(KVC_CUDA_ARCHITECTURES 80 90 CACHE STRING "compute capabilities that the kernels are compiled for, rising: 80 is 8.0")
file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/harness/attention/*.cu)

# The runtime library that LibTorch itself loads: pip's wheel brings it beside torch/.
function(kvc_find_cudart)
  get_filename_component(toolkit ${KVC_NVCC} REALPATH)
  get_filename_component(toolkit ${toolkit} DIRECTORY)
  find_library(KVC_CUDART NAMES libcudart.so.13 libcudart.so.12 cudart NO_DEFAULT_PATH
               PATHS ${torch_root}/../nvidia/cu13/lib ${torch_root}/../nvidia/cuda_runtime/lib ${torch_lib}
                     ${toolkit}/../lib64 ${toolkit}/../targets/x86_64-linux/lib)
  # Headers of nvcc's own: a wheel's want crt/, which comes with nvcc. It may be a script in another folder: asked.
  execute_process(COMMAND ${KVC_NVCC} --dryrun -x cu -c /dev/null ERROR_VARIABLE text OUTPUT_QUIET)
  string(REGEX MATCH "INCLUDES=\"-I([^\" ]+)" found "${text}")
  find_path(KVC_CUDA_HEADERS crt/host_config.h NO_DEFAULT_PATH
            PATHS ${CMAKE_MATCH_1} ${toolkit}/../include ${toolkit}/../targets/x86_64-linux/include)
endfunction()

# Object code of CUDA 12 and a LibTorch of CUDA 13 (or the reverse) must not share a program.
function(kvc_check_cuda_versions result)
  set(${result} "" PARENT_SCOPE)
  execute_process(COMMAND ${KVC_NVCC} --version OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+)" found "${text}")
  set(nvcc_major ${CMAKE_MATCH_1})
  string(REGEX MATCH "^[0-9]*" torch_major "${torch_cuda_version}")
  if(NOT KVC_CUDART)
    set(${result} "libcudart was not found" PARENT_SCOPE)
  elseif(NOT KVC_CUDA_HEADERS)
    set(${result} "the headers of CUDA were not found beside nvcc" PARENT_SCOPE)
  elseif(torch_major AND NOT torch_major STREQUAL nvcc_major)
    set(${result} "nvcc is of CUDA ${nvcc_major}, LibTorch of CUDA ${torch_major}" PARENT_SCOPE)
  endif()
endfunction()

set(cuda_kernels OFF)
if(KVC_NVCC AND torch_kind STREQUAL "with CUDA")
  kvc_find_cudart()
  kvc_check_cuda_versions(cuda_obstacle)
  if(cuda_obstacle)
    message(WARNING "The CUDA kernels are left out, a GPU will run LibTorch's operations: ${cuda_obstacle}")
  else()
    set(cuda_kernels ON)
  endif()
endif()

if(cuda_kernels)
  set(cuda_codes "")
  foreach(number ${KVC_CUDA_ARCHITECTURES})
    list(APPEND cuda_codes -gencode arch=compute_${number},code=sm_${number})
  endforeach()
  list(GET KVC_CUDA_ARCHITECTURES -1 newest)
  list(APPEND cuda_codes -gencode arch=compute_${newest},code=compute_${newest})
  foreach(source ${cuda_sources})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(
      OUTPUT ${object} DEPENDS ${source} DEPFILE ${CMAKE_BINARY_DIR}/cuda/${name}.d COMMENT "nvcc ${name}.cu"
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
      # -lineinfo: compute-sanitizer and ncu name lines of the source.
      COMMAND ${KVC_NVCC} -std=c++20 -O2 -lineinfo ${cuda_codes} -Werror all-warnings -Xcompiler=-fPIC -I${CMAKE_SOURCE_DIR}
              -MD -MF ${CMAKE_BINARY_DIR}/cuda/${name}.d -c ${source} -o ${object}
      VERBATIM)
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    target_sources(kvc_attention PRIVATE ${object})
  endforeach()
  # The only files that know; they do without the precompiled header, whose flags are others.
  set_source_files_properties(${CMAKE_SOURCE_DIR}/harness/attention/ragged_attention_gpu.cpp
                              ${CMAKE_SOURCE_DIR}/harness/attention/layer_kernels.cpp
                              ${CMAKE_SOURCE_DIR}/harness/attention/device_statistics.cpp
                              ${CMAKE_SOURCE_DIR}/harness/attention/device_pursuit_kernels.cpp
                              ${CMAKE_SOURCE_DIR}/harness/model/cuda_graph.cpp
                              PROPERTIES COMPILE_DEFINITIONS KVC_CUDA_KERNELS SKIP_PRECOMPILE_HEADERS ON
                                         COMPILE_OPTIONS "-idirafter;${KVC_CUDA_HEADERS}")
  get_filename_component(cudart_folder ${KVC_CUDART} DIRECTORY)
  target_link_libraries(kvc_attention PUBLIC ${KVC_CUDART} -Wl,-rpath,${cudart_folder})
  message(STATUS "CUDA kernels: compiled by ${KVC_NVCC} for ${KVC_CUDA_ARCHITECTURES}, with ${KVC_CUDART}")
elseif(KVC_NVCC)
  message(STATUS "CUDA kernels: compiled by ctest only")
else()
  message(STATUS "CUDA kernels: not compiled (no nvcc), tested by emulation; a GPU would run LibTorch's operations")
endif()

# In every build that finds nvcc: the kernels compile for both kinds of GPU, and what they compile to is what their headers say.
if(KVC_NVCC)
  foreach(number 80 90)
    add_test(NAME kernels_sm_${number}
             COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/scripts/check_kernels --nvcc ${KVC_NVCC} --arch sm_${number}
                     --tools ${torch_root}/.. --tools ${CMAKE_SOURCE_DIR}/.deps/cuda-tools ${cuda_sources})
    set_tests_properties(kernels_sm_${number} PROPERTIES TIMEOUT 900 LABELS kernels)
  endforeach()
endif()

# One program, label gpu: `ctest -L gpu`. It compiles in every build, and says that it is skipped where there is no GPU.
# It has the methods, query sources and tasks, not the command line: a machine with a GPU builds it in minutes.
set(gpu_parts $<TARGET_OBJECTS:kvc_queries> $<TARGET_OBJECTS:kvc_methods>)
add_executable(gpu_test ${CMAKE_SOURCE_DIR}/harness/testing/gpu/gpu_test.cpp
                        ${CMAKE_SOURCE_DIR}/harness/testing/gpu/gpu_kernels_test.cpp ${gpu_parts} $<TARGET_OBJECTS:kvc_tasks>)
target_link_libraries(gpu_test PRIVATE kvc_testing kvc_judging GTest::gmock_main)
target_precompile_headers(gpu_test REUSE_FROM kvc_pch)
add_test(NAME gpu COMMAND gpu_test)
set_tests_properties(gpu PROPERTIES LABELS gpu TIMEOUT 900 ENVIRONMENT "OMP_WAIT_POLICY=passive;KVC_TEST_ROOT=${CMAKE_SOURCE_DIR}"
                     SKIP_REGULAR_EXPRESSION "no GPU: LibTorch finds no CUDA device")

# Stages at published shapes beside their rooflines; scripts/gpu_check runs it. Tests run it whole, small and on the CPU.
file(GLOB gpu_bench_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/harness/testing/gpu/*bench*.cpp)
add_executable(gpu_bench ${gpu_bench_sources} ${gpu_parts})
target_link_libraries(gpu_bench PRIVATE kvc_api CLI11::CLI11)
target_precompile_headers(gpu_bench REUSE_FROM kvc_pch)
foreach(step limits prefill read decode score fit pursuit match)
  add_test(NAME gpu_bench_${step} COMMAND gpu_bench --step ${step} --shape tiny --device cpu --seconds 0.1)
  set_tests_properties(gpu_bench_${step} PROPERTIES TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive
                       PASS_REGULAR_EXPRESSION "\"seconds\"" FAIL_REGULAR_EXPRESSION "\"error\"")
endforeach()
add_test(NAME gpu_check COMMAND ${CMAKE_SOURCE_DIR}/scripts/gpu_check --cpu)
set_tests_properties(gpu_check PROPERTIES TIMEOUT 900
                     ENVIRONMENT "OUT=${CMAKE_BINARY_DIR}/gpu_check;KVC_GPU_CHECK_PROGRAMS=${CMAKE_BINARY_DIR}")
