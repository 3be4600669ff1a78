//! Accounts, tariff versions and proxies' starts in PostgreSQL.

use weir_contracts::{
    ids::{AccountId, ProxyId},
    login::canonical_login,
};
use weir_servers::postgres::{Client, Isolation, PostgresError};

use super::{
    super::stored::{self, Unreadable, to_db, word},
    failure::{Failure, holdable},
};
use crate::{
    domain::{
        accounts::Account,
        proxies::{KnownStart, Registration, StartRefused, admit},
        tariffs::PricedTariff,
    },
    ports::billing_store::Stored,
};

/// What was in the way of an insert is gone: nothing is ever deleted, so only a transaction that was undone can explain it.
fn gone() -> Failure {
    PostgresError::Serialization("what was there is gone".to_owned()).into()
}

pub(super) async fn by_id(c: &mut Client, id: &AccountId) -> Result<Option<Account>, Failure> {
    let sql = "SELECT account, login, currency, mode, cut, tariff, row_credit_bytes, initial_credit::text, wallet_id
               FROM accounts WHERE account = $1";
    let row = c.query_opt(sql, &[&id.as_str()]).await?;
    row.as_ref().map(stored::account).transpose()
}

pub(super) async fn by_login(c: &mut Client, canonical: &str) -> Result<Option<Account>, Failure> {
    let sql = "SELECT account, login, currency, mode, cut, tariff, row_credit_bytes, initial_credit::text, wallet_id
               FROM accounts WHERE login_key = $1";
    let row = c.query_opt(sql, &[&holdable(canonical)]).await?;
    row.as_ref().map(stored::account).transpose()
}

pub(super) async fn all(c: &mut Client) -> Result<Vec<Account>, Failure> {
    let sql = "SELECT account, login, currency, mode, cut, tariff, row_credit_bytes, initial_credit::text, wallet_id
               FROM accounts ORDER BY account";
    let rows = c.query(sql, &[]).await?;
    rows.iter().map(stored::account).collect()
}

pub(super) async fn add(c: &mut Client, new: Account) -> Result<Stored<Account>, Failure> {
    let login_key = canonical_login(&new.login).map_err(Unreadable::new)?;
    let (mode, cut) = (word(&new.mode)?, word(&new.cut)?);
    let added = c
        .execute(
            "INSERT INTO accounts (account, login, login_key, currency, mode, cut, tariff, row_credit_bytes, initial_credit)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::numeric) ON CONFLICT DO NOTHING",
            &[
                &new.id.as_str(),
                &new.login,
                &login_key,
                &new.currency.code(),
                &mode,
                &cut,
                &holdable(&new.tariff),
                &to_db(new.row_credit_bytes),
                &new.initial_credit.to_string(),
            ],
        )
        .await?;
    if added == 1 {
        return Ok(Stored::New(new));
    }
    if let Some(there) = by_id(c, &new.id).await? {
        return Ok(stored::account_there(there, &new));
    }
    let other = by_login(c, &login_key).await?.ok_or_else(gone)?;
    Ok(stored::login_taken(&other, &new))
}

pub(super) async fn set_wallet(c: &mut Client, account: &AccountId, wallet_id: &str) -> Result<(), Failure> {
    let sql = "UPDATE accounts SET wallet_id = $2 WHERE account = $1 AND wallet_id IS DISTINCT FROM $2";
    c.execute(sql, &[&account.as_str(), &holdable(wallet_id)]).await?;
    Ok(())
}

pub(super) async fn tariff(c: &mut Client, version: &str) -> Result<Option<PricedTariff>, Failure> {
    let sql = "SELECT currency, prices FROM tariffs WHERE version = $1";
    let row = c.query_opt(sql, &[&holdable(version)]).await?;
    row.as_ref().map(stored::priced).transpose()
}

pub(super) async fn tariffs(c: &mut Client) -> Result<Vec<PricedTariff>, Failure> {
    let rows = c
        .query("SELECT currency, prices FROM tariffs ORDER BY version", &[])
        .await?;
    rows.iter().map(stored::priced).collect()
}

pub(super) async fn add_tariff(c: &mut Client, new: PricedTariff) -> Result<Stored<PricedTariff>, Failure> {
    let prices = serde_json::to_string(&new.tariff).map_err(Unreadable::new)?;
    let version = holdable(&new.tariff.version).into_owned();
    let added = c
        .execute(
            "INSERT INTO tariffs (version, currency, prices) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&version, &new.currency.code(), &prices],
        )
        .await?;
    if added == 1 {
        return Ok(Stored::New(new));
    }
    let there = tariff(c, &version).await?.ok_or_else(gone)?;
    Ok(stored::tariff_there(there, &new))
}

pub(super) async fn known_start(c: &mut Client, proxy: ProxyId) -> Result<Option<KnownStart>, Failure> {
    let sql = "SELECT epoch, boot_nonce FROM proxies WHERE proxy = $1";
    let row = c.query_opt(sql, &[&proxy.0]).await?;
    row.as_ref().map(stored::known_start).transpose()
}

/// The row is held from reading to writing: of two copies that start at once one is refused.
pub(super) async fn register(
    c: &mut Client,
    start: Registration,
) -> Result<Result<(), StartRefused>, Failure> {
    let start = Registration {
        boot_nonce: holdable(&start.boot_nonce).into_owned(),
        previous_boot_nonce: holdable(&start.previous_boot_nonce).into_owned(),
        ..start
    };
    let mut transaction = c.begin(Isolation::ReadCommitted).await?;
    let first = transaction
        .execute(
            "INSERT INTO proxies (proxy, epoch, boot_nonce) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&start.proxy.0, &to_db(start.epoch), &start.boot_nonce],
        )
        .await?;
    if first == 1 {
        transaction.commit().await?;
        return Ok(Ok(()));
    }
    let row = transaction
        .query_one(
            "SELECT epoch, boot_nonce FROM proxies WHERE proxy = $1 FOR UPDATE",
            &[&start.proxy.0],
        )
        .await?;
    let verdict = admit(Some(&stored::known_start(&row)?), &start);
    if verdict.is_ok() {
        transaction
            .execute(
                "UPDATE proxies SET epoch = $2, boot_nonce = $3 WHERE proxy = $1 AND epoch <= $2",
                &[&start.proxy.0, &to_db(start.epoch), &start.boot_nonce],
            )
            .await?;
    }
    transaction.commit().await?;
    Ok(verdict)
}
