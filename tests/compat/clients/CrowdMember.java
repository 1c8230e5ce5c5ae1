import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;

/** Several members of groups in one process, each in a thread of its own: as crowd_member.py, which tells the lines. */
public final class CrowdMember implements Runnable, ConsumerRebalanceListener {
    private static final Map<String, String> ASSIGNORS = Map.of(
        "range", "org.apache.kafka.clients.consumer.RangeAssignor",
        "roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor",
        "cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
    private static final Object OUT = new Object();

    private final String name;
    private final String topic;
    private final long commitNs;
    private final KafkaConsumer<String, String> consumer;
    private final Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
    private volatile boolean leaves;

    private CrowdMember(String protocol, String assignor, String[] words) {
        name = words[1];
        topic = words[3];
        commitNs = Long.parseLong(words[5]) * 1_000_000;
        Properties settings = new Properties();
        settings.put("bootstrap.servers", words[2]);
        settings.put("group.id", words[4]);
        settings.put("client.id", name);
        settings.put("group.protocol", protocol);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        if (protocol.equals("classic")) {
            settings.put("partition.assignment.strategy", ASSIGNORS.get(assignor));
            settings.put("session.timeout.ms", "10000");
            settings.put("heartbeat.interval.ms", "500");
        }
        // Also the time in which members have to join again: who dies while it joins holds up the others for that long.
        settings.put("max.poll.interval.ms", "20000");
        settings.put("max.poll.records", "50");
        settings.put("metric.reporters", "");
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        settings.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        consumer = new KafkaConsumer<>(settings);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, CrowdMember> members = new HashMap<>();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            if (words[0].equals("join")) {
                CrowdMember member = new CrowdMember(arguments[0], arguments[1], words);
                members.put(member.name, member);
                Thread thread = new Thread(member, member.name);
                thread.setDaemon(true);
                thread.start();
            } else {
                members.remove(words[1]).leaves = true;
            }
        }
    }

    /** One write for a line, so that a kill leaves whole ones. */
    private void say(String what) {
        synchronized (OUT) {
            byte[] line = (System.nanoTime() / 1_000 + " " + name + " " + what + "\n").getBytes(StandardCharsets.UTF_8);
            System.out.write(line, 0, line.length);
            System.out.flush();
        }
    }

    private static String partitions(Collection<TopicPartition> of) {
        return of.stream().map(one -> String.valueOf(one.partition())).collect(Collectors.joining(","));
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> parts) {
        say("assigned " + partitions(parts));
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> parts) {
        commit();
        ends.keySet().removeAll(parts);
        say("revoked " + partitions(parts));
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> parts) {
        ends.keySet().removeAll(parts);
        say("lost " + partitions(parts));
    }

    /** Commits what is processed; what a rebalance refuses is kept while the partitions are. */
    private void commit() {
        if (ends.isEmpty() || commitNs == 0) {
            return;
        }
        String offsets = ends.entrySet().stream()
            .map(one -> one.getKey().partition() + ":" + one.getValue().offset()).collect(Collectors.joining(" "));
        say("committing " + offsets);
        try {
            consumer.commitSync(new HashMap<>(ends));
        } catch (KafkaException error) {
            say("failed " + error.getClass().getSimpleName());
            return;
        }
        ends.clear();
        say("committed " + offsets);
    }

    private void process() {
        StringBuilder seen = new StringBuilder("seen");
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
            seen.append(' ').append(record.partition()).append(':').append(record.offset()).append(':')
                .append(record.key()).append(':').append(record.value());
            ends.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
        }
        if (seen.length() > "seen".length()) {
            say(seen.toString());
        }
    }

    @Override
    public void run() {
        try {
            say("joins");
            consumer.subscribe(List.of(topic), this);
            long committedNs = System.nanoTime();
            while (!leaves) {
                process();
                if (commitNs > 0 && System.nanoTime() - committedNs >= commitNs) {
                    commit();
                    committedNs = System.nanoTime();
                }
            }
            consumer.close();
            say("left");
        } catch (Exception error) {
            say("error " + error.toString().replaceAll("\\s+", " "));
        }
    }
}
