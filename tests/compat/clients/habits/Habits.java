import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The habits of the Java client in one process: it says "ready" and their names, then runs the one that a line of
 * tab-separated words NAME BOOTSTRAP tells, and answers "ok", or "error" and what went wrong (see client.py).
 *
 * What both ends of the supported versions have stands in this folder; Version and what only one of them has stand in a
 * folder of that version.
 */
public final class Habits {
    private static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.putAll(ProducerHabits.all());
        all.putAll(BatchHabits.all());
        all.putAll(ConsumerHabits.all());
        all.putAll(CommitHabits.all());
        all.putAll(MemberHabits.all());
        all.putAll(AssignorHabits.all());
        all.putAll(Version.habits());
        return all;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Habit> all = all();
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.out.println("ready " + String.join(",", all.keySet()));
        // A process that starts again after a failure must not meet the topics of the one before.
        String process = Version.NAME + "-" + ProcessHandle.current().pid();
        int number = 0;
        for (String line; (line = commands.readLine()) != null; ) {
            String[] words = line.split("\t");
            number++;
            try (Place place = new Place(words[1], "java-" + process + "-" + number)) {
                all.get(words[0]).run(place);
                place.close();
                System.out.println("ok");
            } catch (Throwable error) {
                StringWriter trace = new StringWriter();
                error.printStackTrace(new PrintWriter(trace));
                String told = trace.toString().replaceAll("\\s+", " ");
                System.out.println("error " + told.substring(0, Math.min(1_500, told.length())));
            }
        }
    }
}
