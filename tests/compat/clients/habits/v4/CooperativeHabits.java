import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.TopicPartition;

/** Rebalances that take only what has to move, and members that come back without one. */
final class CooperativeHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("assigns cooperatively and revokes only what moves", CooperativeHabits::cooperative);
        all.put("goes over from range to cooperative one by one", CooperativeHabits::migrates);
        all.put("comes back as a static member without a rebalance", CooperativeHabits::isStatic);
        all.put("asks for a rebalance", CooperativeHabits::enforces);
        all.put("finds the partitions that a topic is given", CooperativeHabits::grows);
        return all;
    }

    private static void cooperative(Place place) throws Exception {
        List<String> topics = List.of(place.topic(6));
        String group = place.name("group");
        List<TopicPartition> all = Place.partitions(topics.get(0), 6);
        Member first = AssignorHabits.member(place, group, "a", topics, CooperativeStickyAssignor.class);
        MemberHabits.settled(List.of(first), all, 6);
        Member second = AssignorHabits.member(place, group, "b", topics, CooperativeStickyAssignor.class);
        MemberHabits.settled(List.of(first, second), all, 3);
        Place.equal("what the first was told", first.told, List.of(
            "assigned " + String.join(" ", Member.names(all)), "revoked " + String.join(" ", second.owns)));
        Place.equal("what the second was told", second.told, List.of("assigned " + String.join(" ", second.owns)));
        Set<String> before = first.owns;
        second.close();
        MemberHabits.settled(List.of(first), all, 6);
        Set<String> gained = new TreeSet<>(first.owns);
        gained.removeAll(before);
        Place.equal("what the first was told last", first.told.get(first.told.size() - 1), "assigned " + String.join(" ", gained));
        Place.equal("how often it was told something", first.told.size(), 3);
    }

    private static void migrates(Place place) throws Exception {
        List<String> topics = List.of(place.topic(4));
        String group = place.name("group");
        List<TopicPartition> all = Place.partitions(topics.get(0), 4);
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            members.add(AssignorHabits.member(place, group, "old-" + i, topics, RangeAssignor.class));
        }
        MemberHabits.settled(members, all, 2);
        for (int i = 0; i < 2; i++) {
            members.remove(0).close();
            members.add(AssignorHabits.member(place, group, "both-" + i, topics, CooperativeStickyAssignor.class, RangeAssignor.class));
            MemberHabits.settled(members, all, 2);
        }
        for (int i = 0; i < 2; i++) {
            members.remove(0).close();
            members.add(AssignorHabits.member(place, group, "new-" + i, topics, CooperativeStickyAssignor.class));
            MemberHabits.settled(members, all, 2);
        }
    }

    private static void isStatic(Place place) throws Exception {
        String topic = place.topic(4);
        String group = place.name("group");
        List<Member> members = new ArrayList<>();
        for (String name : List.of("one", "two")) {
            members.add(statically(place, topic, group, name));
        }
        MemberHabits.settled(members, Place.partitions(topic, 4), 2);
        int told = members.get(0).told.size();
        Set<String> owned = members.get(1).owns;
        // A static member does not leave when it closes.
        members.remove(1).close();
        Member back = statically(place, topic, group, "two");
        Place.until("it has its partitions again", () -> back.owns.equals(owned));
        Place.equal("how often the other was told something", members.get(0).told.size(), told);
        Place.equal("what the other still has", members.get(0).owns.size(), 2);
    }

    private static Member statically(Place place, String topic, String group, String name) {
        return place.opened(new Member(place.consuming("group.id", group, "group.instance.id", name,
            "session.timeout.ms", 30_000), List.of(topic), new Member.Work() { }));
    }

    private static void enforces(Place place) throws Exception {
        String topic = place.topic(2);
        Member member = MemberHabits.reader(place, topic, place.name("group"), new ArrayList<>());
        MemberHabits.settled(List.of(member), Place.partitions(topic, 2), 2);
        int before = member.ask(consumer -> consumer.groupMetadata().generationId());
        member.tell(consumer -> consumer.enforceRebalance("a habit"));
        Place.until("the next generation", () -> member.ask(consumer -> consumer.groupMetadata().generationId()) > before);
        MemberHabits.settled(List.of(member), Place.partitions(topic, 2), 2);
    }

    private static void grows(Place place) throws Exception {
        String topic = place.topic(1);
        List<String> seen = java.util.Collections.synchronizedList(new ArrayList<>());
        Member member = MemberHabits.reader(place, topic, place.name("group"), seen);
        MemberHabits.settled(List.of(member), Place.partitions(topic, 1), 1);
        place.admin().createPartitions(Map.of(topic, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3))).all().get();
        MemberHabits.settled(List.of(member), Place.partitions(topic, 3), 3);
        place.fill(topic, 3, 30);
        Place.until("all are read", () -> seen.size() >= 30);
        Place.equal("what is read", new TreeSet<>(seen), new TreeSet<>(Place.numbers(0, 30)));
    }
}
