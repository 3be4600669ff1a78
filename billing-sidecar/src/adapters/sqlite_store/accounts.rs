//! Accounts, tariff versions and proxies' starts in SQLite.

use rusqlite::{Connection, params};
use weir_contracts::{
    ids::{AccountId, ProxyId},
    login::canonical_login,
};

use super::super::{
    sqlite_thread::SqlError,
    stored::{self, to_db, word},
};
use crate::{
    domain::{
        accounts::Account,
        proxies::{KnownStart, Registration, StartRefused, admit},
        tariffs::PricedTariff,
    },
    ports::billing_store::Stored,
};

const COLUMNS: &str =
    "account, login, currency, mode, cut, tariff, row_credit_bytes, initial_nanos, wallet_id";

fn find(c: &Connection, column: &str, value: &str) -> Result<Option<Account>, SqlError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE {column} = ?1");
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query([value])?;
    rows.next()?.map(stored::account).transpose()
}

pub(super) fn by_id(c: &Connection, id: &AccountId) -> Result<Option<Account>, SqlError> {
    find(c, "account", id.as_str())
}

pub(super) fn by_login(c: &Connection, canonical: &str) -> Result<Option<Account>, SqlError> {
    find(c, "login_key", canonical)
}

pub(super) fn all(c: &Connection) -> Result<Vec<Account>, SqlError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts ORDER BY account"))?;
    let mut rows = statement.query([])?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        accounts.push(stored::account(row)?);
    }
    Ok(accounts)
}

pub(super) fn add(c: &Connection, new: Account) -> Result<Stored<Account>, SqlError> {
    let login_key = canonical_login(&new.login).map_err(SqlError::corrupt)?;
    if let Some(there) = by_id(c, &new.id)? {
        return Ok(stored::account_there(there, &new));
    }
    if let Some(other) = by_login(c, &login_key)? {
        return Ok(stored::login_taken(&other, &new));
    }
    c.prepare_cached(
        "INSERT INTO accounts (account, login, login_key, currency, mode, cut, tariff, row_credit_bytes, initial_nanos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        new.id.as_str(),
        new.login,
        login_key,
        new.currency.code(),
        word(&new.mode)?,
        word(&new.cut)?,
        new.tariff,
        to_db(new.row_credit_bytes),
        new.initial_credit.nanos().to_string(),
    ])?;
    Ok(Stored::New(new))
}

pub(super) fn set_wallet(c: &Connection, account: &AccountId, wallet_id: &str) -> Result<(), SqlError> {
    c.prepare_cached("UPDATE accounts SET wallet_id = ?2 WHERE account = ?1")?
        .execute([account.as_str(), wallet_id])?;
    Ok(())
}

pub(super) fn tariff(c: &Connection, version: &str) -> Result<Option<PricedTariff>, SqlError> {
    let mut statement = c.prepare_cached("SELECT currency, prices FROM tariffs WHERE version = ?1")?;
    let mut rows = statement.query([version])?;
    rows.next()?.map(stored::priced).transpose()
}

pub(super) fn tariffs(c: &Connection) -> Result<Vec<PricedTariff>, SqlError> {
    let mut statement = c.prepare_cached("SELECT currency, prices FROM tariffs ORDER BY version")?;
    let mut rows = statement.query([])?;
    let mut tariffs = Vec::new();
    while let Some(row) = rows.next()? {
        tariffs.push(stored::priced(row)?);
    }
    Ok(tariffs)
}

pub(super) fn add_tariff(c: &Connection, new: PricedTariff) -> Result<Stored<PricedTariff>, SqlError> {
    let version = new.tariff.version.clone();
    if let Some(there) = tariff(c, &version)? {
        return Ok(stored::tariff_there(there, &new));
    }
    let prices = serde_json::to_string(&new.tariff).map_err(SqlError::corrupt)?;
    c.prepare_cached("INSERT INTO tariffs (version, currency, prices) VALUES (?1, ?2, ?3)")?
        .execute([version.as_str(), new.currency.code(), prices.as_str()])?;
    Ok(Stored::New(new))
}

pub(super) fn known_start(c: &Connection, proxy: ProxyId) -> Result<Option<KnownStart>, SqlError> {
    let mut statement = c.prepare_cached("SELECT epoch, boot_nonce FROM proxies WHERE proxy = ?1")?;
    let mut rows = statement.query([proxy.to_string()])?;
    rows.next()?.map(stored::known_start).transpose()
}

pub(super) fn register(c: &Connection, start: &Registration) -> Result<Result<(), StartRefused>, SqlError> {
    let proxy = start.proxy.to_string();
    let known = known_start(c, start.proxy)?;
    let verdict = admit(known.as_ref(), start);
    if verdict.is_ok() {
        c.prepare_cached(
            "INSERT INTO proxies (proxy, epoch, boot_nonce) VALUES (?1, ?2, ?3)
             ON CONFLICT (proxy) DO UPDATE SET epoch = ?2, boot_nonce = ?3",
        )?
        .execute(params![proxy, to_db(start.epoch), start.boot_nonce])?;
    }
    Ok(verdict)
}
