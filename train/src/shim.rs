//! What the trainer needs of libtorch and tch does not bind: `train/shim/shim.cpp`, with its functions made safe.
#![allow(unsafe_code, reason = "what is written in C++ can be called in no other way")]

use std::ffi::{CStr, c_char};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{TrainError, of_exception};

/// Room for what libtorch says of a failure; the rest is left out.
const MESSAGE_BYTES: usize = 1024;

// SAFETY: as shim.cpp defines them. A `C_tensor` is tch's name for an `at::Tensor`.
unsafe extern "C" {
    fn webdancer_fused_adamw(
        weights: *const C_tensor,
        gradient: *const C_tensor,
        first: *const C_tensor,
        second: *const C_tensor,
        step: *const C_tensor,
        grad_scale: *const C_tensor,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        message: *mut c_char,
        capacity: usize,
    ) -> bool;

    fn webdancer_flash_attention(
        query: *const C_tensor,
        key: *const C_tensor,
        value: *const C_tensor,
        starts: *const C_tensor,
        longest: i64,
        message: *mut c_char,
        capacity: usize,
    ) -> *mut C_tensor;

    fn webdancer_sdp_order(order: *mut i64, count: usize, message: *mut c_char, capacity: usize) -> bool;

    fn webdancer_upload(host: *const C_tensor, device: i8, message: *mut c_char, capacity: usize) -> *mut C_tensor;

    fn webdancer_device_memory(
        device: i8,
        allocated: *mut i64,
        peak: *mut i64,
        message: *mut c_char,
        capacity: usize,
    ) -> bool;
}

/// The settings of an update.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) learning_rate: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
}

/// An update of AdamW by ATen's fused kernel: weights, gradient, first and second moment, \[n\] each in fp32, in place. The
/// gradient is left divided by `grad_scale`. `step` is the number of the update, from 1; it and `grad_scale` are fp32
/// scalars on the weights' device, and nothing waits for that.
///
/// # Errors
///
/// A buffer is of another size, number format or device than the weights, or the device has no such kernel.
pub(crate) fn fused_adamw(
    [weights, gradient, first, second]: [&Tensor; 4],
    step: &Tensor,
    grad_scale: Option<&Tensor>,
    rates: Rates,
) -> Result<(), TrainError> {
    let Rates { learning_rate, betas: [beta1, beta2], eps, weight_decay } = rates;
    told(|message, capacity| {
        // SAFETY: the tensors are borrowed for longer than the call, which keeps none of them; sizes, formats and devices
        // are checked there. `message` has `capacity` bytes.
        unsafe {
            webdancer_fused_adamw(
                weights.as_ptr(),
                gradient.as_ptr(),
                first.as_ptr(),
                second.as_ptr(),
                step.as_ptr(),
                grad_scale.map_or(ptr::null(), Tensor::as_ptr),
                learning_rate,
                beta1,
                beta2,
                weight_decay,
                eps,
                message,
                capacity,
            )
        }
    })
}

/// Causal attention of documents laid one after the other, by the flash kernel of GPUs: queries \[T, H, D\], keys and values
/// \[T, K, D\] in bf16, `starts` where each document begins and T, int32 on their device, and the length of the longest.
/// Gives \[T, H, D\].
///
/// # Errors
///
/// The device, the number format or the size of a head has no such kernel.
pub(crate) fn flash_attention(
    [query, key, value]: [&Tensor; 3],
    starts: &Tensor,
    longest: i64,
) -> Result<Tensor, TrainError> {
    let mut output = ptr::null_mut();
    told(|message, capacity| {
        // SAFETY: the tensors are borrowed for longer than the call, and what autograd keeps of them it counts itself.
        // `message` has `capacity` bytes.
        output = unsafe {
            webdancer_flash_attention(
                query.as_ptr(),
                key.as_ptr(),
                value.as_ptr(),
                starts.as_ptr(),
                longest,
                message,
                capacity,
            )
        };
        !output.is_null()
    })?;
    // SAFETY: not null, made by `new`, and handed to us alone; tch deletes it.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// What SDPA tries on a GPU, in this order, by the numbers of `at::SDPBackend`: flash, memory-efficient, cuDNN, and only
/// then plain products, which write all scores to memory in fp32 and which libtorch tries before cuDNN; last what a plugin may
/// have brought.
const SDP_ORDER: [i64; 5] = [1, 2, 3, 0, 4];

/// Has SDPA try every fused kernel before plain products.
///
/// # Errors
///
/// libtorch knows other kernels than these.
pub(crate) fn prefer_fused_attention() -> Result<(), TrainError> {
    let mut order = SDP_ORDER;
    told(|message, capacity| {
        // SAFETY: `order` has as many numbers as are told, and `message` has `capacity` bytes.
        unsafe { webdancer_sdp_order(order.as_mut_ptr(), order.len(), message, capacity) }
    })?;
    match order == SDP_ORDER {
        true => Ok(()),
        false => Err(TrainError::Torch(format!("the order of kernels of attention is {order:?}, not {SDP_ORDER:?}"))),
    }
}

/// Copies a tensor to the GPU of this number by a stream of its own; it is there when this returns.
///
/// # Errors
///
/// There is no such GPU.
pub(crate) fn upload(host: &Tensor, device: usize) -> Result<Tensor, TrainError> {
    let number = numbered(device)?;
    let mut copy = ptr::null_mut();
    told(|message, capacity| {
        // SAFETY: the tensor is borrowed for longer than the call, which keeps nothing of it. `message` has `capacity` bytes.
        copy = unsafe { webdancer_upload(host.as_ptr(), number, message, capacity) };
        !copy.is_null()
    })?;
    // SAFETY: not null, made by `new`, and handed to us alone; tch deletes it.
    Ok(unsafe { Tensor::from_ptr(copy) })
}

/// A GPU's number as libtorch takes it.
pub(crate) fn numbered(device: usize) -> Result<i8, TrainError> {
    i8::try_from(device).map_err(|_| TrainError::Usage(format!("there is no device cuda:{device}")))
}

/// Bytes of the tensors on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceMemory {
    /// Now.
    pub(crate) allocated: i64,
    /// At most since this was asked before.
    pub(crate) peak: i64,
}

/// The memory of the GPU of this number; its peak is counted anew from here.
///
/// # Errors
///
/// There is no such GPU.
pub(crate) fn device_memory(device: usize) -> Result<DeviceMemory, TrainError> {
    let number = numbered(device)?;
    let mut memory = DeviceMemory { allocated: 0, peak: 0 };
    told(|message, capacity| {
        // SAFETY: both numbers are ours for the length of the call, and `message` has `capacity` bytes.
        unsafe { webdancer_device_memory(number, &mut memory.allocated, &mut memory.peak, message, capacity) }
    })?;
    Ok(memory)
}

/// Calls what says why it failed.
pub(crate) fn told(call: impl FnOnce(*mut c_char, usize) -> bool) -> Result<(), TrainError> {
    let mut message = [0u8; MESSAGE_BYTES];
    if call(message.as_mut_ptr().cast(), message.len()) {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
    Err(of_exception(&text))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const RATES: Rates = Rates { learning_rate: 0.1, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };

    fn zeros(elements: i64, kind: Kind) -> Tensor {
        Tensor::zeros([elements], (kind, Device::Cpu))
    }

    #[test]
    fn buffers_that_do_not_fit_the_weights_are_one_line_and_no_memory_is_touched() {
        let (weights, step) = (zeros(8, Kind::Float), Tensor::ones([], (Kind::Float, Device::Cpu)));
        let apart = zeros(16, Kind::Float).slice(0, 0, 16, 2);
        for wrong in [zeros(7, Kind::Float), zeros(8, Kind::BFloat16), apart] {
            for at in 1..4 {
                let mut buffers = [&weights; 4];
                buffers[at] = &wrong;
                let error = fused_adamw(buffers, &step, None, RATES).unwrap_err().to_string();
                assert!(error.starts_with("libtorch: fused AdamW: the "), "{error}");
                assert!(error.contains(" must be 8 contiguous fp32 elements on cpu, not ") && !error.contains('\n'));
            }
        }
        let error = fused_adamw([&weights; 4], &step, Some(&weights), RATES).unwrap_err().to_string();
        assert!(error.contains("the scale of the gradient must be 1 contiguous"), "{error}");
        let half = zeros(8, Kind::BFloat16);
        assert!(fused_adamw([&half; 4], &step, None, RATES).unwrap_err().to_string().contains("the weights must be"));
    }

    #[test]
    fn a_processor_has_no_flash_kernel_and_says_so_in_a_line() {
        let heads = Tensor::zeros([4, 2, 8], (Kind::BFloat16, Device::Cpu));
        let error = flash_attention([&heads; 3], &Tensor::from_slice(&[0i32, 4]), 4).unwrap_err().to_string();
        assert!(error.contains("_flash_attention_forward") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn fused_kernels_of_attention_are_tried_before_plain_products() {
        // libtorch has it for the whole process, and tells what it took; twice is as once.
        prefer_fused_attention().unwrap();
        prefer_fused_attention().unwrap();
        let mut short = [1];
        let refused = told(|message, capacity| {
            // SAFETY: as in `prefer_fused_attention`.
            unsafe { webdancer_sdp_order(short.as_mut_ptr(), short.len(), message, capacity) }
        });
        assert!(refused.unwrap_err().to_string().starts_with("libtorch: "));
    }

    #[test]
    fn nothing_is_uploaded_to_a_gpu_that_is_not_there() {
        let error = upload(&zeros(4, Kind::Int64), 127).unwrap_err().to_string();
        assert!(error.starts_with("libtorch: ") && !error.contains('\n'), "{error}");
        assert_eq!(upload(&zeros(4, Kind::Int64), 128).unwrap_err().to_string(), "there is no device cuda:128");
    }

    #[test]
    fn memory_of_a_gpu_that_is_not_there_is_an_error() {
        let error = device_memory(127).unwrap_err().to_string();
        assert!(error.starts_with("libtorch: ") && !error.contains('\n'), "{error}");
        assert_eq!(device_memory(128).unwrap_err().to_string(), "there is no device cuda:128");
    }
}
