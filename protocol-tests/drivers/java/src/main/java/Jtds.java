// jTDS, which speaks TDS 7.1.

import com.google.gson.JsonObject;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Map;
import java.util.Properties;

final class Jtds implements Driver {
    /** With `ssl=off` it sends LOGIN7 without PRELOGIN. `authenticate` checks the chain and never the host's name. */
    @Override
    public Connection connect(Map<String, String> to) throws SQLException, Conform.Unsupported {
        String ssl;
        switch (to.get("encryption")) {
            case "none":
                ssl = "off";
                break;
            case "login-only":
                // `ssl=request`. It leaves TLS by closing its SSLSocket, and a JDK from 11 on then throws away what has
                // come in by that time: the login's answer, when the server is quick.
                throw new Conform.Unsupported("the driver loses the login's answer when it leaves TLS (JDK 11 and newer)");
            case "on":
                ssl = "require";
                break;
            case "required":
                ssl = "authenticate";
                break;
            case "strict":
                throw new Conform.Unsupported("the driver has no TDS 8.0");
            default:
                throw new IllegalArgumentException("no such encryption: " + to.get("encryption"));
        }
        Properties properties = new Properties();
        properties.put("ssl", ssl);
        properties.put("user", to.get("user"));
        properties.put("password", to.get("password"));
        properties.put("loginTimeout", Integer.toString(Conform.ANSWER_DEADLINE));
        properties.put("socketTimeout", Integer.toString(Conform.ANSWER_DEADLINE));
        String where = to.get("host") + ":" + to.get("port") + "/" + to.get("database");
        return DriverManager.getConnection("jdbc:jtds:sqlserver://" + where, properties);
    }

    /** It tells no state and no class. Its own errors have number 0. */
    @Override
    public JsonObject described(SQLException error) {
        int number = error == null ? 0 : error.getErrorCode();
        return Driver.error(number, 0, 0, number == 0 ? "" : error.getMessage());
    }

    @Override
    public Object written(ResultSet rows, int column) throws SQLException {
        return Values.written(rows.getObject(column));
    }

    /** Anything but forward-only and read-only is a server cursor in jTDS. */
    @Override
    public Statement cursor(Connection connection, int fetch) throws SQLException {
        Statement statement =
                connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY);
        statement.setFetchSize(fetch);
        return statement;
    }

    @Override
    public long bulk(Connection connection, String table, List<String> columns, int rows) throws Conform.Unsupported {
        throw new Conform.Unsupported("the driver has no bulk load");
    }

    @Override
    public void table(PreparedStatement statement, int at, String type, List<String> columns, int rows)
            throws Conform.Unsupported {
        throw new Conform.Unsupported("the driver has no table-valued parameters");
    }
}
