//! What librdkafka calls back: its log lines, its errors, rebalances of the group and delivery reports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::oneshot;

/// Log lines and errors of a client. An outage repeats the same error every few milliseconds: it is told once, until
/// the client works again or the error changes.
#[derive(Debug, Default)]
pub(super) struct Noted {
    failing: AtomicBool,
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Noted {
    /// The client works: the next error is told again.
    pub(super) fn works(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            *self.last.lock() = None;
            tracing::info!("kafka can be reached again");
        }
    }

    /// The last error, for a message about a time-out, which says nothing of its cause.
    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().as_ref().map(|(_, reason)| reason.clone())
    }

    fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // Events of a consumer that are no trouble, or that the session handles.
        if matches!(code, RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) {
            return;
        }
        let mut last = self.last.lock();
        // All brokers down comes after the error that says why.
        let known = matches!(&*last, Some((known, _)) if *known == code || code == RDKafkaErrorCode::AllBrokersDown);
        if known {
            tracing::debug!(%error, reason, "kafka");
        } else {
            tracing::warn!(%error, reason, "kafka trouble; retrying");
            *last = Some((code, reason.to_string()));
        }
        self.failing.store(true, Ordering::Relaxed);
    }
}

/// librdkafka repeats its connection errors in its log; what matters of them comes as an error as well.
fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka client: {line}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility != "FAIL" => {
            tracing::warn!(facility, "kafka client: {line}");
        }
        _ => tracing::debug!(facility, "kafka client: {line}"),
    }
}

/// Context of an admin client.
#[derive(Debug, Default)]
pub(super) struct AdminSide {
    pub(super) noted: Noted,
}

impl ClientContext for AdminSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.noted.note(&error, reason);
    }
}

/// A change of the assignment that waits to be carried out.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// Partitions to be started.
    Assign(TopicPartitionList),
    /// Partitions to be given up; `lost` when others may have them already.
    Revoke { partitions: TopicPartitionList, lost: bool },
}

/// Context of a consumer.
///
/// A rebalance is only noted in the callback and carried out by the session right after the poll that delivered it:
/// librdkafka waits for the assign call, whoever makes it, and the session needs no locks.
#[derive(Debug, Default)]
pub(super) struct ConsumerSide {
    pub(super) noted: Noted,
    rebalances: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
}

impl ConsumerSide {
    /// The oldest change not carried out yet.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().pop_front()
    }

    /// From now on partitions are given up at once: nobody would carry it out any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for ConsumerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.noted.note(&error, reason);
    }
}

impl ConsumerContext for ConsumerSide {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if !self.closing.load(Ordering::Acquire) {
            let partitions = list.clone();
            let rebalance = if assign {
                Rebalance::Assign(partitions)
            } else {
                Rebalance::Revoke { partitions, lost: consumer.assignment_lost() }
            };
            self.rebalances.lock().push_back(rebalance);
            return;
        }
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative if assign => Ok(()),
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "giving up partitions while closing");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "committing offsets as a hint");
        }
    }
}

/// Why a record was not delivered: the code, and its place in the batch.
pub(super) type Undelivered = (RDKafkaErrorCode, usize);

/// The records of one append that are not reported on yet.
#[derive(Debug)]
pub(super) struct Batch {
    open: AtomicUsize,
    first_error: Mutex<Option<Undelivered>>,
    done: Mutex<Option<oneshot::Sender<Result<(), Undelivered>>>>,
}

impl Batch {
    /// A batch of `records`, more than none, and where its result comes out.
    pub(super) fn new(records: usize) -> (Arc<Batch>, oneshot::Receiver<Result<(), Undelivered>>) {
        let (sender, receiver) = oneshot::channel();
        let batch =
            Batch { open: AtomicUsize::new(records), first_error: Mutex::new(None), done: Mutex::new(Some(sender)) };
        (Arc::new(batch), receiver)
    }

    /// One record is delivered or not; the last one completes the batch.
    pub(super) fn report(&self, error: Option<Undelivered>) {
        self.report_many(1, error);
    }

    /// The same for `records` at once.
    pub(super) fn report_many(&self, records: usize, error: Option<Undelivered>) {
        if let Some(error) = error {
            self.first_error.lock().get_or_insert(error);
        }
        if self.open.fetch_sub(records, Ordering::AcqRel) == records
            && let Some(done) = self.done.lock().take()
        {
            // The append may have been cancelled: then nobody is interested.
            let _ = done.send(self.first_error.lock().map_or(Ok(()), Err));
        }
    }
}

/// A record's place in its batch, carried through librdkafka to the delivery report.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
}

/// Context of a producer.
#[derive(Debug, Default)]
pub(super) struct ProducerSide {
    pub(super) noted: Noted,
}

impl ClientContext for ProducerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.noted.note(&error, reason);
    }
}

impl ProducerContext for ProducerSide {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let error = result
            .as_ref()
            .err()
            .map(|(error, _)| (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), ticket.index));
        if error.is_none() {
            self.noted.works();
        }
        ticket.batch.report(error);
    }
}
