"""Spark Structured Streaming with delta-spark: everything in the topic, then end.

    spark_stream.py BROKERS TOPIC SHAPE TABLE JARS
"""

import pathlib
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json
from pyspark.sql.types import ArrayType, DoubleType, IntegerType, LongType, StringType, StructField, StructType

from shapes import SHAPES

TYPES = {
    "string": StringType(),
    "double": DoubleType(),
    "int32": IntegerType(),
    "list": ArrayType(StringType()),
    "struct": StructType([StructField("threshold", LongType())]),
}


def main(brokers, topic, shape, table, jars):
    spark = (
        SparkSession.builder.master("local[*]")
        .config("spark.jars", ",".join(str(jar) for jar in pathlib.Path(jars).glob("*.jar")))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    schema = StructType([StructField(name, TYPES[kind]) for name, kind in SHAPES[shape]])
    rows = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", brokers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("includeHeaders", "true")
        .load()
        .select(
            from_json(col("value").cast("string"), schema).alias("row"),
            col("headers"),
            col("partition"),
            col("offset"),
            col("timestamp"),
        )
        .select("row.*", "headers", "partition", "offset", "timestamp")
    )
    query = (
        rows.writeStream.format("delta")
        .option("checkpointLocation", table + "-checkpoint")
        .trigger(availableNow=True)
        .start(table)
    )
    query.awaitTermination()
    # The virtual machine ends when its input does; waited for, its CPU time and memory are counted as ours.
    machine = spark.sparkContext._gateway.proc
    spark.stop()
    machine.stdin.close()
    machine.wait()


main(*sys.argv[1:])
