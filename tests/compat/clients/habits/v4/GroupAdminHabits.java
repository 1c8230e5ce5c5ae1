import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** The AdminClient over groups, their members and their offsets. */
final class GroupAdminHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("admin lists groups", GroupAdminHabits::lists);
        all.put("admin describes a group with its members", GroupAdminHabits::describes);
        all.put("admin lists a group's offsets and its lag", GroupAdminHabits::offsets);
        all.put("admin alters a group's offsets", GroupAdminHabits::alters);
        all.put("admin deletes a group's offsets", GroupAdminHabits::deletesOffsets);
        all.put("admin deletes groups", GroupAdminHabits::deletes);
        all.put("admin removes static members", GroupAdminHabits::removes);
        return all;
    }

    /** A group with a member that has read and committed 20 records of two partitions. */
    private static KafkaConsumer<String, String> member(Place place, String topic, String group, Object... more) throws Exception {
        place.fill(topic, 2, 20);
        List<Object> settings = new ArrayList<>(List.of("group.id", group, "client.id", "the-client"));
        settings.addAll(List.of(more));
        KafkaConsumer<String, String> consumer = place.consumer(settings.toArray());
        consumer.subscribe(List.of(topic));
        place.read(consumer, 20);
        consumer.commitSync();
        return consumer;
    }

    private static ConsumerGroupDescription describe(Place place, String group) throws Exception {
        return TopicAdminHabits.get(place.admin().describeConsumerGroups(Set.of(group)).all()).get(group);
    }

    private static Map<TopicPartition, OffsetAndMetadata> committed(Place place, String group) throws Exception {
        return TopicAdminHabits.get(place.admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    private static Set<String> listed(Admin admin, ListGroupsOptions options) throws Exception {
        Set<String> names = new TreeSet<>();
        for (GroupListing one : TopicAdminHabits.get(admin.listGroups(options).all())) {
            names.add(one.groupId());
        }
        return names;
    }

    private static void lists(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(2);
        String stable = place.name("stable");
        String empty = place.name("empty");
        member(place, topic, stable);
        KafkaConsumer<String, String> gone = place.consumer("group.id", empty);
        gone.assign(Place.partitions(topic, 1));
        gone.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
        gone.close();
        Place.hold("both are listed", listed(admin, new ListGroupsOptions()).containsAll(List.of(stable, empty)));
        Set<String> stableOnes = listed(admin, new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE)));
        Place.hold("the stable one is stable", stableOnes.contains(stable) && !stableOnes.contains(empty));
        Set<String> classic = listed(admin, new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC)));
        Place.hold("both are classic", classic.containsAll(List.of(stable, empty)));
        Set<String> consumers = listed(admin, ListGroupsOptions.forConsumerGroups());
        Place.hold("the stable one is of consumers", consumers.contains(stable));
    }

    private static void describes(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        KafkaConsumer<String, String> consumer = member(place, topic, group);
        ConsumerGroupDescription seen = describe(place, group);
        Place.equal("the state", seen.groupState(), GroupState.STABLE);
        Place.equal("the assignor", seen.partitionAssignor(), "range");
        Place.equal("the coordinator", seen.coordinator().id(), 1);
        Place.equal("the members", seen.members().size(), 1);
        MemberDescription one = seen.members().iterator().next();
        ConsumerGroupMetadata self = consumer.groupMetadata();
        Place.equal("the member", one.consumerId(), self.memberId());
        Place.equal("its client", one.clientId(), "the-client");
        Place.equal("its host", one.host(), "/127.0.0.1");
        Place.equal("what it owns", one.assignment().topicPartitions(), Set.copyOf(Place.partitions(topic, 2)));
        consumer.close();
        Place.equal("the state without members", describe(place, group).groupState(), GroupState.EMPTY);
        Place.fails("describing what is not there", GroupIdNotFoundException.class, () -> describe(place, place.name("nobody")));
    }

    private static void offsets(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        member(place, topic, group);
        place.fill(topic, 2, 20, 10);
        List<TopicPartition> both = Place.partitions(topic, 2);
        Map<TopicPartition, OffsetAndMetadata> offsets = committed(place, group);
        Place.equal("the partitions", offsets.keySet(), Set.copyOf(both));
        long lag = 0;
        for (TopicPartition one : both) {
            Place.equal("what is committed", offsets.get(one).offset(), 10);
            lag += TopicAdminHabits.get(place.admin().listOffsets(Map.of(one, OffsetSpec.latest())).partitionResult(one)).offset()
                - offsets.get(one).offset();
        }
        Place.equal("the lag", lag, 10);
        Map<TopicPartition, OffsetAndMetadata> some = TopicAdminHabits.get(place.admin().listConsumerGroupOffsets(
            Map.of(group, new ListConsumerGroupOffsetsSpec().topicPartitions(both.subList(0, 1)))).partitionsToOffsetAndMetadata(group));
        Place.equal("what was asked for", some.keySet(), Set.copyOf(both.subList(0, 1)));
    }

    private static void alters(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(2);
        String group = place.name("group");
        KafkaConsumer<String, String> consumer = member(place, topic, group);
        Map<TopicPartition, OffsetAndMetadata> back = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(3));
        Place.fails("altering under a member", UnknownMemberIdException.class,
            () -> TopicAdminHabits.get(admin.alterConsumerGroupOffsets(group, back).all()));
        consumer.close();
        TopicAdminHabits.get(admin.alterConsumerGroupOffsets(group, back).all());
        Place.equal("what is committed", committed(place, group).get(new TopicPartition(topic, 0)).offset(), 3);
        KafkaConsumer<String, String> next = place.consumer("group.id", group);
        next.subscribe(List.of(topic));
        Place.equal("what the next member reads", Place.values(place.read(next, 7)), List.of("6", "8", "10", "12", "14", "16", "18"));
    }

    private static void deletesOffsets(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(2);
        String group = place.name("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        KafkaConsumer<String, String> consumer = member(place, topic, group);
        Place.fails("deleting under a member", GroupSubscribedToTopicException.class,
            () -> TopicAdminHabits.get(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all()));
        consumer.close();
        TopicAdminHabits.get(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all());
        Place.equal("what is left", committed(place, group).keySet(), Set.of(new TopicPartition(topic, 1)));
    }

    private static void deletes(Place place) throws Exception {
        Admin admin = place.admin();
        String topic = place.topic(2);
        String group = place.name("group");
        KafkaConsumer<String, String> consumer = member(place, topic, group);
        Place.fails("deleting under a member", GroupNotEmptyException.class,
            () -> TopicAdminHabits.get(admin.deleteConsumerGroups(Set.of(group)).all()));
        consumer.close();
        TopicAdminHabits.get(admin.deleteConsumerGroups(Set.of(group)).all());
        Place.hold("it is not listed", !listed(admin, new ListGroupsOptions()).contains(group));
        Place.equal("what is committed", committed(place, group), Map.of());
        Place.fails("deleting it again", GroupIdNotFoundException.class,
            () -> TopicAdminHabits.get(admin.deleteConsumerGroups(Set.of(group)).all()));
    }

    private static void removes(Place place) throws Exception {
        String topic = place.topic(2);
        String group = place.name("group");
        KafkaConsumer<String, String> consumer = member(place, topic, group, "group.instance.id", "fixed", "session.timeout.ms", 30_000);
        consumer.close();
        Place.equal("the members", describe(place, group).members().iterator().next().groupInstanceId().get(), "fixed");
        TopicAdminHabits.get(place.admin().removeMembersFromConsumerGroup(group,
            new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("fixed")))).all());
        Place.equal("the members then", describe(place, group).members(), List.of());
    }
}
