// Microsoft's JDBC driver.

import com.google.gson.JsonObject;
import com.microsoft.sqlserver.jdbc.ISQLServerBulkData;
import com.microsoft.sqlserver.jdbc.SQLServerBulkCopy;
import com.microsoft.sqlserver.jdbc.SQLServerBulkCopyOptions;
import com.microsoft.sqlserver.jdbc.SQLServerDataTable;
import com.microsoft.sqlserver.jdbc.SQLServerError;
import com.microsoft.sqlserver.jdbc.SQLServerException;
import com.microsoft.sqlserver.jdbc.SQLServerPreparedStatement;
import com.microsoft.sqlserver.jdbc.SQLServerResultSet;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;

final class MssqlJdbc implements Driver {
    @Override
    public Connection connect(Map<String, String> to) throws SQLException, Conform.Unsupported {
        Properties properties = new Properties();
        switch (to.get("encryption")) {
            case "none":
                throw new Conform.Unsupported("the driver always encrypts the login");
            case "login-only":
                properties.put("encrypt", "false");
                properties.put("trustServerCertificate", "true");
                break;
            case "on":
                properties.put("encrypt", "true");
                properties.put("trustServerCertificate", "true");
                break;
            case "required":
                properties.put("encrypt", "true");
                properties.put("trustServerCertificate", "false");
                break;
            case "strict":
                properties.put("encrypt", "strict");
                break;
            default:
                throw new IllegalArgumentException("no such encryption: " + to.get("encryption"));
        }
        properties.put("trustStore", Trust.path());
        properties.put("trustStoreType", Trust.TYPE);
        properties.put("trustStorePassword", Trust.PASSWORD);
        properties.put("user", to.get("user"));
        properties.put("password", to.get("password"));
        properties.put("databaseName", to.get("database"));
        properties.put("loginTimeout", Integer.toString(Conform.ANSWER_DEADLINE));
        properties.put("socketTimeout", Integer.toString(Conform.ANSWER_DEADLINE * 1000));
        // Handles go at once, one sp_unprepare each, where the driver would else gather ten.
        properties.put("serverPreparedStatementDiscardThreshold", "0");
        return DriverManager.getConnection("jdbc:sqlserver://" + to.get("host") + ":" + to.get("port"), properties);
    }

    @Override
    public JsonObject described(SQLException error) {
        SQLServerError told = error instanceof SQLServerException ? ((SQLServerException) error).getSQLServerError() : null;
        if (told == null) {
            return Driver.error(0, 0, 0, "");
        }
        return Driver.error(told.getErrorNumber(), told.getErrorState(), told.getErrorSeverity(), told.getErrorMessage());
    }

    /** The types of java.time where the older ones of java.sql would round. */
    @Override
    public Object written(ResultSet rows, int column) throws SQLException {
        switch (rows.getMetaData().getColumnTypeName(column)) {
            case "time":
                return Values.written(rows.getObject(column, LocalTime.class));
            case "datetime":
            case "datetime2":
            case "smalldatetime":
                return Values.written(rows.getObject(column, LocalDateTime.class));
            case "datetimeoffset":
                return Values.written(rows.getObject(column, java.time.OffsetDateTime.class));
            default:
                return Values.written(rows.getObject(column));
        }
    }

    @Override
    public Statement cursor(Connection connection, int fetch) throws SQLException {
        Statement statement = connection.createStatement(
                SQLServerResultSet.TYPE_SS_SERVER_CURSOR_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY);
        statement.setFetchSize(fetch);
        return statement;
    }

    @Override
    public long bulk(Connection connection, String table, List<String> columns, int rows) throws SQLException {
        try (SQLServerBulkCopy load = new SQLServerBulkCopy(connection)) {
            SQLServerBulkCopyOptions options = new SQLServerBulkCopyOptions();
            options.setBulkCopyTimeout(Conform.ANSWER_DEADLINE);
            load.setBulkCopyOptions(options);
            load.setDestinationTableName(table);
            for (String column : columns) {
                load.addColumnMapping(column, column);
            }
            load.writeToServer(new Made(columns, rows));
        }
        return rows;
    }

    /** Rows as Values makes them. */
    private static final class Made implements ISQLServerBulkData {
        private final transient List<String> columns;
        private final int rows;
        private int at;

        Made(List<String> columns, int rows) {
            this.columns = columns;
            this.rows = rows;
        }

        @Override
        public Set<Integer> getColumnOrdinals() {
            Set<Integer> all = new LinkedHashSet<>();
            for (int one = 1; one <= columns.size(); one++) {
                all.add(one);
            }
            return all;
        }

        @Override
        public String getColumnName(int column) {
            return columns.get(column - 1);
        }

        @Override
        public int getColumnType(int column) {
            return Values.typeOf(getColumnName(column));
        }

        @Override
        public int getPrecision(int column) {
            return Values.precisionOf(getColumnName(column));
        }

        @Override
        public int getScale(int column) {
            return Values.scaleOf(getColumnName(column));
        }

        @Override
        public Object[] getRowData() {
            return columns.stream().map(column -> Values.cell(column, at)).toArray();
        }

        @Override
        public boolean next() {
            at++;
            return at <= rows;
        }
    }

    @Override
    public void table(PreparedStatement statement, int at, String type, List<String> columns, int rows) throws SQLException {
        SQLServerDataTable table = new SQLServerDataTable();
        for (String column : columns) {
            table.addColumnMetadata(column, Values.typeOf(column));
        }
        for (int row = 1; row <= rows; row++) {
            int number = row;
            table.addRow(columns.stream().map(column -> Values.cell(column, number)).toArray());
        }
        ((SQLServerPreparedStatement) statement).setStructured(at, type, table);
    }
}
