// Runs scenarios.json by mssql-jdbc or jTDS and prints one JSON line per scenario (../../../../README.md).

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.SQLException;
import java.util.HashMap;
import java.util.Map;

final class Conform {
    /** Longest login and longest answer, seconds. */
    static final int ANSWER_DEADLINE = 60;

    /** Not the system's own stream: its encoding goes by the locale. */
    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    private static final BufferedReader LINES =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    private static final Gson JSON = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();

    private Conform() {}

    /** Ends a scenario: what the driver cannot do, said in one sentence. */
    static final class Unsupported extends Exception {
        Unsupported(String lack) {
            super(lack);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int at = 1; at + 1 < arguments.length; at += 2) {
            options.put(arguments[at].substring(2), arguments[at + 1]);
        }
        Driver driver = arguments[0].equals("jtds") ? new Jtds() : new MssqlJdbc();
        Trust.only(Path.of(options.get("ca")));
        JsonObject book = JsonParser.parseString(Files.readString(Path.of(options.get("file")))).getAsJsonObject();
        for (String name : options.get("scenarios").split(",")) {
            print(play(driver, options, scenario(book, name)));
        }
        // At once: a driver's own threads must not hold the process.
        System.exit(0);
    }

    private static JsonObject scenario(JsonObject book, String name) {
        for (JsonElement one : book.getAsJsonArray("scenarios")) {
            if (one.getAsJsonObject().get("name").getAsString().equals(name)) {
                return one.getAsJsonObject();
            }
        }
        throw new IllegalArgumentException("no scenario " + name);
    }

    static void print(JsonObject line) {
        OUT.println(JSON.toJson(line));
    }

    /** Tells what the scenario waits for, and waits for a line. */
    static JsonObject await(String what) throws Exception {
        JsonObject told = new JsonObject();
        told.addProperty("await", what);
        print(told);
        if (LINES.readLine() == null) {
            throw new IllegalStateException("nothing to read while it awaits " + what);
        }
        return new JsonObject();
    }

    /** Runs one scenario on a connection of its own. */
    private static JsonObject play(Driver driver, Map<String, String> options, JsonObject scenario) {
        JsonObject outcome = new JsonObject();
        outcome.add("scenario", scenario.get("name"));
        outcome.addProperty("ok", false);
        JsonArray result = new JsonArray();
        outcome.add("result", result);
        outcome.add("error", JsonNull.INSTANCE);
        int step = 0;
        try (Session session = new Session(driver, options)) {
            for (JsonElement one : scenario.getAsJsonArray("steps")) {
                step++;
                result.add(session.run(one.getAsJsonObject()));
            }
            outcome.addProperty("ok", true);
        } catch (Unsupported lack) {
            outcome.add("result", JsonNull.INSTANCE);
            outcome.addProperty("unsupported", lack.getMessage());
        } catch (Exception error) {
            JsonObject told = driver.described(error instanceof SQLException ? (SQLException) error : null);
            if (told.get("number").getAsInt() == 0) {
                told.addProperty("message", "step " + step + ": " + error);
            }
            outcome.add("error", told);
        }
        return outcome;
    }
}
