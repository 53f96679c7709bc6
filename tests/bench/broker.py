"""A real Kafka broker for the time of a benchmark."""

import os
import shutil
import subprocess

import common

PORT = 19592
ADDRESS = f"127.0.0.1:{PORT}"


class Broker:
    """Runs `deploy/kafka/broker` in a folder of its own, with the virtual machine's own defaults; removes it after."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {
            **os.environ,
            "KAFKA_PORT": str(PORT),
            "KAFKA_DIR": str(folder),
            "KAFKA_HEAP": "1g",
            "KAFKA_JVM_OPTS": "-XX:-UsePerfData",
        }

    def run(self, *arguments):
        subprocess.run(
            [common.ROOT / "deploy/kafka/broker", *arguments], env=self.env, check=True, stdout=subprocess.DEVNULL
        )

    def create_topic(self, name, **settings):
        """Makes a topic of four partitions with these settings."""
        config = [part for key, value in settings.items() for part in ("--config", f"{key.replace('_', '.')}={value}")]
        self.run(
            *("tool", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", ADDRESS),
            *("--create", "--topic", name, "--partitions", "4", *config),
        )

    def __enter__(self):
        self.run("start")
        return self

    def __exit__(self, *_):
        self.run("stop")
        shutil.rmtree(self.folder, ignore_errors=True)
