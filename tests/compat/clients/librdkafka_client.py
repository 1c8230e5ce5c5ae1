"""librdkafka, by way of confluent-kafka, as a writer and a reader of the data set."""

from command import ClientError, Reader, Writer, main
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition


def write(writer: Writer) -> None:
    """Sends every record to its partition and notes the offset of each acknowledgement, by record number."""
    producer = Producer({
        "bootstrap.servers": writer.bootstrap,
        "acks": "all",
        "compression.type": writer.codec,
        "enable.idempotence": True,
        "linger.ms": 5,
        "message.timeout.ms": 120_000,
        "queue.buffering.max.messages": 50_000,
        "queue.buffering.max.kbytes": 131_072,
    })
    acknowledgements = []

    def noting(i: int):
        def delivered(error, message):
            if error:
                raise ClientError(f"record {i}: {error}")
            acknowledgements[i] = (message.partition(), message.offset())
        return delivered

    for i, (record, partition) in enumerate(writer.records()):
        acknowledgements.append(None)
        while True:
            try:
                producer.produce(writer.topic, value=record.value, key=record.key, headers=list(record.headers),
                                 partition=partition, timestamp=record.timestamp_ms, on_delivery=noting(i))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if left := producer.flush(120):
        raise ClientError(f"{left} records were not acknowledged in time")
    for i, acknowledgement in enumerate(acknowledgements):
        if acknowledgement is None:
            raise ClientError(f"record {i} has no acknowledgement")
        writer.acknowledged(*acknowledgement)


def read(reader: Reader) -> None:
    """Reads the assigned partitions from offset 0 to the end that they had at the start."""
    consumer = Consumer({
        "bootstrap.servers": reader.bootstrap,
        "group.id": "unused-by-assigned-partitions",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
    })
    assigned = [TopicPartition(reader.topic, partition, 0) for partition in reader.partitions]
    for partition in assigned:
        _, end = consumer.get_watermark_offsets(TopicPartition(reader.topic, partition.partition), timeout=30)
        reader.expect(partition.partition, end)
    consumer.assign(assigned)
    while not reader.finished():
        for message in consumer.consume(num_messages=5_000, timeout=0.5):
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF:
                    continue
                raise ClientError(str(error))
            reader.record(message.partition(), message.offset(), message.timestamp()[1], message.key(),
                          message.value(), message.headers() or ())
    consumer.close()


if __name__ == "__main__":
    main(write, read)
