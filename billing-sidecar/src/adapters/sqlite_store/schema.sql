CREATE TABLE IF NOT EXISTS tariffs (
    version TEXT PRIMARY KEY, currency TEXT NOT NULL, prices TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT PRIMARY KEY, login TEXT NOT NULL, login_key TEXT NOT NULL UNIQUE, currency TEXT NOT NULL,
    mode TEXT NOT NULL, cut TEXT NOT NULL, tariff TEXT NOT NULL, row_credit_bytes INTEGER NOT NULL,
    initial_nanos TEXT NOT NULL, wallet_id TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS proxies (
    proxy TEXT PRIMARY KEY, epoch INTEGER NOT NULL, boot_nonce TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS leases (
    lease TEXT PRIMARY KEY, account TEXT NOT NULL, tariff TEXT NOT NULL, granted_nanos INTEGER NOT NULL,
    state TEXT NOT NULL, records INTEGER NOT NULL, reported_nanos INTEGER NOT NULL, rated_nanos INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS leases_unsettled ON leases (account) WHERE state <> 'settled';
CREATE TABLE IF NOT EXISTS marks (
    proxy TEXT PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL
) STRICT;
-- One row per requested capture: the charge is its own outgoing command, `state` says how far it got.
CREATE TABLE IF NOT EXISTS charges (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, lease TEXT,
    tariff TEXT NOT NULL, currency TEXT NOT NULL, amount_nanos INTEGER NOT NULL, requests INTEGER NOT NULL,
    rows INTEGER NOT NULL, bytes_out INTEGER NOT NULL, state TEXT NOT NULL, txn_id TEXT, cause TEXT, rated_at TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS charges_open ON charges (account, number) WHERE state IN ('pending', 'captured');
CREATE INDEX IF NOT EXISTS charges_failed ON charges (account) WHERE state = 'failed';
CREATE INDEX IF NOT EXISTS charges_lease ON charges (lease);
CREATE TABLE IF NOT EXISTS entries (
    n INTEGER PRIMARY KEY AUTOINCREMENT, proxy TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    hash BLOB NOT NULL, body TEXT NOT NULL, account TEXT NOT NULL, session INTEGER, request INTEGER, lease TEXT,
    cost_nanos INTEGER NOT NULL, charge INTEGER REFERENCES charges (number),
    UNIQUE (proxy, epoch, sequence)
) STRICT;
CREATE INDEX IF NOT EXISTS entries_request ON entries (proxy, epoch, session, request) WHERE request IS NOT NULL;
CREATE INDEX IF NOT EXISTS entries_account ON entries (account, n);
CREATE INDEX IF NOT EXISTS entries_charge ON entries (charge);
CREATE INDEX IF NOT EXISTS entries_uncharged ON entries (n) WHERE cost_nanos > 0 AND charge IS NULL;
CREATE TABLE IF NOT EXISTS requests (
    proxy TEXT NOT NULL, epoch INTEGER NOT NULL, session INTEGER NOT NULL, request INTEGER NOT NULL,
    first_n INTEGER NOT NULL UNIQUE, account TEXT NOT NULL,
    PRIMARY KEY (proxy, epoch, session, request)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_account ON requests (account, first_n);
CREATE TABLE IF NOT EXISTS account_totals (
    account TEXT PRIMARY KEY, requests INTEGER NOT NULL, rows INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
    cut_offs INTEGER NOT NULL, cost_nanos TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS mistakes (
    n INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, account TEXT NOT NULL, what TEXT NOT NULL, at TEXT NOT NULL
) STRICT;
