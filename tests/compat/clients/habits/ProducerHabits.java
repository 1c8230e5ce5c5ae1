import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Partitioner;
import org.apache.kafka.clients.producer.ProducerInterceptor;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Utils;

/** Ways to send, and what a user hangs into a producer: serializers, partitioners, interceptors. */
final class ProducerHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("sends and forgets", ProducerHabits::forgets);
        all.put("sends and waits for each", ProducerHabits::waits);
        all.put("sends with callbacks", ProducerHabits::callbacks);
        all.put("learns by the callback what failed", ProducerHabits::failed);
        all.put("writes and reads objects by a serializer of its own", ProducerHabits::serializer);
        all.put("partitions by a class of its own", ProducerHabits::partitioner);
        all.put("partitions by key", ProducerHabits::keys);
        all.put("intercepts what is sent and acknowledged", ProducerHabits::interceptor);
        all.put("intercepts what is read and committed", ProducerHabits::readingInterceptor);
        all.put("sends headers and tombstones and times", ProducerHabits::headers);
        all.put("gets the broker's times", ProducerHabits::logAppendTime);
        all.put("creates a topic by its first record", ProducerHabits::autoCreate);
        return all;
    }

    private static void forgets(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        for (int i = 0; i < 500; i++) {
            producer.send(new ProducerRecord<>(topic, String.valueOf(i)));
        }
        producer.close();
        Place.equal("what is there", Place.values(place.everything(topic, 1)), Place.numbers(0, 500));
    }

    private static void waits(Place place) throws Exception {
        String topic = place.topic(2);
        KafkaProducer<String, String> producer = place.producer();
        long before = System.currentTimeMillis();
        for (int i = 0; i < 20; i++) {
            RecordMetadata at = producer.send(new ProducerRecord<>(topic, i % 2, "key", "value-" + i)).get();
            Place.equal("the topic", at.topic(), topic);
            Place.equal("the partition", at.partition(), i % 2);
            Place.equal("the offset", at.offset(), i / 2);
            Place.equal("the size of the value", at.serializedValueSize(), ("value-" + i).length());
            Place.hold("the time is now", at.timestamp() >= before && at.timestamp() <= System.currentTimeMillis());
        }
    }

    private static void callbacks(Place place) throws Exception {
        String topic = place.topic(3);
        KafkaProducer<String, String> producer = place.producer("linger.ms", 5);
        Map<Integer, List<Long>> offsets = new ConcurrentHashMap<>();
        Map<String, String> places = new ConcurrentHashMap<>();
        List<Exception> errors = Collections.synchronizedList(new ArrayList<>());
        for (int i = 0; i < 300; i++) {
            String value = String.valueOf(i);
            producer.send(new ProducerRecord<>(topic, i % 3, null, value), (at, error) -> {
                if (error != null) {
                    errors.add(error);
                    return;
                }
                offsets.computeIfAbsent(at.partition(), any -> Collections.synchronizedList(new ArrayList<>())).add(at.offset());
                places.put(value, at.partition() + ":" + at.offset());
            });
        }
        producer.flush();
        Place.equal("the errors", errors, List.of());
        for (int partition = 0; partition < 3; partition++) {
            List<Long> due = new ArrayList<>();
            for (long offset = 0; offset < 100; offset++) {
                due.add(offset);
            }
            Place.equal("the order of the callbacks", offsets.get(partition), due);
        }
        for (ConsumerRecord<String, String> record : place.everything(topic, 3)) {
            Place.equal("the place of " + record.value(), record.partition() + ":" + record.offset(), places.get(record.value()));
        }
    }

    private static void failed(Place place) throws Exception {
        String topic = place.topic(1, "max.message.bytes", "1000");
        KafkaProducer<String, String> producer = place.producer("max.request.size", 20_000, "retries", 0);
        Map<String, String> outcomes = new ConcurrentHashMap<>();
        Map<String, String> values = new LinkedHashMap<>();
        values.put("fits", "a".repeat(100));
        values.put("too large for the broker", "b".repeat(5_000));
        values.put("too large for the producer", "c".repeat(30_000));
        values.put("fits again", "d".repeat(100));
        for (Map.Entry<String, String> one : values.entrySet()) {
            producer.send(new ProducerRecord<>(topic, one.getValue()), (at, error) ->
                outcomes.put(one.getKey(), error == null ? "at " + at.offset() : error.getClass().getSimpleName()));
            producer.flush();
        }
        String tooLarge = RecordTooLargeException.class.getSimpleName();
        Place.equal("the outcomes", outcomes, Map.of("fits", "at 0", "too large for the broker", tooLarge,
            "too large for the producer", tooLarge, "fits again", "at 1"));
        Place.equal("what is there", Place.values(place.everything(topic, 1)), List.of("a".repeat(100), "d".repeat(100)));
    }

    /** What the book's serializer writes: an id and a name. */
    record Customer(int id, String name) { }

    /** Four bytes of id, four of length, the name in UTF-8. */
    public static final class CustomerSerializer implements Serializer<Customer> {
        @Override
        public void configure(Map<String, ?> configs, boolean isKey) { }

        @Override
        public byte[] serialize(String topic, Customer customer) {
            if (customer == null) {
                return null;
            }
            byte[] name = customer.name().getBytes(StandardCharsets.UTF_8);
            return ByteBuffer.allocate(8 + name.length).putInt(customer.id()).putInt(name.length).put(name).array();
        }

        @Override
        public void close() { }
    }

    /** The other way. */
    public static final class CustomerDeserializer implements Deserializer<Customer> {
        @Override
        public void configure(Map<String, ?> configs, boolean isKey) { }

        @Override
        public Customer deserialize(String topic, byte[] bytes) {
            if (bytes == null) {
                return null;
            }
            if (bytes.length < 8) {
                throw new SerializationException("a customer has 8 bytes or more");
            }
            ByteBuffer data = ByteBuffer.wrap(bytes);
            int id = data.getInt();
            byte[] name = new byte[data.getInt()];
            data.get(name);
            return new Customer(id, new String(name, StandardCharsets.UTF_8));
        }

        @Override
        public void close() { }
    }

    private static void serializer(Place place) throws Exception {
        String topic = place.topic(1);
        List<Customer> customers = new ArrayList<>(List.of(new Customer(1, "Žofie"), new Customer(2, ""), new Customer(3, "陈")));
        customers.add(null);
        try (KafkaProducer<String, Customer> producer = new KafkaProducer<>(place.settings(
                "key.serializer", StringSerializer.class.getName(), "value.serializer", CustomerSerializer.class.getName()))) {
            for (Customer customer : customers) {
                producer.send(new ProducerRecord<>(topic, "customer", customer)).get();
            }
        }
        try (KafkaConsumer<String, Customer> consumer = new KafkaConsumer<>(place.consuming("group.id", place.name("group"),
                "key.deserializer", StringDeserializer.class.getName(),
                "value.deserializer", CustomerDeserializer.class.getName()))) {
            consumer.subscribe(List.of(topic));
            List<Customer> seen = new ArrayList<>();
            place.read(consumer, 4).forEach(record -> seen.add(record.value()));
            Place.equal("the customers", seen, customers);
        }
    }

    /** One customer is so large that it gets the last partition for itself. */
    public static final class LargeCustomerPartitioner implements Partitioner {
        private String large;

        @Override
        public void configure(Map<String, ?> configs) {
            large = (String) configs.get("large.customer");
        }

        @Override
        public int partition(String topic, Object key, byte[] keyBytes, Object value, byte[] valueBytes, Cluster cluster) {
            int count = cluster.partitionsForTopic(topic).size();
            return key.equals(large) ? count - 1 : Utils.toPositive(Utils.murmur2(keyBytes)) % (count - 1);
        }

        @Override
        public void close() { }
    }

    private static void partitioner(Place place) throws Exception {
        String topic = place.topic(4);
        KafkaProducer<String, String> producer = place.producer(
            "partitioner.class", LargeCustomerPartitioner.class.getName(), "large.customer", "banana");
        for (int i = 0; i < 60; i++) {
            producer.send(new ProducerRecord<>(topic, i % 3 == 0 ? "banana" : "customer-" + i, String.valueOf(i)));
        }
        producer.flush();
        int large = 0;
        for (ConsumerRecord<String, String> record : place.everything(topic, 4)) {
            Place.equal("whether " + record.key() + " is in the last partition", record.partition() == 3, record.key().equals("banana"));
            large += record.partition() == 3 ? 1 : 0;
        }
        Place.equal("the records of the large customer", large, 20);
    }

    private static void keys(Place place) throws Exception {
        String topic = place.topic(5);
        KafkaProducer<String, String> producer = place.producer();
        for (int i = 0; i < 100; i++) {
            producer.send(new ProducerRecord<>(topic, "key-" + i % 20, String.valueOf(i)));
        }
        producer.flush();
        Map<String, List<String>> byKey = new HashMap<>();
        for (ConsumerRecord<String, String> record : place.everything(topic, 5)) {
            int due = Utils.toPositive(Utils.murmur2(record.key().getBytes(StandardCharsets.UTF_8))) % 5;
            Place.equal("the partition of " + record.key(), record.partition(), due);
            byKey.computeIfAbsent(record.key(), any -> new ArrayList<>()).add(record.value());
        }
        for (int key = 0; key < 20; key++) {
            List<String> due = new ArrayList<>();
            for (int i = key; i < 100; i += 20) {
                due.add(String.valueOf(i));
            }
            Place.equal("the order of key-" + key, byKey.get("key-" + key), due);
        }
        Place.equal("the partitions that the producer knows", producer.partitionsFor(topic).size(), 5);
    }

    /** Adds a header to what leaves, and counts what comes back. */
    public static final class CountingInterceptor implements ProducerInterceptor<String, String> {
        static final Map<String, List<String>> HEARD = new ConcurrentHashMap<>();
        private String tag;

        @Override
        public void configure(Map<String, ?> configs) {
            tag = (String) configs.get("habit.tag");
        }

        @Override
        public ProducerRecord<String, String> onSend(ProducerRecord<String, String> record) {
            record.headers().add("sent-by", tag.getBytes(StandardCharsets.UTF_8));
            return record;
        }

        @Override
        public void onAcknowledgement(RecordMetadata at, Exception error) {
            HEARD.computeIfAbsent(tag, any -> Collections.synchronizedList(new ArrayList<>()))
                .add(error == null ? String.valueOf(at.offset()) : error.getClass().getSimpleName());
        }

        @Override
        public void close() { }
    }

    private static void interceptor(Place place) throws Exception {
        String topic = place.topic(1, "max.message.bytes", "2000");
        String tag = place.name("tag");
        KafkaProducer<String, String> producer = place.producer(
            "interceptor.classes", CountingInterceptor.class.getName(), "habit.tag", tag);
        producer.send(new ProducerRecord<>(topic, "0"));
        producer.flush();
        producer.send(new ProducerRecord<>(topic, "too large".repeat(500)));
        producer.flush();
        producer.send(new ProducerRecord<>(topic, "1"));
        producer.flush();
        Place.equal("what the interceptor heard", CountingInterceptor.HEARD.get(tag),
            List.of("0", RecordTooLargeException.class.getSimpleName(), "1"));
        for (ConsumerRecord<String, String> record : place.everything(topic, 1)) {
            Header header = record.headers().lastHeader("sent-by");
            Place.equal("the header", new String(header.value(), StandardCharsets.UTF_8), tag);
        }
    }

    /** Hides every second record from the application, and notes the commits. */
    public static final class HidingInterceptor implements ConsumerInterceptor<String, String> {
        static final Map<String, ConcurrentLinkedQueue<Long>> COMMITTED = new ConcurrentHashMap<>();
        private String tag;

        @Override
        public void configure(Map<String, ?> configs) {
            tag = (String) configs.get("habit.tag");
        }

        @Override
        public ConsumerRecords<String, String> onConsume(ConsumerRecords<String, String> records) {
            Map<TopicPartition, List<ConsumerRecord<String, String>>> left = new HashMap<>();
            for (TopicPartition partition : records.partitions()) {
                List<ConsumerRecord<String, String>> even = new ArrayList<>(records.records(partition));
                even.removeIf(record -> record.offset() % 2 == 1);
                left.put(partition, even);
            }
            return new ConsumerRecords<>(left);
        }

        @Override
        public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {
            offsets.values().forEach(one ->
                COMMITTED.computeIfAbsent(tag, any -> new ConcurrentLinkedQueue<>()).add(one.offset()));
        }

        @Override
        public void close() { }
    }

    private static void readingInterceptor(Place place) throws Exception {
        String topic = place.topic(1);
        String group = place.name("group");
        place.fill(topic, 1, 10);
        KafkaConsumer<String, String> consumer = place.consumer("group.id", group, "habit.tag", group,
            "interceptor.classes", HidingInterceptor.class.getName());
        consumer.subscribe(List.of(topic));
        Place.equal("what is left", Place.values(place.read(consumer, 5)), List.of("0", "2", "4", "6", "8"));
        consumer.commitSync();
        Place.equal("the commits that it heard of", List.copyOf(HidingInterceptor.COMMITTED.get(group)), List.of(10L));
        Place.equal("what is committed", place.committed(group, new TopicPartition(topic, 0)), 10);
    }

    private static void headers(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        ProducerRecord<String, String> record = new ProducerRecord<>(topic, 0, 1_500_000_000_123L, "key", (String) null);
        record.headers().add("trace", new byte[] {1}).add("empty", new byte[0]).add("none", null).add("trace", new byte[] {2});
        Place.equal("the time of the acknowledgement", producer.send(record).get().timestamp(), 1_500_000_000_123L);
        producer.send(new ProducerRecord<>(topic, null, "no key")).get();
        List<ConsumerRecord<String, String>> seen = place.everything(topic, 1);
        Place.equal("the tombstone", seen.get(0).value(), null);
        Place.equal("its key", seen.get(0).key(), "key");
        Place.equal("its time", seen.get(0).timestamp(), 1_500_000_000_123L);
        Place.equal("the kind of time", seen.get(0).timestampType(), TimestampType.CREATE_TIME);
        StringBuilder headers = new StringBuilder();
        for (Header header : seen.get(0).headers()) {
            headers.append(header.key() + "=" + java.util.Arrays.toString(header.value()) + " ");
        }
        Place.equal("its headers", headers.toString(), "trace=[1] empty=[] none=null trace=[2] ");
        Place.equal("the missing key", seen.get(1).key(), null);
        Place.equal("the other value", seen.get(1).value(), "no key");
    }

    private static void logAppendTime(Place place) throws Exception {
        String topic = place.topic(1, "message.timestamp.type", "LogAppendTime");
        KafkaProducer<String, String> producer = place.producer();
        long before = System.currentTimeMillis();
        RecordMetadata at = producer.send(new ProducerRecord<>(topic, 0, 1_000L, "key", "value")).get();
        ConsumerRecord<String, String> seen = place.everything(topic, 1).get(0);
        Place.equal("the kind of time", seen.timestampType(), TimestampType.LOG_APPEND_TIME);
        Place.hold("the time is the broker's", seen.timestamp() >= before && seen.timestamp() <= System.currentTimeMillis());
        Place.equal("the time of the acknowledgement", at.timestamp(), seen.timestamp());
    }

    private static void autoCreate(Place place) throws Exception {
        String topic = place.name("made-on-the-way");
        KafkaProducer<String, String> producer = place.producer();
        Future<RecordMetadata> sent = producer.send(new ProducerRecord<>(topic, "first"));
        Place.equal("the offset", sent.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS).offset(), 0);
        Place.equal("what is there", Place.values(place.everything(topic, 1)), List.of("first"));
        Place.hold("it is listed", place.admin().listTopics().names().get().contains(topic));
    }
}
