import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidGroupIdException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordDeserializationException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.IntegerDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** What producers and consumers of 4.x can do beyond those of 0.11. */
final class NewerHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("spreads records without keys over partitions", NewerHabits::spreads);
        all.put("is refused a topic that cannot be", NewerHabits::illegal);
        all.put("gives up after max.block.ms", NewerHabits::givesUp);
        all.put("goes on behind a record that cannot be read", NewerHabits::poison);
        all.put("begins at a duration before now", NewerHabits::duration);
        all.put("knows its lag without asking", NewerHabits::lag);
        all.put("may not commit without a group", NewerHabits::noGroup);
        all.put("reads committed records", NewerHabits::readCommitted);
        all.put("tells its metrics", NewerHabits::metrics);
        all.put("closes and is no member any more", NewerHabits::closes);
        return all;
    }

    private static void spreads(Place place) throws Exception {
        String topic = place.topic(3);
        KafkaProducer<String, String> producer = place.producer("batch.size", 500, "linger.ms", 0);
        for (int i = 0; i < 3_000; i++) {
            producer.send(new ProducerRecord<>(topic, String.valueOf(i)));
        }
        producer.flush();
        int[] counts = new int[3];
        for (ConsumerRecord<String, String> record : place.everything(topic, 3)) {
            counts[record.partition()]++;
        }
        Place.equal("the number of records", counts[0] + counts[1] + counts[2], 3_000);
        Place.hold("each partition has some", counts[0] > 0 && counts[1] > 0 && counts[2] > 0);
    }

    private static void poison(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        for (String value : List.of("0001", "no number", "0002")) {
            producer.send(new ProducerRecord<>(topic, value));
        }
        producer.flush();
        TopicPartition partition = new TopicPartition(topic, 0);
        List<Integer> seen = new ArrayList<>();
        try (KafkaConsumer<String, Integer> consumer =
                new KafkaConsumer<>(place.consuming(), new StringDeserializer(), new IntegerDeserializer())) {
            consumer.assign(List.of(partition));
            Place.until("two are read", () -> {
                try {
                    consumer.poll(Duration.ofMillis(50)).forEach(record -> seen.add(record.value()));
                } catch (RecordDeserializationException error) {
                    Place.equal("the offset of the bad one", error.offset(), 1);
                    consumer.seek(partition, error.offset() + 1);
                }
                return seen.size() == 2;
            });
        }
        List<Integer> due = new ArrayList<>();
        for (String value : List.of("0001", "0002")) {
            due.add(java.nio.ByteBuffer.wrap(value.getBytes(StandardCharsets.US_ASCII)).getInt());
        }
        Place.equal("what is read", seen, due);
    }

    private static void duration(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        long now = System.currentTimeMillis();
        for (int hours = 5; hours > 0; hours--) {
            producer.send(new ProducerRecord<>(topic, 0, now - hours * 3_600_000L, null, String.valueOf(hours)));
        }
        producer.flush();
        KafkaConsumer<String, String> consumer = place.consumer("auto.offset.reset", "by_duration:PT2H30M");
        consumer.assign(Place.partitions(topic, 1));
        Place.equal("what is read", Place.values(place.read(consumer, 2)), List.of("2", "1"));
    }

    private static void lag(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 20);
        KafkaConsumer<String, String> consumer = place.consumer("max.poll.records", 5);
        consumer.assign(List.of(partition));
        place.read(consumer, 5);
        Place.equal("the lag", consumer.currentLag(partition), OptionalLong.of(15));
    }

    private static void noGroup(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaConsumer<String, String> consumer = place.consumer();
        consumer.assign(Place.partitions(topic, 1));
        Place.fails("a commit", InvalidGroupIdException.class, () -> {
            consumer.commitSync();
            return "no error";
        });
    }

    private static void readCommitted(Place place) throws Exception {
        String topic = place.topic(1);
        place.fill(topic, 1, 20);
        KafkaConsumer<String, String> consumer = place.consumer("isolation.level", "read_committed");
        consumer.assign(Place.partitions(topic, 1));
        Place.equal("what is read", Place.values(place.read(consumer, 20)), Place.numbers(0, 20));
        Place.equal("the end", consumer.endOffsets(Place.partitions(topic, 1)).get(new TopicPartition(topic, 0)), 20);
    }

    private static void metrics(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        for (int i = 0; i < 10; i++) {
            RecordMetadata at = producer.send(new ProducerRecord<>(topic, "value")).get();
            Place.equal("the offset", at.offset(), i);
        }
        Place.equal("what was sent", BatchHabits.metric(producer, "record-send-total"), 10.0);
        Place.equal("what failed", BatchHabits.metric(producer, "record-error-total"), 0.0);
        KafkaConsumer<String, String> consumer = place.consumer();
        consumer.assign(Place.partitions(topic, 1));
        place.read(consumer, 10);
        double read = consumer.metrics().entrySet().stream()
            .filter(one -> one.getKey().name().equals("records-consumed-total") && !one.getKey().tags().containsKey("topic"))
            .mapToDouble(one -> (Double) one.getValue().metricValue()).sum();
        Place.equal("what was read", read, 10.0);
    }

    private static void closes(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "enable.auto.commit", true);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 10);
        consumer.close(Duration.ofSeconds(5));
        Place.equal("what is committed", place.committed(group, new TopicPartition(topic, 0)), 10);
        Place.equal("the members", place.admin().describeConsumerGroups(Set.of(group)).all().get().get(group).members(), List.of());
    }

    private static void illegal(Place place) throws Exception {
        KafkaProducer<String, String> producer = place.producer();
        Place.fails("a send to an illegal name", InvalidTopicException.class,
            () -> producer.send(new ProducerRecord<>("no topic/name", "value")).get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS));
    }

    private static void givesUp(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("max.block.ms", 300);
        Place.fails("a send to a partition that is not there", TimeoutException.class,
            () -> producer.send(new ProducerRecord<>(topic, 7, "key", "value")).get());
        Place.equal("the offset where it is there", producer.send(new ProducerRecord<>(topic, 0, "key", "value")).get().offset(), 0);
    }
}
