// KVC_CUDA_KERNELS: the build has CUDA, its headers, and this project's kernels.
#include "harness/model/cuda_graph.h"

#include <map>

#include "harness/core/error.h"

#ifdef KVC_CUDA_KERNELS
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace kvc {

#ifdef KVC_CUDA_KERNELS

namespace {

// One for good: libraries keep workspaces by thread and stream, and those made in the run before a recording must serve
// the recording.
c10::cuda::CUDAStream recording_stream(c10::DeviceIndex device) {
  thread_local std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  const auto known = streams.find(device);
  if (known != streams.end()) return known->second;
  return streams.emplace(device, c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)).first->second;
}

}  // namespace

struct CudaGraph::State {
  std::unique_ptr<at::cuda::CUDAGraph> graph;
};

bool CudaGraph::available() {
  return true;
}

void CudaGraph::record(const c10::Device& device, const std::function<void()>& work) {
  const c10::cuda::CUDAGuard guard(device);
  state_->graph.reset();
  c10::cuda::getCurrentCUDAStream(device.index()).synchronize();  // what the work reads was written there
  const c10::cuda::CUDAStream stream = recording_stream(device.index());
  const c10::cuda::CUDAStreamGuard aside(stream);
  work();
  stream.synchronize();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  graph->capture_begin();
  try {
    work();
  } catch (...) {
    try {
      graph->capture_end();            // else the allocator would go on serving the recording
    } catch (const std::exception&) {  // the first error tells more
    }
    throw;
  }
  graph->capture_end();
  state_->graph = std::move(graph);
}

void CudaGraph::replay() {
  if (!state_->graph) throw Error(ErrorKind::kInternal, "nothing was recorded", "CudaGraph::replay", "");
  state_->graph->replay();
}

#else

struct CudaGraph::State {};

bool CudaGraph::available() {
  return false;
}

void CudaGraph::record(const c10::Device&, const std::function<void()>&) {
  throw Error(ErrorKind::kInternal, "this program was built without CUDA", "CudaGraph::record", "");
}

void CudaGraph::replay() {
  throw Error(ErrorKind::kInternal, "nothing was recorded", "CudaGraph::replay", "");
}

#endif

CudaGraph::CudaGraph() : state_(std::make_unique<State>()) {}
CudaGraph::~CudaGraph() = default;

}  // namespace kvc
