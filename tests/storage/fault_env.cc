#include "tests/storage/fault_env.h"

#include <atomic>
#include <string>
#include <utility>

#include "rocksdb/file_system.h"

namespace cupola::storage {
namespace {

using rocksdb::IOStatus;

using Switch = std::atomic<Fault>;

IOStatus WriteStatus(const Switch& fault) {
  switch (fault.load()) {
    case Fault::kDiskFull: {
      IOStatus status = IOStatus::NoSpace("no space left on the test's device");
      status.SetRetryable(true);  // as the real file system marks ENOSPC
      return status;
    }
    case Fault::kWritesFail:
      return IOStatus::IOError("the test's device fails to write");
    case Fault::kNone:
    case Fault::kReadsFail:
      break;
  }
  return IOStatus::OK();
}

class WritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WritableFile(std::unique_ptr<rocksdb::FSWritableFile> file,
               const Switch* fault)
      : FSWritableFileOwnerWrapper(std::move(file)), fault_(fault) {}

  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                  rocksdb::IODebugContext* debug) override {
    const IOStatus status = WriteStatus(*fault_);
    return status.ok() ? target()->Append(data, options, debug) : status;
  }
  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                  const rocksdb::DataVerificationInfo&,
                  rocksdb::IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Sync(const rocksdb::IOOptions& options,
                rocksdb::IODebugContext* debug) override {
    const IOStatus status = WriteStatus(*fault_);
    return status.ok() ? target()->Sync(options, debug) : status;
  }
  IOStatus Fsync(const rocksdb::IOOptions& options,
                 rocksdb::IODebugContext* debug) override {
    return Sync(options, debug);
  }

 private:
  const Switch* const fault_;
};

class TableFile : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  TableFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file,
            const Switch* fault)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), fault_(fault) {}

  IOStatus Read(uint64_t offset, size_t size, const rocksdb::IOOptions& options,
                rocksdb::Slice* result, char* scratch,
                rocksdb::IODebugContext* debug) const override {
    if (fault_->load() == Fault::kReadsFail) {
      return IOStatus::IOError("the test's device fails to read");
    }
    return target()->Read(offset, size, options, result, scratch, debug);
  }

 private:
  const Switch* const fault_;
};

}  // namespace

class FaultEnv::FileSystem : public rocksdb::FileSystemWrapper {
 public:
  FileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  static const char* kClassName() { return "FaultFileSystem"; }
  const char* Name() const override { return kClassName(); }

  void Set(Fault fault) { fault_.store(fault); }

  IOStatus NewWritableFile(const std::string& path,
                           const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           rocksdb::IODebugContext* debug) override {
    IOStatus status = WriteStatus(fault_);
    if (!status.ok()) return status;
    status = target()->NewWritableFile(path, options, file, debug);
    if (status.ok())
      *file = std::make_unique<WritableFile>(std::move(*file), &fault_);
    return status;
  }

  IOStatus NewRandomAccessFile(
      const std::string& path, const rocksdb::FileOptions& options,
      std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
      rocksdb::IODebugContext* debug) override {
    const IOStatus status =
        target()->NewRandomAccessFile(path, options, file, debug);
    if (status.ok())
      *file = std::make_unique<TableFile>(std::move(*file), &fault_);
    return status;
  }

 private:
  Switch fault_{Fault::kNone};
};

FaultEnv::FaultEnv()
    : file_system_(std::make_shared<FileSystem>()),
      env_(rocksdb::NewCompositeEnv(file_system_)) {}
FaultEnv::~FaultEnv() = default;

void FaultEnv::Set(Fault fault) { file_system_->Set(fault); }

}  // namespace cupola::storage
