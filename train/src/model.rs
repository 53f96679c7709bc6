//! Models: what a Hugging Face folder says ([`ModelConfig`]), its weights on disk ([`weights`]) and in memory
//! ([`Parameters`]), what may be trained beside them ([`Adapters`]), the forward pass ([`Qwen`]) and the way back
//! ([`Trace`]).
//!
//! Loading: `config.json` names shapes, the shards are mapped, each tensor is copied once to its place. Saving is the way
//! back, to the names, shapes and layout that transformers, vLLM and SGLang read.

mod attention;
mod config;
mod init;
mod lora;
mod params;
mod qwen;
mod rope;
mod trace;
pub mod weights;

pub use self::attention::{Attention, PackedCausal};
pub use self::config::ModelConfig;
pub use self::lora::Adapters;
pub use self::params::{Parameters, Piece};
pub use self::qwen::{Context, Qwen};
pub use self::rope::Yarn;
pub use self::trace::Trace;
