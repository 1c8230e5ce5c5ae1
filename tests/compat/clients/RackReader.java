import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.TopicPartition;

/**
 * A consumer in a rack by the Java client: arguments BOOTSTRAP TOPIC PARTITIONS RACK PROTOCOL, and the lines are those
 * of rack_reader.py. PROTOCOL is "classic" or "consumer": the client has a consumer of its own for each.
 */
public final class RackReader {
    public static void main(String[] arguments) {
        try {
            run(arguments[0], arguments[1], Integer.parseInt(arguments[2]), arguments[3], arguments[4]);
            say("closed");
        } catch (Exception error) {
            say("error " + error.toString().replaceAll("\\s+", " "));
        }
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static void run(String bootstrap, String topic, int partitions, String rack, String protocol) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", "unused-by-assigned-partitions");
        settings.put("group.protocol", protocol);
        settings.put("client.rack", rack);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        settings.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        List<TopicPartition> assigned = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            assigned.add(new TopicPartition(topic, partition));
        }
        AtomicBoolean stopped = new AtomicBoolean();
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (IOException error) {
                // Nobody tells it any more: it stops.
            }
            stopped.set(true);
        });
        reader.setDaemon(true);
        reader.start();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            consumer.assign(assigned);
            assigned.forEach(partition -> consumer.seek(partition, 0));
            String before = "";
            while (!stopped.get()) {
                StringBuilder line = new StringBuilder("seen");
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    line.append(" " + record.partition() + ":" + record.offset());
                }
                if (line.length() > "seen".length()) {
                    say(line.toString());
                }
                String received = received(consumer.metrics());
                if (!received.equals(before)) {
                    say(received);
                    before = received;
                }
            }
        }
    }

    /** What came from each node; those below 0 are the addresses that it began with, far above are coordinators. */
    private static String received(Map<MetricName, ? extends Metric> metrics) {
        Map<Integer, Long> bytes = new TreeMap<>();
        metrics.forEach((name, metric) -> {
            if (name.group().equals("consumer-node-metrics") && name.name().equals("incoming-byte-total")) {
                int node = Integer.parseInt(name.tags().get("node-id").substring("node-".length()));
                bytes.put(node, ((Number) metric.metricValue()).longValue());
            }
        });
        StringBuilder line = new StringBuilder("received");
        bytes.forEach((node, count) -> line.append(node > 0 && node < 1_000_000 ? " " + node + ":" + count : ""));
        return line.toString();
    }
}
