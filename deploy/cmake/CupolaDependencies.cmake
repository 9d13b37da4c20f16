# Finds what Cupola builds with. Each miss ends the configuration with one line
# that says what is missing and how to get it.
#
# Order matters: Protobuf and gRPC come before Torch, whose own configuration
# otherwise defines an empty protobuf::libprotobuf.

function(cupola_need what package)
  message(FATAL_ERROR
    "Cupola needs ${what}: apt-get install ${package} "
    "(all packages at once: deploy/install-deps.sh)")
endfunction()

find_package(Threads REQUIRED)
find_package(Protobuf QUIET)
if(NOT Protobuf_FOUND OR NOT Protobuf_PROTOC_EXECUTABLE)
  cupola_need("Protobuf >= 3.21" "libprotobuf-dev protobuf-compiler")
endif()
find_package(absl QUIET CONFIG)
if(NOT absl_FOUND)
  cupola_need("Abseil" "libabsl-dev")
endif()
find_package(gRPC QUIET CONFIG)
if(NOT gRPC_FOUND OR NOT TARGET gRPC::grpc_cpp_plugin)
  cupola_need("gRPC >= 1.51" "libgrpc++-dev protobuf-compiler-grpc")
endif()
find_package(RocksDB QUIET CONFIG)
if(NOT RocksDB_FOUND)
  cupola_need("RocksDB >= 7.8" "librocksdb-dev")
endif()
find_package(prometheus-cpp QUIET CONFIG)
if(NOT prometheus-cpp_FOUND)
  cupola_need("prometheus-cpp" "prometheus-cpp-dev libcivetweb-dev")
endif()
find_package(nlohmann_json QUIET CONFIG)
if(NOT nlohmann_json_FOUND)
  cupola_need("nlohmann-json" "nlohmann-json3-dev")
endif()
find_package(spdlog QUIET CONFIG)
if(NOT spdlog_FOUND)
  cupola_need("spdlog" "libspdlog-dev")
endif()
find_package(OpenSSL QUIET)
if(NOT OpenSSL_FOUND)
  cupola_need("OpenSSL" "libssl-dev")
endif()

function(cupola_find_plain target header library package)
  find_path(${target}_INCLUDE_DIR ${header})
  find_library(${target}_LIBRARY ${library})
  if(NOT ${target}_INCLUDE_DIR OR NOT ${target}_LIBRARY)
    cupola_need(${header} ${package})
  endif()
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(${target} INTERFACE ${${target}_LIBRARY})
endfunction()
cupola_find_plain(cupola_pcre2 pcre2.h pcre2-8 libpcre2-dev)
cupola_find_plain(cupola_xxhash xxhash.h xxhash libxxhash-dev)
cupola_find_plain(cupola_civetweb civetweb.h civetweb libcivetweb-dev)

# An allocator that keeps the pages of large blocks for the next ones. Without it
# the server is slower, nothing else.
find_library(CUPOLA_JEMALLOC jemalloc)
if(NOT CUPOLA_JEMALLOC)
  message(STATUS "No jemalloc (apt-get install libjemalloc-dev): short passes will be slower")
endif()

find_package(Torch QUIET CONFIG)
if(NOT Torch_FOUND)
  message(FATAL_ERROR
    "Cupola needs LibTorch: pip install torch==2.13.0 and configure with "
    "-DCMAKE_PREFIX_PATH=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')")
endif()
if(TORCH_CXX_FLAGS MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
  message(FATAL_ERROR "This LibTorch uses the old C++ ABI; Debian's libraries use the new one")
endif()

if(CUPOLA_BUILD_TESTS)
  find_package(GTest QUIET CONFIG)
  if(NOT GTest_FOUND)
    cupola_need("GoogleTest" "libgtest-dev libgmock-dev")
  endif()
endif()

find_program(CUPOLA_CCACHE ccache)
if(CUPOLA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without these ccache passes over everything that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    ${CUPOLA_CCACHE})
endif()
