"""Targets of layout table: what an index, the topic PREFIX.__words, names in the tables' topics comes to them whole, in the order of commits."""
import contextlib
import json
import random
import threading
import time

import pytest
from confluent_kafka import Producer

import zoo
from conftest import ApiError, wait_for
from test_kafka import CHANGES, KEYS, SMALL, TABLES, Kills, as_table, caught_up, delete_records, end_of, failed, read, streamer
from test_load_beside import locked

TABLE = {"layout": "table", "load": "direct"}
LAYOUTS = {"table": TABLE, "partitions": {**TABLE, "partitions": 5}, "exact": {**TABLE, "exactly_once": True, "partitions": 2}}


@pytest.fixture
def pair(pg):
    return pg.database("k"), pg.database("k_copy")


def begin(daemon, kafka, source, *targets, **more):
    daemon.job("k", source.connection(), [t.connection(name=t.name) for t in targets], streamer=streamer(kafka, **{**TABLE, **more}))
    daemon.wait_state("k", "running")


def begun(daemon, kafka, pair, tables=SMALL, **more):
    """A job that has sent something: the topics of t are there, and what its target has applied is noted."""
    source, target = pair
    source.psql(tables)
    begin(daemon, kafka, source, target, **more)
    source.psql("UPDATE t SET v = 'first' WHERE id <= 20")
    daemon.wait_equal(source, target)
    caught_up(daemon, "k", source)
    return source, target


# ---- what comes ----

@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_and_changes(pair, kafka, dmsrd, layout, apply):
    source, target = pair
    source.psql(TABLES)
    dmsrd.job("k", source.connection(), [target.connection(name="copy", apply=apply)], streamer=streamer(kafka, **LAYOUTS[layout]))
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    caught_up(dmsrd, "k", source)
    names = {"__words", "__schemas"} | {f"public.{t}" for t in [*KEYS, "keyless"] if t != "counters"} | ({"__positions"} if layout == "exact" else set())
    assert set(kafka.topics(kafka.prefix)) == {f"{kafka.prefix}.{n}" for n in names}
    assert not [r for r in kafka.records(f"{kafka.prefix}.public.t") if r.value and json.loads(r.value)["op"] == "r"], "no row of the load"


def test_an_older_broker(pair, kafka3, dmsrd):
    source, target = begun(dmsrd, kafka3, pair, TABLES, partitions=3)
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)


def test_types(pg18, kafka, dmsrd):
    source, target = pg18.database("k"), pg18.database("k_copy")
    source.psql(zoo.create(18) + zoo.insert(18, 1, "load"))
    target.psql(zoo.TYPES)
    begin(dmsrd, kafka, source, target, partitions=3)
    source.psql("BEGIN;" + zoo.insert(18, 1001, "stream") + zoo.rotate(18, 1) + "COMMIT;" + zoo.touch(18, 1) + zoo.rotate(18, 1001) + zoo.delete_some(18, 1001))
    dmsrd.wait_equal(source, target)


def test_keys_that_change(pair, kafka, dmsrd):
    """The topics have a delete and a create, in two partitions: a target has one update, which leaves what was not sent as it is."""
    source, target = begun(dmsrd, kafka, pair, SMALL + """
        CREATE TABLE big (a integer, b text, body text, n integer, PRIMARY KEY (b, a)); ALTER TABLE big ALTER body SET STORAGE EXTERNAL;
        INSERT INTO big SELECT i, 'b', repeat(md5(i::text), 1000), 0 FROM generate_series(1, 30) i;
        CREATE TABLE child (id integer PRIMARY KEY, a integer, b text, FOREIGN KEY (b, a) REFERENCES big (b, a) ON UPDATE CASCADE);
        INSERT INTO child SELECT i, i, 'b' FROM generate_series(1, 30) i;
        CREATE TABLE whole (id integer PRIMARY KEY, body text); ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER body SET STORAGE EXTERNAL;
        INSERT INTO whole SELECT i, repeat(md5(i::text), 1000) FROM generate_series(1, 10) i""", partitions=4)
    target.psql("CREATE TABLE told (what text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.told VALUES (TG_OP); RETURN NULL; END $$;"
                "CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON big FOR EACH ROW EXECUTE FUNCTION tell(); ALTER TABLE big ENABLE ALWAYS TRIGGER told")
    source.psql("BEGIN; UPDATE big SET a = a + 1000, n = 1 WHERE a % 2 = 0; UPDATE t SET id = id + 9000 WHERE id < 50; UPDATE whole SET id = id + 100; COMMIT;"
                "UPDATE big SET b = 'c' WHERE a < 10; UPDATE t SET id = -id; DELETE FROM child WHERE id < 5")
    dmsrd.wait_equal(source, target, ["public.big", "public.child", "public.whole", "public.t"])
    assert target.sql("SELECT DISTINCT what FROM told") == [("UPDATE",)]


def test_rows_that_are_big(pair, kafka, dmsrd):
    """Bigger than what is asked for of a partition at a time, and than the memory."""
    source, target = begun(dmsrd, kafka, pair, memory="1MiB", partitions=3)
    source.psql("INSERT INTO t SELECT i, repeat(md5(i::text), 25000) FROM generate_series(1001, 1012) i; UPDATE t SET v = v || 'x' WHERE id > 1000")
    source.psql("SELECT pg_logical_emit_message(true, 'app', repeat('m', 3000000))")  # words in parts
    source.psql("UPDATE t SET v = 'small' WHERE id IN (1, 1003)")
    dmsrd.wait_equal(source, target)


def test_words_in_the_middle(pair, kafka, dmsrd):
    """Truncates, columns that come and go, a table that is new, one that is loaded again: between changes, and inside of transactions."""
    source, target = begun(dmsrd, kafka, pair, SMALL + "CREATE TABLE other (id integer PRIMARY KEY, n integer)", partitions=3)
    source.psql("BEGIN; INSERT INTO other SELECT i, i FROM generate_series(1, 50) i; TRUNCATE t, other; INSERT INTO t SELECT i, 'anew' FROM generate_series(1, 90) i; COMMIT;"
                "INSERT INTO other VALUES (1, 1); TRUNCATE other; INSERT INTO other VALUES (2, 2)")
    dmsrd.wait_equal(source, target)
    source.psql("BEGIN; UPDATE t SET v = 'before' WHERE id < 9; ALTER TABLE t ADD COLUMN extra integer DEFAULT 7; UPDATE t SET extra = id WHERE id < 30; COMMIT;"
                "ALTER TABLE other DROP COLUMN n; INSERT INTO other VALUES (3)")
    dmsrd.wait_equal(source, target, ["public.t"])
    source.psql("CREATE TABLE fresh (id integer PRIMARY KEY, v text); INSERT INTO fresh SELECT i, 'f' FROM generate_series(1, 100) i")
    dmsrd.api("POST", "/jobs/k/restart")
    dmsrd.wait_equal(source, target, ["public.t", "public.fresh"])
    source.psql("UPDATE fresh SET v = 'g' WHERE id % 3 = 0; DELETE FROM t WHERE id % 2 = 0")
    target.psql("DELETE FROM t WHERE id % 5 = 0")
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    source.psql("UPDATE t SET v = 'beside' WHERE id % 3 = 0; UPDATE fresh SET v = 'h' WHERE id % 5 = 0")
    dmsrd.wait_equal(source, target, ["public.t", "public.fresh"])


def test_a_second_target(pair, pg, kafka, dmsrd):
    """One is slow, and one comes later: each reads for itself."""
    source, target = begun(dmsrd, kafka, pair, partitions=3)
    other = pg.database("other")
    both = [t.connection(name=t.name) for t in (target, other)]
    dmsrd.api("PATCH", "/jobs/k", {"targets": both}, {"If-Match": "*"})
    source.psql("UPDATE t SET v = 'for two' WHERE id % 3 = 0")
    dmsrd.wait_equal(source, other)
    with locked(other, "t"):
        source.psql("UPDATE t SET v = v || '+'; UPDATE t SET id = id + 5000 WHERE id % 50 = 0")
        dmsrd.wait_equal(source, target)
        assert other.one("SELECT count(*) FROM t WHERE v LIKE '%+'") == 0
    dmsrd.wait_equal(source, other)
    dmsrd.api("PATCH", "/jobs/k", {"targets": both[:1]}, {"If-Match": "*"})
    source.psql("DELETE FROM t WHERE id % 7 = 0")
    dmsrd.wait_equal(source, target)


# ---- whole transactions, in their order ----

class Transfers:
    """Moves sums between accounts of many tables, one transaction each, until stopped; a reader of the target never sees half of one."""

    def __init__(self, source, tables, seed=1):
        self.source, self.tables, self.random, self.stopping, self.n, self.error = source, tables, random.Random(seed), threading.Event(), 0, None
        source.psql("".join(f"CREATE TABLE a{i} (id integer PRIMARY KEY, n bigint); INSERT INTO a{i} SELECT g, 100 FROM generate_series(1, 20) g;" for i in range(tables)))
        source.psql("CREATE TABLE seq (id integer PRIMARY KEY); INSERT INTO seq VALUES (0)")
        self.sum = " + ".join(f"(SELECT sum(n) FROM a{i})" for i in range(tables))
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        r = self.random
        try:
            with contextlib.closing(self.source.server.connect(self.source.name)) as c:
                c.autocommit = False
                cur = c.cursor()
                while not self.stopping.is_set():
                    for _ in range(r.choice([1, 1, 5])):
                        a, b, n = r.randrange(self.tables), r.randrange(self.tables), r.randrange(100)
                        cur.execute(f"UPDATE a{a} SET n = n - {n} WHERE id = {r.randrange(1, 21)}; UPDATE a{b} SET n = n + {n} WHERE id = {r.randrange(1, 21)}")
                    self.n += 1
                    cur.execute(f"INSERT INTO seq VALUES ({self.n})")
                    c.commit()
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def look(self, target):
        total, last, n = target.sql(f"SELECT {self.sum}, (SELECT max(id) FROM seq), (SELECT count(*) FROM seq)")[0]
        assert total == self.tables * 2000, f"half of a transaction is there: {total}"
        assert n == last + 1, f"a transaction is missing before {last}"
        return last

    def stop(self):
        self.stopping.set()
        self.thread.join(30)
        if self.error:
            raise self.error


@pytest.mark.parametrize("how", ["plain", "exact"])
def test_transactions_are_whole(pair, kafka, dmsrd, how):
    """Of many more partitions than are read at a time."""
    source, target = pair
    transfers = Transfers(source, 12)
    begin(dmsrd, kafka, source, target, partitions=4, exactly_once=how == "exact")
    transfers.thread.start()
    try:
        began, seen = time.monotonic(), set()
        while time.monotonic() < began + 5 or (len(seen) <= 5 and time.monotonic() < began + 90):
            seen.add(transfers.look(target))
    finally:
        transfers.stop()
    assert len(seen) > 5, seen
    dmsrd.wait_equal(source, target)
    assert transfers.look(target) == transfers.n


def test_many_partitions_take_no_turn_each(pair, kafka, dmsrd):
    """A backlog over 80 partitions: were each waited for by itself, it would take more than a minute."""
    source, target = pair
    source.psql("".join(f"CREATE TABLE m{i} (id integer PRIMARY KEY, n integer); INSERT INTO m{i} SELECT g, 0 FROM generate_series(1, 40) g;" for i in range(20)))
    begin(dmsrd, kafka, source, target, partitions=4)
    r = random.Random(5)
    with locked(target, "m0"):
        for _ in range(800):
            source.sql(f"UPDATE m{r.randrange(20)} SET n = n + 1 WHERE id = {r.randrange(1, 41)}")
        caught_up(dmsrd, "k", source)
    began = time.monotonic()
    dmsrd.wait_equal(source, target)
    assert time.monotonic() - began < 15
    began = time.monotonic()
    for i in range(50):  # and one by one
        source.sql(f"UPDATE m{i % 20} SET n = n + 1 WHERE id = {i % 40 + 1}")
        n = source.one(f"SELECT n FROM m{i % 20} WHERE id = {i % 40 + 1}")
        wait_for("it is there", lambda i=i, n=n: target.one(f"SELECT n FROM m{i % 20} WHERE id = {i % 40 + 1}") == n, 20, 0.005)
    assert time.monotonic() - began < 20


def test_what_memory_it_takes(pair, kafka, dmsrd):
    """Rows that are nothing when compressed, of a target that stands still."""
    source, target = begun(dmsrd, kafka, pair, memory="2MiB", partitions=4, compression="zstd")
    before = dmsrd.rss_kib()
    with locked(target, "t"):
        for n in range(60):
            source.psql(f"UPDATE t SET v = repeat('{n % 10}', 4000)")
        caught_up(dmsrd, "k", source)
        seen = []
        for _ in range(10):
            seen.append(dmsrd.api("GET", "/jobs/k/status")["streamer"]["memory_bytes"])
            time.sleep(0.1)
    assert max(seen) < 6 << 20, seen
    dmsrd.wait_equal(source, target)
    assert dmsrd.rss_kib() < before + 120000, (before, dmsrd.rss_kib())


# ---- kills ----

PLACES = ["kafka.words-due", "kafka.words-sent", "kafka.sent", "kafka.acknowledged", "pipeline.before-store", "pipeline.stored", "target.after-commit"]


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("layout", ["partitions", "exact"])
def test_killed_again_and_again(pg, kafka, daemon, layout, apply):
    kills = Kills(daemon, kafka, pg, pg, LAYOUTS[layout], len(layout + apply), apply)
    try:
        for n in range(14):
            time.sleep(kills.random.choice([0.02, 0.1, 0.3, 0.6, 1]))
            kills.daemon_dies(f"{PLACES[n // 2]}:{kills.random.randrange(1, 8)}:kill" if n % 2 else None)
    finally:
        kills.load.stop()
    kills.end()


def test_a_broker_that_goes(pg, start_kafka, daemon):
    kafka = start_kafka()
    kills = Kills(daemon, kafka, pg, pg, LAYOUTS["partitions"], 3)
    try:
        daemon.wait_state("k", "running")
        for away, back in ((kafka.stop, kafka.start), (kafka.kill, kafka.start), (kafka.pause, kafka.resume)):
            time.sleep(1)
            away()
            time.sleep(1)
            back()
            daemon.wait_state("k", "running")
    finally:
        kills.load.stop()
    kills.end()
    assert not [e for e in daemon.api("GET", "/jobs/k/events?limit=200")["items"] if "lost" in e["text"]]


# ---- what is not there ----

@contextlib.contextmanager
def unread(dmsrd, source, target):
    """The writer has sent changes of t, of which the target has none; dmsrd is dead."""
    with locked(target, "t"):
        source.psql("UPDATE t SET v = 'unread' WHERE id <= 100")
        caught_up(dmsrd, "k", source)
        dmsrd.kill()
    yield
    dmsrd.start()


def test_rows_that_are_gone(pair, kafka, dmsrd, tmp_path):
    source, target = begun(dmsrd, kafka, pair)
    topic = f"{kafka.prefix}.public.t"
    # what was applied may go
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    delete_records(kafka, topic, end_of(kafka, topic), tmp_path)
    dmsrd.api("POST", "/jobs/k/start")
    source.psql("UPDATE t SET v = 'later' WHERE id = 3")
    dmsrd.wait_equal(source, target)
    with unread(dmsrd, source, target):
        delete_records(kafka, topic, end_of(kafka, topic) - 5, tmp_path)
    error = failed(dmsrd, "kafka.retention")
    assert topic in error["message"] and "target k_copy" in error["message"], error
    dmsrd.begin_anew("k", source, target)


@pytest.mark.parametrize("how", ["deleted", "anew", "anew with rows"])
def test_a_topic_that_is_gone(pair, kafka, dmsrd, how):
    """Who reads finds it before who writes does."""
    source, target = begun(dmsrd, kafka, pair)
    topic = f"{kafka.prefix}.public.t"
    records = kafka.records(topic)
    with unread(dmsrd, source, target):
        kafka.delete(topic)
        if how != "deleted":
            kafka.create(topic)
        if how == "anew with rows":
            producer = Producer(kafka.client())
            for r in [*records, *records, *records, *records, *records, *records, *records]:
                producer.produce(topic, r.value, key=r.key, headers=r.headers)
            producer.flush(30)
    error = failed(dmsrd, "kafka.topic-lost")
    assert topic in error["message"], error
    dmsrd.begin_anew("k", source, target)


def test_a_topic_made_anew_while_it_runs(pair, kafka, dmsrd):
    source, target = begun(dmsrd, kafka, pair)
    topic = f"{kafka.prefix}.public.t"
    kafka.delete(topic)
    kafka.create(topic)
    source.psql("UPDATE t SET v = 'afterwards' WHERE id <= 3")
    assert topic in failed(dmsrd, "kafka.topic-lost")["message"]
    dmsrd.begin_anew("k", source, target)


@pytest.mark.parametrize("what", ["deleted records", "made anew"])
def test_an_index_that_is_gone(pair, kafka, dmsrd, tmp_path, what):
    source, target = begun(dmsrd, kafka, pair)
    words = f"{kafka.prefix}.__words"
    with unread(dmsrd, source, target):
        if what == "made anew":
            kafka.delete(words)
            kafka.create(words)
        else:
            source.psql("UPDATE t SET v = 'more' WHERE id = 4")
            delete_records(kafka, words, end_of(kafka, words), tmp_path)
    assert words in failed(dmsrd, "kafka.retention" if what != "made anew" else "kafka.stream-lost")["message"]
    dmsrd.begin_anew("k", source, target)


def test_rows_that_compaction_took(pair, start_kafka, dmsrd):
    kafka = start_kafka(settings=["log.cleaner.backoff.ms=100"])
    source, target = begun(dmsrd, kafka, pair)
    topic = f"{kafka.prefix}.public.t"
    with unread(dmsrd, source, target):
        source.psql("UPDATE t SET v = 'unread too' WHERE id <= 100")
        kafka.configure(topic, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms=1)
        producer = Producer(kafka.client())

        def is_compacted():
            producer.produce(topic, "x", key="x")  # rolls the segment
            producer.flush(30)
            return "unread" not in "".join(r.value or "" for r in kafka.records(topic))
        for r in as_table(kafka.records(topic)):
            producer.produce(topic, "y", key=json.dumps({"id": r[0]}, separators=(",", ":")))
        producer.flush(30)
        time.sleep(0.3)
        wait_for("compacted", is_compacted, 60, 0.3)
    assert "compacted" in failed(dmsrd, "kafka.topic-lost")["message"]
    kafka.configure(topic, cleanup_policy="delete")


def test_behind_another_ones_transaction(pair, kafka, dmsrd):
    """What is behind it is hidden, and not lost: it comes when that ends."""
    source, target = begun(dmsrd, kafka, pair)
    other = Producer({**kafka.client(), "transactional.id": f"other-{kafka.prefix}", "transaction.timeout.ms": 120000})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(f"{kafka.prefix}.public.t", "something", key="else")
    other.flush(30)
    source.psql("UPDATE t SET v = 'hidden' WHERE id <= 10")
    caught_up(dmsrd, "k", source)
    time.sleep(13)
    assert dmsrd.state_of("k") == "running" and target.one("SELECT count(*) FROM t WHERE v = 'hidden'") == 0
    assert "a row waits for a transaction that another producer has open" in dmsrd.log()
    other.abort_transaction(30)
    dmsrd.wait_equal(source, target)


def test_a_record_of_somebody_else(pair, kafka, dmsrd):
    begun(dmsrd, kafka, pair)
    words = f"{kafka.prefix}.__words"
    dmsrd.api("POST", "/jobs/k/stop")  # so that it sends nothing meanwhile
    dmsrd.wait_state("k", "stopped")
    header = dict(read(kafka, words)[-1].headers())
    producer = Producer(kafka.client())
    run, n, job = header["dmsr-run"].split()
    producer.produce(words, b"\x02what is this", headers={"dmsr-pos": header["dmsr-pos"], "dmsr-run": b"%s %d %s" % (run, int(n) + 1, job)})
    producer.flush(30)
    dmsrd.api("POST", "/jobs/k/start")
    assert words in failed(dmsrd, "kafka.foreign")["message"]


def test_small_batches_before_big_ones(pair, kafka, dmsrd):
    """As many big ones do not come into memory as small ones leave it: the target takes what is before, and then waits."""
    source, target = begun(dmsrd, kafka, pair, SMALL + "".join(f"CREATE TABLE {t} (id integer PRIMARY KEY, v text); INSERT INTO {t} SELECT i, '' "
                                                               "FROM generate_series(1, 100) i;" for t in "wu"), memory="1MiB", partitions=2)
    with locked(target, "u"):
        with locked(target, "w"):
            for n in range(2):
                source.psql(f"UPDATE w SET v = repeat('{n}', 40000)")
            with contextlib.closing(source.server.connect(source.name)) as c:
                for n in range(900):
                    c.cursor().execute(f"UPDATE t SET v = 'x{n}' WHERE id = {n % 20 + 1}")
            for n in range(10):
                source.psql(f"UPDATE u SET v = repeat('{n}', 40000)")
            caught_up(dmsrd, "k", source)
        wait_for("the small ones", lambda: target.one("SELECT v FROM t WHERE id = 20") == "x899")
        for _ in range(10):
            assert dmsrd.api("GET", "/jobs/k/status")["streamer"]["memory_bytes"] < 5 << 20
            time.sleep(.2)
    dmsrd.wait_equal(source, target)


def test_a_fetch_that_takes_long(pair, start_kafka, dmsrd):
    """The broker answers late, for the quota of this client is used up: whoever asked anew instead of waiting would never have it."""
    kafka = start_kafka()
    source, target = begun(dmsrd, kafka, pair, partitions=3)
    kafka.tool("kafka.admin.ConfigCommand", "--alter", "--entity-type", "clients", "--entity-name", "dmsr-k", "--add-config", "consumer_byte_rate=60000")
    source.psql("UPDATE t SET v = (SELECT string_agg(md5((i * 1000 + t.id)::text), '') FROM generate_series(1, 300) i) WHERE id <= 40")
    wait_for("the rows", lambda: target.one("SELECT count(*) FROM t WHERE length(v) > 5000") == 40, 400)
    assert "transaction that another producer has open" not in dmsrd.log()


# ---- what does not go together ----

def test_what_is_refused(pair, kafka, dmsrd):
    source, target = pair
    source.psql(SMALL)
    copy = [target.connection(name="copy")]

    def bad(**more):
        job = {"name": "k", "mode": "full-load-and-cdc", "source": source.connection(), "targets": copy, "streamer": streamer(kafka, **{**TABLE, **more})}
        checks = dmsrd.api("POST", "/jobs?dry_run=1", job)["checks"]
        return [(c["id"], c["fix"]) for c in checks if c["part"] == "streamer" and c["level"] == "error"]

    assert bad() == []
    (code, fix), = bad(load="stream")
    assert code == "kafka.layout" and "load to direct" in fix and "ordered" in fix
    assert [c for c, _ in bad(codec="native")] == ["kafka.layout"]
    assert [c for c, _ in bad(shape="flat")] == ["kafka.codec"]
    kafka.create(f"{kafka.prefix}.public.t", cleanup_policy="compact")
    (code, fix), = bad()
    assert code == "kafka.topic-cleanup" and "cleanup.policy=delete" in fix
    for code, more in {"kafka.layout": {"load": "stream"}, "kafka.codec": {"shape": "flat"}}.items():
        dmsrd.job("k", source.connection(), copy, streamer=streamer(kafka, **{**TABLE, **more}))
        failed(dmsrd, code)
        dmsrd.api("DELETE", "/jobs/k", headers={"If-Match": "*"})
        wait_for("it is gone", lambda: not dmsrd.api("GET", "/jobs")["items"])


def test_another_layout_later(pair, kafka, dmsrd):
    """What is in the index goes for this one alone, also while the job has nobody who reads it."""
    source, target = begun(dmsrd, kafka, pair)
    with pytest.raises(ApiError) as e:
        dmsrd.api("PATCH", "/jobs/k", {"streamer": {"layout": "ordered"}}, {"If-Match": "*"})
    assert e.value.status == 422 and [p["pointer"] for p in e.value.body["errors"]] == ["/streamer/layout"]
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    dmsrd.api("DELETE", "/jobs/k/positions")
    dmsrd.api("PATCH", "/jobs/k", {"streamer": {"layout": "ordered"}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'ordered' WHERE id < 7")
    dmsrd.wait_equal(source, target)
    assert f"{kafka.prefix}.__stream" in kafka.topics(kafka.prefix)
