"""A consumer as a team writes it in Python: confluent-kafka, pyarrow's JSON reader, delta-rs.

    python_consumer.py BROKERS TOPIC COUNT SHAPE TABLE

Commits about every 64 MiB of payload, as `webdancer ingest` does, with the offsets as application transactions.
"""

import io
import sys

import confluent_kafka
import deltalake
import pyarrow as pa
import pyarrow.json

from shapes import SHAPES

COMMIT_BYTES = 64 << 20
TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "int32": pa.int32(),
    "list": pa.list_(pa.string()),
    "struct": pa.struct([("threshold", pa.int64())]),
}


def main(brokers, topic, count, shape, table):
    count = int(count)
    schema = pa.schema([(name, TYPES[kind]) for name, kind in SHAPES[shape]])
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    blocks = pa.json.ReadOptions(block_size=16 << 20)
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": brokers, "group.id": "bench-python", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign(
        [confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING) for number in partitions]
    )
    seen, size, values, ids, offsets = 0, 0, [], [], {}

    def commit():
        nonlocal size
        rows = pa.json.read_json(io.BytesIO(b"\n".join(values)), read_options=blocks, parse_options=options)
        rows = rows.append_column("event_id", pa.array(ids, pa.string()))
        transactions = [deltalake.Transaction(f"{topic}/{number}", at) for number, at in offsets.items()]
        deltalake.write_deltalake(
            table,
            rows,
            mode="append",
            writer_properties=deltalake.WriterProperties(compression="ZSTD", compression_level=1),
            commit_properties=deltalake.CommitProperties(app_transactions=transactions),
        )
        values.clear()
        ids.clear()
        size = 0

    while seen < count:
        for message in consumer.consume(10_000, timeout=1.0):
            if message.error():
                raise RuntimeError(message.error())
            value = message.value()
            values.append(value)
            ids.append(dict(message.headers())["ce_id"].decode())
            offsets[message.partition()] = message.offset()
            size += len(value)
            seen += 1
        if size >= COMMIT_BYTES:
            commit()
    if values:
        commit()


main(*sys.argv[1:])
