//! The event store's tables, by version, and the statement that commits a batch.

/// One script per version. Released ones are never changed.
///
/// `head` has one row, which every commit moves first: whoever holds its lock commits next, so commit order is position order and
/// order of the outbox. Bodies are text: they must come back byte by byte, and `jsonb` takes no NUL. Times are text: they have
/// nanoseconds. No foreign keys: events and postings are written by one statement only.
pub(super) const SCHEMA: &[&str] = &["
CREATE TABLE head (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    position bigint NOT NULL CHECK (position >= 0),
    messages bigint NOT NULL CHECK (messages >= 0)
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO head (position, messages) VALUES (0, 0);
CREATE TABLE events (
    position bigint PRIMARY KEY,
    wallet_id uuid NOT NULL,
    version bigint NOT NULL,
    at text COLLATE \"C\" NOT NULL,
    is_transaction boolean NOT NULL,
    body text COLLATE \"C\" NOT NULL,
    UNIQUE (wallet_id, version)
);
CREATE INDEX transactions_by_wallet ON events (wallet_id, position) WHERE is_transaction;
CREATE INDEX transactions_by_position ON events (position) WHERE is_transaction;
CREATE TABLE postings (
    position bigint NOT NULL,
    n integer NOT NULL,
    account text COLLATE \"C\" NOT NULL,
    currency text COLLATE \"C\" NOT NULL,
    amount numeric(28,9) NOT NULL,
    PRIMARY KEY (position, n)
);
CREATE TABLE answers (
    key text COLLATE \"C\" PRIMARY KEY,
    hash bytea NOT NULL,
    body text COLLATE \"C\" NOT NULL
);
CREATE TABLE outbox (
    sequence bigint PRIMARY KEY,
    topic text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE snapshot (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    format bigint,
    position bigint NOT NULL
);
INSERT INTO snapshot (format, position) VALUES (NULL, 0);
CREATE TABLE snapshot_wallets (
    wallet_id uuid PRIMARY KEY,
    body text COLLATE \"C\" NOT NULL
);
CREATE TABLE probe (id boolean PRIMARY KEY DEFAULT true CHECK (id), n bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO probe (n) VALUES (0);
"];

/// A whole commit in one statement and one round trip, so that no pause of ours can hold `head` locked. Every part reads `moved`,
/// so nothing is written, and no key is waited for, before the head is ours. Returns 0 when the head was not where it was expected.
pub(super) const COMMIT: &str = "
WITH moved AS (
    UPDATE head SET position = $2, messages = messages + $3 WHERE position = $1
    RETURNING messages - $3 AS sent_before
), new_events AS (
    INSERT INTO events (position, wallet_id, version, at, is_transaction, body)
    SELECT e.position, e.wallet_id, e.version, e.at, e.is_transaction, e.body
    FROM moved, unnest($4::bigint[], $5::uuid[], $6::bigint[], $7::text[], $8::boolean[], $9::text[])
        AS e (position, wallet_id, version, at, is_transaction, body)
), new_postings AS (
    INSERT INTO postings (position, n, account, currency, amount)
    SELECT p.position, p.n, p.account, p.currency, p.amount::numeric(28,9)
    FROM moved, unnest($10::bigint[], $11::integer[], $12::text[], $13::text[], $14::text[])
        AS p (position, n, account, currency, amount)
), new_answers AS (
    INSERT INTO answers (key, hash, body)
    SELECT a.key, a.hash, a.body
    FROM moved, unnest($15::text[], $16::bytea[], $17::text[]) AS a (key, hash, body)
), new_messages AS (
    INSERT INTO outbox (sequence, topic, id, body)
    SELECT moved.sent_before + m.n, m.topic, m.id, m.body
    FROM moved, unnest($18::text[], $19::text[], $20::bytea[]) WITH ORDINALITY AS m (topic, id, body, n)
)
SELECT count(*) FROM moved";
