import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** Several members of one group: who reads what, and what happens when they come, go and stand still. */
final class MemberHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("shares a topic among the members of a group", MemberHabits::shares);
        all.put("gives every group everything", MemberHabits::everyGroup);
        all.put("has a member idle where partitions are few", MemberHabits::idle);
        all.put("commits before its partitions are taken", MemberHabits::commitsOnRevoke);
        all.put("keeps its offsets outside of Kafka", MemberHabits::offsetsOutside);
        all.put("loses its partitions when it does not poll", MemberHabits::notPolling);
        return all;
    }

    /** Waits until each partition has one owner among the members, and each member at least `least`. */
    static void settled(List<Member> members, Collection<TopicPartition> partitions, int least) throws Exception {
        Place.until("the group settles", () -> {
            List<String> owned = new ArrayList<>();
            for (Member member : members) {
                if (member.owns.size() < least) {
                    return false;
                }
                owned.addAll(member.owns);
            }
            Collections.sort(owned);
            return owned.equals(new ArrayList<>(Member.names(partitions)));
        });
    }

    /** A member that notes the values of its records. */
    static Member reader(Place place, String topic, String group, Collection<String> values) {
        return place.opened(new Member(place.consuming("group.id", group), List.of(topic), new Member.Work() {
            @Override
            public void record(KafkaConsumer<String, String> consumer, ConsumerRecord<String, String> record) {
                values.add(record.value());
            }
        }));
    }

    private static void shares(Place place) throws Exception {
        String topic = place.topic(4);
        String group = place.name("group");
        List<List<String>> seen = new ArrayList<>();
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            seen.add(Collections.synchronizedList(new ArrayList<>()));
            members.add(reader(place, topic, group, seen.get(i)));
        }
        settled(members, Place.partitions(topic, 4), 2);
        place.fill(topic, 4, 400);
        Place.until("all are read", () -> seen.get(0).size() + seen.get(1).size() >= 400);
        Place.equal("the share of the first", seen.get(0).size(), 200);
        Set<String> all = new TreeSet<>(seen.get(0));
        all.addAll(seen.get(1));
        Place.equal("what is read", all, new TreeSet<>(Place.numbers(0, 400)));
    }

    private static void everyGroup(Place place) throws Exception {
        String topic = place.topic(2);
        place.fill(topic, 2, 50);
        List<List<String>> seen = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            seen.add(Collections.synchronizedList(new ArrayList<>()));
            reader(place, topic, place.name("group"), seen.get(i));
        }
        for (List<String> one : seen) {
            Place.until("all are read", () -> one.size() >= 50);
            Place.equal("what is read", new TreeSet<>(one), new TreeSet<>(Place.numbers(0, 50)));
        }
    }

    private static void idle(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            members.add(reader(place, topic, group, new ArrayList<>()));
        }
        settled(members, Place.partitions(topic, 2), 1);
        Member third = reader(place, topic, group, new ArrayList<>());
        members.add(third);
        Place.until("the third has joined", () -> third.assignments.get() > 0);
        settled(members, Place.partitions(topic, 2), 0);
        Place.equal("the idle ones", members.stream().filter(one -> one.owns.isEmpty()).count(), 1);
        Member busy = members.stream().filter(one -> !one.owns.isEmpty()).findFirst().get();
        members.remove(busy);
        busy.close();
        settled(members, Place.partitions(topic, 2), 1);
    }

    private static void commitsOnRevoke(Place place) throws Exception {
        String topic = place.topic(4);
        String group = place.name("group");
        place.fill(topic, 4, 40);
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        Member.Work work = new Member.Work() {
            private final Map<TopicPartition, OffsetAndMetadata> ends = new ConcurrentHashMap<>();

            @Override
            public void revoked(KafkaConsumer<String, String> consumer, Collection<TopicPartition> partitions) {
                consumer.commitSync(new HashMap<>(ends));
                ends.clear();
            }

            @Override
            public void record(KafkaConsumer<String, String> consumer, ConsumerRecord<String, String> record) {
                seen.add(record.value());
                ends.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
        };
        Member first = place.opened(new Member(place.consuming("group.id", group), List.of(topic), work));
        Place.until("the first reads all", () -> seen.size() == 40);
        Member second = reader(place, topic, group, seen);
        settled(List.of(first, second), Place.partitions(topic, 4), 2);
        for (TopicPartition partition : Place.partitions(topic, 4)) {
            Place.equal("what is committed of " + partition, place.committed(group, partition), 10);
        }
        place.fill(topic, 4, 40, 40);
        Place.until("both read the rest", () -> seen.size() >= 80);
        Place.equal("what is read", new TreeSet<>(seen), new TreeSet<>(Place.numbers(0, 80)));
        Place.equal("the number of records", seen.size(), 80);
    }

    private static void offsetsOutside(Place place) throws Exception {
        String topic = place.topic(4);
        String group = place.name("group");
        // The database: results and offsets change together.
        Map<String, Long> offsets = new ConcurrentHashMap<>();
        List<String> results = Collections.synchronizedList(new ArrayList<>());
        Member.Work work = new Member.Work() {
            @Override
            public void assigned(KafkaConsumer<String, String> consumer, Collection<TopicPartition> partitions) {
                partitions.forEach(one -> consumer.seek(one, offsets.getOrDefault(one.toString(), 0L)));
            }

            @Override
            public void record(KafkaConsumer<String, String> consumer, ConsumerRecord<String, String> record) {
                results.add(record.value());
                offsets.put(record.topic() + "-" + record.partition(), record.offset() + 1);
            }
        };
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            // The policy is the wrong one, so that only the listener's seek can be right.
            members.add(place.opened(new Member(
                place.consuming("group.id", group, "auto.offset.reset", i == 0 ? "latest" : "earliest"), List.of(topic), work)));
            settled(members, Place.partitions(topic, 4), 1);
            place.fill(topic, 4, i * 200, 200);
        }
        members.remove(0).close();
        settled(members, Place.partitions(topic, 4), 2);
        place.fill(topic, 4, 600, 200);
        Place.until("all are processed", () -> results.size() >= 800);
        Place.equal("the number of results", results.size(), 800);
        Place.equal("the results", new TreeSet<>(results), new TreeSet<>(Place.numbers(0, 800)));
        for (TopicPartition partition : Place.partitions(topic, 4)) {
            Place.equal("what is committed of " + partition, place.committed(group, partition), -1);
        }
    }

    private static void notPolling(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        place.fill(topic, 2, 10);
        KafkaConsumer<String, String> slow = place.consumer("group.id", group, "max.poll.interval.ms", 500,
            "session.timeout.ms", 6_000, "request.timeout.ms", 10_000);
        slow.subscribe(List.of(topic));
        place.read(slow, 10);
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        Member other = reader(place, topic, group, seen);
        settled(List.of(other), Place.partitions(topic, 2), 2);
        Place.until("the other reads what was not committed", () -> seen.size() == 10);
        Place.fails("the late commit", CommitFailedException.class, () -> {
            slow.commitSync();
            return "no error";
        });
        Place.equal("what is committed", place.committed(group, new TopicPartition(topic, 0)), -1);
    }
}
