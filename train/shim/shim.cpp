// What the trainer needs of ATen and tch does not bind. train/src/shim.rs is the other side.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "guarded.h"

namespace {

// The kernels take sizes and number formats from the weights and look at nothing else.
void check(const at::Tensor &tensor, const char *name, int64_t elements, c10::Device device) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.device() == device &&
                  tensor.numel() == elements,
              "fused AdamW: the ", name, " must be ", elements, " contiguous fp32 elements on ", device, ", not ",
              tensor.numel(), " of ", tensor.scalar_type(), " on ", tensor.device());
}

}  // namespace

// One update in place of fp32 weights and both moments by a gradient, [n] each; the gradient is left divided by
// `grad_scale`. `step` is the number of this update, from 1, and `grad_scale` null or a divisor: fp32 scalars where the
// weights are, so that nothing here waits for a device.
extern "C" bool webdancer_fused_adamw(const at::Tensor *weights, const at::Tensor *gradient, const at::Tensor *first,
                                      const at::Tensor *second, const at::Tensor *step, const at::Tensor *grad_scale,
                                      double learning_rate, double beta1, double beta2, double weight_decay, double eps,
                                      char *message, std::size_t capacity) {
  return guarded(message, capacity, [&] {
    const auto device = weights->device();
    check(*weights, "weights", weights->numel(), device);
    check(*gradient, "gradient", weights->numel(), device);
    check(*first, "first moment", weights->numel(), device);
    check(*second, "second moment", weights->numel(), device);
    check(*step, "step", 1, device);
    std::optional<at::Tensor> scale;
    if (grad_scale != nullptr) {
      check(*grad_scale, "scale of the gradient", 1, device);
      scale = *grad_scale;
    }
    at::_fused_adamw_(*weights, *gradient, *first, *second, /*max_exp_avg_sqs=*/{}, *step, learning_rate, beta1, beta2,
                      weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, scale, /*found_inf=*/std::nullopt);
    // Operators on lists of tensors do not count that they wrote in place. Who keeps what weights gave looks at that count.
    weights->unsafeGetTensorImpl()->bump_version();
  });
}

// Causal attention of documents laid one after the other, by the flash kernel, which knows where each begins: queries
// [T, H, D], keys and values [T, K, D] in bf16 or fp16, `starts` their beginnings and T, int32 on the device, and the length
// of the longest. Gives [T, H, D], owned by the caller and differentiable, or null. There is such a kernel for GPUs alone.
extern "C" at::Tensor *webdancer_flash_attention(const at::Tensor *query, const at::Tensor *key, const at::Tensor *value,
                                                 const at::Tensor *starts, int64_t longest, char *message,
                                                 std::size_t capacity) {
  at::Tensor *output = nullptr;
  guarded(message, capacity, [&] {
    auto all = at::_flash_attention_forward(*query, *key, *value, *starts, *starts, longest, longest, /*dropout_p=*/0.0,
                                            /*is_causal=*/true, /*return_debug_mask=*/false);
    output = new at::Tensor(std::move(std::get<0>(all)));
  });
  return output;
}

// Which kernels SDPA tries first, by the numbers of at::SDPBackend, of which there must be all; `order` is set to what the
// context has then. It is the process's.
extern "C" bool webdancer_sdp_order(int64_t *order, std::size_t count, char *message, std::size_t capacity) {
  return guarded(message, capacity, [&] {
    TORCH_CHECK(count == at::num_sdp_backends, "SDPA has ", at::num_sdp_backends, " kinds of kernels, not ", count);
    at::globalContext().setSDPPriorityOrder({order, order + count});
    const auto kept = at::globalContext().sDPPriorityOrder();
    TORCH_CHECK(kept.size() == count, "SDPA has ", kept.size(), " kinds of kernels, not ", count);
    for (const auto backend : kept) {
      *order++ = static_cast<int64_t>(backend);
    }
  });
}

// A copy on a GPU, by a stream of its own, that is done when this returns: what the stream of computation has yet to do is
// not waited for. It is the caller's, or null.
extern "C" at::Tensor *webdancer_upload(const at::Tensor *host, int8_t index, char *message, std::size_t capacity) {
  at::Tensor *output = nullptr;
  guarded(message, capacity, [&] {
    const c10::Device device(c10::kCUDA, index);
    const c10::impl::VirtualGuardImpl devices(device.type());
    const auto computing = devices.getStream(device);
    // One, since freed memory is kept by stream.
    thread_local std::optional<c10::Stream> copying;
    if (!copying || copying->device() != device) {
      copying = devices.getStreamFromGlobalPool(device);
    }
    at::Tensor copy;
    {
      const c10::StreamGuard guard(*copying);
      copy = host->to(device, host->scalar_type(), /*non_blocking=*/false, /*copy=*/true);
    }
    // Freed, its memory waits for what reads it, and is not given to the next copy before.
    copy.record_stream(computing);
    output = new at::Tensor(std::move(copy));
  });
  return output;
}

// Bytes of tensors on an accelerator: now, and at most since this was asked before.
extern "C" bool webdancer_device_memory(int8_t device, int64_t *allocated, int64_t *peak, char *message,
                                        std::size_t capacity) {
  return guarded(message, capacity, [&] {
    const auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto bytes = at::accelerator::getDeviceStats(device).allocated_bytes[all];
    at::accelerator::resetPeakStats(device);
    *allocated = bytes.current;
    *peak = bytes.peak;
  });
}
