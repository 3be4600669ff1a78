// Values as the replies write them, and the rows that bulk and tvp send.

import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonPrimitive;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.sql.Blob;
import java.sql.Clob;
import java.sql.SQLException;
import java.sql.SQLXML;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeFormatterBuilder;
import java.time.temporal.ChronoField;

final class Values {
    /** Longest text or binary that is written out, in bytes of what is written. */
    private static final int WRITTEN_MAX = 300;

    private static final DateTimeFormatter TIME = new DateTimeFormatterBuilder()
            .appendPattern("HH:mm:ss")
            .appendFraction(ChronoField.NANO_OF_SECOND, 0, 7, true)
            .toFormatter();
    private static final DateTimeFormatter MOMENT =
            new DateTimeFormatterBuilder().appendPattern("uuuu-MM-dd'T'").append(TIME).toFormatter();
    private static final DateTimeFormatter OFFSET =
            new DateTimeFormatterBuilder().append(MOMENT).appendOffset("+HH:MM", "+00:00").toFormatter();

    private Values() {}

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder(bytes.length * 2);
        for (byte one : bytes) {
            text.append(Character.forDigit(one >> 4 & 15, 16)).append(Character.forDigit(one & 15, 16));
        }
        return text.toString();
    }

    static byte[] unhex(String text) {
        byte[] bytes = new byte[text.length() / 2];
        for (int at = 0; at < bytes.length; at++) {
            bytes[at] = (byte) Integer.parseInt(text.substring(2 * at, 2 * at + 2), 16);
        }
        return bytes;
    }

    private static String text(String value) {
        byte[] raw = value.getBytes(StandardCharsets.UTF_8);
        return raw.length > WRITTEN_MAX ? "s#" + raw.length + ":" + hex(sha256().digest(raw)) : "s:" + value;
    }

    private static String binary(byte[] raw) {
        String shown = hex(raw);
        return shown.length() > WRITTEN_MAX ? "b#" + raw.length + ":" + hex(sha256().digest(raw)) : "b:" + shown;
    }

    private static String decimal(BigDecimal value) {
        BigDecimal plain = value.stripTrailingZeros();
        return "n:" + (plain.signum() == 0 ? "0" : plain.toPlainString());
    }

    /** A value by its Java type: text, a Boolean, or null. */
    static Object written(Object value) throws SQLException {
        if (value == null || value instanceof Boolean) {
            return value;
        } else if (value instanceof Double || value instanceof Float) {
            return String.format("f:%016x", Double.doubleToLongBits(((Number) value).doubleValue()));
        } else if (value instanceof BigDecimal) {
            return decimal((BigDecimal) value);
        } else if (value instanceof Number) {
            return "i:" + ((Number) value).longValue();
        } else if (value instanceof byte[]) {
            return binary((byte[]) value);
        } else if (value instanceof Blob) {
            return binary(((Blob) value).getBytes(1, (int) ((Blob) value).length()));
        } else if (value instanceof Clob) {
            return text(((Clob) value).getSubString(1, (int) ((Clob) value).length()));
        } else if (value instanceof SQLXML) {
            return text(((SQLXML) value).getString());
        }
        return time(value);
    }

    private static String time(Object value) {
        if (value instanceof java.sql.Timestamp) {
            return "m:" + MOMENT.format(((java.sql.Timestamp) value).toLocalDateTime());
        } else if (value instanceof LocalDateTime) {
            return "m:" + MOMENT.format((LocalDateTime) value);
        } else if (value instanceof java.sql.Date) {
            return "d:" + ((java.sql.Date) value).toLocalDate();
        } else if (value instanceof LocalDate) {
            return "d:" + value;
        } else if (value instanceof java.sql.Time) {
            return "t:" + TIME.format(((java.sql.Time) value).toLocalTime());
        } else if (value instanceof LocalTime) {
            return "t:" + TIME.format((LocalTime) value);
        } else if (value instanceof OffsetDateTime) {
            return "o:" + OFFSET.format((OffsetDateTime) value);
        } else if (value instanceof String) {
            return text((String) value);
        }
        return "?:" + value.getClass().getName();
    }

    static JsonElement json(Object written) {
        if (written == null) {
            return JsonNull.INSTANCE;
        }
        return written instanceof Boolean ? new JsonPrimitive((Boolean) written) : new JsonPrimitive((String) written);
    }

    /** Row `at`, from 1, of a column that bulk and tvp fill. */
    static Object cell(String column, int at) {
        switch (column) {
            case "id":
                return at;
            case "name":
                return "name-" + at;
            case "amount":
                return BigDecimal.valueOf(at * 100L + 25, 2);
            case "note":
                return at % 3 == 0 ? null : "ä" + at;
            case "data":
                return at % 5 == 0 ? null : ByteBuffer.allocate(4).putInt(at).array();
            default:
                throw new IllegalArgumentException("no such column: " + column);
        }
    }

    static int typeOf(String column) {
        switch (column) {
            case "id":
                return Types.INTEGER;
            case "amount":
                return Types.DECIMAL;
            case "data":
                return Types.VARBINARY;
            default:
                return Types.NVARCHAR;
        }
    }

    static int precisionOf(String column) {
        switch (column) {
            case "id":
            case "amount":
                return 10;
            case "data":
                return 8;
            case "note":
                return 20;
            default:
                return 40;
        }
    }

    static int scaleOf(String column) {
        return column.equals("amount") ? 2 : 0;
    }
}
