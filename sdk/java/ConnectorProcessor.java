import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.function.LongConsumer;

/**
 * Connector protocol 1 for processors in Java (contract "acknowledged"). Copy this file beside your program.
 *
 * <pre>
 *     new ConnectorProcessor().run(message -> {               // what it throws is a nack: the message comes again
 *         message.out(message.text().toUpperCase());          // any number of outputs: a String or bytes, to stdout,
 *         message.out("...", "errors");                       // or to another port
 *     });
 * </pre>
 *
 * The outputs of a message are committed together with it, or not at all. With stateful(), state() is what was
 * committed last (null: nothing yet), and what is set while a message is handled is committed with it. System.out goes
 * to stderr. Exit status: 0 after the last message, 143 after SIGTERM (what is at hand is finished first), 1 when the
 * runner has gone. Java 11 or newer.
 */
public final class ConnectorProcessor {
    private static final int SETTLE = 250; // so many messages are acknowledged even if more wait
    private static final int WRITE_BYTES = 1 << 16, TEXT = 4096; // TEXT: the longest reason or log line that is sent

    /** What is done with messages; whatever it throws is a nack. */
    public interface Handler<T> { void handle(T given) throws Exception; }

    private final InputStream in = new FileInputStream(FileDescriptor.in);
    private final OutputStream out = new FileOutputStream(FileDescriptor.out);
    private byte[] data = new byte[1 << 18], unsent = new byte[WRITE_BYTES * 2];
    private final Object turn = new Object(); // held while messages are handled
    private int start, end, missing, size;
    private long first, last, states; // first to last: handled, not yet acknowledged
    private String[] words; // of the frame that was taken last, and its payload:
    private byte[] received;
    private volatile byte[] state;
    private boolean stateful, holding, source;
    private volatile boolean stopping, over, idle;
    private volatile long confirmed; // how many states are safe
    private LongConsumer onCommitted = number -> { };
    private Runnable atEnd = () -> { };

    /** A message. id() is the same each time it comes, and never another's: what makes a sink idempotent. */
    public final class Message {
        private final String[] words = ConnectorProcessor.this.words;
        private final long delivery = Long.parseLong(words[2]);
        public final byte[] payload = ConnectorProcessor.this.received;

        /** Counts the messages of its channel from 1. */
        public long number() { return Long.parseLong(words[3]); }
        /** 1; more when it was given to a program before. */
        public long attempt() { return Long.parseLong(words[4]); }
        public String port() { return words[5]; }
        public String channel() { return words[6].substring(0, words[6].indexOf('@')); }
        public String id() { return words[6] + ":" + words[3]; }
        public String text() { return new String(payload, StandardCharsets.UTF_8); }
        public void out(String output) { out(bytes(output), "stdout"); }
        public void out(byte[] output) { out(output, "stdout"); }
        public void out(String output, String port) { out(bytes(output), port); }
        public void out(byte[] output, String port) { put("out", delivery + " " + port, output); }
        /** It is done: commit it with its outputs (runManual only). */
        public void ack() { put("ack", Long.toString(delivery), new byte[0]); }
        /** It could not be done: drop its outputs, give it again after the delay (runManual; else throw). */
        public void nack(String reason, long delayMillis) { put("nack", delivery + " delay=" + delayMillis, cut(reason)); }
    }

    /** Nothing is committed but together with a state. */
    public ConnectorProcessor stateful() { stateful = true; return this; }
    /** Called when no message can come any more, for last outputs by out(). */
    public ConnectorProcessor atEnd(Runnable action) { atEnd = action; return this; }
    /** Called with n when n states are safe (for a source: from another thread). */
    public ConnectorProcessor onCommitted(LongConsumer action) { onCommitted = action; return this; }
    public byte[] state() { return state; }
    public void state(byte[] value) { state = value; }

    /** Calls the handler for each message. Returns after the last, as do the others. */
    public void run(Handler<Message> handler) {
        session(() -> serve(batch -> attempt(batch, each -> handler.handle(each.get(0))), 1));
    }

    /** Calls the handler with what is there, up to most messages. When that fails, each is tried alone. */
    public void runBatches(Handler<List<Message>> handler, int most) {
        session(() -> serve(batch -> attempt(batch, handler), most));
    }

    /** Calls the handler; any thread, at any time, calls message.out(), then ack() or nack(). */
    public void runManual(Handler<Message> handler) { session(() -> serve(batch -> handler.handle(batch.get(0)), 1)); }

    /** Runs a source: it reads state(), calls out() and commit(), and returns when it is done. */
    public void runSource(Handler<ConnectorProcessor> handler) {
        source = true;
        session(() -> {
            daemon(() -> serve(batch -> { }, 1));
            daemon(() -> { // a slow source waits for nobody
                for (;; Thread.sleep(2), flush()) synchronized (this) { while (size == 0) wait(); }
            });
            handler.handle(this);
            flush();
            while (confirmed < states) Thread.sleep(1);
        });
    }

    /** Writes an output in answer to no message. */
    public void out(byte[] output, String port) { put("out", "0 " + port, output); }
    /** Sends the state: it covers all that was acknowledged, and all outputs in answer to nothing, so far. */
    public synchronized void commit(byte[] value) { put("state", Long.toString(++states), state = value); }
    /** A line for the runner's log. Levels: debug, info, warning, error. */
    public void log(String text, String level) { put("log", level, cut(text)); }

    private interface Work { void run() throws Exception; }
    private static byte[] bytes(String text) { return text.getBytes(StandardCharsets.UTF_8); }
    private static byte[] cut(String text) { return bytes(text.substring(0, Math.min(TEXT, text.length()))); }

    private void daemon(Work work) {
        Thread thread = new Thread(() -> { try { work.run(); } catch (Exception error) { gone(error); } });
        thread.setDaemon(true);
        thread.start();
    }

    private void gone(Exception error) {
        System.err.println(error);
        Runtime.getRuntime().halt(1); // other threads may wait for what never comes
    }

    private void session(Work serve) {
        System.setOut(System.err);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            synchronized (turn) { if (!over) settle(false); } // after the message at hand; the JVM then exits with 143
        }));
        try {
            put("ready", stateful ? "1 stateful=yes" : "1", new byte[0]);
            flush();
            while (!frame()) more();
            List<String> fields = List.of(words);
            if (fields.contains("state=here")) state = received;
            if (fields.contains("state=file")) state = Files.readAllBytes(Path.of(new String(received)));
            serve.run();
            atEnd.run();
            put("end", "", new byte[0]);
            flush();
            over = true;
        } catch (Exception error) { throw new IllegalStateException(error); }
    }

    private void serve(Handler<List<Message>> each, int most) throws Exception {
        List<Message> batch = new ArrayList<>();
        for (;;) {
            boolean whole = frame();
            if (whole && words[0].equals("msg")) {
                batch.add(new Message());
                if (batch.size() < most) continue;
            }
            synchronized (turn) {
                while (stopping) turn.wait(); // the shutdown hook sends what is done, and the JVM ends
                if (!batch.isEmpty()) each.handle(batch);
                if (!whole && in.available() == 0 || last - first > SETTLE) settle(!whole);
            }
            batch = new ArrayList<>();
            if (!whole) more();
            else if (words[0].equals("ping")) put("pong", words[2], new byte[0]);
            else if (words[0].equals("ack-state")) onCommitted.accept(confirmed = Long.parseLong(words[2]));
            else if (words[0].equals("end") && words.length == 2) { settle(false); return; }
            if (whole && !words[0].equals("msg")) flush();
        }
    }

    /** Handles messages as one. */
    private void attempt(List<Message> batch, Handler<List<Message>> handler) throws Exception {
        byte[] before = state;
        int mark = size;
        holding = batch.size() > 1;
        try {
            handler.handle(batch);
            first = last == 0 ? batch.get(0).delivery : first;
            last = batch.get(batch.size() - 1).delivery;
        } catch (Exception error) {
            state = before;
            holding = false;
            if (batch.size() == 1) {
                settle(false);
                batch.get(0).nack(error.getClass().getSimpleName() + ": " + error.getMessage(), 0);
                return;
            }
            size = mark; // nothing of it was sent
            for (Message message : batch) attempt(List.of(message), handler);
        }
        holding = false;
    }

    /** Between messages, so that the state covers exactly what is acknowledged. */
    private void settle(boolean waits) {
        if (last != 0) {
            put("ack", first + " " + last, new byte[0]);
            last = first = 0;
            if (stateful) commit(state == null ? new byte[0] : state);
        }
        idle = waits && !source; // what other threads put leaves at once
        flush();
    }

    private synchronized void put(String kind, String fields, byte[] body) {
        byte[] header = bytes(kind + " " + body.length + (fields.isEmpty() ? "" : " ") + fields + "\n");
        int needed = size + header.length + body.length;
        if (needed > unsent.length) unsent = Arrays.copyOf(unsent, Math.max(needed, 2 * unsent.length));
        System.arraycopy(header, 0, unsent, size, header.length);
        System.arraycopy(body, 0, unsent, size + header.length, body.length);
        size = needed;
        notifyAll();
        if ((idle || size > WRITE_BYTES) && !holding) flush();
    }

    private synchronized void flush() {
        try { out.write(unsent, 0, size); } catch (IOException error) { gone(error); }
        size = 0;
    }

    /** The next frame that is there, into words and payload; false when there is none yet. */
    private boolean frame() {
        int stop = start;
        while (stop < end && data[stop] != '\n') stop++;
        missing = 1;
        if (stop == end) return false;
        words = new String(data, start, stop - start, StandardCharsets.ISO_8859_1).split(" ");
        int next = stop + 1 + Integer.parseInt(words[1]);
        if ((missing = next - end) > 0) return false;
        received = Arrays.copyOfRange(data, stop + 1, next);
        start = next;
        return true;
    }

    /** Waits for more input, at least what is missing of a frame. */
    private void more() throws IOException {
        int held = end - start;
        byte[] room = held + missing > data.length ? new byte[held + missing] : data;
        System.arraycopy(data, start, room, 0, held);
        data = room;
        for (start = 0, end = held; missing > 0;) {
            int count = in.read(data, end, data.length - end);
            if (count < 0) gone(new IOException("the runner has gone"));
            end += count;
            missing -= count;
        }
        idle = false;
    }
}
