"""The source kafka: the stream that one daemon's job writes is read by jobs of another, be they killed, late, or of fewer tables."""
import contextlib
import json
import random
import threading
import time

import pytest

from conftest import ApiError, Dmsrd, wait_for
from proxy import Proxy
from test_kafka import CHANGES, LAYOUTS, TABLES, caught_up, streamer
from test_kill import Load

pytestmark = pytest.mark.spread

ALL = {**{name: LAYOUTS[name] for name in ("native", "ordered", "both")}, "exact": {"layout": "both", "exactly_once": True}}


@pytest.fixture
def other(tmp_path):
    """A daemon of its own, which reads."""
    daemon = Dmsrd(tmp_path / "other")
    yield daemon
    daemon.kill()


@pytest.fixture
def pair(pg, any_pg):
    source, target = pg.database("k"), any_pg.database("k_copy")
    source.psql(TABLES)
    return source, target


def write(daemon, kafka, source, layout="both", targets=(), **more):
    daemon.job("k", source.connection(), [t.connection(name=t.name) for t in targets], streamer=streamer(kafka, **{**ALL[layout], **more}))


def stream(kafka, layout="both", **more):
    codec = {k: v for k, v in ALL[layout].items() if k in ("codec", "record_bytes")}
    return {"connector": "kafka", "bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix, **codec, **more}


def made(database):
    """Indexes and constraints."""
    return database.sql("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"), \
        database.sql("SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace "
                     "AND contype <> 'n' ORDER BY 1, 2")


def status_of(daemon, name="r"):
    return daemon.api("GET", f"/jobs/{name}/status")


def read(daemon, kafka, *targets, layout="both", name="r", apply="strict", **more):
    daemon.job(name, stream(kafka, layout), [t.connection(name=t.name, apply=apply) for t in targets], **more)


@pytest.mark.parametrize("layout", ALL)
def test_one_writes_and_another_reads(pair, kafka, dmsrd, other, layout):
    source, target = pair
    write(dmsrd, kafka, source, layout)
    other.start()
    read(other, kafka, target, layout=layout)
    other.wait_state("r", "running")
    source.psql(CHANGES)
    other.wait_equal(source, target)
    # what the reader has does not hold the writer's slot, and both say how they are
    caught_up(dmsrd, "k", source)
    wait_for("the reader has caught up", lambda: status_of(other)["targets"][0]["caught_up"], 20)
    wait_for("there is no lag", lambda: status_of(other)["lag"]["bytes"] == 0)
    assert not status_of(other)["warnings"], status_of(other)
    other.api("POST", "/jobs/r/stop")
    other.wait_state("r", "stopped")
    source.psql("UPDATE t SET v = 'while it was stopped' WHERE id % 3 = 0; ALTER TABLE u ADD COLUMN late text DEFAULT 'x'; UPDATE u SET late = 'y' WHERE id % 2 = 0")
    other.api("POST", "/jobs/r/start")
    other.wait_equal(source, target)


def test_many_read_each_what_it_means_and_at_its_own_pace(pair, pg, kafka, dmsrd, other):
    """In one daemon and in others, from the stream's begin, whenever they come; the writer has a target of its own, too."""
    source, target = pair
    early, late, few = pg.database("early"), pg.database("late"), pg.database("few")
    write(dmsrd, kafka, source, targets=[target])
    read(dmsrd, kafka, early, name="early")
    other.start()
    read(other, kafka, few, name="few", tables={"include": ["t", "u"]})
    dmsrd.wait_equal(source, target)
    source.psql(CHANGES)
    dmsrd.wait_equal(source, early)
    other.wait_equal(source, few, ["t", "u"])
    assert few.tables() == ["t", "u"] or [t.split(".")[-1] for t in few.tables()] == ["t", "u"], few.tables()
    read(other, kafka, late, name="late")
    other.wait_equal(source, late)
    source.psql("TRUNCATE t, counters; INSERT INTO t (v) VALUES ('after'); DELETE FROM u WHERE id % 2 = 0")
    for to in target, early, late:
        print(to.name)
        (dmsrd if to != late else other).wait_equal(source, to, timeout=15)
    other.wait_equal(source, few, ["t", "u"])


@pytest.mark.parametrize("layout, apply", [("native", "strict"), ("both", "parallel"), ("exact", "strict"), ("exact", "parallel")])
def test_both_are_killed_again_and_again(pair, pg, kafka, daemon, other, layout, apply):
    source, target = pair
    rnd = random.Random(len(layout))
    daemon.start()
    write(daemon, kafka, source, layout)
    other.start()
    read(other, kafka, target, layout=layout, apply=apply)
    load = Load(pg, source, seed=3)
    points = ["pipeline.before-store", "pipeline.stored", "target.load-after-commit", "pipeline.applied", "kafka.acknowledged", "target.after-commit"]
    try:
        for n in range(12):
            time.sleep(rnd.choice([0.05, 0.2, 0.5]))
            who = other if n % 3 else daemon
            point = f"{points[n // 2]}:{rnd.randrange(1, 8)}:kill"
            who.kill()
            who.start(env={"DMSR_FAILPOINT": point} if n % 2 else None, wait=not n % 2)
            if n % 2:
                with contextlib.suppress(AssertionError):
                    wait_for("killed", lambda w=who: w.process.poll() is not None, 3, 0.01)
                who.kill()
                who.start()
    finally:
        load.stop()
    other.wait_state("r", "running")
    other.wait_equal(source, target)


@pytest.mark.parametrize("layout", ["native", "both"])
def test_killed_in_its_load(pair, kafka, dmsrd, other, layout):
    """At each word of it: what it has already it does not take twice, and what it lacks comes again."""
    source, target = pair
    source.psql("CREATE TABLE big2 (id int PRIMARY KEY, v text); INSERT INTO big2 SELECT i, repeat('x', 300) FROM generate_series(1, 20000) i")
    write(dmsrd, kafka, source, layout)
    wait_for("it is loaded", lambda: dmsrd.state_of("k") == "running")
    source.psql(CHANGES)
    points = ["target.load-after-commit:1", "target.load-after-commit:2", "target.load-after-commit:3", "pipeline.stored:1", "pipeline.stored:3", "target.load-done:1"]
    other.start(env={"DMSR_FAILPOINT": points[0] + ":kill"})
    with contextlib.suppress(OSError):
        read(other, kafka, target, layout=layout)
    for point in points[1:] + [None]:
        with contextlib.suppress(AssertionError):
            wait_for("killed", lambda: other.process.poll() is not None, 5, 0.01)
        other.kill()
        other.start(env={"DMSR_FAILPOINT": point + ":kill"} if point else None, wait=not point)
    other.wait_state("r", "running")
    other.wait_equal(source, target)
    assert made(target) == made(source), "what is made when all is loaded, of tables that an earlier run has loaded, too"


@pytest.mark.parametrize("layout", ["native", "both"])
def test_the_writer_is_killed_before_it_says_that_all_is_loaded(pg, pg18, kafka, daemon, other, layout):
    """Two servers: the reader keeps the transaction of a load that is cut off, and the writer's next snapshot waits for all of its own server's."""
    source, target = pg.database("k"), pg18.database("k_copy")
    source.psql(TABLES + "CREATE TABLE big2 (id int PRIMARY KEY, v text); INSERT INTO big2 SELECT i, repeat('x', 300) FROM generate_series(1, 20000) i")
    daemon.start(env={"DMSR_FAILPOINT": "pg.load-done:1:kill"})
    with contextlib.suppress(OSError):
        write(daemon, kafka, source, layout, memory="1MiB")
    wait_for("killed", lambda: daemon.process.poll() is not None)
    other.start()
    read(other, kafka, target, layout=layout)
    with contextlib.suppress(AssertionError):  # all that the writer has sent, which may be no table whole
        wait_for("it has a table", lambda: other.api("GET", "/jobs/r/status")["load"]["tables_loaded"], 5)
    daemon.start()
    other.wait_state("r", "running")
    other.wait_equal(source, target)
    assert made(target) == made(source)


@pytest.mark.parametrize("layout", ["native", "both"])
def test_a_column_comes_before_all_is_loaded(pg, kafka, dmsrd, other, layout):
    """The reader hears again what its tables were like in their load, and the stream is further on."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, x int UNIQUE); CREATE TABLE u (id int PRIMARY KEY REFERENCES t); INSERT INTO t SELECT i, i FROM "
                "generate_series(1, 1000) i; INSERT INTO u SELECT 7")
    write(dmsrd, kafka, source, layout)
    dmsrd.wait_state("k", "running")
    other.start(env={"DMSR_FAILPOINT": "target.load-done:1:kill"})
    with contextlib.suppress(OSError):
        read(other, kafka, target, layout=layout)
    wait_for("killed", lambda: other.process.poll() is not None)
    source.psql("ALTER TABLE t ADD COLUMN c int DEFAULT 5; UPDATE t SET c = 6, x = -x WHERE id % 3 = 0; INSERT INTO u VALUES (8)")
    caught_up(dmsrd, "k", source)
    other.start()
    other.wait_state("r", "running")
    other.wait_equal(source, target)
    assert made(target) == made(source)


def test_changes_alone_from_the_next_transaction_on(pg, kafka, dmsrd, other):
    """Mode cdc begins at the stream's end, amid a transaction if need be, whose rest it leaves out; and where it began it stays, be it killed at once."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    write(dmsrd, kafka, source)
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (2, 'before')")
    caught_up(dmsrd, "k", source)
    other.start()
    read(other, kafka, target, mode="cdc")
    other.wait_state("r", "running")
    wait_for("it says no lag of what it never had", lambda: status_of(other)["lag"]["bytes"] == 0)
    other.kill()
    source.psql("INSERT INTO t VALUES (3, 'while it was away')")
    caught_up(dmsrd, "k", source)
    other.start()
    source.psql("INSERT INTO t VALUES (4, 'behind')")
    wait_for("what came since", lambda: target.sql("SELECT id FROM t ORDER BY id") == [(3,), (4,)], 30)
    wait_for("there is no lag", lambda: status_of(other)["lag"]["bytes"] == 0)


def test_changes_alone_behind_a_long_load(pg, kafka, dmsrd, other):
    """The newest position may be far before the end, where rows of a load stand."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 5000) i")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    write(dmsrd, kafka, source, "ordered")
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (-1, 'before')")
    caught_up(dmsrd, "k", source)
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    wait_for("it begins", lambda: dmsrd.state_of("k") != "running", 10, 0.001)
    dmsrd.wait_state("k", "running")
    other.start()
    read(other, kafka, target, layout="ordered", mode="cdc")
    other.wait_state("r", "running")
    assert status_of(other)["source"]["received"], "it knows where it stands"
    source.psql("INSERT INTO t VALUES (-2, 'after')")
    wait_for("what came since", lambda: target.sql("SELECT id FROM t") == [(-2,)], 30)


@pytest.mark.parametrize("layout", ["native", "ordered"])
@pytest.mark.parametrize("mode, what", [("cdc", "alone"), ("full-load-and-cdc", "alone"), ("full-load-and-cdc", "behind a load")])
def test_sent_back_by_hand(pg, kafka, dmsrd, other, layout, mode, what):
    """What lies behind that position comes again, whatever place was noted: also that of a load, which has none."""
    source = pg.database("k")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")
    write(dmsrd, kafka, source, layout)
    dmsrd.wait_state("k", "running")
    other.start()
    other.job("r", stream(kafka, layout), [{"connector": "null", "name": "count"}], mode=mode)
    other.wait_state("r", "running")

    def has(inserts):
        tables = [t for t in other.api("GET", "/jobs/r/tables")["items"] if t["name"] == "t"]
        assert not tables or tables[0]["captured"]["insert"] <= inserts, tables
        return tables and tables[0]["captured"]["insert"] == inserts and tables[0]["applied"]["insert"] == inserts

    def level(before):
        positions = status_of(other)["positions"]
        return positions["stored"] not in (None, before) and positions["stored"] == positions["received"] and positions["stored"]

    before = status_of(other)["positions"]["received"]
    source.psql("INSERT INTO t VALUES (1)")
    wait_for("the first", lambda: has(1))
    at = wait_for("its position", lambda: level(before))
    source.psql("INSERT INTO t VALUES (2); UPDATE t SET v = 'x'; INSERT INTO t VALUES (3)")
    wait_for("the others", lambda: has(3))
    wait_for("the place is noted", lambda: status_of(other)["positions"]["stored"] != at)
    if what == "behind a load":
        source.psql("INSERT INTO u VALUES (2)")
        dmsrd.api("POST", "/jobs/k/tables/public.u/reload")
        wait_for("it is loaded again", lambda: [t for t in other.api("GET", "/jobs/r/tables")["items"] if t["name"] == "u" and t["load"]["rows"] == 2])
        other.wait_state("r", "running")
    other.api("POST", "/jobs/r/stop")
    other.wait_state("r", "stopped")
    other.api("PATCH", "/jobs/r/positions", {"position": at})
    other.api("POST", "/jobs/r/start")
    wait_for("they come again", lambda: has(5))


def test_a_target_that_is_added(pg, kafka, dmsrd, other):
    """What the stream has of before is not given to it: changes of before the job's position do not come again. It waits for loads that come."""
    source, target, second = pg.database("k"), pg.database("k_copy"), pg.database("k_second")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i;"
                "CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u SELECT * FROM t")
    write(dmsrd, kafka, source)
    dmsrd.wait_state("k", "running")
    other.start()
    read(other, kafka, target)
    other.wait_state("r", "running")
    source.psql("INSERT INTO t VALUES (4, 'before'); INSERT INTO u VALUES (4, 'before')")
    other.wait_equal(source, target)
    caught_up(dmsrd, "k", source)
    wait_for("that is stored", lambda: status_of(other)["lag"]["bytes"] == 0)
    other.api("PATCH", "/jobs/r", {"targets": [t.connection(name=t.name) for t in (target, second)]}, {"If-Match": "*"})
    waits = "waits for a load in the stream"
    wait_for("it says so", lambda: other.log().count(waits) >= 2)
    assert len(target.sql("SELECT * FROM t")) == 4 and second.tables() == []
    other.kill()
    other.start()
    wait_for("it says so again", lambda: other.log().count(waits) >= 4)
    for table in "t", "u":
        source.psql(f"INSERT INTO {table} VALUES (5, 'since'); UPDATE {table} SET v = 'z' WHERE id = 4")
        dmsrd.api("POST", f"/jobs/k/tables/public.{table}/reload")
        wait_for("it is loaded", lambda: len(second.sql(f"SELECT * FROM {table}")) == 5)
        other.kill()
        other.start()
    source.psql("INSERT INTO t VALUES (6, 'behind'); INSERT INTO u VALUES (6, 'behind')")
    other.wait_equal(source, target)
    other.wait_equal(source, second)
    other.wait_state("r", "running")


def test_a_target_that_is_added_and_taken_out_again(pg, kafka, dmsrd, other):
    """Meanwhile changes were left out, for both: that is not forgotten when nobody waits for the load any more."""
    source, target, second = pg.database("k"), pg.database("k_copy"), pg.database("k_second")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i; CREATE TABLE u (LIKE t INCLUDING ALL)")
    write(dmsrd, kafka, source)
    dmsrd.wait_state("k", "running")
    other.start()
    read(other, kafka, target)
    other.wait_state("r", "running")
    other.wait_equal(source, target)
    waits = "table public.t waits for a load in the stream"

    def targets(*those):
        n = other.log().count(waits)
        other.api("PATCH", "/jobs/r", {"targets": [t.connection(name=t.name) for t in those]}, {"If-Match": "*"})
        return n
    n = targets(target, second)
    wait_for("it says so", lambda: other.log().count(waits) > n)
    source.psql("INSERT INTO t VALUES (4, 'left out'); UPDATE t SET v = 'left out' WHERE id = 1")
    caught_up(dmsrd, "k", source)
    wait_for("that is stored", lambda: status_of(other)["lag"]["bytes"] == 0)
    n = targets(target)
    wait_for("it still says so", lambda: other.log().count(waits) > n)
    other.kill()
    other.start()
    wait_for("and again", lambda: other.log().count(waits) > n + 1)
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    source.psql("INSERT INTO t VALUES (5, 'since'); INSERT INTO u VALUES (1, 'since')")
    other.wait_equal(source, target)
    other.kill()
    other.start()
    other.wait_state("r", "running")
    source.psql("INSERT INTO t VALUES (6, 'behind')")
    other.wait_equal(source, target)
    assert waits not in json.dumps(status_of(other)["warnings"])


def test_from_changes_alone_to_rows(pg, kafka, dmsrd, other):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    write(dmsrd, kafka, source)
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (4, 'before'); UPDATE t SET v = 'upd' WHERE id = 1")
    caught_up(dmsrd, "k", source)
    other.start()
    other.job("r", stream(kafka), [target.connection(name=target.name, prepare="truncate")], mode="cdc")
    wait_for("reads", lambda: status_of(other)["lag"]["bytes"] == 0)
    source.psql("INSERT INTO t VALUES (5, 'in cdc')")
    wait_for("it comes", lambda: target.sql("SELECT id FROM t") == [(5,)])
    caught_up(dmsrd, "k", source)
    wait_for("that is stored", lambda: status_of(other)["positions"]["stored"])
    other.api("PATCH", "/jobs/r", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    wait_for("it says what it waits for", lambda: "waits for a load in the stream" in other.log())
    source.psql("INSERT INTO t VALUES (6, 'meanwhile')")
    caught_up(dmsrd, "k", source)
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    other.wait_equal(source, target)
    source.psql("INSERT INTO t VALUES (7, 'behind')")
    other.wait_equal(source, target)
    other.wait_state("r", "running")


@pytest.mark.parametrize("layout", ["native", "both"])
def test_changes_alone_and_the_writer_loads_again(pg, kafka, dmsrd, other, layout):
    """What changed before that load is in its rows alone."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i")
    write(dmsrd, kafka, source, layout)
    dmsrd.wait_state("k", "running")
    caught_up(dmsrd, "k", source)
    other.start()
    other.job("r", stream(kafka, layout), [target.connection(name=target.name, prepare="truncate")], mode="cdc")
    wait_for("reads", lambda: status_of(other)["lag"]["bytes"] == 0)
    source.psql("INSERT INTO t VALUES (4, 'one')")
    other.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    source.psql("INSERT INTO t VALUES (5, 'meanwhile')")
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (6, 'behind')")
    other.wait_equal(source, target)
    other.wait_state("r", "running")


def test_another_stream(pg, kafka, dmsrd, other):
    """As long as the job has nothing, it may be told of another one, and begins at that one's end; then its position is of that stream."""
    source, second = pg.database("k"), pg.database("k2")
    for db in source, second:
        db.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    write(dmsrd, kafka, source)
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (1, 'in the first')")
    caught_up(dmsrd, "k", source)
    dmsrd.api("POST", "/jobs/k/stop")  # else a heartbeat may bring a position
    dmsrd.wait_state("k", "stopped")
    dmsrd.job("k2", second.connection(), [], streamer=streamer(kafka, **ALL["both"], prefix=kafka.prefix + ".2"))
    dmsrd.wait_state("k2", "running")
    other.start()
    target = pg.database("k_copy")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    read(other, kafka, target, mode="cdc")
    other.wait_state("r", "running")

    def change(n):
        return other.call("PATCH", "/jobs/r", {"source": stream(kafka, prefix=kafka.prefix + n)}, {"If-Match": "*"})
    assert change(".2")[0] == 200
    other.wait_state("r", "running")
    wait_for("the stream is read", lambda: status_of(other)["source"]["phase"] == "reading the stream" and status_of(other)["lag"]["bytes"] == 0)
    second.psql("INSERT INTO t VALUES (2, 'in the second')")
    wait_for("it comes", lambda: target.sql("SELECT id FROM t") == [(2,)])
    wait_for("it is stored", lambda: status_of(other)["positions"]["stored"])
    status, _, problem = change("")
    assert (status, [(e["code"], e["pointer"]) for e in problem["errors"]]) == (422, [("immutable", "/source/prefix")]), problem


@pytest.mark.parametrize("point", ["pipeline.stored:1", "pipeline.stored:2", "kafka.between-parts:9"])
@pytest.mark.parametrize("layout", ["native", "ordered"])
def test_changes_alone_begin_amid_a_transaction(pg, kafka, daemon, other, layout, point):
    """All of it comes, or nothing, be the reader killed amid the rest."""
    source, target = pg.database("k"), pg.database("k_copy")
    for db in source, target:
        db.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    daemon.start()
    write(daemon, kafka, source, layout)
    daemon.wait_state("k", "running")
    source.psql("INSERT INTO t VALUES (-1, 'before')")
    caught_up(daemon, "k", source)
    daemon.kill()
    daemon.start(env={"DMSR_FAILPOINT": f"{point}:kill"})
    source.psql("INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, 10000) i")
    with contextlib.suppress(AssertionError):
        wait_for("killed", lambda: daemon.process.poll() is not None, 10, 0.01)
    daemon.kill()
    other.start(env={"DMSR_FAILPOINT": "pipeline.stored:3:kill"})
    with contextlib.suppress(OSError):
        read(other, kafka, target, layout=layout, mode="cdc")
        wait_for("it reads", lambda: status_of(other)["source"]["connected"])
    daemon.start()
    with contextlib.suppress(AssertionError):
        wait_for("killed", lambda: other.process.poll() is not None, 3, 0.01)
    other.kill()
    other.start()
    source.psql("INSERT INTO t VALUES (-2, 'after')")
    wait_for("what comes behind it", lambda: target.one("SELECT count(*) FROM t WHERE id = -2"), 40)
    assert target.one("SELECT count(*) FROM t WHERE id > 0") in (0, 10000) and not target.one("SELECT count(*) FROM t WHERE id = -1")


def test_a_table_without_a_load_in_the_stream(pair, kafka, dmsrd, other):
    """Its rows went past it: that is said, and not passed over in silence; a load that comes later mends it."""
    source, target = pair
    copy = source.server.database("copy")
    write(dmsrd, kafka, source, targets=[copy], load="direct")
    dmsrd.wait_equal(source, copy)
    source.psql(CHANGES)
    dmsrd.wait_equal(source, copy)
    caught_up(dmsrd, "k", source)
    other.start()
    read(other, kafka, target)
    wait_for("it failed", lambda: other.state_of("r") == "failed")
    # that is not forgotten by who is started again, or set to another mode, though the position is behind those changes
    for mode in "full-load-and-cdc", "cdc", "full-load-and-cdc":
        other.kill()
        other.start()
        other.api("PATCH", "/jobs/r", {"mode": mode}, {"If-Match": "*"})
        other.api("POST", "/jobs/r/start")
        wait_for("it failed again", lambda: other.state_of("r") == "failed" and status_of(other)["error"])
        assert target.tables() == []
    error = status_of(other)["error"]
    assert error["code"] == "kafka.no-load" and "public.t" in error["message"] and "/reload" in json.dumps(error), error
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    dmsrd.api("DELETE", "/jobs/k/positions")
    dmsrd.api("PATCH", "/jobs/k", {"streamer": streamer(kafka, layout="both", load="stream")}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    other.api("POST", "/jobs/r/start")
    other.wait_equal(source, target)


def test_a_table_that_is_loaded_again(pair, kafka, dmsrd, other):
    """By the writer; the reader has no rows to give but those in the stream, and says whom it waits for."""
    source, target = pair
    write(dmsrd, kafka, source)
    other.start()
    read(other, kafka, target)
    other.wait_equal(source, target)
    target.psql("DELETE FROM t WHERE id % 2 = 0")
    source.psql("UPDATE t SET v = 'not there' WHERE id % 4 = 0")
    wait_for("it failed", lambda: other.state_of("r") == "failed")
    other.api("POST", "/jobs/r/tables/public.t/reload")
    other.api("POST", "/jobs/r/start")
    wait_for("it says so", lambda: any("public.t waits for a load" in w["message"] for w in status_of(other)["warnings"]))
    source.psql("UPDATE u SET x = x + 1; UPDATE t SET v = 'still not' WHERE id % 6 = 0")
    other.wait_equal(source, target, ["u", "big", "counters"])
    other.kill()
    other.start()
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    other.wait_equal(source, target)
    source.psql("UPDATE t SET v = 'again' WHERE id % 3 = 0")
    other.wait_equal(source, target)


def test_the_writer_begins_anew(pair, kafka, dmsrd, other):
    """What stood in the stream before it is older than the load that follows."""
    source, target = pair
    write(dmsrd, kafka, source)
    other.start()
    read(other, kafka, target)
    other.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    dmsrd.api("DELETE", "/jobs/k/positions")
    source.psql(CHANGES)
    dmsrd.api("POST", "/jobs/k/start")
    other.wait_equal(source, target)
    source.psql("DELETE FROM t WHERE id % 5 = 0")
    other.wait_equal(source, target)


def test_what_is_refused(pair, kafka, dmsrd, other):
    source, target = pair
    other.start()
    job = {"name": "r", "mode": "full-load", "source": stream(kafka), "targets": [target.connection(name="copy")]}
    found = {c["id"]: c for c in other.api("POST", "/jobs/validate", job)["checks"] if c["level"] == "error"}
    assert set(found) == {"kafka.no-end", "kafka.topic-missing"} and "start the job" in found["kafka.topic-missing"]["fix"], found
    with pytest.raises(ApiError) as e:
        other.api("POST", "/jobs", {**job, "mode": "cdc", "source": {k: v for k, v in stream(kafka).items() if k != "prefix"}})
    assert e.value.status == 422 and "/source/prefix" in json.dumps(e.value.body)
    # who comes before the writer waits for it
    read(other, kafka, target)
    wait_for("it says what is missing", lambda: (status_of(other)["error"] or {}).get("code") == "kafka.topic-missing", 60)
    write(dmsrd, kafka, source)
    other.wait_equal(source, target)
    other.api("POST", "/jobs/r/stop")
    other.wait_state("r", "stopped")
    other.api("PATCH", "/jobs/r", {"mode": "full-load"}, {"If-Match": "*"})
    other.api("POST", "/jobs/r/start")
    wait_for("it failed", lambda: other.state_of("r") == "failed")
    assert status_of(other)["error"]["code"] == "kafka.no-end"


@pytest.mark.parametrize("layout,disk,which", [("native", "1GiB", "first"), ("both", "1GiB", "first"), ("exact", "1GiB", "first"), ("both", "1GiB", "again"),
                                               ("native", 0, "first"), ("native", 0, "again"), ("exact", 0, "again")])
def test_a_reader_beside_the_source_does_not_keep_it_from_its_snapshot(pg, pg18, kafka, daemon, other, layout, disk, which):
    """The writer is killed amid a load, of which the reader has rows open: on the server whose snapshot the writer's next run waits for."""
    source, target, copy = pg.database("k"), pg18.database("k_copy"), pg.database("k_read")
    source.psql("CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 3000) i; ANALYZE b")
    source.psql("ALTER TABLE b ALTER v SET STORAGE EXTERNAL")
    daemon.start()
    other.start()
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 16, .02 if which == "first" else 0
        daemon.job("k", source.connection(port=proxy.port, load_part_bytes=0), [target.connection(name="k")], streamer=streamer(kafka, disk=disk, **ALL[layout]))
        read(other, kafka, copy, layout=layout)
        if which == "again":
            other.wait_equal(source, copy)
            proxy.every = .02
            daemon.api("POST", "/jobs/k/tables/public.b/reload")
        wait_for("rows are open", lambda: copy.sql("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL AND query LIKE 'COPY%%'"))
        daemon.kill()
        proxy.every = 0
        daemon.start()
        daemon.wait_state("k", "running")
        other.wait_equal(source, copy)
        daemon.wait_equal(source, target)


def test_a_stream_that_never_rests(pair, kafka, dmsrd, other):
    """A broker says only of a topic that nothing was written to for a while that it has no more: who begins to read needs no such word."""
    source, target = pair
    source.psql("CREATE TABLE busy (id bigserial PRIMARY KEY)")
    write(dmsrd, kafka, source, "ordered")
    dmsrd.wait_state("k", "running")
    stopping = threading.Event()

    def insert():
        with contextlib.closing(source.server.connect(source.name)) as c:
            while not stopping.wait(.003):
                c.cursor().execute("INSERT INTO busy DEFAULT VALUES")

    writer = threading.Thread(target=insert, daemon=True)
    writer.start()
    try:
        other.start()
        read(other, kafka, target, layout="ordered")
        wait_for("it reads", lambda: other.api("GET", "/jobs/r")["state"] in ("loading", "running"), 60)
        assert "kafka.unreachable" not in other.log()
    finally:
        stopping.set()
        writer.join(30)
    other.wait_state("r", "running", 60)
    other.wait_equal(source, target)
