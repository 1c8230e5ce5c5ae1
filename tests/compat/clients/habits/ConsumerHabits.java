import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;

/** Ways to read: where to begin, where to go, when to stop. */
final class ConsumerHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("reads in a loop what comes", ConsumerHabits::loop);
        all.put("seeks to the beginning", ConsumerHabits::beginning);
        all.put("seeks to the end", ConsumerHabits::end);
        all.put("seeks to a time", ConsumerHabits::time);
        all.put("seeks back and reads again", ConsumerHabits::back);
        all.put("pauses and resumes a partition", ConsumerHabits::pauses);
        all.put("assigns partitions to itself without a group", ConsumerHabits::standalone);
        all.put("assigns partitions to itself and commits", ConsumerHabits::standaloneCommits);
        all.put("is woken up and closes", ConsumerHabits::wakeup);
        all.put("begins at the earliest without a commit", ConsumerHabits::earliest);
        all.put("begins at the latest without a commit", ConsumerHabits::latest);
        all.put("is told that there is no commit", ConsumerHabits::none);
        all.put("reads from an offset that is not there", ConsumerHabits::outOfRange);
        all.put("subscribes to a pattern", ConsumerHabits::pattern);
        all.put("takes at most max.poll.records", ConsumerHabits::atMost);
        all.put("reads a record larger than its limits", ConsumerHabits::large);
        all.put("asks for beginnings and ends and positions", ConsumerHabits::ends);
        all.put("changes what it is subscribed to", ConsumerHabits::resubscribes);
        return all;
    }

    private static void loop(Place place) throws Exception {
        String topic = place.topic(3);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", place.name("group"));
        consumer.subscribe(List.of(topic));
        Map<Integer, List<String>> seen = new HashMap<>();
        Map<Integer, List<String>> due = new HashMap<>();
        for (int round = 0; round < 5; round++) {
            place.fill(topic, 3, round * 30, 30);
            for (ConsumerRecord<String, String> record : place.read(consumer, 30)) {
                seen.computeIfAbsent(record.partition(), any -> new ArrayList<>()).add(record.value());
                Place.equal("the key", record.key(), "key-" + record.value());
                Place.equal("the offset", record.offset(), Integer.parseInt(record.value()) / 3);
            }
        }
        for (int i = 0; i < 150; i++) {
            due.computeIfAbsent(i % 3, any -> new ArrayList<>()).add(String.valueOf(i));
        }
        Place.equal("what was read", seen, due);
    }

    /** A consumer of its own partitions behind the end of everything there is. */
    private static KafkaConsumer<String, String> atEnd(Place place, String topic, int partitions, int count) throws Exception {
        place.fill(topic, partitions, count);
        KafkaConsumer<String, String> consumer = place.consumer();
        consumer.assign(Place.partitions(topic, partitions));
        place.read(consumer, count);
        return consumer;
    }

    private static void beginning(Place place) throws Exception {
        String topic = place.topic(2);
        KafkaConsumer<String, String> consumer = atEnd(place, topic, 2, 20);
        consumer.seekToBeginning(Place.partitions(topic, 1));
        Place.equal("the position", consumer.position(new TopicPartition(topic, 0)), 0);
        List<String> even = new ArrayList<>(Place.numbers(0, 20));
        even.removeIf(value -> Integer.parseInt(value) % 2 == 1);
        Place.equal("what is read again", Place.values(place.read(consumer, 10)), even);
        Place.equal("the other position", consumer.position(new TopicPartition(topic, 1)), 10);
    }

    private static void end(Place place) throws Exception {
        String topic = place.topic(1);
        place.fill(topic, 1, 100);
        KafkaConsumer<String, String> consumer = place.consumer();
        consumer.assign(Place.partitions(topic, 1));
        consumer.seekToEnd(consumer.assignment());
        Place.equal("the position", consumer.position(new TopicPartition(topic, 0)), 100);
        place.fill(topic, 1, 100, 3);
        Place.equal("what is read", Place.values(place.read(consumer, 3)), Place.numbers(100, 103));
    }

    private static void time(Place place) throws Exception {
        String topic = place.topic(2);
        KafkaProducer<String, String> producer = place.producer();
        for (int i = 0; i < 40; i++) {
            producer.send(new ProducerRecord<>(topic, i % 2, 1_600_000_000_000L + i * 1_000, null, String.valueOf(i)));
        }
        producer.flush();
        KafkaConsumer<String, String> consumer = place.consumer();
        List<TopicPartition> both = Place.partitions(topic, 2);
        consumer.assign(both);
        Map<TopicPartition, Long> times = new HashMap<>();
        both.forEach(one -> times.put(one, 1_600_000_000_000L + 20_500));
        Map<TopicPartition, OffsetAndTimestamp> found = consumer.offsetsForTimes(times);
        Place.equal("the offset in 0", found.get(both.get(0)).offset(), 11);
        Place.equal("its time", found.get(both.get(0)).timestamp(), 1_600_000_022_000L);
        Place.equal("the offset in 1", found.get(both.get(1)).offset(), 10);
        Place.equal("its time", found.get(both.get(1)).timestamp(), 1_600_000_021_000L);
        found.forEach((partition, at) -> consumer.seek(partition, at.offset()));
        List<String> seen = Place.values(place.read(consumer, 19));
        seen.sort((a, b) -> Integer.parseInt(a) - Integer.parseInt(b));
        Place.equal("what is read", seen, Place.numbers(21, 40));
        both.forEach(one -> times.put(one, 1_700_000_000_000L));
        Place.equal("what is behind the last", consumer.offsetsForTimes(times).get(both.get(0)), null);
    }

    private static void back(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaConsumer<String, String> consumer = atEnd(place, topic, 1, 30);
        consumer.seek(new TopicPartition(topic, 0), 12);
        Place.equal("what is read again", Place.values(place.read(consumer, 18)), Place.numbers(12, 30));
    }

    private static void pauses(Place place) throws Exception {
        String topic = place.topic(2);
        List<TopicPartition> both = Place.partitions(topic, 2);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", place.name("group"));
        consumer.subscribe(List.of(topic));
        Place.until("both are assigned", () -> {
            Version.poll(consumer, 50);
            return consumer.assignment().size() == 2;
        });
        consumer.pause(both.subList(0, 1));
        Place.equal("what is paused", consumer.paused(), Set.copyOf(both.subList(0, 1)));
        place.fill(topic, 2, 20);
        List<String> odd = new ArrayList<>(Place.numbers(0, 20));
        odd.removeIf(value -> Integer.parseInt(value) % 2 == 0);
        Place.equal("what is read beside it", Place.values(place.read(consumer, 10)), odd);
        Version.poll(consumer, 200).forEach(record -> Place.equal("a record of the paused", record, null));
        Place.equal("its position", consumer.position(both.get(0)), 0);
        consumer.resume(both.subList(0, 1));
        Place.equal("what is paused", consumer.paused(), Set.of());
        List<String> even = new ArrayList<>(Place.numbers(0, 20));
        even.removeAll(odd);
        Place.equal("what is read then", Place.values(place.read(consumer, 10)), even);
    }

    private static void standalone(Place place) throws Exception {
        String topic = place.topic(3);
        place.fill(topic, 3, 30);
        KafkaConsumer<String, String> consumer = place.consumer();
        List<TopicPartition> mine = new ArrayList<>();
        consumer.partitionsFor(topic).stream().filter(one -> one.partition() != 1)
            .forEach(one -> mine.add(new TopicPartition(one.topic(), one.partition())));
        consumer.assign(mine);
        List<String> seen = new ArrayList<>();
        for (ConsumerRecord<String, String> record : place.read(consumer, 20)) {
            Place.hold("it reads its own partitions", record.partition() != 1);
            seen.add(record.value());
        }
        Place.equal("the number of records", Set.copyOf(seen).size(), 20);
        Place.equal("the assignment", consumer.assignment(), Set.copyOf(mine));
    }

    private static void standaloneCommits(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 20);
        KafkaConsumer<String, String> first = place.consumer("group.id", group);
        first.assign(List.of(partition));
        place.read(first, 20);
        first.commitSync(Map.of(partition, new OffsetAndMetadata(7)));
        first.close();
        KafkaConsumer<String, String> second = place.consumer("group.id", group);
        second.assign(List.of(partition));
        Place.equal("what the next one reads", Place.values(place.read(second, 13)), Place.numbers(7, 20));
    }

    private static void wakeup(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        place.fill(topic, 2, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "session.timeout.ms", 30_000);
        consumer.subscribe(List.of(topic));
        place.read(consumer, 10);
        CompletableFuture<String> outcome = new CompletableFuture<>();
        CompletableFuture<Void> polls = new CompletableFuture<>();
        Thread reader = new Thread(() -> {
            try {
                while (true) {
                    polls.complete(null);
                    Version.poll(consumer, 60_000);
                }
            } catch (WakeupException woken) {
                try {
                    consumer.commitSync();
                    consumer.close();
                    outcome.complete("woken");
                } catch (Throwable error) {
                    outcome.completeExceptionally(error);
                }
            } catch (Throwable error) {
                outcome.completeExceptionally(error);
            }
        });
        reader.start();
        polls.get();
        consumer.wakeup();
        Place.equal("the end of the loop", outcome.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS), "woken");
        // It has left: the next member need not wait for the end of its session.
        long before = System.nanoTime();
        KafkaConsumer<String, String> next = place.consumer("group.id", group);
        next.subscribe(List.of(topic));
        place.fill(topic, 2, 10, 4);
        List<String> seen = Place.values(place.read(next, 4));
        seen.sort(null);
        Place.equal("what the next member reads", seen, Place.numbers(10, 14));
        Place.hold("it does not wait for a session's end", System.nanoTime() - before < 15_000_000_000L);
    }

    /** A consumer that has a partition of its group. */
    private static KafkaConsumer<String, String> joined(Place place, String topic, Object... settings) throws Exception {
        KafkaConsumer<String, String> consumer = place.consumer(settings);
        consumer.subscribe(List.of(topic));
        Place.until("it is assigned", () -> {
            Version.poll(consumer, 20);
            return !consumer.assignment().isEmpty();
        });
        return consumer;
    }

    private static void earliest(Place place) throws Exception {
        String topic = place.topic(1);
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", place.name("group"));
        consumer.subscribe(List.of(topic));
        Place.equal("what is read", Place.values(place.read(consumer, 10)), Place.numbers(0, 10));
    }

    private static void latest(Place place) throws Exception {
        String topic = place.topic(1);
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer =
            joined(place, topic, "group.id", place.name("group"), "auto.offset.reset", "latest");
        Place.equal("the position", consumer.position(new TopicPartition(topic, 0)), 10);
        place.fill(topic, 1, 10, 5);
        Place.equal("what is read", Place.values(place.read(consumer, 5)), Place.numbers(10, 15));
    }

    private static void none(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaConsumer<String, String> consumer =
            place.consumer("group.id", place.name("group"), "auto.offset.reset", "none");
        consumer.subscribe(List.of(topic));
        NoOffsetForPartitionException told = Place.fails("polling", NoOffsetForPartitionException.class, () -> {
            Place.until("it polls", () -> Version.poll(consumer, 50) == null);
            return null;
        });
        Place.equal("the partition", told.partitions(), Set.of(new TopicPartition(topic, 0)));
    }

    private static void outOfRange(Place place) throws Exception {
        String topic = place.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> strict = place.consumer("auto.offset.reset", "none");
        strict.assign(List.of(partition));
        strict.seek(partition, 5_000);
        OffsetOutOfRangeException told = Place.fails("polling", OffsetOutOfRangeException.class, () -> {
            Place.until("it polls", () -> Version.poll(strict, 50) == null);
            return null;
        });
        Place.equal("the offset", told.offsetOutOfRangePartitions(), Map.of(partition, 5_000L));
        KafkaConsumer<String, String> lenient = place.consumer();
        lenient.assign(List.of(partition));
        lenient.seek(partition, 5_000);
        Place.equal("what is read from the earliest", Place.values(place.read(lenient, 10)), Place.numbers(0, 10));
    }

    private static void pattern(Place place) throws Exception {
        String family = place.name("family");
        place.topicNamed(family + ".one", 1);
        place.topicNamed("not-of-" + family + ".one", 1);
        KafkaConsumer<String, String> consumer =
            place.consumer("group.id", place.name("group"), "metadata.max.age.ms", 200);
        consumer.subscribe(Pattern.compile(Pattern.quote(family) + "\\.[a-z]+"), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) { }
        });
        place.fill(family + ".one", 1, 5);
        place.fill("not-of-" + family + ".one", 1, 100, 5);
        Place.equal("what is read", Place.values(place.read(consumer, 5)), Place.numbers(0, 5));
        consumer.commitSync();
        place.topicNamed(family + ".two", 2);
        place.fill(family + ".two", 2, 5, 6);
        List<String> seen = Place.values(place.read(consumer, 6));
        seen.sort((a, b) -> Integer.parseInt(a) - Integer.parseInt(b));
        Place.equal("what is read of the new topic", seen, Place.numbers(5, 11));
        Place.equal("the subscription", consumer.subscription(), Set.of(family + ".one", family + ".two"));
    }

    private static void atMost(Place place) throws Exception {
        String topic = place.topic(1);
        place.fill(topic, 1, 50);
        KafkaConsumer<String, String> consumer = place.consumer("max.poll.records", 7);
        consumer.assign(Place.partitions(topic, 1));
        List<String> seen = new ArrayList<>();
        Place.until("all are read", () -> {
            int before = seen.size();
            Version.poll(consumer, 100).forEach(record -> seen.add(record.value()));
            Place.hold("a poll gives 7 at most", seen.size() - before <= 7);
            return seen.size() >= 50;
        });
        Place.equal("what is read", seen, Place.numbers(0, 50));
    }

    private static void large(Place place) throws Exception {
        String topic = place.topic(1, "max.message.bytes", "2000000");
        KafkaProducer<String, String> producer = place.producer("max.request.size", 2_000_000);
        List<String> due = List.of("small", "x".repeat(900_000), "y".repeat(1_500_000), "small again");
        for (String value : due) {
            producer.send(new ProducerRecord<>(topic, value)).get();
        }
        KafkaConsumer<String, String> consumer = place.consumer("max.partition.fetch.bytes", 1_000, "fetch.max.bytes", 1_000);
        consumer.assign(Place.partitions(topic, 1));
        Place.hold("all are read", Place.values(place.read(consumer, 4)).equals(due));
    }

    private static void ends(Place place) throws Exception {
        String topic = place.topic(2);
        List<TopicPartition> both = Place.partitions(topic, 2);
        place.fill(topic, 2, 31);
        String group = place.name("group");
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "max.poll.records", 5);
        consumer.assign(both);
        Place.equal("the beginnings", consumer.beginningOffsets(both), Map.of(both.get(0), 0L, both.get(1), 0L));
        Place.equal("the ends", consumer.endOffsets(both), Map.of(both.get(0), 16L, both.get(1), 15L));
        consumer.seek(both.get(0), 4);
        consumer.seek(both.get(1), 15);
        place.read(consumer, 5);
        Place.equal("the position", consumer.position(both.get(0)), 9);
        consumer.commitSync();
        long lag = 0;
        for (TopicPartition one : both) {
            lag += consumer.endOffsets(both).get(one) - Version.committed(consumer, one).offset();
        }
        Place.equal("the lag", lag, 7);
        Place.hold("the topic is listed", consumer.listTopics().get(topic).size() == 2);
    }

    private static void resubscribes(Place place) throws Exception {
        String first = place.topic(1);
        String second = place.topic(1);
        place.fill(first, 1, 5);
        place.fill(second, 1, 100, 5);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", place.name("group"));
        consumer.subscribe(List.of(first));
        Place.equal("what is read", Place.values(place.read(consumer, 5)), Place.numbers(0, 5));
        consumer.commitSync();
        consumer.subscribe(List.of(second));
        Place.equal("what is read then", Place.values(place.read(consumer, 5)), Place.numbers(100, 105));
        consumer.unsubscribe();
        Place.equal("the assignment", consumer.assignment(), Set.of());
        Place.equal("the subscription", consumer.subscription(), Set.of());
        place.fill(first, 1, 5, 5);
        consumer.subscribe(List.of(first));
        Place.equal("what is read in the end", Place.values(place.read(consumer, 5)), Place.numbers(5, 10));
    }
}
