//! `webdancer filter`: trajectories through the funnel, its waterfall, and the pools that it leaves.

pub(super) mod judges;
pub(super) mod judging;
pub(super) mod pools;
pub(super) mod report;
mod select;
mod versions;

use crate::args::{FilterArgs, FilterCommand};
use crate::context::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, args: &FilterArgs) -> Result<(), Failure> {
    match &args.command {
        None => judging::run(context, &args.judging).await,
        Some(FilterCommand::Report { svg }) => report::run(context, svg.as_deref()).await,
        Some(FilterCommand::Pin { name, attempted }) => pools::run(context, name, *attempted).await,
    }
}

impl From<webdancer_synth::funnel::FunnelError> for Failure {
    fn from(error: webdancer_synth::funnel::FunnelError) -> Failure {
        match error {
            webdancer_synth::funnel::FunnelError::Parameters(_) => Failure::usage(error.to_string()),
            other => Failure::failed(other.to_string()),
        }
    }
}
