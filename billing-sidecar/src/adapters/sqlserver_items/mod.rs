//! Financial items in SQL Server, over tiberius behind a boundary (`link`) that its hangs and panics do not cross.

mod address;
mod driver;
mod link;
mod tsql;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use weir_contracts::money::Amount;
use weir_servers::ServerUrl;

use self::{
    address::Address,
    driver::{Answer, Cell, Command, Parameter, SqlServer},
    link::{COMMAND_DEADLINE, Link, LinkError},
};
use crate::ports::{
    PortError,
    items::{FinancialItem, Items, ScratchItems},
};

pub use self::tsql::{Statement, Table};

const NAME: &str = "the financial items in SQL Server";
/// Items in one page at most: what a page holds in memory.
const PAGE_MAX: usize = 10_000;
/// Longest id, name or transaction id, characters of UTF-16: the columns' width.
const TEXT_MAX: usize = 200;
/// Errors of a key that is there already: of a primary key, of a unique index.
const KEY_IS_THERE: [u32; 2] = [2627, 2601];
/// The table was made by somebody else between our look and our making it.
const OBJECT_IS_THERE: u32 = 2714;
/// Login failed; the login has no right in this database; not allowed to create tables.
const NOT_LET_IN: [u32; 4] = [18456, 18452, 916, 262];

/// The items in one table of one database.
pub struct SqlServerItems {
    link: Link<SqlServer>,
    place: SqlServer,
    deadline: Duration,
}

impl std::fmt::Debug for SqlServerItems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SqlServerItems({:?} {})",
            self.place.address,
            self.place.table.name()
        )
    }
}

impl SqlServerItems {
    /// Connects, checks what the promises need of the database, and makes the table when it is missing.
    ///
    /// # Errors
    /// `Settings` with the remedy when the address, the login or the database is not fit; `Unavailable` when the server is away.
    pub async fn connect(url: &ServerUrl) -> Result<Self, PortError> {
        Self::connect_within(url, COMMAND_DEADLINE).await
    }

    /// As `connect`, with a deadline for each call.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_within(url: &ServerUrl, deadline: Duration) -> Result<Self, PortError> {
        let address = Address::parse(url).map_err(|e| settings(e.to_string()))?;
        let items = Self::on(address, Table::items(), deadline);
        items.check_database().await?;
        items.create().await?;
        items.check_table().await?;
        Ok(items)
    }

    /// Connects and checks, and makes nothing: the table may be missing.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn check(url: &ServerUrl) -> Result<(), PortError> {
        let address = Address::parse(url).map_err(|e| settings(e.to_string()))?;
        let items = Self::on(address, Table::items(), COMMAND_DEADLINE);
        items.check_database().await?;
        if items.shape().await?.is_empty() {
            return Ok(());
        }
        items.check_table().await
    }

    fn on(address: Address, table: Table, deadline: Duration) -> Self {
        let place = SqlServer { address, table };
        Self {
            link: Link::new(place.clone(), deadline),
            place,
            deadline,
        }
    }

    async fn run(&self, statement: Statement, parameters: Vec<Parameter>) -> Result<Answer, LinkError> {
        self.link
            .run(Command {
                statement,
                parameters,
            })
            .await
    }

    async fn create(&self) -> Result<(), PortError> {
        match self.run(Statement::Create, Vec::new()).await {
            // Two services start at once on an empty database: one of them makes the table.
            Ok(_)
            | Err(LinkError::Server {
                number: OBJECT_IS_THERE,
                ..
            }) => Ok(()),
            Err(LinkError::Server { number: 262, message }) => Err(settings(format!(
                "{message} Grant CREATE TABLE and ALTER on schema dbo to the login of `items_url`, or make the table with what `weir-billing items-sql` prints"
            ))),
            Err(e) => Err(port_error(e)),
        }
    }

    async fn check_database(&self) -> Result<(), PortError> {
        let answer = self
            .run(Statement::Database, Vec::new())
            .await
            .map_err(port_error)?;
        let Some([updateability, durability, name]) = answer.rows.first().map(Vec::as_slice) else {
            tracing::warn!(
                "sys.databases does not show the database of `items_url`; its settings are not checked"
            );
            return Ok(());
        };
        let name = name.text().unwrap_or("the database");
        if updateability.text() == Some("READ_ONLY") {
            return Err(settings(format!(
                "database {name} is read-only: name the primary replica in `items_url`, or ALTER DATABASE … SET READ_WRITE"
            )));
        }
        if durability.text() == Some("FORCED") {
            return Err(settings(format!(
                "DELAYED_DURABILITY of database {name} is FORCED, so that a crash loses items that were confirmed: ALTER DATABASE … SET DELAYED_DURABILITY = DISABLED (or ALLOWED)"
            )));
        }
        Ok(())
    }

    async fn shape(&self) -> Result<Vec<Vec<Cell>>, PortError> {
        let answer = self.run(Statement::Shape, Vec::new()).await.map_err(port_error)?;
        Ok(answer.rows)
    }

    /// The table may have been made by a DBA, or long ago.
    async fn check_table(&self) -> Result<(), PortError> {
        let table = self.place.table.name();
        for row in self.shape().await? {
            let [name, collation, digits, fraction] = row.as_slice() else {
                continue;
            };
            let fits = match name.text() {
                Some("id") => collation.text().is_none_or(|c| c.ends_with("_BIN2")),
                _ => (digits.int(), fraction.int()) == (Some(28), Some(9)),
            };
            if !fits {
                let column = name.text().unwrap_or("?");
                return Err(settings(format!(
                    "column {column} of {table} is not as `weir-billing items-sql` makes it (id: a BIN2 collation, amount: decimal(28,9)): rename the table and let the service make it anew"
                )));
            }
        }
        let answer = self
            .run(Statement::Permissions, Vec::new())
            .await
            .map_err(port_error)?;
        match answer.rows.first().map(Vec::as_slice) {
            Some([Cell::Int(1), Cell::Int(1)]) => Ok(()),
            _ => Err(settings(format!(
                "the login of `items_url` may not read and write {table}: GRANT SELECT, INSERT ON {table}"
            ))),
        }
    }

    /// Compares what is there under the item's id.
    async fn compare(&self, item: &FinancialItem) -> Result<(), PortError> {
        let asked = vec![
            Parameter::Text(item.id.clone()),
            Parameter::Text(moment(&item.rated_at)?),
        ];
        let answer = self.run(Statement::Read, asked).await.map_err(port_error)?;
        let Some(there) = answer.rows.first() else {
            let gone = format!("item {} was there and is no longer", item.id);
            return Err(PortError::Unavailable(NAME, gone));
        };
        let ours = row(item)?;
        match differing(there, &ours) {
            None => Ok(()),
            Some(column) => Err(PortError::OtherContent(
                NAME,
                format!("item {} ({column} differs)", item.id),
            )),
        }
    }
}

/// An item's columns in the order of `Statement::Read`.
fn row(item: &FinancialItem) -> Result<[(&'static str, Cell); 11], PortError> {
    let text = |t: &str| Cell::Text(t.to_owned());
    Ok([
        ("id", text(&item.id)),
        ("account", text(item.account.as_str())),
        ("lease", item.lease.as_deref().map_or(Cell::Null, text)),
        ("tariff", text(&item.tariff)),
        ("amount", Cell::Text(item.amount.to_string())),
        ("currency", text(item.currency.code())),
        ("requests", Cell::Int(count(item.requests)?)),
        ("rows", Cell::Int(count(item.rows)?)),
        ("bytes", Cell::Int(count(item.bytes_out)?)),
        ("txn_id", text(&item.txn_id)),
        ("rated_at", Cell::Int(1)),
    ])
}

/// The first column that differs; amounts are compared as numbers, since the server prints all nine digits.
fn differing(there: &[Cell], ours: &[(&'static str, Cell); 11]) -> Option<&'static str> {
    if there.len() != ours.len() {
        return Some("the table");
    }
    let amount = |cell: &Cell| cell.text().and_then(|t| t.parse::<Amount>().ok());
    let same = |(column, ours): &(&'static str, Cell), there: &Cell| match *column {
        "amount" => amount(there).is_some() && amount(there) == amount(ours),
        _ => there == ours,
    };
    ours.iter()
        .zip(there)
        .find(|(ours, there)| !same(ours, there))
        .map(|((column, _), _)| *column)
}

fn settings(text: String) -> PortError {
    PortError::Settings(NAME, text)
}

fn port_error(error: LinkError) -> PortError {
    match error {
        LinkError::Certificate(text) => settings(format!(
            "{text}: name the certificate's authority with `ca=PATH` in `items_url`, or accept any certificate with `trust=true`"
        )),
        LinkError::Server { number, message } if NOT_LET_IN.contains(&number) => settings(format!(
            "{message} (error {number}): correct user, password and database of `items_url`"
        )),
        other => PortError::Unavailable(NAME, other.to_string()),
    }
}

/// What the columns cannot hold is refused before it is sent: a server may cut it off, depending on its options.
fn fitting(text: &str, what: &str) -> Result<String, PortError> {
    let fits = !text.is_empty() && text.encode_utf16().count() <= TEXT_MAX;
    // SQL Server takes no notice of blanks at the end when it compares.
    if fits && !text.ends_with(' ') {
        return Ok(text.to_owned());
    }
    let wrong = format!("{what} {text:?} is empty, longer than {TEXT_MAX} characters, or ends with a blank");
    Err(PortError::Corrupt(NAME, wrong))
}

fn count(number: u64) -> Result<i64, PortError> {
    i64::try_from(number).map_err(|_| PortError::Corrupt(NAME, format!("{number} is beyond bigint")))
}

/// RFC 3339 in UTC with the seven digits that `datetimeoffset(7)` keeps: more of them would be an error there.
fn moment(rfc3339: &str) -> Result<String, PortError> {
    let wrong = |e: jiff::Error| PortError::Corrupt(NAME, format!("{rfc3339:?}: {e}"));
    let at: jiff::Timestamp = rfc3339.parse().map_err(wrong)?;
    let micros_and_tenth = at.subsec_nanosecond().rem_euclid(1_000_000_000) / 100;
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S");
    Ok(format!("{whole}.{micros_and_tenth:07}+00:00"))
}

impl Cell {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }
}

#[async_trait]
impl Items for SqlServerItems {
    async fn write(&self, item: &FinancialItem) -> Result<(), PortError> {
        let parameters = vec![
            Parameter::Text(fitting(&item.id, "id")?),
            Parameter::Text(item.account.to_string()),
            Parameter::MaybeText(item.lease.as_deref().map(|l| fitting(l, "lease")).transpose()?),
            Parameter::Text(fitting(&item.tariff, "tariff")?),
            Parameter::Text(item.amount.to_string()),
            Parameter::Text(item.currency.code().to_owned()),
            Parameter::Int(count(item.requests)?),
            Parameter::Int(count(item.rows)?),
            Parameter::Int(count(item.bytes_out)?),
            Parameter::Text(fitting(&item.txn_id, "transaction")?),
            Parameter::Text(moment(&item.rated_at)?),
        ];
        match self.run(Statement::Insert, parameters).await {
            Ok(answer) if answer.affected == 1 => Ok(()),
            Ok(_) => self.compare(item).await,
            Err(LinkError::Server { number, .. }) if KEY_IS_THERE.contains(&number) => {
                self.compare(item).await
            }
            Err(e) => Err(port_error(e)),
        }
    }

    async fn amounts_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Amount)>, PortError> {
        let limit = i64::try_from(limit.min(PAGE_MAX)).unwrap_or(0);
        let asked = vec![Parameter::Text(after.to_owned()), Parameter::Int(limit)];
        let answer = self.run(Statement::Page, asked).await.map_err(port_error)?;
        let mut amounts = Vec::with_capacity(answer.rows.len());
        for row in answer.rows {
            let [Cell::Text(id), Cell::Text(amount)] = row.as_slice() else {
                return Err(PortError::Corrupt(NAME, "a row of another shape".to_owned()));
            };
            let parsed = amount.parse();
            let amount = parsed.map_err(|e| PortError::Corrupt(NAME, format!("amount of {id}: {e}")))?;
            amounts.push((id.clone(), amount));
        }
        Ok(amounts)
    }

    async fn lose_connection(&self) -> Result<bool, PortError> {
        self.link.lose().await.map_err(port_error)?;
        Ok(true)
    }
}

#[async_trait]
impl ScratchItems for SqlServerItems {
    fn place(&self) -> String {
        format!("SQL Server {:?}", self.place.address)
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Items>, PortError> {
        let items = self.scratch(name)?;
        items.create().await?;
        items.check_table().await?;
        Ok(Arc::new(items))
    }

    async fn remove(&self, name: &str) -> Result<(), PortError> {
        let items = self.scratch(name)?;
        let dropped = items.run(Statement::Drop, Vec::new()).await;
        dropped.map(|_| ()).map_err(port_error)
    }
}

impl SqlServerItems {
    fn scratch(&self, name: &str) -> Result<Self, PortError> {
        let table = Table::scratch(name);
        let table = table.ok_or_else(|| settings(format!("{name:?} is no name for a self-test's table")))?;
        Ok(Self::on(self.place.address.clone(), table, self.deadline))
    }
}
