import java.io.BufferedInputStream;
import java.io.BufferedReader;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
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
import org.apache.kafka.clients.consumer.ConsumerRecords;
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
 * The Java client as a writer and a reader of the data set: the same commands, data file and notes as the Python clients
 * (see command.py and records.py). It is compiled against each version of the client from 0.11 on.
 */
public final class RoundTrip {
    private static final long STALL_MS = Long.getLong("compat.stall.ms", 60_000);
    private static final int OUTSTANDING_MAX = 20_000;
    private static final String CODECS = "none,gzip,snappy,lz4";

    public static void main(String[] arguments) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.out.println("ready " + CODECS + (knowsZstd() ? ",zstd" : ""));
        for (String line; (line = commands.readLine()) != null; ) {
            String[] words = line.split("\t");
            try {
                switch (words[0]) {
                    case "write" -> write(words[1], words[2], Integer.parseInt(words[3]), words[4], words[5], words[6]);
                    case "read" -> read(words[1], words[2], Integer.parseInt(words[3]), words[4]);
                    default -> throw new IllegalArgumentException(words[0]);
                }
                System.out.println("ok");
            } catch (Exception error) {
                StringWriter trace = new StringWriter();
                error.printStackTrace(new PrintWriter(trace));
                System.out.println("error " + trace.toString().replaceAll("\\s+", " "));
            }
        }
    }

    /** Clients since 2.1 bring the library; those before cannot name the codec. */
    private static boolean knowsZstd() {
        return RoundTrip.class.getResource("/com/github/luben/zstd/Zstd.class") != null;
    }

    private static PrintWriter notes(String path) throws Exception {
        return new PrintWriter(path, StandardCharsets.US_ASCII);
    }

    private static void write(String bootstrap, String topic, int partitions, String codec, String path, String notes)
            throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("acks", "all");
        settings.put("compression.type", codec);
        settings.put("enable.idempotence", "true");
        settings.put("linger.ms", "5");
        settings.put("batch.size", "65536");
        List<Future<RecordMetadata>> waiting = new ArrayList<>();
        try (PrintWriter out = notes(notes);
                KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                DataInputStream data =
                        new DataInputStream(new BufferedInputStream(new FileInputStream(path), 1 << 20))) {
            for (int i = 0; ; i++) {
                ProducerRecord<byte[], byte[]> record = next(data, topic, i % partitions);
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
            out.print(metadata.partition() + " " + metadata.offset() + "\n");
        }
        waiting.clear();
    }

    private static void read(String bootstrap, String topic, int partitions, String notes) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("max.poll.records", "5000");
        List<TopicPartition> assigned = new ArrayList<>();
        List<PrintWriter> outs = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            assigned.add(new TopicPartition(topic, partition));
            outs.add(notes(notes + "." + partition));
        }
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(assigned);
            readAll(consumer, assigned, outs);
        }
        outs.forEach(PrintWriter::close);
    }

    private static void readAll(
            KafkaConsumer<byte[], byte[]> consumer, List<TopicPartition> assigned, List<PrintWriter> outs)
            throws Exception {
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
        Map<TopicPartition, Long> left = new HashMap<>(consumer.endOffsets(assigned));
        left.values().removeIf(end -> end == 0);
        for (TopicPartition partition : assigned) {
            consumer.seek(partition, 0);
        }
        long progressMs = System.currentTimeMillis();
        while (!left.isEmpty()) {
            for (ConsumerRecord<byte[], byte[]> record : poll(consumer)) {
                outs.get(record.partition()).print(
                        record.offset() + " " + record.timestamp() + " " + digest(sha1, record) + "\n");
                TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                if (record.offset() + 1 >= left.getOrDefault(partition, 0L)) {
                    left.remove(partition);
                }
                progressMs = System.currentTimeMillis();
            }
            if (System.currentTimeMillis() - progressMs > STALL_MS) {
                throw new IllegalStateException("no record for " + STALL_MS + " ms; still to be read: " + left);
            }
        }
    }

    /** Clients before 2.0 have only one of the two polls, those since 4.0 only the other. */
    @SuppressWarnings("unchecked")
    private static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer) throws Exception {
        Object records;
        try {
            records = KafkaConsumer.class.getMethod("poll", Duration.class).invoke(consumer, Duration.ofMillis(500));
        } catch (NoSuchMethodException older) {
            records = KafkaConsumer.class.getMethod("poll", long.class).invoke(consumer, 500L);
        }
        return (ConsumerRecords<byte[], byte[]>) records;
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
