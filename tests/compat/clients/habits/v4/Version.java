import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What clients of 4.x say in another way than the oldest one, and what only they have. */
final class Version {
    static final String NAME = "4.3.1";
    /** As many requests as an idempotent producer may have in flight. */
    static final int IN_FLIGHT_MAX = 5;
    static final List<String> CODECS = List.of("gzip", "snappy", "lz4", "zstd");

    static Map<String, Habit> habits() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.putAll(NewerHabits.all());
        all.putAll(CooperativeHabits.all());
        all.putAll(TopicAdminHabits.all());
        all.putAll(ConfigAdminHabits.all());
        all.putAll(GroupAdminHabits.all());
        return all;
    }

    static <K, V> ConsumerRecords<K, V> poll(KafkaConsumer<K, V> consumer, long ms) {
        return consumer.poll(Duration.ofMillis(ms));
    }

    static OffsetAndMetadata committed(KafkaConsumer<?, ?> consumer, TopicPartition partition) {
        return consumer.committed(Set.of(partition)).get(partition);
    }

    static TopicDescription describe(AdminClient admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS).get(topic);
    }

    static void alterTopic(AdminClient admin, String topic, String key, String value) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }
}
