//! How a message looks on the wire: its id as the message id, the rest of what the services need as headers.

use std::time::{Duration, UNIX_EPOCH};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::error::RabbitError;

/// Longest body, bytes: RabbitMQ 4 refuses more unless told otherwise.
pub(super) const BODY_MAX: usize = 16 << 20;
/// Longest name of a topic, queue or id, bytes: AMQP has one byte for the length; a queue's name is made longer by ours.
pub(super) const NAME_MAX: usize = 200;
/// Longest time before a message is tried again, whatever a header says.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest cause that is kept, characters.
const CAUSE_MAX: usize = 2_000;

const TOPIC: &str = "weir-topic";
const ATTEMPT: &str = "weir-attempt";
const NOT_BEFORE: &str = "weir-not-before-ms";
const CAUSE: &str = "weir-cause";
const DIED: &str = "weir-died-ms";
/// Set by quorum queues: how often a delivery was lost or given back.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Set by brokers that dead-letter.
const DEATHS: &str = "x-death";

/// AMQP's number for "survives a restart".
const PERSISTENT: u8 = 2;

/// What a message carries besides its place in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) body: Vec<u8>,
    /// Claims that copies before this one had.
    pub(super) attempt: u32,
    /// Unix milliseconds before which it is not handed out; 0 for at once.
    pub(super) not_before_ms: u64,
    pub(super) cause: Option<String>,
    /// When it was given up, Unix milliseconds.
    pub(super) died_ms: u64,
}

/// Wall clock, Unix milliseconds: times in headers are read by other processes, which share no other clock.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock adapter of the broker's client"
)]
pub(super) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Checks a topic, queue or id.
pub(super) fn name(what: &str, text: &str) -> Result<ShortString, RabbitError> {
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(RabbitError::Message(format!(
            "a {what} has 1 to {NAME_MAX} bytes, this one {}",
            text.len()
        )));
    }
    ShortString::try_new(text).map_err(|e| RabbitError::Message(format!("{what}: {e}")))
}

impl Letter {
    /// Checks what a publisher gives.
    pub(super) fn new(topic: &str, id: &str, body: Vec<u8>) -> Result<Self, RabbitError> {
        name("topic", topic)?;
        name("id", id)?;
        if body.len() > BODY_MAX {
            return Err(RabbitError::Message(format!(
                "{topic} {id} has {} bytes, more than {BODY_MAX}",
                body.len()
            )));
        }
        Ok(Self {
            topic: topic.to_owned(),
            id: id.to_owned(),
            body,
            ..Self::default()
        })
    }

    pub(super) fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(TOPIC.into(), text(&self.topic));
        let mut number = |key: &str, value: u64| {
            if value > 0 {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                headers.insert(key.into(), AMQPValue::LongLongInt(value));
            }
        };
        number(ATTEMPT, u64::from(self.attempt));
        number(NOT_BEFORE, self.not_before_ms);
        number(DIED, self.died_ms);
        if let Some(cause) = &self.cause {
            let short: String = cause.chars().take(CAUSE_MAX).collect();
            headers.insert(CAUSE.into(), text(&short));
        }
        let id = ShortString::try_new(self.id.as_str()).unwrap_or_default();
        BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(id)
            .with_headers(headers)
    }

    /// Reads what was delivered; what others published lacks our headers.
    pub(super) fn read(properties: &BasicProperties, routing_key: &str, body: Vec<u8>) -> Self {
        let headers = properties.headers().clone().unwrap_or_default();
        Self {
            topic: string(&headers, TOPIC).unwrap_or_else(|| routing_key.to_owned()),
            id: properties
                .message_id()
                .as_ref()
                .map(|id| id.as_str().to_owned())
                .unwrap_or_default(),
            body,
            attempt: u32::try_from(integer(&headers, ATTEMPT)).unwrap_or(u32::MAX),
            not_before_ms: integer(&headers, NOT_BEFORE),
            cause: string(&headers, CAUSE),
            died_ms: integer(&headers, DIED),
        }
    }

    /// How long until it may be handed out.
    pub(super) fn due_in(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.not_before_ms.saturating_sub(now_ms)).min(WAIT_MAX)
    }

    /// The number that names it among dead letters: of its content, so that it is the same in every list. 53 bits, which every reader
    /// of JSON keeps.
    pub(super) fn tag(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let parts = [self.topic.as_bytes(), &[0], self.id.as_bytes(), &[0], &self.body];
        for byte in parts.into_iter().flatten() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash >> 11
    }
}

/// How often the broker has delivered it before, without an answer.
pub(super) fn lost_deliveries(properties: &BasicProperties) -> u32 {
    let headers = properties.headers().as_ref();
    headers.map_or(0, |h| {
        u32::try_from(integer(h, DELIVERY_COUNT)).unwrap_or(u32::MAX)
    })
}

/// Why and when (Unix milliseconds) the broker itself gave a message up.
pub(super) fn death(properties: &BasicProperties) -> Option<(String, u64)> {
    let headers = properties.headers().as_ref()?;
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get(DEATHS) else {
        return None;
    };
    let Some(AMQPValue::FieldTable(last)) = deaths.as_slice().first() else {
        return None;
    };
    let reason = string(last, "reason").unwrap_or_default();
    let cause = match reason.as_str() {
        "delivery_limit" => {
            "it reached the delivery limit: whoever took it died or hung each time".to_owned()
        }
        "expired" => {
            "it expired in the queue: a policy sets a time to live, which this queue must not have".to_owned()
        }
        "maxlen" => {
            "the queue was full and dropped it: a policy sets `overflow`, which this queue must not have"
                .to_owned()
        }
        other => format!("RabbitMQ gave it up: {other}"),
    };
    let died = match last.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => seconds.saturating_mul(1000),
        _ => 0,
    };
    Some((cause, died))
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn string(table: &FieldTable, key: &str) -> Option<String> {
    match table.inner().get(key)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn integer(table: &FieldTable, key: &str) -> u64 {
    let number = match table.inner().get(key) {
        Some(AMQPValue::LongLongInt(n)) => *n,
        Some(AMQPValue::LongInt(n)) => i64::from(*n),
        Some(AMQPValue::LongUInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortUInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortUInt(n)) => i64::from(*n),
        _ => 0,
    };
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let letter = Letter {
            attempt: 3,
            not_before_ms: 17,
            cause: Some("no tariff".to_owned()),
            died_ms: 1_700_000_000_123,
            ..Letter::new("usage.v1", "p-1-2-3", b"{}".to_vec()).unwrap()
        };
        let read = Letter::read(&letter.properties(), "weir.billing.rating.dead", b"{}".to_vec());
        assert_eq!(read, letter);
        assert_eq!(read.tag(), letter.tag());
        assert_eq!(read.due_in(7), Duration::from_millis(10));
        assert_eq!(read.due_in(18), Duration::ZERO);
        let other = Letter::new("usage.v1", "p-1-2-3", b"{ }".to_vec()).unwrap();
        assert_ne!(other.tag(), letter.tag());
        assert!(other.tag() < 1 << 53);
    }

    #[test]
    fn what_others_published_has_the_routing_key_as_its_topic() {
        let read = Letter::read(&BasicProperties::default(), "usage.v1", Vec::new());
        assert_eq!(
            (read.topic.as_str(), read.id.as_str(), read.attempt),
            ("usage.v1", "", 0)
        );
    }

    #[test]
    fn the_brokers_own_dead_letters_have_a_cause() {
        let mut death_of = FieldTable::default();
        death_of.insert("reason".into(), text("delivery_limit"));
        death_of.insert("time".into(), AMQPValue::Timestamp(12));
        let mut headers = FieldTable::default();
        headers.insert(
            DEATHS.into(),
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death_of)])),
        );
        headers.insert(DELIVERY_COUNT.into(), AMQPValue::LongInt(20));
        let properties = BasicProperties::default().with_headers(headers);
        let (cause, died_ms) = death(&properties).unwrap();
        assert!(cause.contains("delivery limit"), "{cause}");
        assert_eq!((died_ms, lost_deliveries(&properties)), (12_000, 20));
        assert_eq!(death(&BasicProperties::default()), None);
    }

    #[test]
    fn names_and_bodies_have_bounds() {
        for (topic, id) in [("", "1"), ("t", ""), ("t", &*"i".repeat(NAME_MAX + 1))] {
            assert!(matches!(
                Letter::new(topic, id, Vec::new()),
                Err(RabbitError::Message(_))
            ));
        }
        assert!(Letter::new("t", "1", vec![0; BODY_MAX]).is_ok());
        assert!(Letter::new("t", "1", vec![0; BODY_MAX + 1]).is_err());
    }
}
