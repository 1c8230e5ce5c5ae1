import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Load of the chaos test with the Java client: an idempotent producer, a group consumer, and an admin for the driver.
 *
 *   ChaosLoad BOOTSTRAP TOPIC PARTITIONS PRODUCER RATE HISTORY
 *
 * What producer and consumer see goes to the file HISTORY (history.py tells its lines). A line on standard input is a
 * command; each is answered with a line of JSON:
 *
 *   create REPLICAS                     makes the topic, min.insync.replicas=2 where there are three replicas
 *   load                                begins to produce and to consume
 *   state                               counts so far
 *   topic                               leader, replicas and ISR of each partition
 *   reassign PARTITION REPLICA,...      moves a partition
 *   reassigning                         how many partitions are being moved
 *   elect                               preferred leaders
 *   finish                              stops the producer, waits for every acknowledgement, ends the consumer
 */
public final class ChaosLoad {
    private static final String PADDING = "x".repeat(60);
    private static final int OUTSTANDING_MAX = 1_000;
    private static final int ADMIN_MS = 15_000;

    private final String bootstrap;
    private final String topic;
    private final int partitions;
    private final int number;
    private final int rate;
    private final BufferedWriter history;
    private final Admin admin;
    private final AtomicIntegerArray acknowledged;
    private final AtomicLong outstanding = new AtomicLong();
    private final AtomicLong givenUp = new AtomicLong();
    private final AtomicLong read = new AtomicLong();
    private final ConcurrentLinkedQueue<String> errors = new ConcurrentLinkedQueue<>();
    private volatile boolean sending = true;
    private volatile boolean reading = true;
    private final Thread producing = new Thread(this::produce, "producer");
    private final Thread consuming = new Thread(this::consume, "consumer");

    private ChaosLoad(String[] arguments) throws IOException {
        bootstrap = arguments[0];
        topic = arguments[1];
        partitions = Integer.parseInt(arguments[2]);
        number = Integer.parseInt(arguments[3]);
        rate = Integer.parseInt(arguments[4]);
        history = Files.newBufferedWriter(Path.of(arguments[5]), StandardCharsets.US_ASCII);
        acknowledged = new AtomicIntegerArray(partitions);
        Map<String, Object> config = common();
        config.put("default.api.timeout.ms", ADMIN_MS);
        admin = Admin.create(config);
    }

    public static void main(String[] arguments) throws Exception {
        ChaosLoad load = new ChaosLoad(arguments);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = commands.readLine()) != null) {
            String answer;
            try {
                answer = load.answer(line.split(" "));
            } catch (ExecutionException | TimeoutException failed) {
                answer = "{\"failed\": " + quoted(String.valueOf(failed.getCause() == null ? failed : failed.getCause())) + "}";
            }
            System.out.println(answer);
            System.out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private Map<String, Object> common() {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("request.timeout.ms", 5_000);
        config.put("metadata.max.age.ms", 3_000);
        config.put("socket.connection.setup.timeout.ms", 3_000);
        config.put("reconnect.backoff.max.ms", 500);
        return config;
    }

    private String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "create":
                short replicas = Short.parseShort(words[1]);
                Map<String, String> configs = Map.of("min.insync.replicas", replicas > 2 ? "2" : "1");
                NewTopic wanted = new NewTopic(topic, partitions, replicas).configs(configs);
                admin.createTopics(List.of(wanted)).all().get(ADMIN_MS, TimeUnit.MILLISECONDS);
                return "{}";
            case "load":
                producing.start();
                consuming.start();
                return "{}";
            case "state":
                return state();
            case "topic":
                return described();
            case "reassign":
                List<Integer> wants = Arrays.stream(words[2].split(",")).map(Integer::valueOf).toList();
                TopicPartition moved = new TopicPartition(topic, Integer.parseInt(words[1]));
                admin.alterPartitionReassignments(Map.of(moved, Optional.of(new NewPartitionReassignment(wants))))
                    .all().get(ADMIN_MS, TimeUnit.MILLISECONDS);
                return "{}";
            case "reassigning":
                int count = admin.listPartitionReassignments().reassignments().get(ADMIN_MS, TimeUnit.MILLISECONDS).size();
                return "{\"count\": " + count + "}";
            case "elect":
                admin.electLeaders(ElectionType.PREFERRED, null).partitions().get(ADMIN_MS, TimeUnit.MILLISECONDS);
                return "{}";
            case "finish":
                return finish();
            default:
                return "{\"failed\": " + quoted("no command: " + words[0]) + "}";
        }
    }

    private String described() throws Exception {
        List<TopicPartitionInfo> all = admin.describeTopics(List.of(topic)).allTopicNames()
            .get(ADMIN_MS, TimeUnit.MILLISECONDS).get(topic).partitions();
        List<String> parts = new ArrayList<>();
        for (TopicPartitionInfo one : all) {
            int leader = one.leader() == null ? -1 : one.leader().id();
            String isr = one.isr().stream().map(node -> String.valueOf(node.id())).collect(Collectors.joining(", "));
            String replicas = one.replicas().stream().map(node -> String.valueOf(node.id())).collect(Collectors.joining(", "));
            parts.add("{\"leader\": " + leader + ", \"isr\": [" + isr + "], \"replicas\": [" + replicas + "]}");
        }
        return "{\"partitions\": [" + String.join(", ", parts) + "]}";
    }

    private String state() {
        List<String> counts = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            counts.add(String.valueOf(acknowledged.get(partition)));
        }
        String told = errors.stream().limit(3).map(ChaosLoad::quoted).collect(Collectors.joining(", "));
        return "{\"acknowledged\": [" + String.join(", ", counts) + "], \"given_up\": " + givenUp + ", \"read\": " + read
            + ", \"errors\": [" + told + "]}";
    }

    private String finish() throws Exception {
        sending = false;
        producing.join();
        reading = false;
        consuming.join(30_000);
        history.flush();
        return state();
    }

    private synchronized void write(String line) {
        try {
            history.write(line);
            history.newLine();
        } catch (IOException failed) {
            errors.add(failed.toString());
        }
    }

    private void produce() {
        Map<String, Object> config = common();
        config.put("enable.idempotence", true);
        config.put("acks", "all");
        config.put("linger.ms", 3);
        config.put("delivery.timeout.ms", 300_000);
        config.put("max.block.ms", 300_000);
        int[] sent = new int[partitions];
        long all = 0;
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            long next = System.nanoTime();
            while (sending) {
                long now = System.nanoTime();
                if (now < next || outstanding.get() >= OUTSTANDING_MAX) {
                    Thread.sleep(1);
                    // What could not be sent while nobody answered is not made up for.
                    next = Math.max(next, now - TimeUnit.SECONDS.toNanos(1));
                    continue;
                }
                next += TimeUnit.SECONDS.toNanos(1) / rate;
                int partition = (int) (all++ % partitions);
                int sequence = sent[partition]++;
                outstanding.incrementAndGet();
                String value = number + " " + sequence + " " + PADDING;
                producer.send(new ProducerRecord<>(topic, partition, number + "-" + partition, value), (told, error) -> {
                    outstanding.decrementAndGet();
                    if (error != null) {
                        write("F " + number + " " + partition + " " + sequence);
                        givenUp.incrementAndGet();
                        errors.add("producer " + number + ", partition " + partition + ", sequence " + sequence + ": " + error);
                    } else {
                        write("A " + number + " " + partition + " " + sequence + " " + (told.hasOffset() ? told.offset() : -1));
                        acknowledged.incrementAndGet(partition);
                    }
                });
            }
            producer.flush();
        } catch (Exception failed) {
            errors.add("producer " + number + ": " + failed);
        }
    }

    private void consume() {
        Map<String, Object> config = common();
        config.put("group.id", "chaos-java");
        config.put("auto.offset.reset", "earliest");
        config.put("session.timeout.ms", 6_000);
        config.put("heartbeat.interval.ms", 1_000);
        config.put("auto.commit.interval.ms", 500);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (reading) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    String[] told = record.value().split(" ");
                    if (!told[2].equals(PADDING) || !record.key().equals(told[0] + "-" + record.partition())) {
                        errors.add("a record that nobody sent: " + record.value());
                    }
                    write("R java " + record.partition() + " " + record.offset() + " " + told[0] + " " + told[1]);
                    read.incrementAndGet();
                }
            }
        } catch (Exception failed) {
            errors.add("consumer: " + failed);
        }
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ") + '"';
    }
}
