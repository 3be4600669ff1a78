-- Version 1. Text keys are compared as bytes (COLLATE "C"): the same order as in every other store, and no index that an upgrade of
-- the C library breaks. Money is numeric(28,9), exact. Rows that are rewritten often leave room on their page (fillfactor)
-- and are cleared away often.
CREATE TABLE tariffs (
    version text COLLATE "C" PRIMARY KEY, currency text NOT NULL, prices text NOT NULL
);
CREATE TABLE accounts (
    account text COLLATE "C" PRIMARY KEY, login text NOT NULL, login_key text COLLATE "C" NOT NULL UNIQUE, currency text NOT NULL,
    mode text NOT NULL, cut text NOT NULL, tariff text NOT NULL, row_credit_bytes bigint NOT NULL,
    initial_credit numeric(28,9) NOT NULL, wallet_id text
);
CREATE TABLE proxies (
    proxy uuid PRIMARY KEY, epoch bigint NOT NULL, boot_nonce text NOT NULL
);
CREATE TABLE leases (
    lease text COLLATE "C" PRIMARY KEY, account text COLLATE "C" NOT NULL, tariff text NOT NULL, granted numeric(28,9) NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'closing', 'settled', 'blocked')), records bigint NOT NULL,
    reported numeric(28,9) NOT NULL, rated numeric(28,9) NOT NULL, last_sequence bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX leases_unsettled ON leases (account, lease) WHERE state <> 'settled';
CREATE INDEX leases_closing ON leases (account, lease) WHERE state = 'closing';
-- A batch holds its proxy's row until it is written down. Sequence 0: nothing is rated yet.
CREATE TABLE marks (
    proxy uuid PRIMARY KEY, epoch bigint NOT NULL, sequence bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
-- The last numbers given to charges and entries: held from there to the commit, so numbers become visible in their order, without a gap.
CREATE TABLE numbers (
    single boolean PRIMARY KEY DEFAULT true CHECK (single), charges bigint NOT NULL, entries bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO numbers (charges, entries) VALUES (0, 0);
-- One row per requested capture: the charge is its own outgoing command, `state` says how far it got.
CREATE TABLE charges (
    number bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, account text COLLATE "C" NOT NULL, lease text COLLATE "C",
    tariff text NOT NULL, currency text NOT NULL, amount numeric(28,9) NOT NULL CHECK (amount > 0), requests bigint NOT NULL,
    rows bigint NOT NULL, bytes_out bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'captured', 'itemized', 'failed')), txn_id text, cause text, rated_at text NOT NULL
);
CREATE INDEX charges_open ON charges (account, number) WHERE state IN ('pending', 'captured');
CREATE INDEX charges_failed ON charges (account) WHERE state = 'failed';
CREATE INDEX charges_lease ON charges (lease) WHERE lease IS NOT NULL;
CREATE TABLE entries (
    n bigint PRIMARY KEY, proxy uuid NOT NULL, epoch bigint NOT NULL, sequence bigint NOT NULL, hash bytea NOT NULL,
    body text NOT NULL, account text COLLATE "C" NOT NULL, session bigint, request bigint, lease text COLLATE "C",
    cost numeric(28,9) NOT NULL, charge bigint REFERENCES charges (number),
    UNIQUE (proxy, epoch, sequence)
);
CREATE INDEX entries_request ON entries (proxy, epoch, session, request, sequence) WHERE request IS NOT NULL;
CREATE INDEX entries_charge ON entries (charge) WHERE charge IS NOT NULL;
CREATE INDEX entries_uncharged ON entries (n) WHERE cost > 0 AND charge IS NULL;
-- A request is shown where its first entry came.
CREATE TABLE requests (
    proxy uuid NOT NULL, epoch bigint NOT NULL, session bigint NOT NULL, request bigint NOT NULL, first_n bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    PRIMARY KEY (proxy, epoch, session, request), UNIQUE (account, first_n)
);
CREATE TABLE account_totals (
    account text COLLATE "C" PRIMARY KEY, requests bigint NOT NULL, rows bigint NOT NULL, bytes_out bigint NOT NULL,
    cut_offs bigint NOT NULL, cost numeric(28,9) NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE mistakes (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry text NOT NULL, account text NOT NULL, what text NOT NULL, at text NOT NULL
);
