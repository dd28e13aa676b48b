"""exactly_once of the streamer kafka: what a stock consumer with isolation.level=read_committed sees while dmsrd is killed, the broker restarted, a second dmsrd
started: every change once, and those of a key in their order."""
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from conftest import Dmsrd, wait_for
from test_kafka import caught_up, streamer

KILLS = {layout: int(os.environ.get("DMSR_KAFKA_KILLS", n)) for layout, n in (("table", 10), ("both", 50))}
PARTITIONS = 3

TABLES = """
CREATE TABLE accounts (id integer PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE history (id bigserial PRIMARY KEY, account integer, note text);
INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 50) i;
INSERT INTO history (account, note) SELECT i % 50, repeat('h', 100) FROM generate_series(1, 5000) i;
"""


class Bench:
    """What pgbench does, in transactions of every size: each adds one to some accounts, and says so in the history."""

    def __init__(self, database, seed=1, pause=0.002):
        self.database, self.pause, self.random = database, pause, random.Random(seed)
        self.stopping, self.error, self.transactions = threading.Event(), None, 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            with contextlib.closing(self.database.server.connect(self.database.name)) as c:
                c.autocommit = False
                cursor = c.cursor()
                while not self.stopping.is_set():
                    for _ in range(self.random.choice([1, 1, 2, 10, 100])):
                        account = self.random.randrange(1, 51)
                        cursor.execute(f"UPDATE accounts SET n = n + 1 WHERE id = {account}; INSERT INTO history (account, note) VALUES ({account}, 'n')")
                    if self.random.random() < 0.1:
                        c.rollback()
                    else:
                        c.commit()
                        self.transactions += 1
                    time.sleep(self.pause)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def stop(self):
        self.stopping.set()
        self.thread.join(30)
        if self.error:
            raise self.error


class Reader:
    """A stock consumer of one topic, that reads along from its beginning."""

    def __init__(self, kafka, topic, partitions):
        self.kafka, self.topic, self.partitions = kafka, topic, partitions
        self.values, self.stopping, self.error = [], threading.Event(), None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        consumer = Consumer({**self.kafka.client(), "group.id": "exact", "isolation.level": "read_committed", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
        try:
            while not self.stopping.is_set():
                m = consumer.poll(0.1)
                if m and not m.error() and m.value():
                    value = json.loads(m.value())
                    if "op" in value:
                        self.values.append(value)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e
        finally:
            consumer.close()

    def stop(self):
        self.stopping.set()
        self.thread.join(30)
        if self.error:
            raise self.error


def rows_of(values, table):
    return [v for v in values if v["source"]["table"] == table and v["op"] in "crud"]


def is_all_there(values, source):
    """Enough to look at, which says nothing of what is there twice."""
    last = {v["after"]["id"]: int(v["after"]["n"]) for v in rows_of(values, "accounts")}
    return len({v["after"]["id"] for v in rows_of(values, "history")}) >= source.one("SELECT count(*) FROM history") and \
        last == dict(source.sql("SELECT id, n FROM accounts"))


def check_once(values, source):
    """Every row of the load, and every change, once; those of a key in order."""
    history = collections.Counter(v["after"]["id"] for v in rows_of(values, "history"))
    assert not {k: n for k, n in history.items() if n > 1}, "rows that were seen more than once"
    assert set(history) == {r[0] for r in source.sql("SELECT id FROM history")}
    seen = collections.defaultdict(list)
    for v in rows_of(values, "accounts"):
        seen[v["after"]["id"]].append((v["op"], int(v["after"]["n"])))
    for key, n in source.sql("SELECT id, n FROM accounts"):
        assert seen[key][0][0] == "r"
        first = seen[key][0][1]
        assert seen[key][1:] == [("u", i) for i in range(first + 1, n + 1)], key


class Scene:
    """A job under writes, with consumers that read along."""

    def __init__(self, pg, kafka, daemon, layout="both", seed=1, **more):
        self.daemon, self.kafka, self.random = daemon, kafka, random.Random(seed)
        self.source, self.target = pg.database("k"), pg.database("k_copy") if layout != "table" else None
        self.source.psql(TABLES)
        topics = {"table": ["public.accounts", "public.history"], "ordered": ["__stream"], "both": ["public.accounts", "public.history", "__stream"]}[layout]
        for topic in topics:
            kafka.create(f"{kafka.prefix}.{topic}", 1 if topic == "__stream" else PARTITIONS)
        self.readers = {t: Reader(kafka, f"{kafka.prefix}.{t}", 1 if t == "__stream" else PARTITIONS) for t in topics}
        daemon.start()
        targets = [self.target.connection(name="copy")] if self.target else []
        daemon.job("k", self.source.connection(), targets, streamer=streamer(kafka, layout=layout, exactly_once=True, partitions=PARTITIONS, **more))
        self.bench = Bench(self.source, seed)

    def values(self):
        """Of the tables' topics together, and of the stream, as far as they are there."""
        both = [v for t, r in self.readers.items() if t != "__stream" for v in r.values]
        return [v for v in (both, self.readers["__stream"].values if "__stream" in self.readers else []) if v]

    def end(self):
        self.bench.stop()
        self.daemon.wait_state("k", "running", 60)
        if self.target:
            try:
                self.daemon.wait_equal(self.source, self.target)
            except AssertionError as e:
                stream = f"{self.kafka.prefix}.__stream"
                ends = {r.partition: r.offset for r in self.kafka.records(stream)}
                status = json.dumps(self.daemon.api("GET", "/jobs/k/status"), indent=1)
                raise AssertionError(f"{e}\n{status}\n{self.kafka.stand(stream)}\na stock consumer comes to {ends}") from None
        caught_up(self.daemon, "k", self.source)
        try:
            wait_for("the consumers have it all", lambda: all(is_all_there(v, self.source) for v in self.values()), 30)
            time.sleep(0.5)
        finally:
            self.close()
        for values in self.values():
            check_once(values, self.source)

    def close(self):
        self.bench.stopping.set()
        for r in self.readers.values():
            r.stop()


FAILPOINTS = ["kafka.closing", "kafka.committing", "kafka.committed", "kafka.sent", "kafka.acknowledged", "pipeline.before-store", "pipeline.stored"]


@pytest.mark.parametrize("layout", ["table", "both"])
def test_killed_again_and_again(pg, kafka, daemon, layout):
    scene = Scene(pg, kafka, daemon, layout, seed=len(layout))
    try:
        for n in range(KILLS[layout]):
            time.sleep(scene.random.choice([0.02, 0.1, 0.3, 0.6, 1]))
            daemon.kill()
            if n % 2:
                daemon.start()
                continue
            failpoint = f"{FAILPOINTS[n // 2 % len(FAILPOINTS)]}:{scene.random.randrange(1, 10)}:kill"
            daemon.start(env={"DMSR_FAILPOINT": failpoint}, wait=False)
            with contextlib.suppress(AssertionError):
                wait_for("killed", lambda: daemon.process.poll() is not None, 4, 0.01)
            daemon.kill()
            daemon.start()
        scene.end()
        assert scene.bench.transactions > KILLS[layout]
    finally:
        scene.close()


def test_one_is_killed_while_it_loads(pg, kafka, daemon):
    """A table whose load is not whole was not seen; one that is whole is not loaded again."""
    source = pg.database("k")
    source.psql("".join(f"CREATE TABLE l{i} (id integer PRIMARY KEY, v text); INSERT INTO l{i} SELECT g, repeat('v', 100) FROM generate_series(1, 20000) g;" for i in range(6)))
    daemon.start()
    daemon.job("k", source.connection(), [], streamer=streamer(kafka, exactly_once=True))
    for delay in (0.1, 0.2, 0.3, 0.4, 0.5, 0.3):
        time.sleep(delay)
        daemon.kill()
        source.psql("UPDATE l0 SET v = v || '+' WHERE id < 10")
        daemon.start()
    daemon.wait_state("k", "running", 60)
    caught_up(daemon, "k", source)
    for i in range(6):
        values = [json.loads(r.value) for r in kafka.records(f"{kafka.prefix}.public.l{i}") if r.value]
        read = collections.Counter(v["after"]["id"] for v in values if v["op"] == "r")
        assert len(read) == 20000 and set(read.values()) == {1}, (i, len(read), collections.Counter(read.values()))
    last = {}
    for v in (json.loads(r.value) for r in kafka.records(f"{kafka.prefix}.public.l0")):
        if v["op"] == "t":  # a topic that an earlier run made: whether it has rows is not asked
            last.clear()
        else:
            last[v["after"]["id"]] = v["after"]["v"]
    assert last == dict(source.sql("SELECT id, v FROM l0"))


def test_a_broker_that_goes_in_mid_transaction(pg, start_kafka, daemon):
    kafka = start_kafka()
    scene = Scene(pg, kafka, daemon, "both", seed=3)
    try:
        daemon.wait_state("k", "running")
        for away, back in ((kafka.stop, kafka.start), (kafka.kill, kafka.start), (kafka.pause, kafka.resume)):
            time.sleep(scene.random.choice([0.5, 1, 1.5]))
            away()
            time.sleep(1)
            back()
        scene.end()
    finally:
        scene.close()


def test_a_transaction_that_outlives_the_broker_s_patience(pg, start_kafka, daemon):
    """The broker gives it up while dmsrd stands still; that is no other dmsrd, and the job goes on."""
    kafka = start_kafka(settings=["transaction.abort.timed.out.transaction.cleanup.interval.ms=500"])
    scene = Scene(pg, kafka, daemon, "both", seed=4, transaction_timeout="10s")
    try:
        daemon.wait_state("k", "running")
        time.sleep(1)
        with contextlib.closing(scene.source.server.connect(scene.source.name)) as c:
            c.autocommit = False
            c.cursor().execute("INSERT INTO history (account, note) SELECT 1, repeat('h', 300) FROM generate_series(1, 30000)")
            c.commit()
        time.sleep(0.1)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        time.sleep(14)
        os.kill(daemon.process.pid, signal.SIGCONT)
        scene.end()
    finally:
        scene.close()


def copy_of(daemon, directory):
    """Another dmsrd with all that this one knows."""
    shutil.copytree(daemon.dir, directory, ignore=shutil.ignore_patterns("*.sock", "*.log", "*.pid"))
    return Dmsrd(directory)


def test_a_zombie_is_fenced(pg, kafka, daemon, tmp_path):
    """One stands still, another takes its place, and then the first goes on as if nothing had been: nothing of it is seen, and it is told why."""
    scene = Scene(pg, kafka, daemon, "table", seed=5)
    other = None
    try:
        daemon.wait_state("k", "running")
        time.sleep(1)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        other = copy_of(daemon, tmp_path / "other")
        scene.source.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = current_database()")
        other.start()
        other.wait_state("k", "running", 60)
        time.sleep(1)
        os.kill(daemon.process.pid, signal.SIGCONT)
        assert daemon.wait_state("k", "failed", 30)["error"]["code"] == "kafka.fenced"
        scene.daemon = other
        scene.end()
    finally:
        scene.close()
        if other:
            other.kill()


def test_stopped_inside_of_a_transaction(pg, kafka, daemon):
    """Of what was not whole nothing is seen, and readers need not wait for the broker's patience."""
    scene = Scene(pg, kafka, daemon, "both", seed=6)
    try:
        daemon.wait_state("k", "running")
        for _ in range(3):
            scene.source.sql("INSERT INTO history (account, note) SELECT 1, repeat('h', 300) FROM generate_series(1, 15000)")
            time.sleep(scene.random.choice([0.05, 0.2, 0.5]))
            daemon.api("POST", "/jobs/k/stop")
            daemon.wait_state("k", "stopped", 60)
            daemon.api("POST", "/jobs/k/start")
        scene.end()
    finally:
        scene.close()


@pytest.mark.parametrize("codec", ["json", "native"])
def test_the_stream_alone(pg, kafka, daemon, codec):
    """A target reads it once, the codec being what it is."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES)
    daemon.start()
    daemon.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, exactly_once=True, codec=codec, record_bytes="20KiB"))
    bench = Bench(source, seed=7)
    try:
        for _ in range(4):
            time.sleep(0.7)
            daemon.kill()
            daemon.start()
        bench.stop()
        daemon.wait_state("k", "running", 60)
        daemon.wait_equal(source, target)
        assert f"{kafka.prefix}.__positions" in kafka.topics(kafka.prefix)
    finally:
        bench.stopping.set()


def test_switched_on_and_off(pg, kafka, daemon):
    """A stream that was begun without goes on with it, and the other way round."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES)
    daemon.start()
    daemon.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka))
    daemon.wait_state("k", "running")
    for exactly_once in (True, False, True):
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
        source.psql("UPDATE accounts SET n = n + 1; INSERT INTO history (note) VALUES ('between')")
        daemon.api("PATCH", "/jobs/k", {"streamer": {"exactly_once": exactly_once}}, {"If-Match": "*"})
        daemon.api("POST", "/jobs/k/start")
        daemon.wait_state("k", "running")
        source.psql("UPDATE accounts SET n = n + 1")
        daemon.wait_equal(source, target)


def test_what_was_committed_cannot_be_known_any_more(pg, kafka, daemon):
    """Its topic is gone: nobody guesses. The hint helps."""
    source = pg.database("k")
    source.psql(TABLES)
    daemon.start()
    daemon.job("k", source.connection(), [], streamer=streamer(kafka, exactly_once=True))
    daemon.wait_state("k", "running")
    source.psql("UPDATE accounts SET n = n + 1")
    caught_up(daemon, "k", source)
    time.sleep(0.5)
    daemon.api("POST", "/jobs/k/stop")
    daemon.wait_state("k", "stopped")
    kafka.delete(f"{kafka.prefix}.__positions")
    daemon.api("POST", "/jobs/k/start")
    error = daemon.wait_state("k", "failed", 60)["error"]
    assert error["code"] == "kafka.positions-lost", error
    daemon.api("POST", "/jobs/k/stop")
    daemon.wait_state("k", "stopped")
    position = daemon.api("GET", "/jobs/k/positions")["position"]
    daemon.api("PATCH", "/jobs/k/positions", {"position": position}, {"If-Match": "*"})
    source.psql("UPDATE accounts SET n = n + 1")
    daemon.api("POST", "/jobs/k/start")
    daemon.wait_state("k", "running")
    caught_up(daemon, "k", source)
    seen = collections.Counter((v["after"]["id"], v["after"]["n"]) for v in (json.loads(r.value) for r in kafka.records(f"{kafka.prefix}.public.accounts")))
    assert len(seen) == 150 and set(seen.values()) == {1}
