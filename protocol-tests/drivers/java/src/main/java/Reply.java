// What came back for one step, in the form that all driver programs share.

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;

final class Reply {
    /** Rows of a set that stand in the reply as they are; a set with more has a digest. */
    private static final int VALUES_MAX = 50;

    private final Driver driver;
    private final JsonArray sets = new JsonArray();
    private final JsonArray errors = new JsonArray();
    private long affected = -1;
    /** Errors without a number since the last one that had one: a statement that can only fail is left. */
    private int nameless;

    Reply(Driver driver) {
        this.driver = driver;
    }

    JsonObject json() {
        JsonObject reply = new JsonObject();
        reply.add("sets", sets);
        reply.add("errors", errors);
        if (affected >= 0) {
            reply.addProperty("affected", affected);
        }
        return reply;
    }

    JsonArray errors() {
        return errors;
    }

    /** Notes the errors; hands back that of a connection that is broken by it, which ends the scenario. */
    void fail(Statement statement, SQLException error) throws SQLException {
        if (statement != null && statement.getConnection().isClosed()) {
            throw error;
        }
        for (SQLException one = error; one != null; one = one.getNextException()) {
            JsonObject told = driver.described(one);
            boolean own = told.get("number").getAsInt() == 0;
            nameless = own ? nameless + 1 : 0;
            if (own) {
                System.err.println("the driver's own: " + one);
            }
            if (nameless > 1) {
                throw one;
            }
            errors.add(told);
        }
    }

    /** An action of a statement that says whether its next result is a set. */
    interface Action {
        boolean run() throws SQLException;
    }

    /** Runs the statement by its action and reads all its results. */
    void readAll(Statement statement, Action execute) throws SQLException {
        Action next = execute;
        while (true) {
            boolean isSet;
            try {
                isSet = next.run();
            } catch (SQLException error) {
                fail(statement, error);
                next = statement::getMoreResults;
                continue;
            }
            next = statement::getMoreResults;
            if (isSet) {
                try (ResultSet rows = statement.getResultSet()) {
                    readSet(rows);
                } catch (SQLException error) {
                    fail(statement, error);
                }
                continue;
            }
            long count = statement.getUpdateCount();
            if (count < 0) {
                return;
            }
            affected = count;
        }
    }

    void readSet(ResultSet rows) throws SQLException {
        ResultSetMetaData columns = rows.getMetaData();
        JsonObject set = new JsonObject();
        JsonArray names = new JsonArray();
        for (int column = 1; column <= columns.getColumnCount(); column++) {
            names.add(columns.getColumnLabel(column));
        }
        set.add("columns", names);
        sets.add(set);
        JsonArray values = new JsonArray();
        MessageDigest digest = Values.sha256();
        long count = 0;
        try {
            while (rows.next()) {
                JsonArray row = new JsonArray();
                for (int column = 1; column <= names.size(); column++) {
                    row.add(Values.json(driver.written(rows, column)));
                }
                digest.update(row.toString().getBytes(StandardCharsets.UTF_8));
                count++;
                if (count <= VALUES_MAX) {
                    values.add(row);
                }
            }
        } finally {
            set.addProperty("rows", count);
            if (count > VALUES_MAX) {
                set.addProperty("digest", Values.hex(digest.digest()));
            } else {
                set.add("values", values);
            }
        }
    }
}
