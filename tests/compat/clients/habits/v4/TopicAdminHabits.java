import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.ReplicaInfo;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The AdminClient over topics, partitions, records and the cluster. */
final class TopicAdminHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("admin creates topics", TopicAdminHabits::creates);
        all.put("admin is refused topics that cannot be", TopicAdminHabits::refused);
        all.put("admin only validates", TopicAdminHabits::validates);
        all.put("admin lists topics", TopicAdminHabits::lists);
        all.put("admin describes topics by name and id", TopicAdminHabits::describes);
        all.put("admin deletes topics by name and id", TopicAdminHabits::deletes);
        all.put("admin adds partitions", TopicAdminHabits::addsPartitions);
        all.put("admin lists offsets", TopicAdminHabits::offsets);
        all.put("admin deletes records", TopicAdminHabits::deletesRecords);
        all.put("admin describes log directories", TopicAdminHabits::logDirs);
        all.put("admin describes producers", TopicAdminHabits::producers);
        all.put("admin elects and reassigns where nothing is to be done", TopicAdminHabits::elects);
        all.put("admin describes the cluster", TopicAdminHabits::cluster);
        return all;
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }

    private static void creates(Place place) throws Exception {
        String counted = place.name("counted");
        String placed = place.name("placed");
        String byDefault = place.name("by-default");
        CreateTopicsResult made = place.admin().createTopics(List.of(
            new NewTopic(counted, 3, (short) 1).configs(Map.of("retention.ms", "1000000", "cleanup.policy", "compact")),
            new NewTopic(placed, Map.of(0, List.of(1), 1, List.of(1))),
            new NewTopic(byDefault, Optional.empty(), Optional.empty())));
        get(made.all());
        Place.equal("the partitions", get(made.numPartitions(counted)), 3);
        Place.equal("the partitions of the placed", get(made.numPartitions(placed)), 2);
        Place.equal("the partitions by default", get(made.numPartitions(byDefault)), 1);
        Place.equal("the replicas", get(made.replicationFactor(counted)), 1);
        Place.equal("the policy", get(made.config(counted)).get("cleanup.policy").value(), "compact");
        Place.equal("the retention", get(made.config(counted)).get("retention.ms").value(), "1000000");
        Place.until("its id is known", () -> {
            try {
                return Version.describe(place.admin(), counted).topicId().equals(get(made.topicId(counted)));
            } catch (java.util.concurrent.ExecutionException notYet) {
                return false;
            }
        });
        place.fill(placed, 2, 10);
        Place.equal("what it holds", place.everything(placed, 2).size(), 10);
    }

    private static void refused(Place place) throws Exception {
        String there = place.topic(1);
        Map<NewTopic, Class<? extends Throwable>> refused = new HashMap<>();
        refused.put(new NewTopic(there, 1, (short) 1), TopicExistsException.class);
        refused.put(new NewTopic(place.name("wide"), 1, (short) 3), InvalidReplicationFactorException.class);
        refused.put(new NewTopic(place.name("none"), 0, (short) 1), InvalidPartitionsException.class);
        refused.put(new NewTopic("a b", 1, (short) 1), InvalidTopicException.class);
        refused.put(new NewTopic(place.name("odd"), 1, (short) 1).configs(Map.of("no.such.key", "1")), InvalidConfigurationException.class);
        refused.put(new NewTopic(place.name("bad"), 1, (short) 1).configs(Map.of("retention.ms", "soon")),
            InvalidConfigurationException.class);
        String good = place.name("good");
        List<NewTopic> wanted = new java.util.ArrayList<>(refused.keySet());
        wanted.add(new NewTopic(good, 1, (short) 1));
        Map<String, KafkaFuture<Void>> results = place.admin().createTopics(wanted).values();
        for (Map.Entry<NewTopic, Class<? extends Throwable>> one : refused.entrySet()) {
            Place.fails("creating " + one.getKey(), one.getValue(), () -> get(results.get(one.getKey().name())));
        }
        get(results.get(good));
        Place.until("the good one is listed", () -> get(place.admin().listTopics().names()).contains(good));
    }

    private static void validates(Place place) throws Exception {
        String topic = place.name("only-thought-of");
        CreateTopicsResult made = place.admin().createTopics(List.of(new NewTopic(topic, 5, (short) 1)),
            new CreateTopicsOptions().validateOnly(true));
        Place.equal("the partitions", get(made.numPartitions(topic)), 5);
        Place.hold("it is not listed", !get(place.admin().listTopics().names()).contains(topic));
    }

    private static void lists(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        place.fill(topic, 1, 1);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 1);
        consumer.commitSync();
        Set<String> users = get(place.admin().listTopics().names());
        Place.hold("the topic is listed", users.contains(topic));
        Place.hold("the offsets are not listed", !users.contains("__consumer_offsets"));
        ListTopicsOptions internal = new ListTopicsOptions().listInternal(true);
        Place.equal("whether the offsets are internal",
            get(place.admin().listTopics(internal).namesToListings()).get("__consumer_offsets").isInternal(), true);
    }

    private static void describes(Place place) throws Exception {
        Admin admin = place.admin();
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
        Map<Uuid, TopicDescription> byId =
            get(admin.describeTopics(TopicCollection.ofTopicIds(List.of(seen.topicId()))).allTopicIds());
        Place.equal("the name by id", byId.get(seen.topicId()).name(), topic);
        Place.fails("describing what is not there", UnknownTopicOrPartitionException.class,
            () -> Version.describe(place.admin(), place.name("nowhere")));
        Place.fails("describing an id that is not there", UnknownTopicIdException.class,
            () -> get(admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds()));
    }

    private static void deletes(Place place) throws Exception {
        Admin admin = place.admin();
        String byName = place.topic(2);
        String byId = place.topic(2);
        String stays = place.topic(1);
        place.fill(byName, 2, 10);
        Uuid id = Version.describe(place.admin(), byId).topicId();
        get(admin.deleteTopics(List.of(byName)).all());
        get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        Place.until("they are not listed", () -> {
            Set<String> names = get(admin.listTopics().names());
            return !names.contains(byName) && !names.contains(byId) && names.contains(stays);
        });
        Place.fails("a second deletion", UnknownTopicOrPartitionException.class, () -> get(admin.deleteTopics(List.of(byName)).all()));
        Place.fails("a second deletion by id", UnknownTopicIdException.class,
            () -> get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all()));
        place.topicNamed(byName, 1);
        Place.equal("what the new one holds", place.everything(byName, 1), List.of());
    }

    private static void addsPartitions(Place place) throws Exception {
        String topic = place.topic(2);
        place.fill(topic, 2, 10);
        Admin admin = place.admin();
        get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
        Place.until("they are there", () -> Version.describe(place.admin(), topic).partitions().stream()
            .filter(one -> one.leader() != null).count() == 4);
        place.fill(topic, 4, 10, 8);
        List<String> seen = Place.values(place.everything(topic, 4));
        seen.sort((a, b) -> Integer.parseInt(a) - Integer.parseInt(b));
        Place.equal("what is there", seen, Place.numbers(0, 18));
        Place.fails("fewer partitions", InvalidPartitionsException.class,
            () -> get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all()));
        Place.fails("partitions of nothing", UnknownTopicOrPartitionException.class,
            () -> get(admin.createPartitions(Map.of(place.name("nowhere"), NewPartitions.increaseTo(3))).all()));
    }

    private static void offsets(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        KafkaProducer<String, String> producer = place.producer();
        for (long seconds : new long[] {10, 50, 30, 20}) {
            producer.send(new ProducerRecord<>(topic, 0, 1_600_000_000_000L + seconds * 1_000, null, "at " + seconds)).get();
        }
        Map<OffsetSpec, Long> due = new LinkedHashMap<>();
        due.put(OffsetSpec.earliest(), 0L);
        due.put(OffsetSpec.latest(), 4L);
        due.put(OffsetSpec.maxTimestamp(), 1L);
        due.put(OffsetSpec.forTimestamp(1_600_000_015_000L), 1L);
        due.put(OffsetSpec.forTimestamp(1_600_000_060_000L), -1L);
        for (Map.Entry<OffsetSpec, Long> one : due.entrySet()) {
            Place.equal("the offset of " + one.getKey(),
                get(place.admin().listOffsets(Map.of(partition, one.getKey())).partitionResult(partition)).offset(), one.getValue());
        }
        Place.equal("the greatest time",
            get(place.admin().listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).partitionResult(partition)).timestamp(),
            1_600_000_050_000L);
    }

    private static void deletesRecords(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(2);
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 2, 40);
        Place.equal("the new beginning", get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(15)))
            .lowWatermarks().get(partition)).lowWatermark(), 15);
        KafkaConsumer<String, String> consumer = place.consumer();
        consumer.assign(List.of(partition));
        Place.equal("the first that is read", place.read(consumer, 5).get(0).offset(), 15);
        Place.equal("the beginning", consumer.beginningOffsets(List.of(partition)).get(partition), 15);
        Place.equal("what both hold", place.everything(topic, 2).size(), 25);
        Place.fails("more than there is", OffsetOutOfRangeException.class,
            () -> get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(21))).all()));
        Place.equal("everything", get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1)))
            .lowWatermarks().get(partition)).lowWatermark(), 20);
    }

    private static void logDirs(Place place) throws Exception {
        String topic = place.topic(2);
        TopicPartition partition = new TopicPartition(topic, 1);
        place.fill(topic, 2, 100);
        Map<TopicPartition, ReplicaInfo> replicas = new HashMap<>();
        get(place.admin().describeLogDirs(List.of(1)).allDescriptions()).get(1).values().forEach(one -> {
            Place.equal("the error", one.error(), null);
            replicas.putAll(one.replicaInfos());
        });
        Place.hold("it has a size", replicas.get(partition).size() > 500);
        Place.equal("its lag", replicas.get(partition).offsetLag(), 0);
        Place.equal("whether it is to move", replicas.get(partition).isFuture(), false);
    }

    private static void producers(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        KafkaProducer<String, String> producer = place.producer("enable.idempotence", true);
        for (int i = 0; i < 3; i++) {
            producer.send(new ProducerRecord<>(topic, "value")).get();
        }
        List<ProducerState> seen = get(place.admin().describeProducers(List.of(partition)).partitionResult(partition)).activeProducers();
        Place.equal("the producers", seen.size(), 1);
        Place.equal("the last sequence", seen.get(0).lastSequence(), 2);
        Place.equal("the epoch", seen.get(0).producerEpoch(), 0);
    }

    private static void elects(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        Place.fails("an election", ElectionNotNeededException.class, () -> {
            Optional<Throwable> outcome = get(admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions()).get(partition);
            if (outcome.isPresent()) {
                throw new IllegalStateException(outcome.get());
            }
            return "an election";
        });
        get(admin.electLeaders(ElectionType.PREFERRED, null).all());
        Place.equal("the reassignments", get(admin.listPartitionReassignments().reassignments()), Map.of());
        Place.fails("taking one back", org.apache.kafka.common.errors.NoReassignmentInProgressException.class,
            () -> get(admin.alterPartitionReassignments(Map.of(partition, Optional.empty())).all()));
        get(admin.alterPartitionReassignments(Map.of(partition, Optional.of(new NewPartitionReassignment(List.of(1))))).all());
    }

    private static void cluster(Place place) throws Exception {
        DescribeClusterResult seen = place.admin().describeCluster();
        Place.equal("the nodes", get(seen.nodes()).size(), 1);
        Place.equal("the controller", get(seen.controller()).id(), 1);
        Place.equal("the address", get(seen.nodes()).iterator().next().host() + ":" + get(seen.nodes()).iterator().next().port(),
            place.bootstrap);
        Place.hold("it has an id", !get(seen.clusterId()).isEmpty());
        Place.hold("it has features",
            get(place.admin().describeFeatures().featureMetadata()).finalizedFeatures().containsKey("metadata.version"));
        Place.equal("the leader of the quorum", get(place.admin().describeMetadataQuorum().quorumInfo()).leaderId(), 1);
    }
}
