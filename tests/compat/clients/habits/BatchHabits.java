import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;

/** What a producer is set to: acknowledgements, retries, batches and their compression. */
final class BatchHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("sends with acks 0", BatchHabits::acksNone);
        all.put("sends with acks 1", place -> acks(place, "1"));
        all.put("sends with acks all", place -> acks(place, "all"));
        all.put("retries until it can be done", BatchHabits::retries);
        all.put("keeps the order by idempotence", BatchHabits::order);
        all.put("lingers until it is flushed", BatchHabits::linger);
        all.put("sends batches that are full at once", BatchHabits::batchSize);
        for (String codec : Version.CODECS) {
            all.put("compresses by " + codec, place -> compresses(place, codec));
        }
        all.put("writes to a topic of another codec", BatchHabits::recompresses);
        return all;
    }

    /** A metric of the whole producer, by the first of the names that is there. */
    static double metric(KafkaProducer<?, ?> producer, String... names) throws Exception {
        for (String name : names) {
            for (Map.Entry<MetricName, ? extends Metric> one : producer.metrics().entrySet()) {
                if (one.getKey().group().equals("producer-metrics") && one.getKey().name().equals(name)) {
                    Object value;
                    try {
                        value = Metric.class.getMethod("metricValue").invoke(one.getValue());
                    } catch (NoSuchMethodException older) {
                        value = Metric.class.getMethod("value").invoke(one.getValue());
                    }
                    return ((Number) value).doubleValue();
                }
            }
        }
        throw new IllegalArgumentException("no metric " + String.join(" ", names));
    }

    private static void acksNone(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("acks", 0);
        for (int i = 0; i < 50; i++) {
            RecordMetadata at = producer.send(new ProducerRecord<>(topic, String.valueOf(i))).get();
            Place.equal("the offset that nobody told", at.offset(), -1);
        }
        try (KafkaConsumer<String, String> consumer = place.consumer()) {
            consumer.assign(Place.partitions(topic, 1));
            consumer.seekToBeginning(consumer.assignment());
            Place.equal("what arrives", Place.values(place.read(consumer, 50)), Place.numbers(0, 50));
        }
    }

    private static void acks(Place place, String acks) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("acks", acks);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < 200; i++) {
            sent.add(producer.send(new ProducerRecord<>(topic, String.valueOf(i))));
        }
        for (int i = 0; i < 200; i++) {
            Place.equal("the offset", sent.get(i).get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS).offset(), i);
        }
        Place.equal("what is there", Place.values(place.everything(topic, 1)), Place.numbers(0, 200));
    }

    /** The topic is deleted under the producer, which finds it again: the request makes it anew. */
    private static void retries(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("acks", "all", "retries", 100_000, "linger.ms", 0,
            "max.in.flight.requests.per.connection", 1);
        Place.equal("the offset", producer.send(new ProducerRecord<>(topic, "before")).get().offset(), 0);
        place.admin().deleteTopics(List.of(topic)).all().get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
        Place.until("it is not listed", () -> !place.admin().listTopics().names().get().contains(topic));
        Place.equal("the offset", producer.send(new ProducerRecord<>(topic, "behind it"))
            .get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS).offset(), 0);
        Place.hold("it has retried", metric(producer, "record-retry-total", "record-retry-rate") > 0);
        Place.equal("what is there", Place.values(place.everything(topic, 1)), List.of("behind it"));
    }

    private static void order(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("acks", "all", "enable.idempotence", true,
            "max.in.flight.requests.per.connection", Version.IN_FLIGHT_MAX, "batch.size", 200, "linger.ms", 0);
        for (int i = 0; i < 2_000; i++) {
            producer.send(new ProducerRecord<>(topic, String.valueOf(i)));
        }
        producer.flush();
        Place.equal("what is there", Place.values(place.everything(topic, 1)), Place.numbers(0, 2_000));
    }

    private static void linger(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("linger.ms", 600_000, "delivery.timeout.ms", 700_000,
            "batch.size", 100_000);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            sent.add(producer.send(new ProducerRecord<>(topic, String.valueOf(i))));
        }
        Place.equal("what has arrived", place.everything(topic, 1), List.of());
        Place.hold("nothing is acknowledged", sent.stream().noneMatch(Future::isDone));
        producer.flush();
        Place.hold("all are acknowledged", sent.stream().allMatch(Future::isDone));
        Place.equal("the records in a request", metric(producer, "records-per-request-avg"), 40.0);
        Place.equal("what is there", Place.values(place.everything(topic, 1)), Place.numbers(0, 40));
    }

    private static void batchSize(Place place) throws Exception {
        String topic = place.topic(1);
        KafkaProducer<String, String> producer = place.producer("linger.ms", 600_000, "delivery.timeout.ms", 700_000,
            "batch.size", 1_000);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < 25; i++) {
            sent.add(producer.send(new ProducerRecord<>(topic, i + "-".repeat(90))));
        }
        // Not even ten records fit into a batch, so two batches are full at least.
        Place.until("full batches leave", () -> sent.subList(0, 16).stream().allMatch(Future::isDone));
        Place.hold("the last one waits", !sent.get(24).isDone());
        Place.hold("batches are small", metric(producer, "batch-size-max") <= 1_000);
        producer.close();
        Place.hold("the last one leaves when it closes", sent.get(24).isDone());
        Place.equal("the number of records", place.everything(topic, 1).size(), 25);
    }

    private static void compresses(Place place, String codec) throws Exception {
        String topic = place.topic(2);
        KafkaProducer<String, String> producer = place.producer("compression.type", codec, "linger.ms", 50);
        List<String> due = new ArrayList<>();
        for (int i = 0; i < 200; i++) {
            due.add("{\"number\": " + i + ", \"text\": \"" + "the same again ".repeat(i % 50) + "\"}");
            producer.send(new ProducerRecord<>(topic, i % 2, null, due.get(i)));
        }
        producer.flush();
        Place.hold("it is compressed", metric(producer, "compression-rate-avg") < 0.5);
        List<String> seen = Place.values(place.everything(topic, 2));
        seen.sort(null);
        due.sort(null);
        Place.equal("what is there", seen, due);
    }

    private static void recompresses(Place place) throws Exception {
        String topic = place.topic(1, "compression.type", "lz4");
        KafkaProducer<String, String> producer = place.producer("compression.type", "gzip", "linger.ms", 50);
        for (int i = 0; i < 100; i++) {
            producer.send(new ProducerRecord<>(topic, String.valueOf(i)));
        }
        producer.flush();
        List<ConsumerRecord<String, String>> seen = place.everything(topic, 1);
        Place.equal("what is there", Place.values(seen), Place.numbers(0, 100));
    }
}
