//! Which device and number format a model runs in, and what the process must do before it can.

use std::time::Instant;

use tch::kind::Element;
use tch::{Cuda, Kind, Tensor};

use crate::config::{Device, Dtype};
use crate::error::TrainError;
use crate::shim::{self, DeviceMemory};

/// The device asked for, if it is there.
///
/// # Errors
///
/// A GPU is asked for and libtorch has none.
pub fn device(asked: Device) -> Result<tch::Device, TrainError> {
    let device = match asked {
        Device::Cpu => tch::Device::Cpu,
        Device::Auto => tch::Device::cuda_if_available(),
        Device::Cuda(number) if Cuda::is_available() && (number as i64) < Cuda::device_count() => {
            tch::Device::Cuda(number)
        }
        Device::Cuda(number) => {
            return Err(TrainError::Usage(format!(
                "device cuda:{number} is asked for and libtorch sees {} of them: is the trainer built against a PyTorch \
                 with CUDA, and is the driver there?",
                Cuda::device_count()
            )));
        }
    };
    if device.is_cuda() {
        shim::prefer_fused_attention()?;
    }
    Ok(device)
}

/// Numbers on a device. On a GPU they are copied there beside what it computes: whoever asks waits for this copy, and not for
/// all that the GPU has yet to do, so that it does not run dry between two steps.
pub(crate) fn upload<T: Element>(values: &[T], device: tch::Device) -> Tensor {
    let host = Tensor::from_slice(values);
    match device {
        // Without a stream of its own the copy is behind what is computed.
        tch::Device::Cuda(number) => shim::upload(&host, number).unwrap_or_else(|_| host.to_device(device)),
        _ => host.to_device(device),
    }
}

/// The number format that weights are multiplied in on a device. Sums, losses and the optimiser's state are fp32 always.
pub fn kind(asked: Dtype, device: tch::Device) -> Kind {
    match (asked, device) {
        (Dtype::Fp32, _) | (Dtype::Auto, tch::Device::Cpu) => Kind::Float,
        (Dtype::Bf16 | Dtype::Auto, _) => Kind::BFloat16,
    }
}

/// Makes libtorch compute the same bits from the same inputs.
///
/// # Errors
///
/// The device is a GPU, which is not held to that.
pub fn be_deterministic(device: tch::Device) -> Result<(), TrainError> {
    if device != tch::Device::Cpu {
        let reason = "deterministic: the same bits are promised on a processor alone, and a GPU was chosen: give device = \"cpu\"";
        return Err(TrainError::Usage(reason.to_string()));
    }
    // Sums are cut by the number of threads.
    tch::set_num_threads(1);
    Ok(())
}

/// Opens the CUDA part of libtorch, where there is one.
///
/// It must be the first statement of `main`: libtorch looks for its CUDA hooks once, and nothing links this library, as no
/// symbol of it is used.
pub fn open_cuda() {
    // SAFETY: a constant string, ended by zero; the library's initialisers are libtorch's own.
    #[allow(unsafe_code, reason = "only the loader can open a library by name")]
    unsafe {
        libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
    }
}

/// The most memory this process has had, in bytes: resident on the processor. 0 where the system does not say.
fn peak_memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

/// The metrics of the memory that a model takes where it computes: names, bytes, unit.
///
/// `peak_memory` is on a processor the most this process has had so far, and on a GPU the most that its tensors have had
/// there since this was asked before. Of a GPU also `allocated_memory`, what they have there now, and `host_memory`, the
/// most this process has had beside it.
///
/// # Errors
///
/// libtorch does not know the GPU.
pub fn memory(device: tch::Device) -> Result<Vec<(&'static str, f64, &'static str)>, TrainError> {
    let host = peak_memory_bytes() as f64;
    let bytes = match device {
        tch::Device::Cuda(number) => {
            let DeviceMemory { allocated, peak } = shim::device_memory(number)?;
            vec![("peak_memory", peak as f64), ("allocated_memory", allocated as f64), ("host_memory", host)]
        }
        _ => vec![("peak_memory", host)],
    };
    Ok(bytes.into_iter().map(|(name, bytes)| (name, bytes, "byte")).collect())
}

/// Floating-point operations a second of a large matrix product there, the best of a few: what a model can reach.
pub(crate) fn matmul_flops(kind: Kind, device: tch::Device) -> f64 {
    let size: i64 = if device.is_cuda() { 8192 } else { 1024 };
    // As varied as weights are: a GPU is faster with less to switch.
    let matrix = Tensor::randn([size, size], (kind, device));
    let timed = |_| {
        let start = Instant::now();
        let product = matrix.matmul(&matrix);
        // Reading it waits for the device.
        let _ = product.double_value(&[0, 0]);
        2.0 * (size as f64).powi(3) / start.elapsed().as_secs_f64()
    };
    (0..5).map(timed).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_promised_on_a_processor_alone() {
        let refused = be_deterministic(tch::Device::Cuda(0)).unwrap_err().to_string();
        assert!(refused.starts_with("deterministic: ") && refused.ends_with("give device = \"cpu\""), "{refused}");
    }

    #[test]
    fn numbers_are_uploaded_to_a_processor_as_they_are() {
        let found = upload(&[3i64, -1, 7], tch::Device::Cpu);
        assert_eq!((found.device(), found.kind()), (tch::Device::Cpu, Kind::Int64));
        assert_eq!(Vec::<i64>::try_from(found).unwrap(), [3, -1, 7]);
    }

    #[test]
    fn the_memory_of_a_processor_is_the_peak_of_the_process() {
        let before = memory(tch::Device::Cpu).unwrap();
        assert!(matches!(before.as_slice(), [("peak_memory", bytes, "byte")] if *bytes > 0.0), "{before:?}");
        // Written, so that it is resident.
        let held = tch::Tensor::ones([64 << 20], (Kind::Uint8, tch::Device::Cpu));
        assert!(memory(tch::Device::Cpu).unwrap()[0].1 >= (64 << 20) as f64);
        drop(held);
    }
}
