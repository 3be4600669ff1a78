//! Who answers: RabbitMQ says its product and version before anybody logs in, and the client's library does not pass it on.

use lapin::{
    AsyncTcpStream,
    tcp::{AMQPUriTcpExt, TLSConfig},
    types::{AMQPValue, FieldTable, parsing::parse_field_table},
    uri::AMQPUri,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::{error::RabbitError, link::CONNECT_DEADLINE};

/// The first version whose quorum queues dead-letter at least once.
const OLDEST: (u32, u32) = (3, 10);
/// What a client of AMQP 0-9-1 begins with.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel, length.
const FRAME_HEADER: usize = 7;
/// Longest first frame that is read, bytes; RabbitMQ's has about 500.
const START_MAX: usize = 16 << 10;
/// Class and method of `connection.start`, then two bytes of the protocol's version.
const START: &[u8] = &[0, 10, 0, 10];
const PROPERTIES_AT: usize = 6;

/// Checks that it is a RabbitMQ that is new enough; bounded by [`CONNECT_DEADLINE`].
pub(super) async fn check(uri: &AMQPUri) -> Result<(), RabbitError> {
    let asking = async {
        let runtime = lapin::runtime::default_runtime().map_err(std::io::Error::other)?;
        let stream: AsyncTcpStream<_> = uri
            .connect_with_config_async(TLSConfig::default(), &runtime)
            .await?;
        let mut stream = stream.compat();
        stream.write_all(GREETING).await?;
        stream.flush().await?;
        let mut header = [0; FRAME_HEADER];
        stream.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if header[0] != 1 || length > START_MAX {
            return Ok(Vec::new());
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>(payload)
    };
    let payload = match timeout(CONNECT_DEADLINE, asking).await {
        Ok(Ok(payload)) => payload,
        Ok(Err(e)) => return Err(RabbitError::Unavailable(format!("connecting: {e}"))),
        Err(_) => return Err(RabbitError::deadline("connecting", CONNECT_DEADLINE)),
    };
    judge(&payload)
}

fn judge(start: &[u8]) -> Result<(), RabbitError> {
    let table = start
        .strip_prefix(START)
        .and_then(|_| start.get(PROPERTIES_AT..))
        .and_then(|rest| parse_field_table(rest).ok())
        .map(|(_, table)| table)
        .ok_or_else(|| {
            RabbitError::Setting(
                "what answers at amqp_url does not speak AMQP 0-9-1: is it RabbitMQ's port?".to_owned(),
            )
        })?;
    let product = property(&table, "product");
    let version = property(&table, "version");
    if product != "RabbitMQ" {
        return Err(RabbitError::Setting(format!(
            "what answers at amqp_url is `{product}`, not RabbitMQ: its quorum queues are needed"
        )));
    }
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => Err(RabbitError::Setting(format!(
            "RabbitMQ is {version}: at-least-once dead-lettering needs 3.10 or newer"
        ))),
        _ => Ok(()),
    }
}

fn property(table: &FieldTable, key: &str) -> String {
    match table.inner().get(key) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(product: &str, version: &str) -> Vec<u8> {
        let mut table = Vec::new();
        for (key, value) in [("product", product), ("version", version)] {
            table.push(u8::try_from(key.len()).unwrap());
            table.extend(key.as_bytes());
            table.push(b'S');
            table.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            table.extend(value.as_bytes());
        }
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        [START, &[0, 9], &length, &table, &[0, 0, 0, 5], b"PLAIN"].concat()
    }

    #[test]
    fn an_old_or_other_broker_is_refused_by_name() {
        assert_eq!(judge(&start("RabbitMQ", "3.10.8")), Ok(()));
        assert_eq!(judge(&start("RabbitMQ", "4.1.0-rc.1")), Ok(()));
        for (product, version, word) in [
            ("RabbitMQ", "3.9.27", "3.10 or newer"),
            ("LavinMQ", "2.0", "`LavinMQ`"),
        ] {
            let told = judge(&start(product, version)).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
        assert!(
            judge(b"HTTP/1.1 400")
                .unwrap_err()
                .to_string()
                .contains("AMQP 0-9-1")
        );
    }
}
