"""Durable inserts of one row each into SQLite, WAL, synchronous=FULL, by concurrent producers.

    sqlite_append.py FILE PRODUCERS SECONDS BYTES each|shared

Each producer is a thread, with a connection of its own, or all with one connection behind a lock. SQLite lets go of the
interpreter while it works.
"""

import contextlib
import json
import sqlite3
import sys
import threading
import time
import uuid


def main(file, producers, seconds, size, connections):
    producers, seconds, size = int(producers), float(seconds), int(size)

    def connect():
        connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    shared, lock = connect(), threading.Lock()
    shared.execute("CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, id TEXT, data TEXT)")
    until = time.monotonic() + seconds
    counts, data = [0] * producers, "x" * (size - 36)

    def produce(number):
        connection, turn = (shared, lock) if connections == "shared" else (connect(), contextlib.nullcontext())
        while time.monotonic() < until:
            with turn:
                connection.execute("INSERT INTO events (id, data) VALUES (?, ?)", (str(uuid.uuid4()), data))
            counts[number] += 1

    begun = time.monotonic()
    threads = [threading.Thread(target=produce, args=(number,)) for number in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"events": sum(counts), "per_s": sum(counts) / (time.monotonic() - begun)}))


main(*sys.argv[1:])
