import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * A sink: stores each flight, a JSON line, in SQLite and answers it with the line "stored" once it is committed.
 *
 * <p>{@code java -cp DRIVER:CLASSES Store DATABASE}. A transaction holds up to 5,000 flights and ends early when the
 * input pauses, so that no answer is withheld while nothing comes. A flight that comes again (its answer was lost in a
 * crash) changes nothing but its count of deliveries.
 *
 * <p>With {@code --check} it only opens a database in memory and prints the version of SQLite.
 */
public final class Store {
    private static final int TRANSACTION_ROWS = 5_000;
    private static final int PAUSE_MS = 10;

    /** A column and its type; its name is the name of the field that it takes. */
    private static final String[][] COLUMNS = {
        {"time_hour", "TEXT NOT NULL"},
        {"carrier", "TEXT NOT NULL"},
        {"flight", "INTEGER NOT NULL"},
        {"tailnum", "TEXT"},
        {"origin", "TEXT NOT NULL"},
        {"dest", "TEXT NOT NULL"},
        {"scheduled_departure", "TEXT NOT NULL"},
        {"departed_at", "TEXT"},
        {"dep_delay", "INTEGER"},
        {"arr_delay", "INTEGER"},
        {"delay_class", "TEXT NOT NULL"},
        {"air_time", "INTEGER"},
        {"distance_km", "REAL NOT NULL"},
        {"speed_mph", "REAL"},
    };
    private static final String KEY = "time_hour, carrier, flight";

    public static void main(String[] arguments) {
        if (arguments.length != 1) {
            System.err.println("usage: java Store DATABASE (or --check)");
            System.exit(2);
        }
        boolean check = arguments[0].equals("--check");
        try (Connection connection = DriverManager.getConnection("jdbc:sqlite:" + (check ? "" : arguments[0]))) {
            if (check) {
                System.out.println("SQLite " + connection.getMetaData().getDatabaseProductVersion());
            } else {
                store(connection);
            }
        } catch (SQLException | IOException | IllegalArgumentException | LinkageError error) {
            System.err.println("Store: " + error.getMessage());
            System.exit(1);
        }
    }

    private static void store(Connection connection) throws SQLException, IOException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("PRAGMA busy_timeout = 10000");
            statement.execute("PRAGMA journal_mode = WAL");
            statement.execute("PRAGMA synchronous = NORMAL");
            statement.execute(createTable());
        }
        connection.setAutoCommit(false);
        Lines lines = new Lines(new FileInputStream(FileDescriptor.in));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        long number = 0;
        int open = 0;
        try (PreparedStatement insert = connection.prepareStatement(insert())) {
            for (String line = lines.next(); line != null; line = lines.next()) {
                number++;
                try {
                    bind(insert, Json.object(line));
                    insert.executeUpdate();
                } catch (SQLException | IllegalArgumentException error) {
                    connection.rollback();
                    String begin = line.length() > 120 ? line.substring(0, 120) + "…" : line;
                    throw new IOException("line " + number + ": " + error.getMessage() + ": " + begin, error);
                }
                open++;
                if (open == TRANSACTION_ROWS || !lines.soon(PAUSE_MS)) {
                    connection.commit();
                    out.print("stored\n".repeat(open));
                    out.flush();
                    if (out.checkError()) {
                        throw new IOException("nobody reads the answers");
                    }
                    open = 0;
                }
            }
        }
        // No row is left open here: at its end the input pauses as well.
    }

    private static String createTable() {
        StringBuilder sql = new StringBuilder("CREATE TABLE IF NOT EXISTS flights (");
        for (String[] column : COLUMNS) {
            sql.append(column[0]).append(' ').append(column[1]).append(", ");
        }
        return sql + "deliveries INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (" + KEY + ")) WITHOUT ROWID";
    }

    private static String insert() {
        StringBuilder names = new StringBuilder();
        for (String[] column : COLUMNS) {
            names.append(names.length() == 0 ? "" : ", ").append(column[0]);
        }
        String marks = "?" + ", ?".repeat(COLUMNS.length - 1);
        return "INSERT INTO flights (" + names + ") VALUES (" + marks + ")"
            + " ON CONFLICT (" + KEY + ") DO UPDATE SET deliveries = deliveries + 1";
    }

    private static void bind(PreparedStatement insert, Map<String, Object> flight) throws SQLException {
        for (int i = 0; i < COLUMNS.length; i++) {
            insert.setObject(i + 1, flight.get(COLUMNS[i][0]));
        }
    }

    /** Lines of UTF-8 text, and whether another one has come already. */
    private static final class Lines {
        private final InputStream in;
        private byte[] buffer = new byte[1 << 16];
        private int begin;
        private int end;
        private boolean ended;

        Lines(InputStream in) {
            this.in = in;
        }

        /** The next line without its end; null at the end of the input. */
        String next() throws IOException {
            int searched = begin;
            while (true) {
                for (; searched < end; searched++) {
                    if (buffer[searched] == '\n') {
                        String line = new String(buffer, begin, searched - begin, StandardCharsets.UTF_8);
                        begin = searched + 1;
                        return line;
                    }
                }
                searched -= begin;
                if (ended || !fill()) {
                    if (begin == end) {
                        return null;
                    }
                    String line = new String(buffer, begin, end - begin, StandardCharsets.UTF_8);
                    begin = end;
                    return line;
                }
            }
        }

        /** Whether bytes are there, or come within {@code waitMs} milliseconds; false at the end of the input. */
        boolean soon(int waitMs) throws IOException {
            for (int waited = 0; begin == end && in.available() == 0; waited++) {
                if (waited == waitMs) {
                    return false;
                }
                try {
                    Thread.sleep(1);
                } catch (InterruptedException error) {
                    return false;
                }
            }
            return true;
        }

        /** Move what is left to the front, so that it begins at 0, and read more behind it; false at the end. */
        private boolean fill() throws IOException {
            System.arraycopy(buffer, begin, buffer, 0, end - begin);
            end -= begin;
            begin = 0;
            if (end == buffer.length) {
                buffer = Arrays.copyOf(buffer, 2 * buffer.length);
            }
            int read = in.read(buffer, end, buffer.length - end);
            ended = read < 0;
            end += Math.max(read, 0);
            return !ended;
        }
    }

    /** JSON objects without lists or objects inside (RFC 8259): values are String, Long, Double, Boolean or null. */
    private static final class Json {
        private final String text;
        private int at;

        private Json(String text) {
            this.text = text;
        }

        static Map<String, Object> object(String text) {
            Json json = new Json(text);
            Map<String, Object> object = new HashMap<>();
            json.expect('{');
            if (json.peek() != '}') {
                do {
                    json.skipSpace();
                    String name = json.string();
                    json.expect(':');
                    object.put(name, json.value());
                } while (json.accept(','));
            }
            json.expect('}');
            if (json.peek() != 0) {
                throw json.wrong("something after the object");
            }
            return object;
        }

        private Object value() {
            switch (peek()) {
                case '"':
                    return string();
                case 't':
                    return word("true", Boolean.TRUE);
                case 'f':
                    return word("false", Boolean.FALSE);
                case 'n':
                    return word("null", null);
                case '{':
                case '[':
                    throw wrong("a list or an object inside of the object");
                default:
                    return number();
            }
        }

        private Object word(String word, Object value) {
            if (!text.startsWith(word, at)) {
                throw wrong("no value");
            }
            at += word.length();
            return value;
        }

        private Number number() {
            int from = at;
            take('-');
            if (!take('0')) {
                digits();
            }
            int whole = at;
            if (take('.')) {
                digits();
            }
            if (take('e') || take('E')) {
                if (!take('+')) {
                    take('-');
                }
                digits();
            }
            String number = text.substring(from, at);
            if (at == whole && number.length() < 19) { // longer ones may not fit a long
                return Long.valueOf(number);
            }
            return Double.valueOf(number);
        }

        private void digits() {
            int from = at;
            while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
                at++;
            }
            if (at == from) {
                throw wrong("no value");
            }
        }

        private String string() {
            if (!take('"')) {
                throw wrong("no string");
            }
            StringBuilder unescaped = null; // most strings have no escapes and are one piece of the text
            int from = at;
            while (at < text.length()) {
                char c = text.charAt(at++);
                if (c == '"') {
                    String piece = text.substring(from, at - 1);
                    return unescaped == null ? piece : unescaped.append(piece).toString();
                } else if (c == '\\') {
                    unescaped = unescaped == null ? new StringBuilder() : unescaped;
                    unescaped.append(text, from, at - 1).append(escape());
                    from = at;
                } else if (c < ' ') {
                    throw wrong("a control character in a string");
                }
            }
            throw wrong("a string without an end");
        }

        private char escape() {
            char c = at < text.length() ? text.charAt(at++) : 0;
            switch (c) {
                case '"':
                case '\\':
                case '/':
                    return c;
                case 'b':
                    return '\b';
                case 'f':
                    return '\f';
                case 'n':
                    return '\n';
                case 'r':
                    return '\r';
                case 't':
                    return '\t';
                case 'u':
                    int code = 0;
                    for (int i = 0; i < 4; i++, at++) {
                        int digit = at < text.length() ? Character.digit(text.charAt(at), 16) : -1;
                        if (digit < 0 || text.charAt(at) > 'f') {
                            throw wrong("no four hexadecimal digits");
                        }
                        code = 16 * code + digit;
                    }
                    return (char) code;
                default:
                    throw wrong("an unknown escape");
            }
        }

        private void skipSpace() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }

        /** The next character that is no space; 0 at the end. */
        private char peek() {
            skipSpace();
            return at < text.length() ? text.charAt(at) : 0;
        }

        private boolean accept(char wanted) {
            skipSpace();
            return take(wanted);
        }

        private boolean take(char wanted) {
            boolean there = at < text.length() && text.charAt(at) == wanted;
            at += there ? 1 : 0;
            return there;
        }

        private void expect(char wanted) {
            if (!accept(wanted)) {
                throw wrong("'" + wanted + "' expected");
            }
        }

        private IllegalArgumentException wrong(String what) {
            return new IllegalArgumentException("no JSON that can be stored: " + what + " at character " + (at + 1));
        }
    }
}
