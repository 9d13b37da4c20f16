#ifndef CUPOLA_TESTS_STORAGE_FAULT_ENV_H_
#define CUPOLA_TESTS_STORAGE_FAULT_ENV_H_

#include <memory>

#include "rocksdb/env.h"

namespace cupola::storage {

// What the files of a FaultEnv do from now on.
enum class Fault {
  kNone,
  kDiskFull,    // writes and new files: ENOSPC
  kWritesFail,  // writes and new files: EIO
  kReadsFail,   // reads of table files: EIO
};

// The machine's file system, whose files fail on command. Any thread may set
// the fault at any time.
class FaultEnv {
 public:
  FaultEnv();
  ~FaultEnv();
  FaultEnv(const FaultEnv&) = delete;
  FaultEnv& operator=(const FaultEnv&) = delete;

  void Set(Fault fault);
  rocksdb::Env* env() { return env_.get(); }

 private:
  class FileSystem;
  std::shared_ptr<FileSystem> file_system_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_TESTS_STORAGE_FAULT_ENV_H_
