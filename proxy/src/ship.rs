//! The shipper: journal → outbox, by conditional appends behind a durable cursor.
