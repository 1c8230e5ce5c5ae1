import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.UnsupportedVersionException;

/** The AdminClient of 0.11: topics, the cluster, and configurations as far as a broker of 4.x still speaks its versions. */
final class OldAdminHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("admin creates a topic", OldAdminHabits::creates);
        all.put("admin is refused topics that cannot be", OldAdminHabits::refused);
        all.put("admin only validates", OldAdminHabits::validates);
        all.put("admin lists topics", OldAdminHabits::lists);
        all.put("admin describes topics", OldAdminHabits::describes);
        all.put("admin deletes topics", OldAdminHabits::deletes);
        all.put("admin describes the cluster", OldAdminHabits::cluster);
        all.put("admin alters what a topic takes", OldAdminHabits::alters);
        all.put("admin learns that DescribeConfigs 0 is no longer there", OldAdminHabits::describeConfigs);
        return all;
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }

    private static void creates(Place place) throws Exception {
        String counted = place.name("counted");
        String placed = place.name("placed");
        get(place.admin().createTopics(List.of(new NewTopic(counted, 3, (short) 1).configs(Map.of("retention.ms", "1000000")),
            new NewTopic(placed, Map.of(0, List.of(1), 1, List.of(1))))).all());
        for (Map.Entry<String, Integer> one : Map.of(counted, 3, placed, 2).entrySet()) {
            Place.until(one.getKey() + " is there", () -> get(place.admin().listTopics().names()).contains(one.getKey()));
            Place.equal("the partitions", Version.describe(place.admin(), one.getKey()).partitions().size(), one.getValue());
        }
        place.fill(placed, 2, 10);
        Place.equal("what it holds", place.everything(placed, 2).size(), 10);
    }

    private static void refused(Place place) throws Exception {
        String topic = place.topic(1);
        Place.fails("a second creation", TopicExistsException.class,
            () -> get(place.admin().createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all()));
        String wide = place.name("wide");
        Place.fails("three replicas", InvalidReplicationFactorException.class,
            () -> get(place.admin().createTopics(List.of(new NewTopic(wide, 1, (short) 3))).all()));
        Place.hold("it is not listed", !get(place.admin().listTopics().names()).contains(wide));
    }

    private static void validates(Place place) throws Exception {
        String topic = place.name("only-thought-of");
        get(place.admin().createTopics(List.of(new NewTopic(topic, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all());
        Place.hold("it is not listed", !get(place.admin().listTopics().names()).contains(topic));
    }

    private static void lists(Place place) throws Exception {
        List<String> due = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            due.add(place.topic(i + 1));
        }
        Place.hold("all are listed", get(place.admin().listTopics().names()).containsAll(due));
        Place.hold("none is internal", due.stream().noneMatch(one -> {
            try {
                return get(place.admin().listTopics().namesToListings()).get(one).isInternal();
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        }));
    }

    private static void describes(Place place) throws Exception {
        String topic = place.topic(4);
        TopicDescription seen = Version.describe(place.admin(), topic);
        Place.equal("the name", seen.name(), topic);
        Place.equal("whether it is internal", seen.isInternal(), false);
        for (int partition = 0; partition < 4; partition++) {
            Place.equal("the number", seen.partitions().get(partition).partition(), partition);
            Place.equal("the leader", seen.partitions().get(partition).leader().id(), 1);
            Place.equal("the replicas", seen.partitions().get(partition).replicas().size(), 1);
            Place.equal("those in sync", seen.partitions().get(partition).isr().size(), 1);
        }
        Place.fails("describing what is not there", UnknownTopicOrPartitionException.class,
            () -> Version.describe(place.admin(), place.name("nowhere")));
    }

    private static void deletes(Place place) throws Exception {
        AdminClient admin = place.admin();
        String topic = place.topic(2);
        String other = place.topic(2);
        get(admin.deleteTopics(List.of(topic)).all());
        Place.until("it is not listed", () -> !get(admin.listTopics().names()).contains(topic));
        Place.hold("the other is listed", get(admin.listTopics().names()).contains(other));
        Place.fails("a second deletion", UnknownTopicOrPartitionException.class, () -> get(admin.deleteTopics(List.of(topic)).all()));
        place.topicNamed(topic, 1);
        Place.equal("what the new one holds", place.everything(topic, 1), List.of());
    }

    private static void cluster(Place place) throws Exception {
        DescribeClusterResult seen = place.admin().describeCluster();
        Place.equal("the nodes", get(seen.nodes()).size(), 1);
        Place.equal("the controller", get(seen.controller()).id(), 1);
        Place.equal("the address", get(seen.nodes()).iterator().next().host() + ":" + get(seen.nodes()).iterator().next().port(),
            place.bootstrap);
        Place.hold("it has an id", !get(seen.clusterId()).isEmpty());
    }

    private static void alters(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        producer.send(new ProducerRecord<>(topic, "x".repeat(5_000))).get();
        Version.alterTopic(place.admin(), topic, "max.message.bytes", "1000");
        Place.until("large records are refused", () -> {
            try {
                producer.send(new ProducerRecord<>(topic, "x".repeat(5_000))).get();
                return false;
            } catch (java.util.concurrent.ExecutionException error) {
                Place.hold("they are too large", error.getCause() instanceof RecordTooLargeException);
                return true;
            }
        });
        producer.send(new ProducerRecord<>(topic, "x".repeat(500))).get();
    }

    private static void describeConfigs(Place place) throws Exception {
        String topic = place.topic(1);
        Place.fails("DescribeConfigs 0", UnsupportedVersionException.class, () -> get(place.admin().describeConfigs(
            List.of(new ConfigResource(ConfigResource.Type.TOPIC, topic))).all()));
    }
}
