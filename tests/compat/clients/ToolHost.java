import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs main classes of Kafka's tools one after another in one JVM, which starts once instead of once a run.
 *
 * A line of standard input is one run: its limit in seconds, what the tool reads, the main class and its arguments, each in
 * base64, apart by spaces. The answer is a line: exit status, then what the tool has printed, in base64.
 */
public final class ToolHost {
    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        BufferedReader runs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = runs.readLine()) != null) {
            String[] words = Arrays.stream(line.split(" ")).map(ToolHost::decoded).toArray(String[]::new);
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            PrintStream both = new PrintStream(said, true, StandardCharsets.UTF_8);
            System.setIn(new ByteArrayInputStream(words[1].getBytes(StandardCharsets.UTF_8)));
            System.setOut(both);
            System.setErr(both);
            int status = run(Long.parseLong(words[0]), words[2], Arrays.copyOfRange(words, 3, words.length));
            both.flush();
            answers.println(status + " " + Base64.getEncoder().encodeToString(said.toByteArray()));
            answers.flush();
        }
    }

    private static String decoded(String word) {
        return new String(Base64.getDecoder().decode(word), StandardCharsets.UTF_8);
    }

    /** A tool that exits is held where it does: nothing of it may go on, as in a process that is gone. */
    private static int run(long limitSeconds, String mainClass, String[] arguments) throws Exception {
        CompletableFuture<Integer> status = new CompletableFuture<>();
        Exit.Procedure held = (code, message) -> {
            if (message != null) {
                System.err.println(message);
            }
            status.complete(code);
            while (true) {
                LockSupport.park();
            }
        };
        Exit.setExitProcedure(held);
        Exit.setHaltProcedure(held);
        Thread tool = new Thread(() -> {
            try {
                Class.forName(mainClass).getMethod("main", String[].class).invoke(null, (Object) arguments);
                status.complete(0);
            } catch (InvocationTargetException thrown) {
                System.err.print("Exception in thread \"main\" ");
                thrown.getCause().printStackTrace();
                status.complete(1);
            } catch (ReflectiveOperationException missing) {
                System.err.println(missing);
                status.complete(127);
            }
        }, "main");
        tool.setDaemon(true);
        tool.start();
        try {
            return status.get(limitSeconds, TimeUnit.SECONDS);
        } catch (TimeoutException late) {
            System.err.println("no end within " + limitSeconds + " s");
            return 124;
        }
    }
}
