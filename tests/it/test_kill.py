"""kill -9 of dmsrd: at every failpoint once, and at random under load; of the servers too. In the end the target is the source, row by row."""
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import threading
import time

import pytest

from conftest import TOP, ApiError, Dmsrd, wait_for

pytestmark = pytest.mark.spread


def failpoints():
    """Every failpoint of the rooms that a PostgreSQL to PostgreSQL job walks through."""
    found = set()
    for path in pathlib.Path(TOP / "src").rglob("*.c"):
        if "connectors/file" in str(path) or "connectors/null" in str(path) or "/fake/" in str(path):
            continue
        found.update(re.findall(r'failpoint\("([a-z0-9.-]+)"\)', path.read_text()))
    return sorted(found - {"pg.turn", "target.load-part-merged"})  # of a load in turns: test_load_turns.py


class Load:
    """Writers on the source until stopped: inserts, updates, key changes, deletes, big and small transactions, rollbacks."""

    def __init__(self, server, database, seed=1, pause=0.002):
        self.server, self.database, self.pause = server, database, pause
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.error = None
        self.transactions = 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def statement(self):
        r, n = self.random, self.random.randrange(1, 3000)
        return r.choice([
            f"INSERT INTO t (v) SELECT repeat('n', {n % 50}) FROM generate_series(1, {1 + n % 20})",
            f"UPDATE t SET v = 'u{n}', n = n + 1 WHERE id % 97 = {n % 97}",
            f"UPDATE t SET id = id + 10000000 WHERE id = {n}",
            f"DELETE FROM t WHERE id % 211 = {n % 211}",
            f"UPDATE counters SET n = n + 1 WHERE id = {n % 5}",
            f"INSERT INTO keyless VALUES ({n % 7}, 'k{n % 3}')",
            f"DELETE FROM keyless WHERE a = {n % 7} AND b = 'k{n % 3}'",
            f"UPDATE big SET n = n + 1 WHERE id = {n % 20}",
            f"UPDATE u SET x = 1 - x WHERE pair = {n % 50}",
        ])

    def run(self):
        try:
            c = self.server.connect(self.database.name)
            c.autocommit = False
            cur = c.cursor()
            while not self.stopping.is_set():
                for _ in range(self.random.choice([1, 1, 1, 3, 10])):
                    cur.execute(self.statement())
                    if self.random.random() < 0.1:
                        cur.execute("SAVEPOINT s")
                        cur.execute(self.statement())
                        cur.execute("ROLLBACK TO s")
                if self.random.random() < 0.1:
                    c.rollback()
                else:
                    c.commit()
                    self.transactions += 1
                time.sleep(self.pause)
            c.close()
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def stop(self):
        self.stopping.set()
        self.thread.join(30)
        if self.error:
            raise self.error


TABLES = """
CREATE TABLE t (id bigserial PRIMARY KEY, v text, n integer NOT NULL DEFAULT 0);
CREATE TABLE counters (id integer PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE keyless (a integer, b text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE big (id integer PRIMARY KEY, n integer NOT NULL, body text);
CREATE TABLE u (id serial PRIMARY KEY, pair integer, x integer, UNIQUE (pair, x) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, 20000) i;
INSERT INTO counters SELECT i, 0 FROM generate_series(0, 4) i;
INSERT INTO keyless SELECT i % 7, 'k' || i % 3 FROM generate_series(1, 50) i;
INSERT INTO big SELECT i, 0, string_agg(md5(i::text || j::text), '') FROM generate_series(0, 19) i, generate_series(1, 2000) j GROUP BY i;
INSERT INTO u (pair, x) SELECT i / 2, i % 2 FROM generate_series(0, 99) i;
"""


@pytest.fixture
def streamer(request):
    """As a test names it: that of Kafka, on the shared broker, with batches as records, with both layouts, or with both in transactions; or the job's default."""
    how = getattr(request, "param", None)
    if not how:
        return {}
    kafka = request.getfixturevalue("kafka")
    more = {"native": {"layout": "ordered", "codec": "native", "record_bytes": "20KiB"}, "both": {"layout": "both"},
            "table": {"layout": "table", "load": "direct"}, "exact": {"layout": "both", "exactly_once": True}}[how]
    return {"streamer": {"type": "kafka", "bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix, **more}}


def streamer_of(failpoint):
    """That passes it."""
    if not failpoint.startswith("kafka."):
        return None
    if failpoint in ("kafka.closing", "kafka.committing", "kafka.committed"):
        return "exact"
    if failpoint in ("kafka.words-due", "kafka.words-sent"):
        return "table"
    return "native" if failpoint == "kafka.between-parts" else "both"


through_kafka_too = pytest.mark.parametrize("streamer", [None, "native", "both"], indirect=True, ids=["embedded", "kafka-native", "kafka-both"])


@pytest.fixture
def pair(any_pg):
    source, target = any_pg.database("kill"), any_pg.database("kill_copy")
    source.psql(TABLES)
    return any_pg, source, target


def test_there_are_failpoints():
    assert len(failpoints()) >= 10


# Passed by what no whole job does of itself: test_target_kill.py kills there.
ELSEWHERE = {"target.hold", "target.mended"}


def is_running(daemon):
    with contextlib.suppress(OSError, ApiError):
        return daemon.state_of("fp") == "running"
    return False


def provoke(source, target, daemon, seconds):
    """Of a job whose load is over. A column; and a transaction that is sent before its commit, and is more than what memory is for, while the target stands still."""
    with contextlib.closing(target.server.connect(target.name)) as c, contextlib.suppress(OSError):
        c.autocommit = False
        c.cursor().execute("LOCK TABLE big")
        source.psql("INSERT INTO big SELECT (SELECT max(id) FROM big) + row_number() OVER (), 0, body FROM big WHERE id < 20;"
                    "ALTER TABLE t ADD COLUMN IF NOT EXISTS added integer DEFAULT 7; INSERT INTO t (v, added) VALUES ('added', 8)")
        deadline = time.monotonic() + seconds
        while daemon.process.poll() is None and time.monotonic() < deadline and not daemon.api("GET", "/jobs/fp/status")["streamer"]["log_bytes"]:
            time.sleep(0.05)


@pytest.mark.parametrize("name, streamer", [(name, streamer_of(name)) for name in failpoints()], indirect=["streamer"])
@pytest.mark.parametrize("nth", [1, 3])
def test_killed_at_each_failpoint(pg, daemon, name, streamer, nth):
    source, target = pg.database("fp"), pg.database("fp_copy")
    source.psql(TABLES + f"ANALYZE; ALTER ROLE dmsr IN DATABASE {source.name} SET logical_decoding_work_mem = '64kB'")
    streamer = streamer or {"streamer": {"type": "embedded", "memory": "1MiB"}}
    holds = nth == 1 and "load" not in streamer["streamer"]  # once each way; what loads directly has the other alone
    connection = source.connection(load_part_bytes="200KiB", spool_memory="64KiB", hold_wal=holds)
    daemon.start(env={"DMSR_FAILPOINT": f"{name}:{nth}:kill"}, wait=False)
    load, end = None, None
    try:
        wait_for("ready or killed", lambda: daemon.process.poll() is not None or daemon.call("GET", "/readyz")[0] == 200)
        if daemon.process.poll() is None:
            try:
                daemon.job("fp", connection, [target.connection(name="copy")], **streamer)
            except OSError:
                pass  # killed before it could answer
        load = Load(pg, source, seed=nth)
        deadline, most, provoked = time.monotonic() + 4, time.monotonic() + 30, False
        while daemon.process.poll() is None and time.monotonic() < (deadline if provoked else most):
            time.sleep(0.05)
            if is_running(daemon):
                provoke(source, target, daemon, 5 if streamer["streamer"]["type"] == "embedded" else 0.3)
                deadline = deadline if provoked else max(deadline, time.monotonic() + 2)  # for the target to come to it
                provoked = True
        end = daemon.process.poll()
        if end is None:
            end = daemon.kill(signal.SIGTERM)  # some are passed only on the way out
        daemon.start()
        if daemon.call("GET", "/jobs/fp")[0] == 404:  # killed before the job was durable: nobody was told that it was
            daemon.job("fp", connection, [target.connection(name="copy")], **streamer)
        daemon.wait_state("fp", "running")
        time.sleep(0.3)
    finally:
        if load:
            load.stop()
    daemon.wait_equal(source, target)
    if nth == 1 and name not in ELSEWHERE:
        assert end == -signal.SIGKILL, f"{name} was not passed: it ended with {end}"


@through_kafka_too
def test_killed_at_random_fifty_times(pair, daemon, streamer, request):
    server, source, target = pair
    rng = random.Random(20)
    daemon.start()
    daemon.job("kill", source.connection(), [target.connection(name="copy")], **streamer)
    load = Load(server, source, seed=2)
    try:
        for _ in range(50):
            time.sleep(rng.choice([0.02, 0.1, 0.3, 0.6]))
            daemon.kill()
            daemon.start()
    finally:
        load.stop()
    daemon.wait_state("kill", "running")
    daemon.wait_equal(source, target)
    assert load.transactions > 50
    if streamer and streamer["streamer"]["layout"] == "both":
        from test_kafka import KEYS, caught_up, check_topics
        caught_up(daemon, "kill", source)
        check_topics(request.getfixturevalue("kafka"), source, KEYS, ["keyless"])


@through_kafka_too
def test_killed_while_it_loads(pg, daemon, streamer):
    """Big enough that the load is met in its middle, again and again."""
    source, target = pg.database("midload"), pg.database("midload_copy")
    source.psql("".join(f"CREATE TABLE l{i} (id integer PRIMARY KEY, v text); INSERT INTO l{i} SELECT g, repeat('v', 100) FROM generate_series(1, 30000) g;" for i in range(6)))
    source.psql(TABLES)
    daemon.start()
    daemon.job("midload", source.connection(), [target.connection(name="copy")], **streamer)
    load = Load(pg, source, seed=3)
    try:
        for delay in (0.15, 0.25, 0.35, 0.45, 0.55, 0.3, 0.4):
            time.sleep(delay)
            daemon.kill()
            daemon.start()
        daemon.wait_state("midload", "running", 120)
    finally:
        load.stop()
    daemon.wait_equal(source, target)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_servers_restart(tmp_path, how):
    from conftest import Postgres
    a, b = Postgres(settings=["fsync=on"]), Postgres(settings=["fsync=on"])
    daemon = Dmsrd(tmp_path / "dmsrd").start()
    try:
        source, target = a.database("s"), b.database("t")
        source.psql(TABLES)
        daemon.job("r", source.connection(), [target.connection(name="copy")])
        daemon.wait_state("r", "running")
        for server in (b, a, b, a):
            load = Load(a, source, seed=5) if server is b else None
            time.sleep(0.5)
            server.restart(how)
            if load:
                load.stop()
            source.psql("UPDATE counters SET n = n + 1")
        daemon.wait_state("r", "running", 60)
        daemon.wait_equal(source, target)
        assert daemon.api("GET", "/jobs/r/status")["retries"]["total"] >= 2
    finally:
        daemon.kill()
        a.close()
        b.close()


def test_stopped_for_a_while(pair, daemon):
    """SIGSTOP, for longer than the server's patience: it cuts the line meanwhile; nothing is lost."""
    server, source, target = pair
    source.psql(f"ALTER ROLE dmsr IN DATABASE {source.name} SET wal_sender_timeout = '2s'")
    daemon.start()
    daemon.job("freeze", source.connection(), [target.connection(name="copy")])
    daemon.wait_state("freeze", "running")
    load = Load(server, source, seed=6)
    try:
        os.kill(daemon.process.pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(daemon.process.pid, signal.SIGCONT)
        wait_for("it tries again", lambda: daemon.api("GET", "/jobs/freeze/status")["retries"]["total"] > 0, 20)
    finally:
        load.stop()
    daemon.wait_state("freeze", "running")
    daemon.wait_equal(source, target)


def test_pgbench_through_load_and_hand_over(pg, daemon):
    source, target = pg.database("bench"), pg.database("bench_copy")
    pgbench = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))[-1]
    at = ["-h", "127.0.0.1", "-p", str(pg.port), "-U", "postgres", source.name]
    subprocess.run([pgbench, "-i", "-q", "-s", "2", *at], check=True, capture_output=True)
    source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
    daemon.start()
    bench = subprocess.Popen([pgbench, "-n", "-c", "4", "-T", "6", *at], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    daemon.job("bench", source.connection(), [target.connection(name="copy")])
    assert bench.wait() == 0
    daemon.wait_state("bench", "running")
    daemon.wait_equal(source, target)
    assert source.one("SELECT sum(abalance) FROM pgbench_accounts") == target.one("SELECT sum(delta) FROM pgbench_history")
