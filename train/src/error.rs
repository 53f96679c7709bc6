//! What can go wrong on the torch side, by what the reader must do; and how libtorch's exceptions become errors.
//!
//! tch panics where libtorch throws. Writing every line of a model with `?` would bury the mathematics, so the code is
//! written plainly and entered through [`guard`], which makes an error of such a panic: of its first line, since the rest
//! is a C++ stack.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Once;

/// Why training, loading or generation stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Something asked for does not fit: change it and start again.
    #[error("{0}")]
    Usage(String),
    /// A file is missing, broken, of another model, or could not be written.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: String,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// Memory ran out: a smaller model, or what the message says.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The loss or the gradient is no number any more.
    #[error("{0}")]
    Diverged(String),
    /// libtorch refused an operation. A fault of this program, or of the installation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl TrainError {
    /// An error about a file.
    pub fn file(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), message: message.to_string() }
    }

    /// As it is told while training: memory that the weights have left then goes with the tokens of a micro-batch.
    pub(crate) fn while_training(self) -> Self {
        match self {
            Self::OutOfMemory(what) => {
                let cures = "batch.activation_checkpointing, or a lower batch.tokens unless one trajectory is too much";
                Self::OutOfMemory(format!("{what}; go on with {cures}: neither changes anything else"))
            }
            other => other,
        }
    }
}

thread_local! {
    static GUARDED: Cell<usize> = const { Cell::new(0) };
}

/// Runs what calls libtorch; its exceptions come back as errors.
pub fn guard<T>(run: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    quiet_guarded_panics();
    GUARDED.set(GUARDED.get() + 1);
    // Unwound state is not looked at again: what fails here ends the run, and its tensors are dropped.
    let outcome = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(GUARDED.get() - 1);
    outcome.unwrap_or_else(|panic| match of_tch(panic.as_ref()) {
        Some(text) => Err(of_exception(text)),
        None => resume_unwind(panic),
    })
}

/// What tch says when it unwraps an error.
const UNWRAPPED: &str = "called `Result::unwrap()` on an `Err` value: ";

/// The error that tch unwrapped, as its Debug shows it; none for any other panic.
fn of_tch(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>()?.strip_prefix(UNWRAPPED)
}

/// `Torch("first line\nException raised from …\n…")`, as tch has it, or bare: the first line, as an error.
pub(crate) fn of_exception(text: &str) -> TrainError {
    let text = text.replace("\\n", "\n");
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("Torch(\"").trim_end_matches("\")").to_string();
    let memory = ["out of memory", "can't allocate memory", "not enough memory"];
    if memory.iter().any(|words| line.contains(words)) {
        TrainError::OutOfMemory(line)
    } else {
        TrainError::Torch(line)
    }
}

/// A panic that becomes an error is told once, as that, and not by the panic hook as well.
fn quiet_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or_default();
            if GUARDED.get() == 0 || !text.starts_with(UNWRAPPED) {
                told(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn what_libtorch_throws_is_one_line() {
        let error =
            guard(|| Ok(Tensor::from_slice(&[1.0f32, 2.0]).matmul(&Tensor::from_slice(&[1.0f32])))).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("libtorch: ") && text.contains("size") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn memory_that_is_not_there_is_told_as_such() {
        let error = guard(|| Ok(Tensor::empty([1 << 50], (tch::Kind::Float, tch::Device::Cpu)))).unwrap_err();
        assert!(matches!(error, TrainError::OutOfMemory(_)), "{error}");
        // Fewer tokens are a cure while a model is trained, and none where it does not fit by itself.
        assert!(!error.to_string().contains("tokens"), "{error}");
        let advice = "; go on with batch.activation_checkpointing, or a lower batch.tokens unless one trajectory is too \
                      much: neither changes anything else";
        assert!(error.while_training().to_string().ends_with(advice));
    }
}
