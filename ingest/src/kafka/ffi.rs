//! What we need of librdkafka that the safe bindings lack, and the only unsafe code of the crate: topic ids, brokers
//! without all topics, message headers that cannot panic on foreign bytes, and the end of a partition as of its last
//! fetch.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
use rdkafka_sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A topic as its cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicDescription {
    /// Name.
    pub(super) name: String,
    /// The most and the least significant half of its id; both 0 where the cluster has no ids.
    pub(super) id: (i64, i64),
    /// How many partitions it has.
    pub(super) partitions: usize,
    /// Why there is no description, such as an unknown topic.
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// A DescribeTopics request under way. It cannot outlive the client whose queue it reads.
#[derive(Debug)]
pub(super) struct DescribeTopics<'c> {
    queue: *mut sys::rd_kafka_queue_t,
    broker: Option<i32>,
    client: PhantomData<&'c ()>,
}

impl<'c> DescribeTopics<'c> {
    /// Sends the request to `broker`, or else to the controller; any broker can answer. The answer, or an error after
    /// `limit`, comes out of [`DescribeTopics::poll`].
    pub(super) fn send<C: ClientContext>(
        client: &'c Client<C>,
        topics: &[&str],
        broker: Option<i32>,
        limit: Duration,
    ) -> KafkaResult<DescribeTopics<'c>> {
        let names = topics.iter().map(|name| CString::new(*name)).collect::<Result<Vec<CString>, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut error_text: [c_char; 128] = [0; 128];
        // SAFETY: the client's handle is valid as long as the borrow of `client`. The strings behind `pointers` live to
        // the end of this function and librdkafka copies them. What `_new` and `_of_topic_names` return is owned here
        // and destroyed once, after the call that reads it; the queue is destroyed when `self` is dropped.
        unsafe {
            let handle = client.native_ptr();
            let options = sys::rd_kafka_AdminOptions_new(handle, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            if options.is_null() {
                return Err(KafkaError::AdminOpCreation("describing topics is not supported".into()));
            }
            let (text, size) = (error_text.as_mut_ptr(), error_text.len());
            let mut set = sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(limit), text, size);
            if let Some(broker) = broker
                && set == RD_KAFKA_RESP_ERR_NO_ERROR
            {
                set = sys::rd_kafka_AdminOptions_set_broker(options, broker, text, size);
            }
            if set != RD_KAFKA_RESP_ERR_NO_ERROR {
                sys::rd_kafka_AdminOptions_destroy(options);
                return Err(KafkaError::AdminOp(set.into()));
            }
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let queue = sys::rd_kafka_queue_new(handle);
            sys::rd_kafka_DescribeTopics(handle, collection, options, queue);
            sys::rd_kafka_TopicCollection_destroy(collection);
            sys::rd_kafka_AdminOptions_destroy(options);
            Ok(DescribeTopics { queue, broker, client: PhantomData })
        }
    }

    /// Whom the request was sent to; none for the controller.
    pub(super) fn broker(&self) -> Option<i32> {
        self.broker
    }

    /// The answer, if it comes within `wait`.
    pub(super) fn poll(&self, wait: Duration) -> Option<KafkaResult<Vec<TopicDescription>>> {
        // SAFETY: the queue was made in `send` and lives until `self` is dropped. The event is owned here and destroyed
        // once, after everything that is read out of it was copied.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, millis(wait));
            if event.is_null() {
                return None;
            }
            let answer = read_descriptions(event);
            sys::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl Drop for DescribeTopics<'_> {
    fn drop(&mut self) {
        // SAFETY: the queue was made in `send`, is destroyed only here, and the client it belongs to is still borrowed.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// Copies the answer out of a DescribeTopics event.
///
/// # Safety
/// `event` is valid and not used by anybody else meanwhile.
unsafe fn read_descriptions(event: *mut sys::rd_kafka_event_t) -> KafkaResult<Vec<TopicDescription>> {
    // SAFETY: the accessors take a valid event and return memory that lives as long as the event; names are C strings,
    // the array has `count` elements, and descriptions and their ids are never null for a successful result.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(error.into()));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(KafkaError::AdminOpCreation("the answer to describing topics has another type".into()));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut descriptions = Vec::with_capacity(count);
        for index in 0..count {
            let topic = *topics.add(index);
            let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            let name = sys::rd_kafka_TopicDescription_name(topic);
            let mut partitions = 0;
            sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
            descriptions.push(TopicDescription {
                name: CStr::from_ptr(name).to_string_lossy().into_owned(),
                id: if id.is_null() {
                    (0, 0)
                } else {
                    (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id))
                },
                partitions,
                error: (error != RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into()),
            });
        }
        Ok(descriptions)
    }
}

/// The ids of the cluster's brokers. The safe call fetches the metadata of every topic with them.
pub(super) fn brokers<C: ClientContext>(client: &Client<C>, limit: Duration) -> KafkaResult<Vec<i32>> {
    let mut metadata = ptr::null();
    // SAFETY: the handle is valid while `client` is borrowed. On success `metadata` points to a struct whose array has
    // `broker_cnt` elements; it is owned here and destroyed once, after the ids were copied.
    unsafe {
        let found = sys::rd_kafka_metadata(client.native_ptr(), 0, ptr::null_mut(), &mut metadata, millis(limit));
        if found != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::MetadataFetch(found.into()));
        }
        let count = usize::try_from((*metadata).broker_cnt).unwrap_or(0);
        let ids = (0..count).map(|index| (*(*metadata).brokers.add(index)).id).collect();
        sys::rd_kafka_metadata_destroy(metadata);
        Ok(ids)
    }
}

/// The headers of a message, in order. The safe bindings panic on a header whose name is not UTF-8; here it is left
/// out: no attribute has such a name.
pub(super) fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Headers<'m> {
    let mut list = ptr::null_mut();
    // SAFETY: the message is valid while borrowed. On success the list belongs to the message and lives as long.
    let found = unsafe { sys::rd_kafka_message_headers(message.ptr(), &mut list) };
    let list = if found == RD_KAFKA_RESP_ERR_NO_ERROR { list } else { ptr::null_mut() };
    Headers { list, next: 0, message: PhantomData }
}

/// Iterator over the headers of a message.
#[derive(Debug, Clone)]
pub(super) struct Headers<'m> {
    list: *const sys::rd_kafka_headers_t,
    next: usize,
    message: PhantomData<&'m ()>,
}

impl<'m> Iterator for Headers<'m> {
    type Item = (&'m str, Option<&'m [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.list.is_null() {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list lives as long as the message, which `'m` borrows. On success `name` is a C string and
            // `value` is null or points to `size` bytes, both owned by the list.
            let (name, value) = unsafe {
                let found = sys::rd_kafka_header_get_all(self.list, self.next, &mut name, &mut value, &mut size);
                if found != RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                    return None;
                }
                let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
                (CStr::from_ptr(name), value)
            };
            self.next += 1;
            if let Ok(name) = name.to_str() {
                return Some((name, value));
            }
        }
        None
    }
}

/// The end of a partition as its last fetch told it; nothing before the first fetch. No request is sent.
pub(super) fn known_end<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the handle is valid while `client` is borrowed, the string until the call returns, and both targets are
    // initialised integers.
    let found = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &mut low, &mut high)
    };
    (found == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
