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
        Some(FilterCommand::Pin { name, condition, rl_condition, untried }) => {
            let (condition, rl_condition) = (condition.as_deref(), rl_condition.as_deref());
            pools::run(context, name, pools::Selection { untried: *untried, condition, rl_condition }).await
        }
    }
}

/// Says so where there is not one trajectory, and what makes some.
pub(super) async fn warn_of_no_trajectories(context: &Context) -> Result<(), Failure> {
    if context.quiet || select::number(&context.job_engine()?, "SELECT count(*) FROM trajectories").await? > 0 {
        return Ok(());
    }
    crate::output::note(
        "there are no trajectories: `webdancer sample` makes some, `webdancer import trajectories` brings some",
    );
    Ok(())
}

impl From<webdancer_synth::funnel::FunnelError> for Failure {
    fn from(error: webdancer_synth::funnel::FunnelError) -> Failure {
        match error {
            webdancer_synth::funnel::FunnelError::Parameters(_) => Failure::usage(error.to_string()),
            other => Failure::failed(other.to_string()),
        }
    }
}
