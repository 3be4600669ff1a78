//! Every text that is sent to SQL Server. Nothing else reaches it: the link takes a [`Statement`], and only this file makes texts.
//! `weir-billing items-sql` prints them, for a DBA to review and for the suite's independent parser.

/// Where the table's name goes in a text; names are checked before (see [`Table`]).
const TABLE: &str = "{table}";
/// The table where the items are.
const ITEMS: &str = "dbo.weir_financial_items";
/// What the name of a self-test's table begins with.
const SCRATCH: &str = "dbo.weir_selftest_";
/// Longest name of a scratch table, beside its beginning.
const SCRATCH_NAME_MAX: usize = 32;

/// A table whose name may stand in a text: of letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(String);

impl Table {
    /// The table of the service.
    #[must_use]
    pub fn items() -> Self {
        Self(ITEMS.to_owned())
    }

    /// A table of a self-test; `None` if the name has other characters than `a-z 0-9 _` or more than 32 of them.
    pub(super) fn scratch(name: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fits = (1..=SCRATCH_NAME_MAX).contains(&name.len()) && name.bytes().all(plain);
        fits.then(|| Self(format!("{SCRATCH}{name}")))
    }

    /// Its name with the schema.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What is sent, in the order in which it first is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// The session's options, first on every connection: an operator's `user options` must not turn autocommit or row counts off.
    Session,
    /// What the database promises; one row.
    Database,
    /// Makes the table unless it is there.
    Create,
    /// What the login may do with the table; one row.
    Permissions,
    /// How the columns are that the promises need; a row each.
    Shape,
    /// Writes an item unless one of its id is there; tells by its row count.
    Insert,
    /// The item of an id.
    Read,
    /// Ids and amounts after an id, in id order.
    Page,
    /// Removes a self-test's table.
    Drop,
}

impl Statement {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Session,
        Self::Database,
        Self::Create,
        Self::Permissions,
        Self::Shape,
        Self::Insert,
        Self::Read,
        Self::Page,
        Self::Drop,
    ];

    /// The text for a table. Parameters are `@P1`, `@P2`, … (sp_executesql).
    #[must_use]
    pub fn text(self, table: &Table) -> String {
        self.template().replace(TABLE, table.name())
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Session => SESSION,
            Self::Database => DATABASE,
            Self::Create => CREATE,
            Self::Permissions => PERMISSIONS,
            Self::Shape => SHAPE,
            Self::Insert => INSERT,
            Self::Read => READ,
            Self::Page => PAGE,
            Self::Drop => DROP,
        }
    }
}

const SESSION: &str = "\
SET XACT_ABORT ON;
SET IMPLICIT_TRANSACTIONS OFF;
SET NOCOUNT OFF;
SET ROWCOUNT 0;
SET ANSI_NULLS ON;
SET ANSI_WARNINGS ON;
SET ARITHABORT ON;
SET NUMERIC_ROUNDABORT OFF;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCK_TIMEOUT 4000;";

const DATABASE: &str = "\
SELECT CONVERT(nvarchar(60), DATABASEPROPERTYEX(DB_NAME(), N'Updateability')) AS updateability,
       CONVERT(nvarchar(60), delayed_durability_desc) AS delayed_durability,
       DB_NAME() AS name
FROM sys.databases
WHERE database_id = DB_ID()";

/// Ids and names are compared by code points: `Latin1_General_BIN2` orders ids as this program does.
const CREATE: &str = "\
IF OBJECT_ID(N'{table}', N'U') IS NULL
CREATE TABLE {table} (
    id nvarchar(200) COLLATE Latin1_General_BIN2 NOT NULL PRIMARY KEY,
    account nvarchar(64) COLLATE Latin1_General_BIN2 NOT NULL,
    lease nvarchar(200) COLLATE Latin1_General_BIN2 NULL,
    tariff nvarchar(200) COLLATE Latin1_General_BIN2 NOT NULL,
    amount decimal(28, 9) NOT NULL,
    currency nchar(3) COLLATE Latin1_General_BIN2 NOT NULL,
    requests bigint NOT NULL,
    rows_delivered bigint NOT NULL,
    bytes_delivered bigint NOT NULL,
    txn_id nvarchar(200) COLLATE Latin1_General_BIN2 NOT NULL,
    rated_at datetimeoffset(7) NOT NULL
)";

const PERMISSIONS: &str = "\
SELECT HAS_PERMS_BY_NAME(N'{table}', N'OBJECT', N'SELECT') AS may_select,
       HAS_PERMS_BY_NAME(N'{table}', N'OBJECT', N'INSERT') AS may_insert";

const SHAPE: &str = "\
SELECT CONVERT(nvarchar(128), name) AS name, CONVERT(nvarchar(128), collation_name) AS collation, CONVERT(int, precision) AS digits, CONVERT(int, scale) AS fraction
FROM sys.columns
WHERE object_id = OBJECT_ID(N'{table}', N'U') AND name IN (N'id', N'amount')
ORDER BY name";

/// One statement, so that it needs no transaction of its own. UPDLOCK and HOLDLOCK keep the place of a missing key locked between
/// the look and the insert: of two writers of one id the second waits and then finds the row.
const INSERT: &str = "\
INSERT INTO {table} (id, account, lease, tariff, amount, currency, requests, rows_delivered, bytes_delivered, txn_id, rated_at)
SELECT @P1, @P2, @P3, @P4, CAST(@P5 AS decimal(28, 9)), @P6, @P7, @P8, @P9, @P10, CAST(@P11 AS datetimeoffset(7))
WHERE NOT EXISTS (SELECT 1 FROM {table} WITH (UPDLOCK, HOLDLOCK) WHERE id = @P1)";

const READ: &str = "\
SELECT id, account, lease, tariff, CONVERT(nvarchar(40), amount) AS amount, currency, requests, rows_delivered, bytes_delivered, txn_id,
       CASE WHEN rated_at = CAST(@P2 AS datetimeoffset(7)) THEN 1 ELSE 0 END AS rated_then
FROM {table}
WHERE id = @P1";

const PAGE: &str = "\
SELECT TOP (@P2) id, CONVERT(nvarchar(40), amount) AS amount
FROM {table}
WHERE id > @P1
ORDER BY id";

const DROP: &str = "IF OBJECT_ID(N'{table}', N'U') IS NOT NULL DROP TABLE {table}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_listed_and_names_its_table() {
        for (index, statement) in Statement::ALL.into_iter().enumerate() {
            assert_eq!(statement as usize, index);
            assert!(!statement.text(&Table::items()).contains(['{', '}']));
        }
        assert_eq!(Statement::ALL.len(), Statement::Drop as usize + 1);
        let create = Statement::Create.text(&Table::items());
        assert_eq!(create.matches("dbo.weir_financial_items").count(), 2);
    }

    #[test]
    fn no_name_can_end_a_text() {
        for name in ["", "a'; DROP TABLE x; --", "A", "a]b", "ä", &"a".repeat(33)] {
            assert_eq!(Table::scratch(name), None, "{name}");
        }
        let scratch = Table::scratch("a_1").unwrap();
        assert_eq!(scratch.name(), "dbo.weir_selftest_a_1");
    }
}
