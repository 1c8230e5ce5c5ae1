import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/**
 * A member of a group by the Java client: arguments BOOTSTRAP TOPIC GROUP ASSIGNOR [INSTANCE] and the lines are those
 * of group_member.py. Every second commit is an asynchronous one, told by its callback.
 */
public final class GroupMember {
    private static final Map<String, String> ASSIGNORS = Map.of(
        "range", "org.apache.kafka.clients.consumer.RangeAssignor",
        "roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor",
        "cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");

    public static void main(String[] arguments) {
        try {
            run(arguments);
            say("closed");
        } catch (Exception error) {
            say("error " + error.toString().replaceAll("\\s+", " "));
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static String partitions(Collection<TopicPartition> of) {
        List<String> names = new ArrayList<>();
        of.stream().map(TopicPartition::partition).sorted().forEach(one -> names.add(String.valueOf(one)));
        return String.join(",", names);
    }

    private static void committed(Map<TopicPartition, OffsetAndMetadata> offsets) {
        StringBuilder line = new StringBuilder("committed");
        offsets.forEach((partition, offset) -> line.append(" " + partition.partition() + ":" + offset.offset()));
        say(line.toString());
    }

    /** Older clients have no patterns that the broker matches. */
    private static void subscribe(KafkaConsumer<byte[], byte[]> consumer, String topic, ConsumerRebalanceListener listener)
            throws Exception {
        if (!topic.startsWith("^")) {
            consumer.subscribe(List.of(topic), listener);
            return;
        }
        Class<?> pattern = Class.forName("org.apache.kafka.clients.consumer.SubscriptionPattern");
        KafkaConsumer.class.getMethod("subscribe", pattern, ConsumerRebalanceListener.class)
            .invoke(consumer, pattern.getConstructor(String.class).newInstance(topic), listener);
    }

    private static void run(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("group.id", arguments[2]);
        boolean isConsumerProtocol = arguments[3].startsWith("consumer");
        if (isConsumerProtocol) {
            settings.put("group.protocol", "consumer");
            if (arguments[3].contains("-")) {
                settings.put("group.remote.assignor", arguments[3].split("-")[1]);
            }
        } else {
            settings.put("partition.assignment.strategy", ASSIGNORS.get(arguments[3]));
            // A static one has to be back within its session, and a JVM starts slowly.
            settings.put("session.timeout.ms", arguments.length > 4 ? "30000" : "6000");
            settings.put("heartbeat.interval.ms", "500");
        }
        if (arguments.length > 4) {
            settings.put("group.instance.id", arguments[4]);
        }
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("max.poll.records", "20");
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        settings.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            subscribe(consumer, arguments[1], new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    say("assigned " + partitions(assigned));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    say("revoked " + partitions(revoked));
                }
            });
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
            // What a rebalance kept from being committed, of the partitions that are still its own.
            Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
            boolean synchronous = true;
            while (!stopped.get()) {
                StringBuilder line = new StringBuilder("seen");
                boolean read = false;
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    line.append(" " + record.partition() + ":" + record.offset());
                    read = true;
                    ends.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                if (read) {
                    say(line.toString());
                }
                ends.keySet().retainAll(consumer.assignment());
                if (ends.isEmpty()) {
                    continue;
                }
                synchronous = !synchronous;
                if (synchronous) {
                    try {
                        consumer.commitSync(ends);
                        committed(ends);
                        ends.clear();
                    } catch (RebalanceInProgressException | CommitFailedException error) {
                        say("uncommitted " + error.getClass().getSimpleName());
                    }
                } else {
                    consumer.commitAsync(new HashMap<>(ends), (offsets, error) -> {
                        if (error == null) {
                            committed(offsets);
                            offsets.forEach(ends::remove);
                        } else {
                            say("uncommitted " + error.getClass().getSimpleName());
                        }
                    });
                }
            }
        }
    }
}
