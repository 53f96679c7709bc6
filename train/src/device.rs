//! Which device and number format a model runs in, and what the process must do before it can.

use serde::Deserialize;
use tch::{Cuda, Device, Kind};

use crate::error::TrainError;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The processor.
    Cpu,
    /// The first GPU.
    Cuda,
}

/// The number format that weights are multiplied in. Sums, losses and optimiser states are fp32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    Fp32,
    /// 16 bits with the exponent of fp32; the optimiser then keeps fp32 masters.
    Bf16,
}

impl Precision {
    /// As libtorch calls it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl Place {
    /// The device, if it is there.
    ///
    /// # Errors
    ///
    /// `cuda` is asked for and libtorch has none.
    pub fn device(self) -> Result<Device, TrainError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if Cuda::is_available() => Ok(Device::Cuda(0)),
            Self::Cuda => Err(TrainError::Usage(
                "device = \"cuda\", but libtorch sees no GPU: is this built against a PyTorch with CUDA, and is the driver there?"
                    .into(),
            )),
        }
    }
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
pub fn peak_memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}
