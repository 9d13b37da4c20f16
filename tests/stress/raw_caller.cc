#include "tests/stress/raw_caller.h"

#include <utility>

namespace cupola::testing {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

RawCaller::RawCaller(const std::string& address) : stub_(Connect(address)) {}

RawCaller::~RawCaller() {
  queue_.Shutdown();
  while (Next()) {
  }
}

bool RawCaller::Next() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

RawCaller::Answer RawCaller::Call(const std::string& method,
                                  const std::vector<std::string>& requests,
                                  std::chrono::seconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const auto call = stub_.PrepareCall(&context, method, &queue_);
  Answer answer;
  call->StartCall(nullptr);
  if (Next()) {
    for (size_t i = 0; i < requests.size(); ++i) {
      const grpc::Slice slice(requests[i]);
      grpc::WriteOptions options;
      if (i + 1 == requests.size()) options.set_last_message();
      call->Write(grpc::ByteBuffer(&slice, 1), options, nullptr);
      if (!Next()) break;  // the server has heard enough
    }
    while (true) {
      grpc::ByteBuffer message;
      call->Read(&message, nullptr);
      if (!Next()) break;
      answer.messages.push_back(ToString(message));
    }
  }
  call->Finish(&answer.status, nullptr);
  Next();
  return answer;
}

}  // namespace cupola::testing
