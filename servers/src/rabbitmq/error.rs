//! What goes wrong with RabbitMQ, and whose fault it is: away for now, set up otherwise than needed, or a message that cannot be sent.

use lapin::ErrorKind;

/// Why RabbitMQ did not do it. Never holds the address or the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RabbitError {
    /// It is away, too slow, full, or takes nothing because of an alarm. Asking again later is safe and may help.
    #[error("RabbitMQ cannot be used now: {0}")]
    Unavailable(String),
    /// It, or what it holds, is not set up as the promises need: names what, and the remedy. Asking again does not help.
    #[error("{0}")]
    Setting(String),
    /// No queue is bound to the topic, so nobody would keep the message.
    #[error("no queue is bound to topic `{0}`")]
    Unroutable(String),
    /// The message or a name cannot be sent at all; the caller is at fault.
    #[error("the message cannot be sent: {0}")]
    Message(String),
}

impl RabbitError {
    /// True when asking again later may help.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(super) fn deadline(what: &str, after: std::time::Duration) -> Self {
        Self::Unavailable(format!("{what}: no answer within {} s", after.as_secs_f32()))
    }

    /// What lapin says, when it tried to do `what`.
    pub(super) fn from_lapin(what: &str, error: &lapin::Error) -> Self {
        let ErrorKind::ProtocolError(protocol) = error.kind() else {
            return Self::Unavailable(format!("{what}: {error}"));
        };
        let said = protocol.get_message();
        match protocol.get_id() {
            ACCESS_REFUSED => Self::Setting(format!(
                "RabbitMQ refuses this user ({what}: {said}): check the user and password in amqp_url, and give the user the rights \
                 `configure`, `write` and `read` in its virtual host (rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*')"
            )),
            NOT_ALLOWED => Self::Setting(format!(
                "RabbitMQ does not let this user in ({what}: {said}): make the virtual host that amqp_url ends in (rabbitmqctl \
                 add_vhost VHOST) and give the user its rights there"
            )),
            // The same number tells of an acknowledgement that came too late; that ends a channel and no more.
            PRECONDITION_FAILED if said.as_str().contains(" arg") => {
                Self::Setting(inequivalent(what, said.as_str()))
            }
            NOT_IMPLEMENTED | COMMAND_INVALID => Self::Setting(format!(
                "this RabbitMQ cannot do what is needed ({what}: {said}): run RabbitMQ 3.10 or newer with all its feature flags \
                 enabled (rabbitmqctl enable_feature_flag all)"
            )),
            _ => Self::Unavailable(format!("{what}: {said}")),
        }
    }
}

const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const COMMAND_INVALID: u16 = 503;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// True when the queue or exchange is not there.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(e) if e.get_id() == NOT_FOUND)
}

/// Words for "there is one of that name with other arguments". RabbitMQ says `inequivalent arg 'x-max-length-bytes' for queue 'q' in
/// vhost '/': received … but current is …`.
fn inequivalent(what: &str, said: &str) -> String {
    let mut quoted = said.split('\'').skip(1).step_by(2);
    let (Some(argument), Some(name)) = (quoted.next(), quoted.next()) else {
        return format!(
            "RabbitMQ does not accept the arguments ({what}: {said}): run RabbitMQ 3.10 or newer with all its feature flags enabled \
             (rabbitmqctl enable_feature_flag all)"
        );
    };
    let (kind, remedy) = if said.contains(" for exchange ") {
        (
            "exchange",
            "delete the exchange (it keeps no messages), or give these services a virtual host of their own in amqp_url",
        )
    } else {
        (
            "queue",
            "the arguments of a queue cannot be changed: let it run empty, stop the services, delete it (rabbitmqctl delete_queue \
             NAME) and start them again, or give these services a virtual host of their own in amqp_url",
        )
    };
    let difference = said.split_once(": ").map_or(said, |(_, tail)| tail);
    format!("{kind} `{name}` exists in RabbitMQ with another `{argument}` ({difference}): {remedy}")
}

#[cfg(test)]
mod tests {
    use super::inequivalent;

    #[test]
    fn a_queue_with_other_arguments_is_told_by_name_argument_and_remedy() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'weir.q' in vhost '/': received the value '20' \
                    of type 'signedint' but current is none";
        let text = inequivalent("declaring", said);
        assert!(
            text.starts_with(
                "queue `weir.q` exists in RabbitMQ with another `x-delivery-limit` (received the value '20'"
            ),
            "{text}"
        );
        assert!(text.contains("rabbitmqctl delete_queue"), "{text}");
        let other = inequivalent(
            "declaring",
            "PRECONDITION_FAILED - invalid arg x-dead-letter-strategy",
        );
        assert!(other.contains("3.10"), "{other}");
    }
}
