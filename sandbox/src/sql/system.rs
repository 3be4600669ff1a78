//! The catalogue that tools and drivers read: views over SQLite's schema under the names of `sys` and INFORMATION_SCHEMA.

use rusqlite::{Connection, Result};

/// Tables that have no row in SQLite's schema.
const GENERATED: &str = "SELECT 'orders' AS name, 901 AS object_id UNION ALL SELECT 'events', 902";

/// Data types as `sys.types` and sp_datatype_info tell them: name, id, bytes, precision, scale, ODBC's number.
const TYPES: [(&str, u8, i32, u16, u8, i16); 31] = [
    ("image", 34, 16, 0, 0, -4),
    ("text", 35, 16, 0, 0, -1),
    ("uniqueidentifier", 36, 16, 0, 0, -11),
    ("date", 40, 3, 10, 0, 91),
    ("time", 41, 5, 16, 7, -154),
    ("datetime2", 42, 8, 27, 7, 93),
    ("datetimeoffset", 43, 10, 34, 7, -155),
    ("tinyint", 48, 1, 3, 0, -6),
    ("smallint", 52, 2, 5, 0, 5),
    ("int", 56, 4, 10, 0, 4),
    ("smalldatetime", 58, 4, 16, 0, 93),
    ("real", 59, 4, 24, 0, 7),
    ("money", 60, 8, 19, 4, 3),
    ("datetime", 61, 8, 23, 3, 93),
    ("float", 62, 8, 53, 0, 6),
    ("sql_variant", 98, 8016, 0, 0, -150),
    ("ntext", 99, 16, 0, 0, -10),
    ("bit", 104, 1, 1, 0, -7),
    ("decimal", 106, 17, 38, 38, 3),
    ("numeric", 108, 17, 38, 38, 2),
    ("smallmoney", 122, 4, 10, 4, 3),
    ("bigint", 127, 8, 19, 0, -5),
    ("varbinary", 165, 8000, 0, 0, -3),
    ("varchar", 167, 8000, 0, 0, 12),
    ("binary", 173, 8000, 0, 0, -2),
    ("char", 175, 8000, 0, 0, 1),
    ("timestamp", 189, 8, 0, 0, -2),
    ("rowversion", 189, 8, 0, 0, -2),
    ("nvarchar", 231, 8000, 0, 0, -9),
    ("nchar", 239, 8000, 0, 0, -8),
    ("xml", 241, -1, 0, 0, -152),
];

/// The name of a data type by its id.
pub(super) fn type_name(id: i64) -> Option<&'static str> {
    let found = TYPES.iter().find(|(_, known, ..)| i64::from(*known) == id);
    found.map(|(name, ..)| *name)
}

/// The collation of every column but those declared binary, and its five bytes.
const COLLATION: &str = "SQL_Latin1_General_CP1_CI_AS";

/// Makes the views in the connection's temporary schema.
///
/// # Errors
/// SQLite refused one.
pub(crate) fn create_views(db: &Connection) -> Result<()> {
    let types: Vec<String> = TYPES
        .iter()
        .map(|(name, id, bytes, precision, scale, odbc)| {
            format!("('{name}', {id}, {id}, 4, {bytes}, {precision}, {scale}, 1, {odbc})")
        })
        .collect();
    let types = types.join(", ");
    let databases: Vec<String> = super::DATABASES
        .iter()
        .zip(1..)
        .map(|(name, id)| format!("SELECT '{name}' AS name, {id} AS database_id"))
        .collect();
    let databases = databases.join(" UNION ALL ");
    db.execute_batch(&format!(
        "CREATE TEMP VIEW [sys.databases] AS SELECT name, database_id, NULL AS source_database_id, 160 AS compatibility_level, \
             '{COLLATION}' AS collation_name, 0 AS state, 'ONLINE' AS state_desc, 0 AS is_read_only,
             0 AS delayed_durability, 'DISABLED' AS delayed_durability_desc FROM ({databases});
         CREATE TEMP VIEW [sys.schemas] AS SELECT 'dbo' AS name, 1 AS schema_id, 1 AS principal_id;
         CREATE TEMP VIEW [sys.types] AS SELECT column1 AS name, column2 AS system_type_id, column3 AS user_type_id, column4 AS schema_id,
             column5 AS max_length, column6 AS precision, column7 AS scale, column8 AS is_nullable, 0 AS is_user_defined,
             0 AS is_table_type, NULL AS collation_name, column9 AS odbc_type FROM (VALUES {types});"
    ))?;
    create_tables(db)?;
    create_information_schema(db)
}

fn create_tables(db: &Connection) -> Result<()> {
    let tables = format!(
        "SELECT name, rowid + 1000 AS object_id FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         UNION ALL {GENERATED}"
    );
    db.execute_batch(&format!(
        "CREATE TEMP VIEW [sys.tables] AS SELECT name, object_id, 1 AS schema_id, 'U ' AS type, 'USER_TABLE' AS type_desc,
             0 AS is_ms_shipped, 0 AS temporal_type FROM ({tables});
         CREATE TEMP VIEW [sys.views] AS SELECT name, rowid + 5000 AS object_id, 1 AS schema_id, 'V ' AS type FROM sqlite_master WHERE type = 'view';
         CREATE TEMP VIEW [sys.objects] AS SELECT name, object_id, schema_id, type, type_desc FROM [sys.tables]
             UNION ALL SELECT name, object_id, schema_id, type, 'VIEW' FROM [sys.views];
         CREATE TEMP VIEW [sys.all_objects] AS SELECT * FROM [sys.objects];
         CREATE TEMP VIEW [sys.foreign_keys] AS SELECT name, object_id, 1 AS schema_id, object_id AS parent_object_id,
             object_id AS referenced_object_id, 0 AS delete_referential_action, 0 AS update_referential_action FROM [sys.objects] WHERE 0;"
    ))?;
    let binary = super::ddl::BINARY;
    // Collations and digits are not in table_info; both stand in the definition as `ddl` wrote it.
    db.execute_batch(&format!(
        "CREATE TEMP VIEW [weir.columns] AS SELECT t.name AS table_name, t.object_id, c.cid + 1 AS column_id, c.name AS name, \
         CASE WHEN c.type = 'INTEGER' AND instr(m.sql, '[' || c.name || '] Integer ') > 0 THEN 'bigint' \
         WHEN c.type = 'INTEGER' THEN 'int' WHEN c.type LIKE '%decimal(%' THEN 'decimal' \
         WHEN c.type = 'blob_variant' THEN 'sql_variant' \
         WHEN instr(c.type, '(') > 0 THEN substr(c.type, 1, instr(c.type, '(') - 1) ELSE lower(c.type) END AS type_name, \
         c.[notnull] = 0 AND c.pk = 0 AS nullable, c.pk AS key_seq, c.dflt_value AS default_value, \
         c.type = 'INTEGER' AND c.pk > 0 AS is_identity, \
         CASE WHEN instr(c.type, '(') > 0 THEN CAST(substr(c.type, instr(c.type, '(') + 1) AS INTEGER) ELSE 0 END AS digits, \
         CASE WHEN c.type LIKE '%decimal(%,%' THEN CAST(substr(c.type, instr(c.type, ',') + 1) AS INTEGER) \
         WHEN c.type LIKE 'time(%' OR c.type LIKE 'datetime2(%' OR c.type LIKE 'datetimeoffset(%' \
         THEN CAST(substr(c.type, instr(c.type, '(') + 1) AS INTEGER) END AS scale, \
         CASE WHEN c.type NOT LIKE '%char%' AND c.type NOT LIKE '%text%' THEN NULL \
         WHEN instr(m.sql, '[' || c.name || '] ' || c.type || '{binary}') > 0 THEN 'Latin1_General_BIN2' \
         ELSE '{COLLATION}' END AS collation_name \
         FROM [sys.objects] t, pragma_table_info(t.name) c LEFT JOIN sqlite_master m ON m.type = 'table' AND m.name = t.name;
         CREATE TEMP VIEW [sys.columns] AS SELECT c.object_id, c.name, c.column_id, t.system_type_id, t.user_type_id,
             CASE WHEN c.digits = 2147483647 THEN -1 WHEN c.type_name IN ('nchar', 'nvarchar') THEN c.digits * 2
                  WHEN c.type_name IN ('char', 'varchar', 'binary', 'varbinary') THEN c.digits ELSE t.max_length END AS max_length,
             CASE WHEN c.type_name = 'decimal' THEN c.digits ELSE t.precision END AS precision,
             coalesce(c.scale, t.scale) AS scale, c.collation_name, c.nullable AS is_nullable, 1 AS is_ansi_padded,
             0 AS is_rowguidcol, c.is_identity, 0 AS is_computed, 0 AS is_filestream, 0 AS is_sparse, 0 AS is_column_set,
             0 AS is_hidden, 0 AS generated_always_type, NULL AS graph_type, NULL AS encryption_type,
             NULL AS encryption_type_desc, NULL AS encryption_algorithm_name, 0 AS default_object_id, c.type_name
             FROM [weir.columns] c LEFT JOIN [sys.types] t ON t.name = c.type_name;
         CREATE TEMP VIEW [sys.all_columns] AS SELECT * FROM [sys.columns];"
    ))
}

fn create_information_schema(db: &Connection) -> Result<()> {
    db.execute_batch(
        "CREATE TEMP VIEW [information_schema.tables] AS SELECT 'demo' AS TABLE_CATALOG, 'dbo' AS TABLE_SCHEMA, name AS TABLE_NAME,
             'BASE TABLE' AS TABLE_TYPE FROM [sys.tables]
             UNION ALL SELECT 'demo', 'dbo', name, 'VIEW' FROM [sys.views];
         CREATE TEMP VIEW [information_schema.columns] AS SELECT 'demo' AS TABLE_CATALOG, 'dbo' AS TABLE_SCHEMA, o.name AS TABLE_NAME,
             c.name AS COLUMN_NAME, c.column_id AS ORDINAL_POSITION, NULL AS COLUMN_DEFAULT,
             CASE WHEN c.is_nullable THEN 'YES' ELSE 'NO' END AS IS_NULLABLE, c.type_name AS DATA_TYPE,
             CASE WHEN c.collation_name IS NULL THEN NULL WHEN c.type_name IN ('nchar', 'nvarchar') AND c.max_length > 0
                  THEN c.max_length / 2 ELSE c.max_length END AS CHARACTER_MAXIMUM_LENGTH,
             CASE WHEN c.collation_name IS NULL THEN c.precision END AS NUMERIC_PRECISION,
             CASE WHEN c.collation_name IS NULL THEN c.scale END AS NUMERIC_SCALE, c.collation_name AS COLLATION_NAME
             FROM [sys.columns] c JOIN [sys.objects] o ON o.object_id = c.object_id;
         CREATE TEMP VIEW [information_schema.schemata] AS SELECT 'demo' AS CATALOG_NAME, 'dbo' AS SCHEMA_NAME, 'dbo' AS SCHEMA_OWNER;",
    )
}
