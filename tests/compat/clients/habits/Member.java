import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a group on a thread of its own, as one consumer a thread is the rule. It polls until it is closed; others look at
 * what it owns and was told, and ask it to do things between two polls.
 */
final class Member implements AutoCloseable {
    /** The lines "assigned T-P …" and "revoked T-P …" in their order; the listener's calls with nothing in them are left out. */
    final List<String> told = Collections.synchronizedList(new ArrayList<>());
    /** How often the listener was told what is assigned, also when it was nothing. */
    final AtomicInteger assignments = new AtomicInteger();
    volatile Set<String> owns = Set.of();
    private final KafkaConsumer<String, String> consumer;
    private final ConcurrentLinkedQueue<Runnable> asked = new ConcurrentLinkedQueue<>();
    private final CompletableFuture<Void> ended = new CompletableFuture<>();
    private final Thread thread;
    private volatile boolean closing;

    /** What a member does beside polling: each record, and what happens to its partitions before `told` gets it. */
    interface Work {
        default void assigned(KafkaConsumer<String, String> consumer, Collection<TopicPartition> partitions) { }

        default void revoked(KafkaConsumer<String, String> consumer, Collection<TopicPartition> partitions) { }

        default void record(KafkaConsumer<String, String> consumer, ConsumerRecord<String, String> record) { }
    }

    Member(Properties settings, Collection<String> topics, Work work) {
        consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(topics, new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                work.assigned(consumer, partitions);
                note("assigned", partitions);
                assignments.incrementAndGet();
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                work.revoked(consumer, partitions);
                note("revoked", partitions);
            }
        });
        thread = new Thread(() -> run(work), "member");
        thread.start();
    }

    private void note(String what, Collection<TopicPartition> partitions) {
        if (!partitions.isEmpty()) {
            told.add(what + " " + String.join(" ", names(partitions)));
        }
    }

    static Set<String> names(Collection<TopicPartition> partitions) {
        Set<String> names = new TreeSet<>();
        partitions.forEach(one -> names.add(one.toString()));
        return names;
    }

    private void run(Work work) {
        try {
            while (!closing) {
                for (Runnable one; (one = asked.poll()) != null; ) {
                    one.run();
                }
                for (ConsumerRecord<String, String> record : Version.poll(consumer, 50)) {
                    work.record(consumer, record);
                }
                owns = names(consumer.assignment());
            }
            consumer.close();
            ended.complete(null);
        } catch (WakeupException closed) {
            consumer.close();
            ended.complete(null);
        } catch (Throwable error) {
            ended.completeExceptionally(error);
            consumer.close();
        }
    }

    /** Has the member do something on its thread; what came of it. */
    <T> T ask(Function<KafkaConsumer<String, String>, T> what) throws Exception {
        CompletableFuture<T> answer = new CompletableFuture<>();
        asked.add(() -> {
            try {
                answer.complete(what.apply(consumer));
            } catch (Throwable error) {
                answer.completeExceptionally(error);
            }
        });
        return answer.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
    }

    /** As `ask`, for what gives nothing. */
    void tell(Consumer<KafkaConsumer<String, String>> what) throws Exception {
        ask(consumer -> {
            what.accept(consumer);
            return null;
        });
    }

    /** Wakes it up, lets it leave its group, and says what it died of. */
    @Override
    public void close() throws Exception {
        closing = true;
        consumer.wakeup();
        ended.get(Place.DEADLINE_MS, TimeUnit.MILLISECONDS);
        thread.join(Place.DEADLINE_MS);
    }
}
