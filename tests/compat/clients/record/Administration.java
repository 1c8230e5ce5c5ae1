import static java.util.Collections.singleton;
import static java.util.Collections.singletonList;
import static java.util.Collections.singletonMap;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;

/** What the Admin of 2.8 and later asks, one call after the other: for the recorder. */
public final class Administration {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("client.id", "java");
        String topic = arguments[1];
        String group = "group-" + topic;
        TopicPartition partition = new TopicPartition(topic, 0);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(settings)) {
            NewTopic wanted = new NewTopic(topic, Optional.of(2), Optional.of((short) 1))
                .configs(singletonMap("retention.ms", "1000000"));
            admin.createTopics(singleton(wanted)).all().get();
            Thread.sleep(500);
            admin.createPartitions(singletonMap(topic, NewPartitions.increaseTo(3))).all().get();
            AlterConfigOp set = new AlterConfigOp(new ConfigEntry("max.message.bytes", "100000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(singletonMap(resource, singletonList(set))).all().get();
            print(() -> admin.describeConfigs(singleton(resource)).all().get().size());
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            offsets.put(partition, new OffsetAndMetadata(0, Optional.of(0), "noted"));
            offsets.put(new TopicPartition(topic, 1), new OffsetAndMetadata(0));
            admin.alterConsumerGroupOffsets(group, offsets).all().get();
            print(() -> admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get());
            print(() -> admin.listConsumerGroups().all().get().size());
            print(() -> admin.describeConsumerGroups(singleton(group)).all().get());
            print(() -> admin.deleteConsumerGroupOffsets(group, singleton(partition)).all().get());
            print(() -> admin.deleteConsumerGroups(singleton(group)).all().get());
            print(() -> admin.listOffsets(singletonMap(partition, OffsetSpec.earliest())).all().get());
            print(() -> admin.deleteRecords(singletonMap(partition, RecordsToDelete.beforeOffset(0))).all().get());
            print(() -> admin.describeLogDirs(singleton(1)).allDescriptions().get());
            print(() -> admin.electLeaders(ElectionType.PREFERRED, singleton(partition)).all().get());
            print(() -> admin.listPartitionReassignments().reassignments().get());
            print(() -> admin.describeAcls(AclBindingFilter.ANY).values().get());
            print(() -> admin.describeCluster().nodes().get());
            print(() -> admin.describeFeatures().featureMetadata().get());
            admin.deleteTopics(singleton(topic)).all().get();
        }
    }

    /** What an older client, or a broker without an authorizer, refuses is recorded too. */
    static void print(Callable<Object> call) throws Exception {
        try {
            System.out.println(call.call());
        } catch (java.util.concurrent.ExecutionException | RuntimeException refused) {
            System.out.println(refused);
        }
    }
}
