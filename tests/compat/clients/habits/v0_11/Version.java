import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What the oldest client says in another way than those of 4.x, and what only it has. */
final class Version {
    static final String NAME = "0.11.0.3";
    /** As many requests as an idempotent producer may have in flight. */
    static final int IN_FLIGHT_MAX = 1;
    static final List<String> CODECS = List.of("gzip", "snappy", "lz4");

    static Map<String, Habit> habits() {
        return new LinkedHashMap<>(OldAdminHabits.all());
    }

    static <K, V> ConsumerRecords<K, V> poll(KafkaConsumer<K, V> consumer, long ms) {
        return consumer.poll(ms);
    }

    static OffsetAndMetadata committed(KafkaConsumer<?, ?> consumer, TopicPartition partition) {
        return consumer.committed(partition);
    }

    static TopicDescription describe(AdminClient admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).all().get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS).get(topic);
    }

    /** AlterConfigs replaces all that was set before. */
    static void alterTopic(AdminClient admin, String topic, String key, String value) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config config = new Config(List.of(new ConfigEntry(key, value)));
        admin.alterConfigs(Map.of(resource, config)).all().get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }
}
