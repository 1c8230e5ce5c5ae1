import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.quota.ClientQuotaFilter;

/** The AdminClient over configurations: of topics, of the broker, of groups. */
final class ConfigAdminHabits {
    static Map<String, Habit> all() {
        Map<String, Habit> all = new LinkedHashMap<>();
        all.put("admin describes a topic's configuration", ConfigAdminHabits::describes);
        all.put("admin describes the broker's configuration", ConfigAdminHabits::broker);
        all.put("admin alters a topic's configuration", ConfigAdminHabits::alters);
        all.put("admin appends to lists and takes from them", ConfigAdminHabits::lists);
        all.put("admin alters what counts at once", ConfigAdminHabits::takesEffect);
        all.put("admin alters the broker's configuration", ConfigAdminHabits::altersBroker);
        all.put("admin is refused configurations that cannot be", ConfigAdminHabits::refused);
        all.put("admin alters a group's configuration", ConfigAdminHabits::group);
        all.put("admin learns that nothing is secured", ConfigAdminHabits::security);
        return all;
    }

    private static ConfigResource topic(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    private static Config config(Place place, ConfigResource resource) throws Exception {
        return TopicAdminHabits.get(place.admin().describeConfigs(List.of(resource)).all()).get(resource);
    }

    private static void alter(Place place, ConfigResource resource, AlterConfigOp.OpType kind, String key, String value) throws Exception {
        Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry(key, value), kind));
        TopicAdminHabits.get(place.admin().incrementalAlterConfigs(Map.of(resource, change)).all());
    }

    /** Waits until a key has a value: the answer to an alteration is not the end of it. */
    private static void becomes(Place place, ConfigResource resource, String key, String value) throws Exception {
        Place.until(key + " becomes " + value, () -> {
            ConfigEntry seen = config(place, resource).get(key);
            return value.equals(seen == null ? "" : seen.value());
        });
    }

    private static void describes(Place place) throws Exception {
        ConfigResource resource = topic(place.topic(1, "retention.ms", "123456"));
        DescribeConfigsOptions everything = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Config seen = TopicAdminHabits.get(place.admin().describeConfigs(List.of(resource), everything).all()).get(resource);
        ConfigEntry own = seen.get("retention.ms");
        Place.equal("its own value", own.value(), "123456");
        Place.equal("its source", own.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        Place.equal("whether it is a default", own.isDefault(), false);
        Place.equal("its type", own.type(), ConfigEntry.ConfigType.LONG);
        Place.hold("it is documented", own.documentation().length() > 20);
        // The broker's file sets log.retention.ms.
        Place.equal("the synonyms", own.synonyms().stream().map(one -> one.name() + "=" + one.value()).limit(2).toList(),
            List.of("retention.ms=123456", "log.retention.ms=-1"));
        ConfigEntry inherited = seen.get("segment.bytes");
        Place.equal("the inherited value", inherited.value(), "1073741824");
        Place.equal("its source", inherited.source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG);
        Place.equal("whether it is a default", inherited.isDefault(), true);
        Place.fails("the configuration of nothing", UnknownTopicOrPartitionException.class,
            () -> config(place, topic(place.name("nowhere"))));
    }

    private static final ConfigResource BROKER = new ConfigResource(ConfigResource.Type.BROKER, "1");

    private static void broker(Place place) throws Exception {
        Config seen = config(place, BROKER);
        Place.equal("the retention in the file", seen.get("log.retention.ms").value(), "-1");
        Place.equal("its source", seen.get("log.retention.ms").source(), ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG);
        Place.equal("whether it may be altered", seen.get("log.retention.ms").isReadOnly(), false);
        Place.equal("the addresses", seen.get("log.segment.bytes").value(), "1073741824");
        Place.equal("whether they may be altered", seen.get("log.dirs").isReadOnly(), true);
    }

    private static void alters(Place place) throws Exception {
        ConfigResource resource = topic(place.topic(1, "segment.ms", "1000000"));
        alter(place, resource, AlterConfigOp.OpType.SET, "retention.bytes", "5000000");
        becomes(place, resource, "retention.bytes", "5000000");
        Place.equal("what was set before", config(place, resource).get("segment.ms").value(), "1000000");
        alter(place, resource, AlterConfigOp.OpType.DELETE, "retention.bytes", "");
        becomes(place, resource, "retention.bytes", "-1");
        Place.equal("its source", config(place, resource).get("retention.bytes").isDefault(), true);
        Map<ConfigResource, Collection<AlterConfigOp>> change = Map.of(resource,
            List.of(new AlterConfigOp(new ConfigEntry("retention.bytes", "7"), AlterConfigOp.OpType.SET)));
        TopicAdminHabits.get(place.admin().incrementalAlterConfigs(change, new AlterConfigsOptions().validateOnly(true)).all());
        Place.equal("what was only validated", config(place, resource).get("retention.bytes").value(), "-1");
    }

    private static void lists(Place place) throws Exception {
        ConfigResource resource = topic(place.topic(1));
        alter(place, resource, AlterConfigOp.OpType.APPEND, "cleanup.policy", "compact");
        becomes(place, resource, "cleanup.policy", "delete,compact");
        alter(place, resource, AlterConfigOp.OpType.SUBTRACT, "cleanup.policy", "delete");
        becomes(place, resource, "cleanup.policy", "compact");
        Place.fails("appending to a number", InvalidConfigurationException.class, () -> {
            alter(place, resource, AlterConfigOp.OpType.APPEND, "retention.ms", "1");
            return "no error";
        });
    }

    private static void takesEffect(Place place) throws Exception {
        String name = place.topic(1);
        KafkaProducer<String, String> producer = place.producer();
        producer.send(new ProducerRecord<>(name, "x".repeat(5_000))).get();
        alter(place, topic(name), AlterConfigOp.OpType.SET, "max.message.bytes", "1000");
        Place.until("large records are refused", () -> {
            try {
                producer.send(new ProducerRecord<>(name, "x".repeat(5_000))).get();
                return false;
            } catch (ExecutionException error) {
                Place.hold("they are too large", error.getCause() instanceof RecordTooLargeException);
                return true;
            }
        });
        producer.send(new ProducerRecord<>(name, "x".repeat(500))).get();
        alter(place, topic(name), AlterConfigOp.OpType.DELETE, "max.message.bytes", "");
        Place.until("large records are taken", () -> {
            try {
                return producer.send(new ProducerRecord<>(name, "x".repeat(5_000))).get().hasOffset();
            } catch (ExecutionException error) {
                return false;
            }
        });
    }

    private static void altersBroker(Place place) throws Exception {
        ConfigResource everyone = new ConfigResource(ConfigResource.Type.BROKER, "");
        ConfigResource resource = topic(place.topic(1));
        alter(place, everyone, AlterConfigOp.OpType.SET, "log.index.interval.bytes", "5555");
        becomes(place, everyone, "log.index.interval.bytes", "5555");
        becomes(place, resource, "index.interval.bytes", "5555");
        alter(place, BROKER, AlterConfigOp.OpType.SET, "log.index.interval.bytes", "6666");
        becomes(place, BROKER, "log.index.interval.bytes", "6666");
        becomes(place, resource, "index.interval.bytes", "6666");
        alter(place, BROKER, AlterConfigOp.OpType.DELETE, "log.index.interval.bytes", "");
        alter(place, everyone, AlterConfigOp.OpType.DELETE, "log.index.interval.bytes", "");
        becomes(place, resource, "index.interval.bytes", "4096");
        Place.equal("its source", config(place, BROKER).get("log.index.interval.bytes").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG);
    }

    private static void refused(Place place) throws Exception {
        ConfigResource resource = topic(place.topic(1));
        Map<String, String> refused = new HashMap<>(Map.of("retention.ms", "soon", "segment.bytes", "-5", "no.such.key", "1",
            "cleanup.policy", "forget", "compression.type", "rar"));
        for (Map.Entry<String, String> one : refused.entrySet()) {
            Place.fails("setting " + one, InvalidConfigurationException.class, () -> {
                alter(place, resource, AlterConfigOp.OpType.SET, one.getKey(), one.getValue());
                return "no error";
            });
        }
        Place.fails("setting what only the file may", org.apache.kafka.common.errors.InvalidRequestException.class, () -> {
            alter(place, BROKER, AlterConfigOp.OpType.SET, "log.dirs", "/tmp");
            return "no error";
        });
        Place.equal("what is set", config(place, resource).entries().stream()
            .filter(one -> one.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG).count(), 0);
    }

    private static void group(Place place) throws Exception {
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, place.name("group"));
        alter(place, group, AlterConfigOp.OpType.SET, "consumer.session.timeout.ms", "50000");
        becomes(place, group, "consumer.session.timeout.ms", "50000");
        Admin admin = place.admin();
        Place.hold("it is listed", TopicAdminHabits.get(admin.listConfigResources(
            Set.of(ConfigResource.Type.GROUP), new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all()).contains(group));
        alter(place, group, AlterConfigOp.OpType.DELETE, "consumer.session.timeout.ms", "");
        becomes(place, group, "consumer.session.timeout.ms", "45000");
    }

    private static void security(Place place) throws Exception {
        Place.fails("describing ACLs", SecurityDisabledException.class,
            () -> TopicAdminHabits.get(place.admin().describeAcls(AclBindingFilter.ANY).values()));
        Place.equal("the credentials", TopicAdminHabits.get(place.admin().describeUserScramCredentials().all()), Map.of());
        Place.equal("the quotas", TopicAdminHabits.get(place.admin().describeClientQuotas(ClientQuotaFilter.all()).entities()), Map.of());
    }
}
