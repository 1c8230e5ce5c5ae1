import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.FileInputStream;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client as a writer and a reader of the data set: the same command line, data file and output as the Python
 * clients (see command.py and records.py). It keeps to calls that clients since 2.0 have, so that older ones can run it.
 */
public final class RoundTrip {
    private static final long STALL_MS = 60_000;
    private static final int OUTSTANDING_MAX = 20_000;

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < arguments.length; i++) {
            boolean flag = i + 1 == arguments.length || arguments[i + 1].startsWith("--");
            options.put(arguments[i].substring(2), flag ? "true" : arguments[++i]);
        }
        try (PrintWriter out = new PrintWriter(options.get("out"), StandardCharsets.US_ASCII)) {
            switch (arguments[0]) {
                case "write" -> write(options, out);
                case "read" -> read(options, out);
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
    }

    private static void write(Map<String, String> options, PrintWriter out) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", options.get("bootstrap"));
        settings.put("acks", options.getOrDefault("acks", "all"));
        settings.put("compression.type", options.getOrDefault("codec", "none"));
        settings.put("enable.idempotence", options.getOrDefault("idempotent", "false"));
        settings.put("linger.ms", "5");
        settings.put("batch.size", "65536");
        int partitions = Integer.parseInt(options.get("partitions"));
        List<Future<RecordMetadata>> waiting = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                DataInputStream data = new DataInputStream(
                        new BufferedInputStream(new FileInputStream(options.get("data")), 1 << 20))) {
            for (int i = 0; ; i++) {
                ProducerRecord<byte[], byte[]> record = next(data, options.get("topic"), i % partitions);
                if (record == null) {
                    break;
                }
                waiting.add(producer.send(record));
                if (waiting.size() == OUTSTANDING_MAX) {
                    collect(waiting, out);
                }
            }
            producer.flush();
            collect(waiting, out);
        }
    }

    /** The next record of the data file, or null at its end. */
    private static ProducerRecord<byte[], byte[]> next(DataInputStream data, String topic, int partition)
            throws Exception {
        try {
            data.readInt();
        } catch (EOFException end) {
            return null;
        }
        long timestampMs = data.readLong();
        byte[] key = nullable(data);
        byte[] value = nullable(data);
        List<Header> headers = new ArrayList<>();
        for (int left = data.readInt(); left > 0; left--) {
            String name = new String(nullable(data), StandardCharsets.UTF_8);
            headers.add(new RecordHeader(name, nullable(data)));
        }
        return new ProducerRecord<>(topic, partition, timestampMs, key, value, headers);
    }

    private static byte[] nullable(DataInputStream data) throws Exception {
        int length = data.readInt();
        if (length < 0) {
            return null;
        }
        byte[] bytes = new byte[length];
        data.readFully(bytes);
        return bytes;
    }

    /** Waits for the acknowledgements so far, in the order of the data set, so that memory stays bounded. */
    private static void collect(List<Future<RecordMetadata>> waiting, PrintWriter out) throws Exception {
        for (Future<RecordMetadata> future : waiting) {
            RecordMetadata metadata = future.get(120, TimeUnit.SECONDS);
            out.println(metadata.partition() + " " + metadata.offset());
        }
        waiting.clear();
    }

    private static void read(Map<String, String> options, PrintWriter out) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", options.get("bootstrap"));
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("max.poll.records", "5000");
        List<TopicPartition> assigned = new ArrayList<>();
        for (String partition : options.get("partition-list").split(",")) {
            assigned.add(new TopicPartition(options.get("topic"), Integer.parseInt(partition)));
        }
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(assigned);
            Map<TopicPartition, Long> left = new HashMap<>(consumer.endOffsets(assigned));
            left.values().removeIf(end -> end == 0);
            for (TopicPartition partition : assigned) {
                consumer.seek(partition, 0);
            }
            long progressMs = System.currentTimeMillis();
            while (!left.isEmpty()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    out.println(record.partition() + " " + record.offset() + " " + record.timestamp() + " "
                            + digest(sha1, record));
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    if (record.offset() + 1 >= left.getOrDefault(partition, 0L)) {
                        left.remove(partition);
                    }
                    progressMs = System.currentTimeMillis();
                }
                if (System.currentTimeMillis() - progressMs > STALL_MS) {
                    throw new IllegalStateException("no record for a minute; still to be read to their ends: " + left);
                }
            }
        }
    }

    private static String digest(MessageDigest sha1, ConsumerRecord<byte[], byte[]> record) {
        field(sha1, record.key());
        field(sha1, record.value());
        Header[] headers = record.headers().toArray();
        length(sha1, headers.length);
        for (Header header : headers) {
            field(sha1, header.key().getBytes(StandardCharsets.UTF_8));
            field(sha1, header.value());
        }
        return HexFormat.of().formatHex(sha1.digest());
    }

    private static void field(MessageDigest sha1, byte[] bytes) {
        length(sha1, bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            sha1.update(bytes);
        }
    }

    private static void length(MessageDigest sha1, int length) {
        sha1.update(ByteBuffer.allocate(4).putInt(0, length).array());
    }
}
