import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.TopicPartition;

/** How the assignors share out partitions, as the books draw it: two members, two topics of three partitions each. */
final class AssignorHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("assigns by range", AssignorHabits::range);
        all.put("assigns by round robin", AssignorHabits::roundRobin);
        all.put("assigns stickily", AssignorHabits::sticky);
        all.put("agrees on an assignor that all members know", AssignorHabits::agrees);
        return all;
    }

    static Member member(Place place, String group, String name, Collection<String> topics, Class<?>... assignors) {
        List<String> names = new ArrayList<>();
        for (Class<?> one : assignors) {
            names.add(one.getName());
        }
        return place.opened(new Member(place.consuming("group.id", group, "client.id", name,
            "partition.assignment.strategy", String.join(",", names)), topics, new Member.Work() {
                @Override
                public void record(KafkaConsumer<String, String> consumer, ConsumerRecord<String, String> record) { }
            }));
    }

    private static Set<String> of(String topic, int... partitions) {
        Set<String> names = new TreeSet<>();
        for (int one : partitions) {
            names.add(topic + "-" + one);
        }
        return names;
    }

    private static Set<String> both(Set<String> some, Set<String> others) {
        Set<String> all = new TreeSet<>(some);
        all.addAll(others);
        return all;
    }

    /** Two members over two topics of three partitions, settled; members are in the order of their names. */
    private static List<Member> two(Place place, List<String> topics, int least, Class<?> assignor) throws Exception {
        String group = place.name("group");
        List<TopicPartition> all = new ArrayList<>(Place.partitions(topics.get(0), 3));
        all.addAll(Place.partitions(topics.get(1), 3));
        List<Member> members = List.of(member(place, group, "a", topics, assignor), member(place, group, "b", topics, assignor));
        MemberHabits.settled(members, all, least);
        return members;
    }

    private static void range(Place place) throws Exception {
        List<String> topics = List.of(place.topic(3), place.topic(3));
        List<Member> members = two(place, topics, 2, RangeAssignor.class);
        Place.equal("what the first owns", members.get(0).owns, both(of(topics.get(0), 0, 1), of(topics.get(1), 0, 1)));
        Place.equal("what the second owns", members.get(1).owns, both(of(topics.get(0), 2), of(topics.get(1), 2)));
    }

    private static void roundRobin(Place place) throws Exception {
        List<String> topics = List.of(place.topic(3), place.topic(3));
        List<Member> members = two(place, topics, 3, RoundRobinAssignor.class);
        Place.equal("what the first owns", members.get(0).owns, both(of(topics.get(0), 0, 2), of(topics.get(1), 1)));
        Place.equal("what the second owns", members.get(1).owns, both(of(topics.get(0), 1), of(topics.get(1), 0, 2)));
    }

    private static void sticky(Place place) throws Exception {
        List<String> topics = List.of(place.topic(6));
        String group = place.name("group");
        List<TopicPartition> all = Place.partitions(topics.get(0), 6);
        List<Member> members = new ArrayList<>();
        for (String name : List.of("a", "b")) {
            members.add(member(place, group, name, topics, StickyAssignor.class));
        }
        MemberHabits.settled(members, all, 3);
        List<Set<String>> before = List.of(members.get(0).owns, members.get(1).owns);
        members.add(member(place, group, "c", topics, StickyAssignor.class));
        MemberHabits.settled(members, all, 2);
        for (int i = 0; i < 2; i++) {
            Place.hold("the old members keep two of theirs: " + members.get(i).owns + " of " + before.get(i),
                before.get(i).containsAll(members.get(i).owns));
        }
        List<Set<String>> with = List.of(members.get(0).owns, members.get(2).owns);
        members.remove(1).close();
        MemberHabits.settled(members, all, 3);
        for (int i = 0; i < 2; i++) {
            Place.hold("those who stay keep all of theirs: " + with.get(i) + " in " + members.get(i).owns,
                members.get(i).owns.containsAll(with.get(i)));
        }
    }

    private static void agrees(Place place) throws Exception {
        List<String> topics = List.of(place.topic(3), place.topic(3));
        String group = place.name("group");
        List<TopicPartition> all = new ArrayList<>(Place.partitions(topics.get(0), 3));
        all.addAll(Place.partitions(topics.get(1), 3));
        Member first = member(place, group, "a", topics, RoundRobinAssignor.class, RangeAssignor.class);
        MemberHabits.settled(List.of(first), all, 6);
        Member second = member(place, group, "b", topics, RangeAssignor.class);
        MemberHabits.settled(List.of(first, second), all, 2);
        Place.equal("the share of the first by range", first.owns.size(), 4);
    }
}
