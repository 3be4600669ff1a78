// One connection, and the steps on it.

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

final class Session implements AutoCloseable {
    private static final Pattern MARK = Pattern.compile("\\{(\\d+)\\}");

    private final Driver driver;
    private final Connection connection;
    private final String tag;

    Session(Driver driver, Map<String, String> to) throws SQLException, Conform.Unsupported {
        this.driver = driver;
        this.tag = to.get("tag");
        this.connection = driver.connect(to);
    }

    @Override
    public void close() throws SQLException {
        connection.close();
    }

    private String text(JsonObject step, String field) {
        return step.get(field).getAsString().replace("{tag}", tag);
    }

    private static List<String> words(JsonObject step, String field) {
        List<String> all = new ArrayList<>();
        step.getAsJsonArray(field).forEach(one -> all.add(one.getAsString()));
        return all;
    }

    /** Runs one step. What is thrown ends the scenario; what the server answered stands in the reply. */
    JsonObject run(JsonObject step) throws Exception {
        String what = step.get("do").getAsString();
        switch (what) {
            case "batch":
                return batch(text(step, "sql"));
            case "query":
                return query(step);
            case "prepared":
                return prepared(step);
            case "begin":
            case "commit":
            case "rollback":
                return transaction(what);
            case "cancel":
                return cancel(text(step, "sql"), step.get("after").getAsInt());
            case "bulk":
                return bulk(step);
            case "tvp":
                return tvp(step);
            case "cursor":
                return cursor(text(step, "sql"), step.get("fetch").getAsInt());
            case "await":
                return Conform.await(step.get("what").getAsString());
            case "mars":
                throw new Conform.Unsupported("the driver has no MARS");
            default:
                throw new IllegalArgumentException("no such step: " + what);
        }
    }

    private JsonObject batch(String sql) throws SQLException {
        Reply reply = new Reply(driver);
        try (Statement statement = connection.createStatement()) {
            reply.readAll(statement, () -> statement.execute(sql));
        }
        return reply.json();
    }

    /** A text with marks of JDBC, and which parameter (from 1) each of them stands for. */
    private static final class Marked {
        final String sql;
        final List<Integer> order = new ArrayList<>();

        Marked(String text) {
            Matcher marks = MARK.matcher(text);
            StringBuilder out = new StringBuilder();
            while (marks.find()) {
                order.add(Integer.valueOf(marks.group(1)));
                marks.appendReplacement(out, "?");
            }
            marks.appendTail(out);
            sql = out.toString();
        }
    }

    private JsonObject query(JsonObject step) throws SQLException {
        Marked marked = new Marked(text(step, "sql"));
        JsonArray parameters = step.getAsJsonArray("params");
        Reply reply = new Reply(driver);
        try (PreparedStatement statement = connection.prepareStatement(marked.sql)) {
            for (int at = 0; at < marked.order.size(); at++) {
                JsonObject one = parameters.get(marked.order.get(at) - 1).getAsJsonObject();
                set(statement, at + 1, one.get("type").getAsString(), one.get("value"));
            }
            reply.readAll(statement, statement::execute);
        }
        return reply.json();
    }

    private JsonObject prepared(JsonObject step) throws SQLException {
        Marked marked = new Marked(text(step, "sql"));
        List<String> types = words(step, "types");
        JsonArray runs = new JsonArray();
        try (PreparedStatement statement = connection.prepareStatement(marked.sql)) {
            for (JsonElement run : step.getAsJsonArray("runs")) {
                Reply reply = new Reply(driver);
                for (int at = 0; at < marked.order.size(); at++) {
                    int which = marked.order.get(at) - 1;
                    set(statement, at + 1, types.get(which), run.getAsJsonArray().get(which));
                }
                reply.readAll(statement, statement::execute);
                runs.add(reply.json());
            }
        }
        JsonObject all = new JsonObject();
        all.add("runs", runs);
        return all;
    }

    private static int sqlType(String type) {
        switch (type) {
            case "int":
                return Types.INTEGER;
            case "bigint":
                return Types.BIGINT;
            case "bit":
                return Types.BIT;
            case "varbinary":
                return Types.VARBINARY;
            case "decimal":
                return Types.DECIMAL;
            case "datetime2":
                return Types.TIMESTAMP;
            case "float":
                return Types.DOUBLE;
            case "date":
                return Types.DATE;
            default:
                return Types.VARCHAR;
        }
    }

    private static void set(PreparedStatement statement, int at, String type, JsonElement value) throws SQLException {
        if (value.isJsonNull()) {
            statement.setNull(at, sqlType(type));
            return;
        }
        switch (type) {
            case "int":
                statement.setInt(at, value.getAsInt());
                break;
            case "bigint":
                statement.setLong(at, value.getAsLong());
                break;
            case "bit":
                statement.setBoolean(at, value.getAsBoolean());
                break;
            case "float":
                statement.setDouble(at, value.getAsDouble());
                break;
            case "varbinary":
                statement.setBytes(at, Values.unhex(value.getAsString()));
                break;
            case "decimal":
                statement.setBigDecimal(at, new BigDecimal(value.getAsString()));
                break;
            case "datetime2":
                statement.setTimestamp(at, Timestamp.valueOf(LocalDateTime.parse(value.getAsString())));
                break;
            case "date":
                statement.setDate(at, java.sql.Date.valueOf(value.getAsString()));
                break;
            default:
                // Both drivers send strings as Unicode.
                statement.setString(at, value.getAsString());
        }
    }

    private JsonObject transaction(String what) throws SQLException {
        Reply reply = new Reply(driver);
        try {
            if (what.equals("begin")) {
                connection.setAutoCommit(false);
            } else {
                if (what.equals("commit")) {
                    connection.commit();
                } else {
                    connection.rollback();
                }
                connection.setAutoCommit(true);
            }
        } catch (SQLException error) {
            if (connection.isClosed()) {
                throw error;
            }
            reply.fail(null, error);
        }
        JsonObject told = new JsonObject();
        told.add("errors", reply.errors());
        return told;
    }

    /** The driver sends an ATTENTION and tells an error of its own in place of the rows that are left. */
    private JsonObject cancel(String sql, int after) throws SQLException {
        boolean cancelled = false;
        try (Statement statement = connection.createStatement()) {
            try (ResultSet rows = statement.executeQuery(sql)) {
                for (int seen = 1; rows.next(); seen++) {
                    if (seen == after) {
                        statement.cancel();
                    }
                }
            } catch (SQLException error) {
                if (connection.isClosed() || driver.described(error).get("number").getAsInt() != 0) {
                    throw error;
                }
                cancelled = true;
            }
        }
        JsonObject told = new JsonObject();
        told.addProperty("cancelled", cancelled);
        return told;
    }

    private JsonObject bulk(JsonObject step) throws SQLException, Conform.Unsupported {
        Reply reply = new Reply(driver);
        JsonObject told = new JsonObject();
        try {
            long rows = driver.bulk(
                    connection, text(step, "table"), words(step, "columns"), step.get("rows").getAsInt());
            told.addProperty("affected", rows);
        } catch (SQLException error) {
            if (connection.isClosed()) {
                throw error;
            }
            reply.fail(null, error);
        }
        told.add("errors", reply.errors());
        return told;
    }

    private JsonObject tvp(JsonObject step) throws SQLException, Conform.Unsupported {
        Reply reply = new Reply(driver);
        try (PreparedStatement statement = connection.prepareStatement(new Marked(text(step, "sql")).sql)) {
            driver.table(statement, 1, text(step, "type"), words(step, "columns"), step.get("rows").getAsInt());
            reply.readAll(statement, statement::execute);
        }
        return reply.json();
    }

    private JsonObject cursor(String sql, int fetch) throws SQLException {
        Reply reply = new Reply(driver);
        try (Statement statement = driver.cursor(connection, fetch)) {
            reply.readAll(statement, () -> statement.execute(sql));
        }
        return reply.json();
    }
}
