import java.io.RandomAccessFile;
import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.Collections;
import java.util.concurrent.Executors;

/** What Java programs do every day, so far as system calls go; prints "fine". */
public class Everyday {
    public static void main(String[] words) throws Exception {
        Path folder = Files.createTempDirectory("everyday");
        Path file = Files.write(folder.resolve("file"), new byte[10_000]);
        Files.copy(file, folder.resolve("copy"));
        Files.setLastModifiedTime(file, FileTime.fromMillis(1));
        Files.createSymbolicLink(folder.resolve("link"), Path.of("file"));
        try (RandomAccessFile opened = new RandomAccessFile(file.toFile(), "rw");
                FileChannel channel = opened.getChannel()) {
            channel.lock().release();
            var mapped = channel.map(FileChannel.MapMode.READ_WRITE, 0, 4096);
            mapped.put(0, (byte) 1);
            mapped.force();
            channel.force(true);
        }
        Files.move(file, folder.resolve("moved"));
        try (var service = folder.getFileSystem().newWatchService()) {
            folder.register(service, java.nio.file.StandardWatchEventKinds.ENTRY_CREATE);
            Files.createFile(folder.resolve("seen"));
            service.take();
        }

        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
                Socket socket = new Socket(server.getInetAddress(), server.getLocalPort());
                Socket accepted = server.accept()) {
            socket.getOutputStream().write(7);
            if (accepted.getInputStream().read() != 7) throw new Exception("TCP");
        }
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
                Selector selector = Selector.open()) {
            server.bind(UnixDomainSocketAddress.of(folder.resolve("socket")));
            server.configureBlocking(false).register(selector, 16);
            selector.selectNow();
        }
        for (NetworkInterface each : Collections.list(NetworkInterface.getNetworkInterfaces())) {
            each.isUp();
            each.getMTU();
            each.getHardwareAddress();
        }
        var pool = Executors.newFixedThreadPool(4);
        for (int index = 0; index < 20; index++) pool.submit(() -> ByteBuffer.allocateDirect(1 << 16));
        pool.shutdown();
        Process child = new ProcessBuilder("echo", "hi").start();
        if (!new String(child.getInputStream().readAllBytes()).equals("hi\n")) throw new Exception("child");
        if (child.waitFor() != 0 || !ProcessHandle.current().isAlive()) throw new Exception("processes");
        new java.security.SecureRandom().nextLong();
        System.gc();
        System.out.println("fine");
    }
}
