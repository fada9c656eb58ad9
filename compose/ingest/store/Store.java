import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/**
 * A sink: {@code java -cp store.jar:DRIVER Store DATABASE} stores each JSON line of its input in the table readings,
 * under its id, and answers it with the line "stored" once it is committed. A line that comes again changes nothing.
 *
 * <p>While the database is away it ends with 75, which its runner takes for "later".
 */
public final class Store {
    private static final int MOST_ROWS = 2_000;
    private static final int LATER = 75;

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("reWriteBatchedInserts", "true");
        try (Connection connection = DriverManager.getConnection(arguments[0], properties)) {
            try (Statement statement = connection.createStatement()) {
                statement.execute("CREATE TABLE IF NOT EXISTS readings (id BIGINT PRIMARY KEY, reading JSONB NOT NULL)");
            }
            connection.setAutoCommit(false);
            store(connection);
        } catch (SQLException error) {
            System.err.println("Store: " + error.getMessage());
            String state = error.getSQLState() == null ? "" : error.getSQLState();
            // 08: no connection; 57P: the server shuts down or starts up
            System.exit(state.startsWith("08") || state.startsWith("57P") ? LATER : 1);
        }
    }

    private static void store(Connection connection) throws SQLException, IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 16);
        String sql = "INSERT INTO readings VALUES ((?::jsonb ->> 'id')::bigint, ?::jsonb) ON CONFLICT DO NOTHING";
        try (PreparedStatement insert = connection.prepareStatement(sql)) {
            int open = 0;
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                insert.setString(1, line);
                insert.setString(2, line);
                insert.addBatch();
                open++;
                if (open == MOST_ROWS || !input.ready()) { // nothing more is there: no answer is withheld
                    insert.executeBatch();
                    connection.commit();
                    System.out.print("stored\n".repeat(open));
                    System.out.flush();
                    open = 0;
                }
            }
        }
    }
}
