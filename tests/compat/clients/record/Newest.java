import static java.util.Collections.singleton;
import static java.util.Collections.singletonList;
import static java.util.Collections.singletonMap;

import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;

/** What only the newest clients ask: for the recorder. */
public final class Newest {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("client.id", "java");
        String topic = arguments[1];
        String group = "group-" + topic;
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(singleton(new org.apache.kafka.clients.admin.NewTopic(topic, 1, (short) 1))).all().get();
            Thread.sleep(500);
            consume(settings, topic, group);
            TopicPartition partition = new TopicPartition(topic, 0);
            print(() -> admin.describeConsumerGroups(singleton(group)).all().get());
            print(() -> admin.listOffsets(Map.of(partition, OffsetSpec.earliestPendingUpload()), new ListOffsetsOptions()).all().get());
            print(() -> admin.describeProducers(singleton(partition)).all().get());
            print(() -> admin.describeMetadataQuorum().quorumInfo().get());
            print(() -> admin.updateFeatures(singletonMap("group.version",
                new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)),
                new UpdateFeaturesOptions().validateOnly(true)).all().get());
            print(() -> admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC, ConfigResource.Type.GROUP),
                new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all().get().size());
            print(() -> admin.describeTopics(singletonList(topic)).allTopicNames().get());
            print(() -> admin.listGroups().all().get().size());
        }
    }

    /** A member of the new protocol; it commits and asks by topic id. */
    private static void consume(Properties base, String topic, String group) {
        Properties settings = new Properties();
        settings.putAll(base);
        settings.put("group.id", group);
        settings.put("group.protocol", "consumer");
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<String, String> consumer =
                 new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(singletonList(topic));
            long until = System.currentTimeMillis() + 30_000;
            while (consumer.assignment().isEmpty() && System.currentTimeMillis() < until) {
                consumer.poll(Duration.ofMillis(200));
            }
            consumer.commitSync(singletonMap(partition, new org.apache.kafka.clients.consumer.OffsetAndMetadata(0, "noted")));
            System.out.println(consumer.committed(singleton(partition)));
        }
    }

    static void print(java.util.concurrent.Callable<Object> call) throws Exception {
        try {
            System.out.println(call.call());
        } catch (java.util.concurrent.ExecutionException | RuntimeException refused) {
            System.out.println(refused);
        }
    }
}
