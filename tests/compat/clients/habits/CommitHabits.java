import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;

/** Ways to commit, each seen by what another consumer finds committed and what the next member reads. */
final class CommitHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("commits automatically while it polls", CommitHabits::automatic);
        all.put("commits automatically when it closes", CommitHabits::automaticClose);
        all.put("commits synchronously", CommitHabits::synchronous);
        all.put("commits asynchronously", CommitHabits::asynchronous);
        all.put("commits asynchronously and synchronously at the end", CommitHabits::combined);
        all.put("commits given offsets on the way", CommitHabits::given);
        all.put("commits nothing and reads again", CommitHabits::nothing);
        all.put("commits words beside the offset", CommitHabits::metadata);
        all.put("resets its group to a time", CommitHabits::resetsToTime);
        return all;
    }

    /** What the group's next member reads when more records have come. */
    private static void next(Place place, String topic, String group, int first, int end) throws Exception {
        KafkaConsumer<String, String> next = place.consumer("group.id", group);
        next.subscribe(List.of(topic));
        Place.equal("what the next member reads", Place.values(place.read(next, end - first)), Place.numbers(first, end));
        next.close();
    }

    private static void automatic(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 20);
        KafkaConsumer<String, String> consumer =
            place.consumer("group.id", group, "enable.auto.commit", true, "auto.commit.interval.ms", 50);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 20);
        Place.until("the commit", () -> {
            Version.poll(consumer, 20);
            return place.committed(group, partition) == 20;
        });
    }

    private static void automaticClose(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 20);
        KafkaConsumer<String, String> consumer =
            place.consumer("group.id", group, "enable.auto.commit", true, "auto.commit.interval.ms", 600_000);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 20);
        Place.equal("what is committed before", place.committed(group, partition), -1);
        consumer.close();
        Place.equal("what is committed behind it", place.committed(group, partition), 20);
        place.fill(topic, 1, 20, 5);
        next(place, topic, group, 20, 25);
    }

    private static void synchronous(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.subscribe(List.of(topic));
        for (int round = 0; round < 3; round++) {
            place.fill(topic, 1, round * 10, 10);
            place.read(consumer, 10);
            consumer.commitSync();
            Place.equal("what is committed", place.committed(group, partition), round * 10 + 10);
        }
        place.fill(topic, 1, 30, 10);
        place.read(consumer, 10);
        consumer.close();
        next(place, topic, group, 30, 40);
    }

    private static void asynchronous(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 60);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "max.poll.records", 10);
        consumer.subscribe(List.of(topic));
        List<Long> heard = new ArrayList<>();
        List<Exception> errors = new ArrayList<>();
        AtomicInteger sent = new AtomicInteger();
        Place.until("six commits are answered", () -> {
            if (!Version.poll(consumer, 50).isEmpty()) {
                sent.incrementAndGet();
                consumer.commitAsync((offsets, error) -> {
                    if (error == null) {
                        heard.add(offsets.get(partition).offset());
                    } else {
                        errors.add(error);
                    }
                });
            }
            return sent.get() == 6 && heard.size() + errors.size() == 6;
        });
        Place.equal("the errors", errors, List.of());
        Place.equal("the commits in their order", heard, List.of(10L, 20L, 30L, 40L, 50L, 60L));
        Place.equal("what is committed", place.committed(group, partition), 60);
    }

    private static void combined(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        place.fill(topic, 2, 100);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "max.poll.records", 9);
        consumer.subscribe(List.of(topic));
        AtomicInteger seen = new AtomicInteger();
        try {
            Place.until("all are read", () -> {
                seen.addAndGet(Version.poll(consumer, 50).count());
                consumer.commitAsync();
                return seen.get() >= 100;
            });
        } finally {
            try {
                consumer.commitSync();
            } finally {
                consumer.close();
            }
        }
        for (TopicPartition partition : Place.partitions(topic, 2)) {
            Place.equal("what is committed of " + partition, place.committed(group, partition), 50);
        }
    }

    private static void given(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        place.fill(topic, 2, 100);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.subscribe(List.of(topic));
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        int count = 0;
        for (ConsumerRecord<String, String> record : place.read(consumer, 100)) {
            TopicPartition partition = new TopicPartition(record.topic(), record.partition());
            offsets.put(partition, new OffsetAndMetadata(record.offset() + 1, "no metadata"));
            count++;
            if (count % 10 == 0) {
                if (count % 20 == 0) {
                    consumer.commitSync(offsets);
                } else {
                    consumer.commitAsync(Map.copyOf(offsets), null);
                }
                Place.hold("the commit is not ahead", count > 20 || place.committed(group, partition) <= count);
            }
            if (count == 70) {
                break;
            }
        }
        consumer.commitSync(offsets);
        long committed = 0;
        for (TopicPartition partition : Place.partitions(topic, 2)) {
            committed += Math.max(0, place.committed(group, partition));
        }
        Place.equal("what is committed", committed, 70);
        consumer.close();
        KafkaConsumer<String, String> next = place.consumer("group.id", group);
        next.subscribe(List.of(topic));
        place.read(next, 30);
    }

    private static void nothing(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 10);
        consumer.close();
        Place.equal("what is committed", place.committed(group, new TopicPartition(topic, 0)), -1);
        next(place, topic, group, 0, 10);
    }

    private static void metadata(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        String group = place.name("group");
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.assign(List.of(partition));
        consumer.commitSync(Map.of(partition, new OffsetAndMetadata(4, "by host a, at ½ past")));
        OffsetAndMetadata seen = place.commit(group, partition);
        Place.equal("the offset", seen.offset(), 4);
        Place.equal("the words", seen.metadata(), "by host a, at ½ past");
        Place.fails("words that are too long", OffsetMetadataTooLarge.class, () -> {
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(5, "x".repeat(5_000))));
            return "no error";
        });
        Place.equal("the offset then", place.committed(group, partition), 4);
    }

    private static void resetsToTime(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        String group = place.name("group");
        try (var producer = place.producer()) {
            for (int i = 0; i < 20; i++) {
                producer.send(new org.apache.kafka.clients.producer.ProducerRecord<>(
                    topic, 0, 1_600_000_000_000L + i * 60_000, null, String.valueOf(i)));
            }
        }
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 20);
        consumer.commitSync();
        long offset = consumer.offsetsForTimes(Map.of(partition, 1_600_000_000_000L + 600_000)).get(partition).offset();
        consumer.commitSync(Map.of(partition, new OffsetAndMetadata(offset)));
        consumer.close();
        next(place, topic, group, 10, 20);
    }
}
