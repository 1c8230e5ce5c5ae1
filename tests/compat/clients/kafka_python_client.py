"""kafka-python as a writer and a reader of the data set."""

import logging

from command import ClientError, Reader, Writer, main
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from records import without_nulls

logging.basicConfig(level=logging.ERROR)
OUTSTANDING_MAX = 20_000


def write(writer: Writer) -> None:
    """Sends every record to its partition and notes the offset of each acknowledgement."""
    producer = KafkaProducer(
        bootstrap_servers=writer.bootstrap,
        acks="all",
        compression_type=None if writer.codec == "none" else writer.codec,
        enable_idempotence=True,
        batch_size=65_536,
        linger_ms=5,
    )
    waiting = []
    for record, partition in writer.records():
        record = without_nulls(record)
        waiting.append((partition, producer.send(
            writer.topic, value=record.value, key=record.key, headers=list(record.headers), partition=partition,
            timestamp_ms=record.timestamp_ms)))
        if len(waiting) >= OUTSTANDING_MAX:
            collect(writer, waiting)
    producer.flush(timeout=120)
    collect(writer, waiting)
    producer.close()


def collect(writer: Writer, waiting: list) -> None:
    """Waits for the acknowledgements so far, in order, so that memory stays bounded."""
    for partition, future in waiting:
        metadata = future.get(timeout=120)
        if metadata.partition != partition:
            raise ClientError(f"sent to partition {partition}, acknowledged by {metadata.partition}")
        writer.acknowledged(partition, metadata.offset)
    waiting.clear()


def read(reader: Reader) -> None:
    """Reads the assigned partitions from offset 0 to the end that they had at the start."""
    consumer = KafkaConsumer(bootstrap_servers=reader.bootstrap, enable_auto_commit=False, max_poll_records=5_000)
    assigned = [TopicPartition(reader.topic, partition) for partition in reader.partitions]
    consumer.assign(assigned)
    ends = consumer.end_offsets(assigned)
    for partition in assigned:
        consumer.seek(partition, 0)
        reader.expect(partition.partition, ends[partition])
    while not reader.finished():
        for partition, batch in consumer.poll(timeout_ms=500).items():
            for record in batch:
                reader.record(partition.partition, record.offset, record.timestamp, record.key, record.value,
                              record.headers)
    consumer.close()


if __name__ == "__main__":
    main(write, read)
