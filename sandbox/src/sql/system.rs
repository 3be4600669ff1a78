//! The catalogue that tools read: views over SQLite's schema under the names of `sys` and INFORMATION_SCHEMA.

use rusqlite::{Connection, Result};

/// Tables that have no row in SQLite's schema.
const GENERATED: &str = "SELECT 'orders' AS name, 901 AS object_id UNION ALL SELECT 'events', 902";

/// Makes the views in the connection's temporary schema.
///
/// # Errors
/// SQLite refused one.
pub(crate) fn create_views(db: &Connection) -> Result<()> {
    let tables = format!(
        "SELECT name, rowid + 1000 AS object_id FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         UNION ALL {GENERATED}"
    );
    let databases: Vec<String> = super::DATABASES
        .iter()
        .zip(1..)
        .map(|(name, id)| format!("SELECT '{name}' AS name, {id} AS database_id"))
        .collect();
    let databases = databases.join(" UNION ALL ");
    let binary = super::ddl::BINARY;
    // Collations and digits are not in table_info; both stand in the definition as `ddl` wrote it.
    let columns = format!(
        "SELECT t.name AS table_name, t.object_id, c.cid + 1 AS column_id, c.name AS name, \
         CASE WHEN c.type IN ('INTEGER') THEN 'int' WHEN c.type LIKE '%decimal(%' THEN 'decimal' \
         WHEN instr(c.type, '(') > 0 THEN substr(c.type, 1, instr(c.type, '(') - 1) ELSE lower(c.type) END AS type_name, \
         c.[notnull] = 0 AS nullable, \
         CASE WHEN c.type LIKE '%decimal(%' THEN CAST(substr(c.type, instr(c.type, '(') + 1) AS INTEGER) ELSE 0 END AS digits, \
         CASE WHEN c.type LIKE '%decimal(%,%' THEN CAST(substr(c.type, instr(c.type, ',') + 1) AS INTEGER) ELSE 0 END AS scale, \
         CASE WHEN c.type NOT LIKE '%char%' AND c.type NOT LIKE '%text%' THEN NULL \
         WHEN instr(m.sql, '[' || c.name || '] ' || c.type || '{binary}') > 0 THEN 'Latin1_General_BIN2' \
         ELSE 'SQL_Latin1_General_CP1_CI_AS' END AS collation_name \
         FROM [sys.tables] t, pragma_table_info(t.name) c LEFT JOIN sqlite_master m ON m.type = 'table' AND m.name = t.name"
    );
    db.execute_batch(&format!(
        "CREATE TEMP VIEW [sys.databases] AS SELECT name, database_id, NULL AS source_database_id, 160 AS compatibility_level, \
             'SQL_Latin1_General_CP1_CI_AS' AS collation_name, 0 AS state, 'ONLINE' AS state_desc, 0 AS is_read_only,
             0 AS delayed_durability, 'DISABLED' AS delayed_durability_desc FROM ({databases});
         CREATE TEMP VIEW [sys.tables] AS SELECT name, object_id, 1 AS schema_id, 'U ' AS type, 'USER_TABLE' AS type_desc FROM ({tables});
         CREATE TEMP VIEW [sys.schemas] AS SELECT 'dbo' AS name, 1 AS schema_id, 1 AS principal_id;
         CREATE TEMP VIEW [sys.views] AS SELECT name, rowid + 5000 AS object_id, 1 AS schema_id, 'V ' AS type FROM sqlite_master WHERE type = 'view';
         CREATE TEMP VIEW [sys.objects] AS SELECT name, object_id, schema_id, type, type_desc FROM [sys.tables]
             UNION ALL SELECT name, object_id, schema_id, type, 'VIEW' FROM [sys.views];
         CREATE TEMP VIEW [sys.columns] AS SELECT name, object_id, column_id, type_name, nullable AS is_nullable,
             digits AS precision, scale, collation_name FROM ({columns});
         CREATE TEMP VIEW [information_schema.tables] AS SELECT 'demo' AS TABLE_CATALOG, 'dbo' AS TABLE_SCHEMA, name AS TABLE_NAME,
             'BASE TABLE' AS TABLE_TYPE FROM [sys.tables]
             UNION ALL SELECT 'demo', 'dbo', name, 'VIEW' FROM [sys.views];
         CREATE TEMP VIEW [information_schema.columns] AS SELECT 'demo' AS TABLE_CATALOG, 'dbo' AS TABLE_SCHEMA, table_name AS TABLE_NAME,
             name AS COLUMN_NAME, column_id AS ORDINAL_POSITION, CASE WHEN nullable THEN 'YES' ELSE 'NO' END AS IS_NULLABLE,
             type_name AS DATA_TYPE FROM ({columns});
         CREATE TEMP VIEW [information_schema.schemata] AS SELECT 'demo' AS CATALOG_NAME, 'dbo' AS SCHEMA_NAME, 'dbo' AS SCHEMA_OWNER;"
    ))
}
