//! The system procedures that answer with a query: what JDBC, ODBC and DB-Library ask the catalogue.

use std::borrow::Cow;

/// Parameters of those that look at one table.
const TABLE: &str = "@table_name nvarchar(384) = NULL, @table_owner nvarchar(384) = NULL, \
    @table_qualifier nvarchar(128) = NULL, @column_name nvarchar(384) = NULL";

/// Of sp_tables.
const TABLES: &str = "@table_name nvarchar(384) = NULL, @table_owner nvarchar(384) = NULL, \
    @table_qualifier nvarchar(128) = NULL, @table_type varchar(100) = NULL";

const SP_TABLES: &str = "SELECT TABLE_CATALOG AS TABLE_QUALIFIER, TABLE_SCHEMA AS TABLE_OWNER, TABLE_NAME, \
    CASE TABLE_TYPE WHEN 'BASE TABLE' THEN 'TABLE' ELSE TABLE_TYPE END AS TABLE_TYPE, CAST(NULL AS varchar(254)) AS REMARKS \
    FROM INFORMATION_SCHEMA.TABLES WHERE (@table_name IS NULL OR TABLE_NAME LIKE @table_name) \
    AND (@table_type IS NULL OR @table_type LIKE '%''TABLE''%' OR TABLE_TYPE <> 'BASE TABLE') ORDER BY TABLE_NAME";

const SP_COLUMNS: &str = "SELECT CAST('demo' AS nvarchar(128)) AS TABLE_QUALIFIER, CAST('dbo' AS nvarchar(128)) AS TABLE_OWNER, \
    CAST(o.name AS nvarchar(128)) AS TABLE_NAME, CAST(c.name AS nvarchar(128)) AS COLUMN_NAME, \
    CAST(t.odbc_type AS smallint) AS DATA_TYPE, CAST(t.name AS nvarchar(128)) AS TYPE_NAME, \
    CAST(CASE WHEN c.precision = 0 THEN (CASE WHEN t.name IN ('nchar', 'nvarchar') THEN c.max_length / 2 ELSE c.max_length END) \
    ELSE c.precision END AS int) AS [PRECISION], CAST(c.max_length AS int) AS LENGTH, CAST(c.scale AS smallint) AS SCALE, \
    CAST(CASE WHEN c.precision > 0 THEN 10 END AS smallint) AS RADIX, CAST(c.is_nullable AS smallint) AS NULLABLE, \
    CAST(NULL AS varchar(254)) AS REMARKS, CAST(NULL AS nvarchar(4000)) AS COLUMN_DEF, \
    CAST(t.odbc_type AS smallint) AS SQL_DATA_TYPE, CAST(NULL AS smallint) AS SQL_DATETIME_SUB, \
    CAST(CASE WHEN c.precision = 0 THEN c.max_length END AS int) AS CHAR_OCTET_LENGTH, CAST(c.column_id AS int) AS ORDINAL_POSITION, \
    CAST(CASE WHEN c.is_nullable = 1 THEN 'YES' ELSE 'NO' END AS varchar(254)) AS IS_NULLABLE, CAST(t.system_type_id AS tinyint) AS SS_DATA_TYPE \
    FROM sys.columns c JOIN sys.objects o ON o.object_id = c.object_id JOIN sys.types t ON t.name = c.type_name \
    WHERE (@table_name IS NULL OR o.name LIKE @table_name) AND (@column_name IS NULL OR c.name LIKE @column_name) \
    ORDER BY o.name, c.column_id";

/// Where sp_columns_100 tells more than sp_columns, and what.
const SS_DATA_TYPE: &str = "CAST(t.system_type_id AS tinyint) AS SS_DATA_TYPE";
const SS_COLUMNS: &str = "CAST(0 AS smallint) AS SS_IS_SPARSE, CAST(0 AS smallint) AS SS_IS_COLUMN_SET, \
    CAST(0 AS smallint) AS SS_IS_COMPUTED, CAST(c.is_identity AS smallint) AS SS_IS_IDENTITY, \
    CAST(NULL AS nvarchar(128)) AS SS_UDT_CATALOG_NAME, CAST(NULL AS nvarchar(128)) AS SS_UDT_SCHEMA_NAME, \
    CAST(NULL AS nvarchar(4000)) AS SS_UDT_ASSEMBLY_TYPE_NAME, CAST(NULL AS nvarchar(128)) AS SS_XML_SCHEMACOLLECTION_CATALOG_NAME, \
    CAST(NULL AS nvarchar(128)) AS SS_XML_SCHEMACOLLECTION_SCHEMA_NAME, CAST(NULL AS nvarchar(128)) AS SS_XML_SCHEMACOLLECTION_NAME";

const SP_DATATYPE_INFO: &str = "SELECT CAST(name AS nvarchar(128)) AS TYPE_NAME, CAST(odbc_type AS smallint) AS DATA_TYPE, \
    CAST(CASE WHEN precision = 0 THEN max_length ELSE precision END AS int) AS [PRECISION], CAST('''' AS varchar(32)) AS LITERAL_PREFIX, \
    CAST('''' AS varchar(32)) AS LITERAL_SUFFIX, CAST(NULL AS varchar(32)) AS CREATE_PARAMS, CAST(1 AS smallint) AS NULLABLE, \
    CAST(0 AS smallint) AS CASE_SENSITIVE, CAST(3 AS smallint) AS SEARCHABLE, CAST(0 AS smallint) AS UNSIGNED_ATTRIBUTE, \
    CAST(CASE WHEN name LIKE '%money' THEN 1 ELSE 0 END AS smallint) AS MONEY, CAST(0 AS smallint) AS AUTO_INCREMENT, \
    CAST(name AS nvarchar(128)) AS LOCAL_TYPE_NAME, CAST(0 AS smallint) AS MINIMUM_SCALE, CAST(scale AS smallint) AS MAXIMUM_SCALE, \
    CAST(odbc_type AS smallint) AS SQL_DATA_TYPE, CAST(NULL AS smallint) AS SQL_DATETIME_SUB, \
    CAST(CASE WHEN precision > 0 THEN 10 END AS int) AS NUM_PREC_RADIX, CAST(NULL AS smallint) AS INTERVAL_PRECISION, \
    CAST(user_type_id AS smallint) AS USERTYPE FROM sys.types WHERE (@data_type = 0 OR odbc_type = @data_type) ORDER BY odbc_type, name";

const SP_PKEYS: &str = "SELECT CAST('demo' AS nvarchar(128)) AS TABLE_QUALIFIER, CAST('dbo' AS nvarchar(128)) AS TABLE_OWNER, \
    CAST(table_name AS nvarchar(128)) AS TABLE_NAME, CAST(name AS nvarchar(128)) AS COLUMN_NAME, CAST(key_seq AS smallint) AS KEY_SEQ, \
    CAST('PK_' + table_name AS nvarchar(128)) AS PK_NAME FROM [weir.columns] WHERE key_seq > 0 AND table_name = @table_name ORDER BY key_seq";

const SP_TABLE_COLLATIONS: &str = "SELECT CAST(column_id AS int) AS colid, CAST(name AS nvarchar(128)) AS name, \
    CAST(CASE WHEN collation_name IS NULL THEN NULL ELSE 0x0904D00034 END AS binary(5)) AS tds_collation, \
    CAST(collation_name AS nvarchar(128)) AS collation FROM sys.columns WHERE object_id = OBJECT_ID(@object) ORDER BY column_id";

const SP_FKEYS: &str = "SELECT CAST(NULL AS nvarchar(128)) AS PKTABLE_QUALIFIER, CAST(NULL AS nvarchar(128)) AS PKTABLE_OWNER, \
    CAST(NULL AS nvarchar(128)) AS PKTABLE_NAME, CAST(NULL AS nvarchar(128)) AS PKCOLUMN_NAME, CAST(NULL AS nvarchar(128)) AS FKTABLE_QUALIFIER, \
    CAST(NULL AS nvarchar(128)) AS FKTABLE_OWNER, CAST(NULL AS nvarchar(128)) AS FKTABLE_NAME, CAST(NULL AS nvarchar(128)) AS FKCOLUMN_NAME, \
    CAST(NULL AS smallint) AS KEY_SEQ, CAST(NULL AS smallint) AS UPDATE_RULE, CAST(NULL AS smallint) AS DELETE_RULE, \
    CAST(NULL AS nvarchar(128)) AS FK_NAME, CAST(NULL AS nvarchar(128)) AS PK_NAME, CAST(NULL AS smallint) AS DEFERRABILITY WHERE 1 = 0";

const SP_STATISTICS: &str = "SELECT CAST(NULL AS nvarchar(128)) AS TABLE_QUALIFIER, CAST(NULL AS nvarchar(128)) AS TABLE_OWNER, \
    CAST(NULL AS nvarchar(128)) AS TABLE_NAME, CAST(NULL AS smallint) AS NON_UNIQUE, CAST(NULL AS nvarchar(128)) AS INDEX_QUALIFIER, \
    CAST(NULL AS nvarchar(128)) AS INDEX_NAME, CAST(NULL AS smallint) AS TYPE, CAST(NULL AS smallint) AS SEQ_IN_INDEX, \
    CAST(NULL AS nvarchar(128)) AS COLUMN_NAME, CAST(NULL AS char(1)) AS COLLATION, CAST(NULL AS int) AS CARDINALITY, \
    CAST(NULL AS int) AS PAGES, CAST(NULL AS varchar(128)) AS FILTER_CONDITION WHERE 1 = 0";

const SP_SPECIAL_COLUMNS: &str = "SELECT CAST(NULL AS smallint) AS SCOPE, CAST(NULL AS nvarchar(128)) AS COLUMN_NAME, \
    CAST(NULL AS smallint) AS DATA_TYPE, CAST(NULL AS nvarchar(128)) AS TYPE_NAME, CAST(NULL AS int) AS [PRECISION], \
    CAST(NULL AS int) AS LENGTH, CAST(NULL AS smallint) AS SCALE, CAST(NULL AS smallint) AS PSEUDO_COLUMN WHERE 1 = 0";

const SP_STORED_PROCEDURES: &str = "SELECT CAST(NULL AS nvarchar(128)) AS PROCEDURE_QUALIFIER, CAST(NULL AS nvarchar(128)) AS PROCEDURE_OWNER, \
    CAST(NULL AS nvarchar(134)) AS PROCEDURE_NAME, CAST(NULL AS int) AS NUM_INPUT_PARAMS, CAST(NULL AS int) AS NUM_OUTPUT_PARAMS, \
    CAST(NULL AS int) AS NUM_RESULT_SETS, CAST(NULL AS varchar(254)) AS REMARKS, CAST(NULL AS smallint) AS PROCEDURE_TYPE WHERE 1 = 0";

const WHO: &str =
    "SELECT @@SPID AS spid, SUSER_SNAME() AS loginame, HOST_NAME() AS hostname, DB_NAME() AS dbname";

/// Name, parameters, text. Procedures of other versions of the protocol's catalogue (`_90`, `_100`, `_170`) are the same.
const PROCEDURES: [(&str, &str, &str); 17] = [
    ("sp_tables", TABLES, SP_TABLES),
    ("sp_columns", TABLE, SP_COLUMNS),
    (
        "sp_datatype_info",
        "@data_type int = 0, @odbcver tinyint = 2",
        SP_DATATYPE_INFO,
    ),
    ("sp_pkeys", TABLE, SP_PKEYS),
    ("sp_fkeys", "", SP_FKEYS),
    ("sp_statistics", "", SP_STATISTICS),
    ("sp_special_columns", "", SP_SPECIAL_COLUMNS),
    ("sp_stored_procedures", "", SP_STORED_PROCEDURES),
    (
        "sp_tablecollations",
        "@object nvarchar(4000)",
        SP_TABLE_COLLATIONS,
    ),
    (
        "sp_databases",
        "",
        "SELECT name AS DATABASE_NAME, 0 AS DATABASE_SIZE, NULL AS REMARKS FROM sys.databases",
    ),
    ("sp_who", "", WHO),
    ("sp_who2", "", WHO),
    (
        "sp_helpdb",
        "",
        "SELECT name, database_id AS dbid FROM sys.databases",
    ),
    ("sp_reset_connection", "", ""),
    ("sp_set_session_context", "", ""),
    ("sp_getschemalock", "", ""),
    (
        "sp_server_info",
        "",
        "SELECT 1 AS attribute_id, 'DBMS_NAME' AS attribute_name, 'Microsoft SQL Server' AS attribute_value",
    ),
];

/// Parameters and text of a system procedure, by its lower-case name.
pub(super) fn find(name: &str) -> Option<(&'static str, Cow<'static, str>)> {
    let plain = ["_90", "_100", "_170", "_rowset"]
        .iter()
        .find_map(|version| name.strip_suffix(version))
        .unwrap_or(name);
    let (_, parameters, text) = PROCEDURES.iter().find(|(known, _, _)| *known == plain)?;
    if matches!(name, "sp_columns_100" | "sp_columns_170") {
        let wide = text.replace(SS_DATA_TYPE, &format!("{SS_COLUMNS}, {SS_DATA_TYPE}"));
        return Some((parameters, wide.into()));
    }
    Some((parameters, Cow::Borrowed(text)))
}
