import java.util.concurrent.CompletableFuture;

/** One processor on the Java SDK per mode; see modes.py. */
public final class Modes {
    static int seen;

    static byte[] checked(ConnectorProcessor.Message message) {
        if (message.text().equals("bad")) {
            throw new IllegalStateException(String.format("attempt %d of %s on %s from %s",
                message.attempt(), message.id(), message.port(), message.channel()));
        }
        return message.payload;
    }

    static byte[] bytes(long number) { return Long.toString(number).getBytes(); }
    static long number(byte[] state) { return state == null ? 0 : Long.parseLong(new String(state)); }

    public static void main(String[] arguments) {
        ConnectorProcessor processor = new ConnectorProcessor();
        switch (arguments[0]) {
            case "echo": processor.run(message -> message.out(checked(message))); break;
            case "batches": processor.runBatches(all -> { for (var each : all) each.out(checked(each)); }, 1000); break;
            case "manual": processor.runManual(message -> CompletableFuture.runAsync(() -> {
                if (message.text().equals("bad")) { message.nack("no", 250); return; }
                message.out(message.payload);
                message.ack();
            })); break;
            case "count": processor.stateful().run(message -> {
                processor.state(bytes(number(processor.state()) + 1));
                message.out(processor.state());
                checked(message);
            }); break;
            case "source": processor.stateful().runSource(source -> {
                for (long number = number(source.state()) + 1; number <= 1000; number++) {
                    source.out(bytes(number), "stdout");
                    if (number % 10 == 0) source.commit(bytes(number));
                }
            }); break;
            case "live": processor.runSource(source -> { source.out("one".getBytes(), "stdout"); Thread.sleep(60_000); }); break;
            case "noise": processor.run(message -> { System.out.println("out 1 1 stdout"); message.out(message.payload, "errors"); }); break;
            case "total": processor.atEnd(() -> processor.out(bytes(seen), "stdout")).run(message -> seen++); break;
            default: throw new IllegalArgumentException(arguments[0]);
        }
    }
}
