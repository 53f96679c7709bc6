//! A log that hands the trajectories that it is given on to be scored.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::Trajectory;

use super::{Answered, Given};
use crate::benchmark::Question;

/// Attempts that wait to be scored: beyond them, making attempts waits.
const WAITING_MAX: usize = 256;

/// The end of a trajectory that says nothing of its policy.
const OUTAGE: &str = "error";

/// A log before a log. What is durable is handed on; when the tap is dropped, nothing more comes. Whether an attempt was made
/// before, so that the table keeps another answer, is not known here: the [scoring](super) of a later pass sees it.
#[derive(Debug)]
pub struct Tap {
    log: Arc<dyn EventLog>,
    questions: HashMap<String, (String, String)>,
    with_beside: bool,
    restricted: bool,
    sender: mpsc::Sender<Answered>,
}

impl Tap {
    /// A tap on `log` for attempts at `questions`, and what comes out of it. `with_beside`: a second scorer is asked, too;
    /// `restricted`: the benchmark is gated.
    pub fn new<'q>(
        log: Arc<dyn EventLog>,
        questions: impl IntoIterator<Item = &'q Question>,
        with_beside: bool,
        restricted: bool,
    ) -> (Tap, BoxStream<'static, Answered>) {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let waiting = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let known = |q: &'q Question| (q.qa_id.clone(), (q.question.clone(), q.answer.clone()));
        let questions = questions.into_iter().map(known).collect();
        (Tap { log, questions, with_beside, restricted, sender }, waiting.boxed())
    }

    fn answered(&self, event: &Event) -> Option<Answered> {
        if event.kind() != Kind::Trajectory {
            return None;
        }
        let trajectory: Trajectory = serde_json::from_str(event.data.get()).ok()?;
        // An endpoint or a tool was out: there is nothing to judge.
        if trajectory.termination == OUTAGE {
            return None;
        }
        let (question, gold) = self.questions.get(&trajectory.qa_id)?.clone();
        Some(Answered {
            trajectory_id: trajectory.trajectory_id,
            qa_id: trajectory.qa_id,
            question,
            gold,
            answer: trajectory.answer.unwrap_or_default(),
            due: [Some(Given::default()), self.with_beside.then(Given::default)],
            restricted: self.restricted,
        })
    }
}

#[async_trait]
impl EventLog for Tap {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        let answered: Vec<Answered> = events.iter().filter_map(|event| self.answered(event)).collect();
        self.log.append(events).await?;
        for one in answered {
            // Where scoring has ended, it is done by whoever takes the run up again.
            let _ = self.sender.send(one).await;
        }
        Ok(())
    }
}
