import java.lang.reflect.Method;
import java.time.Duration;
import java.util.Collections;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** A member that joins, reads, commits, is asked what it has committed, and leaves: for the recorder, in every version. */
public final class Groups {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("client.id", "java");
        try (KafkaProducer<String, String> producer =
                 new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(arguments[1], 0, "key", "value")).get();
        }
        settings.put("group.id", "group-" + arguments[1]);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("session.timeout.ms", "6000");
        settings.put("heartbeat.interval.ms", "300");
        TopicPartition partition = new TopicPartition(arguments[1], 0);
        KafkaConsumer<String, String> consumer =
            new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(Collections.singletonList(arguments[1]));
        int seen = 0;
        long until = System.currentTimeMillis() + 60_000;
        long rest = 0;
        while ((seen == 0 || System.currentTimeMillis() < rest) && System.currentTimeMillis() < until) {
            int found = poll(consumer);
            if (seen == 0 && found > 0) {
                // Some heartbeats.
                rest = System.currentTimeMillis() + 1_500;
            }
            seen += found;
        }
        if (seen == 0) {
            throw new IllegalStateException("nothing was read");
        }
        consumer.commitSync(Collections.singletonMap(partition, new OffsetAndMetadata(1, "noted")));
        System.out.println(committed(consumer, partition));
        consumer.close();
    }

    // The oldest client has poll(long), the newest poll(Duration) alone; and so with committed().
    private static int poll(KafkaConsumer<String, String> consumer) throws Exception {
        try {
            Method poll = KafkaConsumer.class.getMethod("poll", Duration.class);
            return ((org.apache.kafka.clients.consumer.ConsumerRecords<?, ?>) poll.invoke(consumer, Duration.ofMillis(200)))
                .count();
        } catch (NoSuchMethodException old) {
            Method poll = KafkaConsumer.class.getMethod("poll", long.class);
            return ((org.apache.kafka.clients.consumer.ConsumerRecords<?, ?>) poll.invoke(consumer, 200L)).count();
        }
    }

    private static Object committed(KafkaConsumer<String, String> consumer, TopicPartition partition) throws Exception {
        try {
            Method committed = KafkaConsumer.class.getMethod("committed", java.util.Set.class);
            return committed.invoke(consumer, Collections.singleton(partition));
        } catch (NoSuchMethodException old) {
            return KafkaConsumer.class.getMethod("committed", TopicPartition.class).invoke(consumer, partition);
        }
    }
}
