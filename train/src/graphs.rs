//! Work that a GPU is told once and does again at one call (CUDA graphs): `train/shim/graphs.cpp`, made safe.
//!
//! It needs libtorch_cuda, which this program does not link and a processor has not: it is a library of its own that lies
//! in this program, is empty where the headers of CUDA were not there, and is opened when it is asked for. Nothing here has
//! been run on a GPU.
#![allow(unsafe_code, reason = "what is written in C++ and opened at run time can be called in no other way")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;
use std::{mem, ptr};

use tch::{Device, Tensor};

use crate::error::{TrainError, guard};
use crate::shim::{numbered, told};

static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libwebdancer_graphs.so"));

type Begin = unsafe extern "C" fn(i8, *mut c_char, usize) -> *mut c_void;
type Call = unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> bool;
type Free = unsafe extern "C" fn(*mut c_void);

/// The library, open.
#[derive(Debug)]
pub(crate) struct Graphs {
    begin: Begin,
    end: Call,
    replay: Call,
    free: Free,
}

/// Work that was recorded, and where it works: all tensors that it read must stay where they were.
#[derive(Debug)]
pub(crate) struct Graph {
    library: &'static Graphs,
    raw: *mut c_void,
}

// SAFETY: whoever has it may use it from any thread, one at a time; it holds nothing of the thread that it was recorded by.
unsafe impl Send for Graph {}

impl Graphs {
    /// The library, for this device.
    ///
    /// # Errors
    ///
    /// The device is a processor, this program was built without the headers of CUDA, or the library does not open.
    pub(crate) fn open(device: Device) -> Result<&'static Self, TrainError> {
        static OPENED: OnceLock<Result<Graphs, String>> = OnceLock::new();
        let reason = match device {
            Device::Cuda(_) => match OPENED.get_or_init(load) {
                Ok(graphs) => return Ok(graphs),
                Err(reason) => reason.as_str(),
            },
            _ => "they are a GPU's",
        };
        Err(TrainError::Usage(format!("no CUDA graphs: {reason}")))
    }

    /// Records what is asked of the GPU, and gives that with what it will come to: it is not done yet.
    ///
    /// # Errors
    ///
    /// Something in it cannot be recorded, such as waiting for the GPU.
    pub(crate) fn record(
        &'static self,
        device: Device,
        run: impl FnOnce() -> Tensor,
    ) -> Result<(Graph, Tensor), TrainError> {
        let Device::Cuda(number) = device else {
            return Err(TrainError::Usage("no CUDA graphs: they are a GPU's".into()));
        };
        let number = numbered(number)?;
        let mut raw = ptr::null_mut();
        told(|message, capacity| {
            // SAFETY: `message` has `capacity` bytes.
            raw = unsafe { (self.begin)(number, message, capacity) };
            !raw.is_null()
        })?;
        let graph = Graph { library: self, raw };
        let made = guard(|| Ok(run()));
        // Also where that failed: what follows is not to be recorded.
        let ended = told(|message, capacity| {
            // SAFETY: it was begun just now, by this thread; `message` has `capacity` bytes.
            unsafe { (self.end)(graph.raw, message, capacity) }
        });
        let made = made?;
        ended?;
        Ok((graph, made))
    }
}

impl Graph {
    /// Has the GPU do it again.
    ///
    /// # Errors
    ///
    /// The GPU has failed.
    pub(crate) fn replay(&self) -> Result<(), TrainError> {
        told(|message, capacity| {
            // SAFETY: recorded to its end and not freed; `message` has `capacity` bytes.
            unsafe { (self.library.replay)(self.raw, message, capacity) }
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `begin`, and freed once.
        unsafe { (self.library.free)(self.raw) }
    }
}

fn load() -> Result<Graphs, String> {
    if LIBRARY.is_empty() {
        return Err("this program was built without the headers of CUDA".into());
    }
    // The file may go when it is open.
    let mut file = tempfile::Builder::new().suffix(".so").tempfile().map_err(|error| error.to_string())?;
    file.write_all(LIBRARY).map_err(|error| error.to_string())?;
    let path = CString::new(file.path().as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a path that ends with zero, of a library without initialisers of its own. It is never closed.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(loader_says());
    }
    let symbol = |name: &CStr| {
        // SAFETY: the handle is open, and the name ends with zero.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if found.is_null() { Err(loader_says()) } else { Ok(found) }
    };
    let (begin, end) = (symbol(c"webdancer_graph_begin")?, symbol(c"webdancer_graph_end")?);
    let (replay, free) = (symbol(c"webdancer_graph_replay")?, symbol(c"webdancer_graph_free")?);
    // SAFETY: functions of these types, as graphs.cpp defines them.
    Ok(unsafe {
        Graphs {
            begin: mem::transmute::<*mut c_void, Begin>(begin),
            end: mem::transmute::<*mut c_void, Call>(end),
            replay: mem::transmute::<*mut c_void, Call>(replay),
            free: mem::transmute::<*mut c_void, Free>(free),
        }
    })
}

/// Why the loader failed just now, in a line.
fn loader_says() -> String {
    // SAFETY: it gives null or a string that ends with zero and lasts until this thread's next call of the loader.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() { "it does not open".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_none_and_is_told_why() {
        let error = Graphs::open(Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "no CUDA graphs: they are a GPU's");
    }

    #[test]
    fn the_library_opens_where_there_is_cuda_or_it_is_said_in_a_line_why_not() {
        match load() {
            Ok(_) => assert!(tch::Cuda::is_available()),
            Err(reason) => assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}"),
        }
    }
}
