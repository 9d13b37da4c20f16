# cupola_library(NAME SOURCES ... DEPS ...): one static library with the
# project's warnings. cupola_test(...): one GoogleTest program and its label.

# The Torch wheel ships Protobuf 3.13 headers in torch/include/google. A folder
# that holds only a link to the system's google/ comes first everywhere, so the
# headers always match the library that is linked.
set(CUPOLA_PROTOBUF_FIRST ${CMAKE_BINARY_DIR}/protobuf_first)
file(MAKE_DIRECTORY ${CUPOLA_PROTOBUF_FIRST})
list(GET Protobuf_INCLUDE_DIRS 0 _protobuf_include)
file(CREATE_LINK ${_protobuf_include}/google ${CUPOLA_PROTOBUF_FIRST}/google SYMBOLIC)

# Sanitizers see all that is compiled here, generated code included; the first
# finding ends the program.
if(CUPOLA_SANITIZE)
  add_compile_options(-fsanitize=${CUPOLA_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=${CUPOLA_SANITIZE})
endif()
if(CUPOLA_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "CUPOLA_FUZZ needs clang (-DCMAKE_CXX_COMPILER=...): "
      "tests/fuzz/run.sh finds it")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

add_library(cupola_flags INTERFACE)
target_compile_options(cupola_flags INTERFACE
  -Wall -Wextra -Werror $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
target_include_directories(cupola_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_include_directories(cupola_flags BEFORE INTERFACE ${CUPOLA_PROTOBUF_FIRST})

# LibTorch as system headers: its warnings are not ours. OpenMP, of which LibTorch
# brings the run-time library, because at::parallel_for needs it where it is
# compiled; what is fuzzed may do with one thread, and clang comes without OpenMP.
add_library(cupola_torch INTERFACE)
target_link_libraries(cupola_torch INTERFACE ${TORCH_LIBRARIES})
if(NOT CUPOLA_FUZZ)
  find_package(OpenMP REQUIRED)
  target_link_libraries(cupola_torch INTERFACE OpenMP::OpenMP_CXX)
endif()
target_include_directories(cupola_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})

# ATen takes 8 s to parse: once, for all that asks for it with ATEN. A file still
# includes what it uses.
file(WRITE ${CMAKE_BINARY_DIR}/precompiled_aten.cc "")
add_library(cupola_precompiled_aten OBJECT ${CMAKE_BINARY_DIR}/precompiled_aten.cc)
target_link_libraries(cupola_precompiled_aten PRIVATE
  cupola_flags cupola_torch absl::status absl::statusor absl::strings)
target_precompile_headers(cupola_precompiled_aten PRIVATE
  <ATen/ATen.h> <absl/status/statusor.h> <absl/strings/str_cat.h>)
target_compile_options(cupola_precompiled_aten PRIVATE
  $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)

function(cupola_precompiled name)
  target_precompile_headers(${name} REUSE_FROM cupola_precompiled_aten)
  target_compile_options(${name} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()

function(cupola_library name)
  cmake_parse_arguments(ARG "ATEN" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC cupola_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  if(ARG_ATEN)
    cupola_precompiled(${name})
  endif()
endfunction()

# Of a program with threads, for ThreadSanitizer: see seen_locks.cc.
function(cupola_see_locks name)
  if(CUPOLA_SANITIZE STREQUAL thread)
    target_sources(${name} PRIVATE
      ${CMAKE_SOURCE_DIR}/tests/sanitize/seen_locks.cc)
    target_link_libraries(${name} PRIVATE absl::synchronization
      ${CMAKE_DL_LIBS})
  endif()
endfunction()

function(cupola_test name)
  cmake_parse_arguments(ARG "ATEN" "LABEL" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE cupola_flags ${ARG_DEPS} GTest::gmock_main)
  cupola_see_locks(${name})
  if(ARG_ATEN)
    cupola_precompiled(${name})
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 300)
endfunction()
