// ThreadSanitizer sees the locks of programs that it compiles. Abseil's come
// compiled without it, and every access under one looks like a race. In builds
// with ThreadSanitizer this file stands before the library's functions, also
// where gRPC calls them, tells of each lock and passes the call on.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace {

#define CUPOLA_NAME_OF_2(name) #name
#define CUPOLA_NAME_OF(name) CUPOLA_NAME_OF_2(name)

// The library's member function absl::NAMESPACE::`rest` (mangled), as a
// function of what it is a member of.
template <typename Result, typename... Arguments>
auto Library(const char* constness, const char* rest) {
  const std::string space = CUPOLA_NAME_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string symbol = std::string("_ZN") + constness + "4absl" +
                             std::to_string(space.size()) + space + rest;
  void* function = ::dlsym(RTLD_NEXT, symbol.c_str());
  if (function == nullptr) {
    std::fprintf(stderr, "no %s in Abseil's library\n", symbol.c_str());
    std::abort();
  }
  return reinterpret_cast<Result (*)(Arguments...)>(function);
}

// A condition on its way to be asked with the lock held, by whichever thread.
class Asked {
 public:
  Asked(absl::Mutex* mutex, const absl::Condition* condition)
      : mutex_(mutex), condition_(condition) {
    __tsan_release(this);  // it is whole
  }
  absl::Condition condition() { return absl::Condition(Ask, this); }

 private:
  // The library hands `self` over in ways that cannot be seen.
  __attribute__((no_sanitize("thread"))) static bool Ask(void* self) {
    auto* const asked = static_cast<Asked*>(self);
    __tsan_acquire(asked);
    __tsan_acquire(asked->mutex_);
    const bool met = asked->condition_->Eval();
    __tsan_release(asked->mutex_);
    return met;
  }
  absl::Mutex* const mutex_;
  const absl::Condition* const condition_;
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto library = Library<void, Mutex*>("", "5Mutex4LockEv");
  library(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto library = Library<void, Mutex*>("", "5Mutex6UnlockEv");
  __tsan_release(this);
  library(this);
}

bool Mutex::TryLock() {
  static const auto library = Library<bool, Mutex*>("", "5Mutex7TryLockEv");
  const bool locked = library(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  static const auto library = Library<void, Mutex*>("", "5Mutex10ReaderLockEv");
  library(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static const auto library =
      Library<void, Mutex*>("", "5Mutex12ReaderUnlockEv");
  __tsan_release(this);
  library(this);
}

void Mutex::Await(const Condition& condition) {
  static const auto library = Library<void, Mutex*, const Condition&>(
      "", "5Mutex5AwaitERKNS0_9ConditionE");
  Asked asked(this, &condition);
  __tsan_release(this);
  library(this, asked.condition());
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto library = Library<bool, Mutex*, const Condition&, Duration>(
      "", "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  Asked asked(this, &condition);
  __tsan_release(this);
  const bool met = library(this, asked.condition(), timeout);
  __tsan_acquire(this);
  return met;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const auto library = Library<bool, Mutex*, const Condition&, Time>(
      "", "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  Asked asked(this, &condition);
  __tsan_release(this);
  const bool met = library(this, asked.condition(), deadline);
  __tsan_acquire(this);
  return met;
}

void Mutex::LockWhen(const Condition& condition) {
  static const auto library = Library<void, Mutex*, const Condition&>(
      "", "5Mutex8LockWhenERKNS0_9ConditionE");
  Asked asked(this, &condition);
  library(this, asked.condition());
  __tsan_acquire(this);
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static const auto library = Library<bool, Mutex*, const Condition&, Duration>(
      "", "5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  Asked asked(this, &condition);
  const bool met = library(this, asked.condition(), timeout);
  __tsan_acquire(this);
  return met;
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static const auto library = Library<bool, Mutex*, const Condition&, Time>(
      "", "5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  Asked asked(this, &condition);
  const bool met = library(this, asked.condition(), deadline);
  __tsan_acquire(this);
  return met;
}

void CondVar::Wait(Mutex* mutex) {
  static const auto library =
      Library<void, CondVar*, Mutex*>("", "7CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  library(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto library = Library<bool, CondVar*, Mutex*, Duration>(
      "", "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool timed_out = library(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto library = Library<bool, CondVar*, Mutex*, Time>(
      "", "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool timed_out = library(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

void Notification::Notify() {
  static const auto library =
      Library<void, Notification*>("", "12Notification6NotifyEv");
  __tsan_release(this);
  library(this);
}

void Notification::WaitForNotification() const {
  static const auto library = Library<void, const Notification*>(
      "K", "12Notification19WaitForNotificationEv");
  library(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static const auto library = Library<bool, const Notification*, Duration>(
      "K", "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = library(this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  static const auto library = Library<bool, const Notification*, Time>(
      "K", "12Notification31WaitForNotificationWithDeadlineENS0_4TimeE");
  const bool notified = library(this, deadline);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
