// kill_writer DIRECTORY FIRST: puts records FIRST, FIRST+1, ... into the result
// cache of the directory until it is killed, and prints after every tenth how
// many of all are flushed.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "storage/result_cache.h"
#include "tests/storage/storage_test_util.h"

int main(int argc, char** argv) {
  using namespace cupola::storage;
  if (argc != 3) return 2;
  ResultCacheOptions options;
  options.directory = argv[1];
  options.capacity_bytes = 64 << 20;
  auto cache = ResultCache::Open(options);
  if (!cache.ok()) {
    std::cerr << cache.status() << std::endl;
    return 1;
  }
  for (uint64_t n = std::strtoull(argv[2], nullptr, 10);; ++n) {
    (*cache)->Put(NumberedKey(n), NumberedRecord(n));
    if (n % 10 != 9) continue;
    (*cache)->Flush();
    std::printf("%llu\n", static_cast<unsigned long long>(n + 1));
    std::fflush(stdout);
  }
}
