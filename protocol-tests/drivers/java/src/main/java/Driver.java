// What the two drivers do each in its own way.

import com.google.gson.JsonObject;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Map;

interface Driver {
    Connection connect(Map<String, String> to) throws SQLException, Conform.Unsupported;

    /** What the driver tells of an error: number, state, class, message; number 0 for its own, and for none. */
    JsonObject described(SQLException error);

    /** A cell of the row at hand in the replies' form, or null. */
    Object written(ResultSet rows, int column) throws SQLException;

    /** A statement whose result is a server cursor, read in blocks of so many rows. */
    Statement cursor(Connection connection, int fetch) throws SQLException;

    /** Loads rows by INSERT BULK; how many. */
    long bulk(Connection connection, String table, List<String> columns, int rows)
            throws SQLException, Conform.Unsupported;

    /** Sets a parameter to a table of this type. */
    void table(PreparedStatement statement, int at, String type, List<String> columns, int rows)
            throws SQLException, Conform.Unsupported;

    static JsonObject error(int number, int state, int severity, String message) {
        JsonObject told = new JsonObject();
        told.addProperty("number", number);
        told.addProperty("state", state);
        told.addProperty("class", severity);
        told.addProperty("message", message == null ? "" : message);
        return told;
    }
}
