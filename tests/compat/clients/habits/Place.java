import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What one habit gets: names of its own, clients that are closed behind it, and the words for what must hold. */
final class Place implements AutoCloseable {
    static final long DEADLINE_MS = 30_000;
    final String bootstrap;
    private final String prefix;
    private final Deque<AutoCloseable> opened = new ArrayDeque<>();
    private AdminClient admin;
    private int number;

    Place(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
    }

    /** A name that nobody else has. */
    String name(String word) {
        number++;
        return prefix + "-" + word + "-" + number;
    }

    /** Settings with the bootstrap address; pairs of key and value come last and win. */
    Properties settings(Object... pairs) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("retry.backoff.ms", "20");
        for (int i = 0; i < pairs.length; i += 2) {
            settings.put(pairs[i], pairs[i + 1].toString());
        }
        return settings;
    }

    <T extends AutoCloseable> T opened(T one) {
        opened.push(one);
        return one;
    }

    KafkaProducer<String, String> producer(Object... pairs) {
        // The oldest client does not retry by itself, and a new topic's leader may not know yet that it leads.
        Properties settings = settings("retries", 1_000);
        settings.putAll(settings(pairs));
        return opened(new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer()));
    }

    /** Settings of a consumer that starts at the beginning and commits nothing by itself. */
    Properties consuming(Object... pairs) {
        Properties settings = settings("auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "heartbeat.interval.ms", "100", "fetch.max.wait.ms", "50", "metadata.max.age.ms", "500");
        settings.putAll(settings(pairs));
        return settings;
    }

    KafkaConsumer<String, String> consumer(Object... pairs) {
        return opened(new KafkaConsumer<>(consuming(pairs), new StringDeserializer(), new StringDeserializer()));
    }

    AdminClient admin() {
        if (admin == null) {
            admin = opened(AdminClient.create(settings()));
        }
        return admin;
    }

    /** Creates a topic with settings, and waits until all partitions are led. */
    String topic(int partitions, String... pairs) throws Exception {
        return topicNamed(name("topic"), partitions, pairs);
    }

    String topicNamed(String topic, int partitions, String... pairs) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            configs.put(pairs[i], pairs[i + 1]);
        }
        NewTopic wanted = new NewTopic(topic, partitions, (short) 1).configs(configs);
        admin().createTopics(List.of(wanted)).all().get(DEADLINE_MS, TimeUnit.MILLISECONDS);
        until("all partitions of " + topic + " are led", () -> {
            try {
                TopicDescription seen = Version.describe(admin(), topic);
                return seen.partitions().size() == partitions
                    && seen.partitions().stream().allMatch(one -> one.leader() != null && !one.leader().isEmpty());
            } catch (ExecutionException notYet) {
                return false;
            }
        });
        return topic;
    }

    static List<TopicPartition> partitions(String topic, int count) {
        List<TopicPartition> all = new ArrayList<>();
        for (int partition = 0; partition < count; partition++) {
            all.add(new TopicPartition(topic, partition));
        }
        return all;
    }

    /** Writes the values 0 to count-1, to all partitions in turn, and waits until they are there. */
    void fill(String topic, int partitions, int count) throws Exception {
        fill(topic, partitions, 0, count);
    }

    /** Writes the values from first on; value v goes to partition v % partitions. */
    void fill(String topic, int partitions, int first, int count) throws Exception {
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings("acks", "all", "retries", 1_000), new StringSerializer(), new StringSerializer())) {
            List<java.util.concurrent.Future<?>> sent = new ArrayList<>();
            for (int i = first; i < first + count; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, i % partitions, "key-" + i, String.valueOf(i))));
            }
            producer.flush();
            for (java.util.concurrent.Future<?> one : sent) {
                one.get();
            }
        }
    }

    /** Polls until that many records came; more than that is an error. */
    <K, V> List<ConsumerRecord<K, V>> read(KafkaConsumer<K, V> consumer, int count) throws Exception {
        List<ConsumerRecord<K, V>> all = new ArrayList<>();
        until(count + " records come", () -> {
            Version.poll(consumer, 100).forEach(all::add);
            return all.size() >= count;
        });
        equal("the number of records", all.size(), count);
        return all;
    }

    /** Everything that a topic holds now, in the order of each partition. */
    List<ConsumerRecord<String, String>> everything(String topic, int partitions) throws Exception {
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(consuming(), new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> all = partitions(topic, partitions);
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long count = consumer.endOffsets(all).values().stream().mapToLong(Long::longValue).sum()
                - consumer.beginningOffsets(all).values().stream().mapToLong(Long::longValue).sum();
            return read(consumer, (int) count);
        }
    }

    static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        List<String> values = new ArrayList<>();
        records.forEach(record -> values.add(record.value()));
        return values;
    }

    /** The values first to end-1 as text. */
    static List<String> numbers(int first, int end) {
        List<String> numbers = new ArrayList<>();
        for (int i = first; i < end; i++) {
            numbers.add(String.valueOf(i));
        }
        return numbers;
    }

    /** What the group has committed for the partition; -1 when nothing. */
    long committed(String group, TopicPartition partition) {
        OffsetAndMetadata found = commit(group, partition);
        return found == null ? -1 : found.offset();
    }

    OffsetAndMetadata commit(String group, TopicPartition partition) {
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(consuming("group.id", group), new StringDeserializer(), new StringDeserializer())) {
            return Version.committed(consumer, partition);
        }
    }

    /** Waits for a condition; looking may poll. */
    static void until(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.nanoTime() + DEADLINE_MS * 1_000_000;
        while (!holds.call()) {
            if (System.nanoTime() > deadline) {
                throw new TimeoutException(what + ": not within " + DEADLINE_MS + " ms");
            }
            Thread.sleep(5);
        }
    }

    static void equal(String what, Object seen, Object due) {
        // Boxed numbers of different widths are compared as numbers.
        boolean same = seen instanceof Number && due instanceof Number && !(due instanceof Double)
            ? ((Number) seen).longValue() == ((Number) due).longValue() : Objects.equals(seen, due);
        if (!same) {
            throw new AssertionError(what + " is " + seen + "; " + due + " was due");
        }
    }

    static void hold(String what, boolean holds) {
        if (!holds) {
            throw new AssertionError("it must be that " + what);
        }
    }

    /** Runs something that must fail in one way; what it failed with. */
    static <E extends Throwable> E fails(String what, Class<E> kind, Callable<?> work) {
        Object result;
        try {
            result = work.call();
        } catch (Throwable error) {
            Throwable cause = error;
            while (!kind.isInstance(cause) && cause.getCause() != null) {
                cause = cause.getCause();
            }
            if (kind.isInstance(cause)) {
                return kind.cast(cause);
            }
            throw new AssertionError(what + " failed with something else than " + kind.getSimpleName(), error);
        }
        throw new AssertionError(what + " gave " + result + "; " + kind.getSimpleName() + " was due");
    }

    /** Closes what is still open, the last one first. */
    @Override
    public void close() throws Exception {
        while (!opened.isEmpty()) {
            opened.pop().close();
        }
    }
}
