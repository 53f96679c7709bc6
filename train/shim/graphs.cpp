// CUDA graphs: what a GPU was told once, and does again at one call. They live in libtorch_cuda, so this is a library of its
// own, opened behind that one, with symbols that are found there. train/src/graphs.rs is the other side.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include <ATen/DeviceAccelerator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guarded.h"

namespace {

struct Graph {
  at::cuda::CUDAGraph recorded;
  // The stream that is recorded, until it is no more: that of computation cannot be.
  std::optional<c10::StreamGuard> aside;
};

}  // namespace

// Begins to record what this thread asks of the GPU, in place of doing it. Null where that cannot be.
extern "C" void *webdancer_graph_begin(int8_t index, char *message, std::size_t capacity) {
  Graph *begun = nullptr;
  guarded(message, capacity, [&] {
    const c10::Device device(c10::kCUDA, index);
    const c10::impl::VirtualGuardImpl devices(device.type());
    auto graph = std::make_unique<Graph>();
    // What is recorded reads what was computed by another stream.
    at::accelerator::synchronizeDevice(index);
    graph->aside.emplace(devices.getStreamFromGlobalPool(device));
    graph->recorded.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    begun = graph.release();
  });
  return begun;
}

// Ends recording.
extern "C" bool webdancer_graph_end(void *graph, char *message, std::size_t capacity) {
  return guarded(message, capacity, [&] {
    const auto ended = static_cast<Graph *>(graph);
    ended->recorded.capture_end();
    ended->aside.reset();
  });
}

// Has the GPU do what was recorded, with what lies now where it lay then.
extern "C" bool webdancer_graph_replay(void *graph, char *message, std::size_t capacity) {
  return guarded(message, capacity, [&] { static_cast<Graph *>(graph)->recorded.replay(); });
}

extern "C" void webdancer_graph_free(void *graph) { delete static_cast<Graph *>(graph); }
