import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs main classes of Kafka's tools in one JVM, which starts once instead of once a run.
 *
 * A line of standard input is one command, its words in base64, apart by spaces:
 *
 *   run SECONDS STDIN CLASS ARGUMENT...     runs a tool to its end
 *   start NAME STDIN CLASS ARGUMENT...      starts one that goes on beside the others
 *   end NAME                                ends it, as an interrupt from the keyboard would, and waits for its last words
 *
 * Each is answered by a line: exit status, then what the tool has printed, in base64. A run is a group of threads: what
 * they print, read and exit with is that run's, whatever else goes on.
 *
 * What calls System.exit or asks the JVM itself for a hook at its end (the verifiable tools) needs a JVM of its own.
 */
public final class ToolHost {
    private static final long HOOK_SECONDS = 30;

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream printed = new PrintStream(new Printed(), true, StandardCharsets.UTF_8);
        System.setOut(printed);
        System.setErr(printed);
        System.setIn(new Given());
        Exit.setExitProcedure(Run::exit);
        Exit.setHaltProcedure(Run::exit);
        Exit.setShutdownHookAdder((name, hook) -> Run.current().hooks.add(hook));
        Map<String, Run> beside = new HashMap<>();
        String line;
        while ((line = commands.readLine()) != null) {
            String[] words = Arrays.stream(line.split(" ")).map(ToolHost::decoded).toArray(String[]::new);
            Run run;
            if (words[0].equals("end")) {
                run = beside.remove(words[1]);
                run.status.complete(130);
                run.end(0);
                run.tool.join(TimeUnit.SECONDS.toMillis(HOOK_SECONDS));
            } else {
                run = new Run(words[2], words[3], Arrays.copyOfRange(words, 4, words.length));
                run.start();
                if (words[0].equals("run")) {
                    run.end(Long.parseLong(words[1]));
                } else {
                    beside.put(words[1], run);
                }
            }
            String said = Base64.getEncoder().encodeToString(run.printed.toByteArray());
            answers.println(run.status.getNow(0) + " " + said);
            answers.flush();
        }
    }

    private static String decoded(String word) {
        return new String(Base64.getDecoder().decode(word), StandardCharsets.UTF_8);
    }

    /** One run of a tool: every thread that comes of it is in its group. */
    private static final class Run extends ThreadGroup {
        final ByteArrayOutputStream printed = new ByteArrayOutputStream();
        final InputStream given;
        final CompletableFuture<Integer> status = new CompletableFuture<>();
        final List<Runnable> hooks = new CopyOnWriteArrayList<>();
        private final String mainClass;
        private final String[] arguments;
        private final Thread tool = new Thread(this, this::call, "main");

        Run(String stdin, String mainClass, String[] arguments) {
            super(mainClass);
            this.given = new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8));
            this.mainClass = mainClass;
            this.arguments = arguments;
        }

        /** The run that the calling thread belongs to, or nothing. */
        static Run current() {
            ThreadGroup group = Thread.currentThread().getThreadGroup();
            while (group != null && !(group instanceof Run)) {
                group = group.getParent();
            }
            return (Run) group;
        }

        /** A tool that exits is held where it does: nothing of it may go on, as in a process that is gone. */
        static void exit(int code, String message) {
            Run run = current();
            if (message != null) {
                System.err.println(message);
            }
            run.status.complete(code);
            while (true) {
                LockSupport.park();
            }
        }

        void start() {
            tool.setDaemon(true);
            tool.start();
        }

        private void call() {
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
        }

        /** Waits for its status, and then for what it wants done at the end. */
        void end(long limitSeconds) throws InterruptedException, ExecutionException {
            try {
                status.get(limitSeconds, TimeUnit.SECONDS);
            } catch (TimeoutException late) {
                status.complete(124);
                say("no end within " + limitSeconds + " s\n");
            }
            List<Thread> ending = hooks.stream().map(hook -> new Thread(this, hook, "hook")).toList();
            ending.forEach(thread -> thread.setDaemon(true));
            ending.forEach(Thread::start);
            for (Thread thread : ending) {
                thread.join(TimeUnit.SECONDS.toMillis(HOOK_SECONDS));
                if (thread.isAlive()) {
                    say("a hook did not end within " + HOOK_SECONDS + " s\n");
                }
            }
        }

        private void say(String text) {
            printed.writeBytes(text.getBytes(StandardCharsets.UTF_8));
        }
    }

    /** Standard output and standard error: of the run that prints. What belongs to none is dropped. */
    private static final class Printed extends OutputStream {
        @Override
        public void write(int octet) {
            write(new byte[] {(byte) octet}, 0, 1);
        }

        @Override
        public void write(byte[] octets, int offset, int length) {
            Run run = Run.current();
            if (run != null) {
                run.printed.write(octets, offset, length);
            }
        }
    }

    /** Standard input: of the run that reads. */
    private static final class Given extends InputStream {
        @Override
        public int read() throws IOException {
            return Run.current().given.read();
        }

        @Override
        public int read(byte[] octets, int offset, int length) throws IOException {
            return Run.current().given.read(octets, offset, length);
        }

        @Override
        public int available() throws IOException {
            return Run.current().given.available();
        }
    }
}
