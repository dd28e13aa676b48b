"""A load that goes through Kafka's topics: the stream is read beside it, and waits on disk until the rows stand in the topics; so the source keeps no log for it."""
import contextlib
import json
import threading
import time

import pytest

from conftest import wait_for
from proxy import Proxy
from test_kafka import as_table, caught_up, source_table, streamer
from test_load_beside import is_read_up_to, locked, written

LAYOUTS = {"native": {"layout": "ordered", "codec": "native"}, "both": {"layout": "both"},
           "exact": {"layout": "both", "exactly_once": True}, "exact native": {"layout": "ordered", "codec": "native", "exactly_once": True}}
TABLES = """
CREATE TABLE a (id integer PRIMARY KEY, v text);
CREATE TABLE b (id integer PRIMARY KEY, v text);
INSERT INTO a SELECT i, repeat('a', 100) FROM generate_series(1, 60000) i;
INSERT INTO b SELECT i, repeat('b', 10) FROM generate_series(1, 500) i;
"""
ROWS = 60000  # of a, which is read first
CHANGES = ["UPDATE a SET v = v || '!' WHERE id % 3 = 0", "DELETE FROM a WHERE id % 7 = 0", "UPDATE a SET id = id + 1000000 WHERE id % 11 = 0",
           "INSERT INTO a SELECT i, 'new' FROM generate_series(60001, 60100) i"]


@pytest.fixture
def pair(pg):
    source, target = pg.database("held"), pg.database("held_copy")
    source.psql(TABLES)
    with Proxy(source.server.port) as proxy:
        yield (source, proxy), target


@contextlib.contextmanager
def begun(daemon, kafka, line, targets, source_options=None, apply="strict", **options):
    """While a is read, slowly, somebody locks b: the load stands there, for as long as the job has patience, and goes on behind this."""
    source, proxy = line
    daemon.start()
    proxy.piece, proxy.every = 1 << 15, .01
    daemon.job("k", source.connection(load_connections=1, load_part_bytes=0, port=proxy.port, **(source_options or {})),
               [t.connection(name=t.name, apply=apply) for t in targets], streamer=streamer(kafka, **options), tables={"include": ["public.*"]})
    wait_for("it reads a", lambda: "2 tables to load" in daemon.log(), step=.01)
    with contextlib.closing(source.server.connect(source.name)) as c:
        c.autocommit = False
        with c.cursor() as cur:
            cur.execute("LOCK TABLE b IN ACCESS EXCLUSIVE MODE")
        proxy.every = 0
        yield
        c.rollback()


def a_is_there(kafka, target, layout):
    def there():
        if target:
            return target.one("SELECT to_regclass('a') IS NOT NULL") and target.one("SELECT count(*) FROM a") == ROWS
        return f"{kafka.prefix}.public.a" in kafka.topics(kafka.prefix) and len(kafka.records(f"{kafka.prefix}.public.a")) == ROWS
    wait_for(f"table a is loaded ({layout})", there, 40)


def held(daemon):
    return daemon.api("GET", "/jobs/k/status")["streamer"]["log_bytes"]


def check_topic(kafka, source, table):
    """Of each key the newest is the last, and nothing of before the rows stands behind them."""
    records = kafka.records(f"{kafka.prefix}.public.{table}")
    ops = [json.loads(r.value)["op"] for r in records if r.value]
    assert as_table(records) == source_table(source, table, ["id"])
    assert ops[:ops.count("r")] == ["r"] * ops.count("r"), "no change stands before the rows"
    return ops


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_source_keeps_no_log_for_the_load(pair, kafka, daemon, layout):
    """However little waits."""
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], **LAYOUTS[layout]):
        wait_for("it reads the stream", lambda: "reading slot" in daemon.log())
        lsn = written(source, *CHANGES)
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        assert daemon.state_of("k") == "loading" and held(daemon) > 0
        status = daemon.api("GET", "/jobs/k/status")
        assert not status["targets"][0]["caught_up"], status
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("k", "running")
    source.psql("UPDATE b SET v = 'behind'; INSERT INTO a VALUES (-1, 'behind')")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    caught_up(daemon, "k", source)
    wait_for("nothing is held any more", lambda: held(daemon) == 0)
    if LAYOUTS[layout]["layout"] == "both":
        for table in "a", "b":
            assert {"r", "u"} <= set(check_topic(kafka, source, table))


def test_no_target_and_rounds(pair, kafka, daemon):
    """What changes before a table is read in another snapshot, and is read of the stream before that, is in its rows alone."""
    line, _ = pair
    source = line[0]
    with begun(daemon, kafka, line, [], layout="table"):
        a_is_there(kafka, None, "table")
        lsn = written(source, *CHANGES)
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        records = kafka.records(f"{kafka.prefix}.public.a")
        assert len(records) == ROWS, "the changes wait"
        wait_for("it tells how far the topics are behind, however far the stream was read",
                 lambda: (lag := daemon.api("GET", "/jobs/k/status")["lag"])["seconds"] and (lag["bytes"] or 0) > 1000000, 10)
    wait_for("it is loaded", lambda: daemon.state_of("k") == "running", 90)
    caught_up(daemon, "k", source)
    assert {"r", "u", "d"} <= set(check_topic(kafka, source, "a"))
    check_topic(kafka, source, "b")


@pytest.mark.parametrize("then", ["as it was", "hold_wal", "no disk"])
@pytest.mark.parametrize("layout", ["native", "exact"])
def test_killed_with_changes_held(pair, kafka, daemon, layout, then):
    """Also if somebody wants it otherwise then: they go on behind the load."""
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], **LAYOUTS[layout]):
        a_is_there(kafka, target, layout)
        lsn = written(source, *CHANGES)
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        daemon.kill()
    source.psql("DELETE FROM b WHERE id % 9 = 0; UPDATE a SET v = 'later' WHERE id % 13 = 0")
    daemon.start()
    if then != "as it was":
        change = {"source": {"hold_wal": True}} if then == "hold_wal" else {"streamer": {"disk": 0}}
        daemon.api("PATCH", "/jobs/k", change, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("k", "running")
    source.psql("INSERT INTO a VALUES (-1, 'live')")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    wait_for("nothing is held any more", lambda: held(daemon) == 0)


def test_a_load_alone_goes_on_with_changes_held(pair, kafka, daemon):
    """It is over when the topics have them, also where no target asks for them."""
    line, _ = pair
    source = line[0]
    with begun(daemon, kafka, line, [], layout="table"):
        a_is_there(kafka, None, "table")
        lsn = written(source, *CHANGES)
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        daemon.kill()
    daemon.start()
    daemon.api("PATCH", "/jobs/k", {"mode": "full-load"}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    daemon.wait_state("k", "completed")
    for table in "a", "b":
        check_topic(kafka, source, table)


def first_half_is_stored(daemon):
    def event():
        return ((daemon.api("GET", "/jobs/k/positions")["stored"] or "pg:1:0/1:0").split(":")[3]).replace("*", "0")
    wait_for("the first half is stored", lambda: int(event()) > 1000, 40, .02)


@pytest.mark.parametrize("is_new", [False, True], ids=["", "and a table is new"])
@pytest.mark.parametrize("disk", ["10GiB", 0])
def test_a_load_alone_behind_half_a_transaction(pair, kafka, daemon, disk, is_new):
    """Its end is read first, whatever the mode, for the target has the half open: nothing behind it in the stream would ever be its."""
    line, target = pair
    source, proxy = line
    tables = ["public.a", "public.b", *(["public.c"] if is_new else [])]
    source.psql("CREATE PUBLICATION given FOR ALL TABLES")
    with begun(daemon, kafka, line, [target], disk=disk, source_options={"batch_bytes": "16KiB", "publication": "given"}, **LAYOUTS["native"]):
        pass
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("k", "running")
    proxy.piece, proxy.every = 1 << 13, .02
    source.psql("UPDATE a SET v = v || '!'")
    first_half_is_stored(daemon)
    daemon.api("POST", "/jobs/k/stop")
    daemon.wait_state("k", "stopped")
    proxy.every = 0
    if is_new:
        source.psql("CREATE TABLE c (id integer PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'c')")

    def start(mode):
        daemon.api("PATCH", "/jobs/k", {"mode": mode}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
        daemon.api("POST", "/jobs/k/start")
    start("full-load")
    daemon.wait_state("k", "completed")
    daemon.wait_equal(source, target, tables)
    source.psql("UPDATE a SET v = v || '.' WHERE id % 5 = 0; DELETE FROM b WHERE id % 3 = 0")
    start("full-load-and-cdc")
    daemon.wait_equal(source, target, tables)


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_a_load_alone_behind_half_a_transaction_that_is_held(pair, kafka, daemon, apply):
    """It follows the rows, and nobody reads its end in that mode, which is no reason to wait for it, but for all that is before it; it is read when the mode is
    given back."""
    line, target = pair
    source, proxy = line
    source.psql("CREATE INDEX a_v ON a (left(v, 10))")
    with begun(daemon, kafka, line, [target], memory="1MiB", source_options={"batch_bytes": "16KiB", "heartbeat_interval": "100ms"}, apply=apply,
               **LAYOUTS["native"]):
        a_is_there(kafka, target, "native")
        for _ in range(5):  # heartbeats, which no target is in a hurry to store
            lsn = written(source, "SELECT txid_current()")
            wait_for("it is read", lambda lsn=lsn: is_read_up_to(source, lsn), 40)
        proxy.piece, proxy.every = 1 << 14, .01
        source.psql("UPDATE a SET v = v || '!'")
        first_half_is_stored(daemon)
        assert held(daemon) > 0
        daemon.kill()
        proxy.every = 0
    proxy.is_stuck.set()
    daemon.start()

    def give(mode):
        daemon.api("PATCH", "/jobs/k", {"mode": mode}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    give("full-load")
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        with c.cursor() as cur:
            cur.execute("LOCK TABLE a IN ROW EXCLUSIVE MODE")
        proxy.is_stuck.clear()
        wait_for("the half follows", lambda: "nothing is held any more" in daemon.log(), 40)
        time.sleep(1)
        assert daemon.state_of("k") == "loading", "it has no index yet"
        c.rollback()
    daemon.wait_state("k", "completed")
    assert target.one("SELECT count(*) FROM a") == source.one("SELECT count(*) FROM a")
    assert target.one("SELECT to_regclass('a_v') IS NOT NULL")
    give("full-load-and-cdc")
    daemon.api("POST", "/jobs/k/start")
    daemon.wait_equal(source, target, ["public.a", "public.b"])


@pytest.mark.parametrize(("disk", "apply"), [("10GiB", "strict"), ("10GiB", "parallel"), (0, "strict")])
def test_killed_amid_a_load_that_begins_anew(pair, kafka, daemon, disk, apply):
    """What the target has of the tables is still known to be the job's."""
    line, target = pair
    source, proxy = line
    with begun(daemon, kafka, line, [target], disk=disk, apply=apply, **LAYOUTS["native"]):
        pass
    daemon.wait_state("k", "running")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.api("POST", "/jobs/k/stop")
    daemon.wait_state("k", "stopped")
    daemon.api("DELETE", "/jobs/k/positions")
    n = daemon.log().count("reading slot")
    proxy.piece, proxy.every = 1 << 15, .01
    daemon.api("POST", "/jobs/k/start")
    wait_for("it is read", lambda: daemon.log().count("2 tables to load") == 2 and (not disk or daemon.log().count("reading slot") > n))
    daemon.kill()
    proxy.every = 0
    daemon.start()
    daemon.wait_state("k", "running")
    assert "the end of the transaction" not in daemon.log(), "what was held the target has not had"
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    wait_for("the load is done", lambda: target.one("SELECT bool_and(load_done) FROM dmsr.positions WHERE job_uid NOT LIKE '%/%'"))
    daemon.kill()
    daemon.start()
    daemon.wait_state("k", "running")
    wait_for("what it took away is known no more", lambda: target.one("SELECT count(*) FROM dmsr.loads WHERE rows = -3") == 0)


@pytest.mark.parametrize("disk", ["10GiB", 0])
def test_killed_behind_a_load_that_begins_anew(pair, start_kafka, daemon, disk):
    """All is read, of which the brokers have acknowledged nothing: the next run does not know what the streamer has of the stream, reads that first, and moves
    the target before it has the tables. What is there of them is still known to be the job's."""
    line, target = pair
    source, proxy = line
    kafka = start_kafka()
    with begun(daemon, kafka, line, [target], disk=disk, **LAYOUTS["native"]):
        pass
    daemon.wait_state("k", "running")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.api("POST", "/jobs/k/stop")
    daemon.wait_state("k", "stopped")
    daemon.api("DELETE", "/jobs/k/positions")
    proxy.piece, proxy.every = 1 << 15, .01
    daemon.api("POST", "/jobs/k/start")
    wait_for("it is read", lambda: daemon.log().count("2 tables to load") == 2, step=.01)
    kafka.pause()
    proxy.every = 0
    wait_for("all is read", lambda: daemon.log().count("table public.b read") == 2)
    time.sleep(.5)  # and it is noted that the stream may follow
    daemon.kill()
    kafka.resume()
    assert target.one("SELECT rows FROM dmsr.loads WHERE table_name = 'b'") == -3, "it was forgotten, and is not begun"
    daemon.start()
    daemon.wait_state("k", "running")
    assert "the end of the transaction" in daemon.log()
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    source.psql("INSERT INTO b VALUES (-1, 'live')")
    daemon.wait_equal(source, target, ["public.a", "public.b"])


@pytest.mark.parametrize("point", ["kafka.sent:3", "kafka.acknowledged:4", "pipeline.stored:9", "pipeline.received:40", "streamer.trim", "streamer.spill:2"])
def test_killed_while_they_follow(pair, kafka, daemon, point):
    """Again and again, until it comes to its end."""
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], source_options={"batch_bytes": "16KiB"}, **LAYOUTS["both"]):
        a_is_there(kafka, target, "both")
        lsn = written(source, *CHANGES, *(f"UPDATE a SET v = v || '{i}' WHERE id % 5 = {i}" for i in range(5)))
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        daemon.kill()
    for _ in range(6):
        daemon.start({"DMSR_FAILPOINT": point}, wait=False)
        with contextlib.suppress(AssertionError):
            wait_for("it is killed", lambda: daemon.process.poll() is not None, 3)
        daemon.kill()
        source.psql("UPDATE a SET v = v || '.' WHERE id % 17 = 0; INSERT INTO b SELECT max(id) + 1, 'since' FROM b")
    daemon.start()
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("k", "running")
    caught_up(daemon, "k", source)
    for table in "a", "b":
        assert as_table(kafka.records(f"{kafka.prefix}.public.{table}"), deduplicated=True) == source_table(source, table, ["id"])


def test_a_disk_that_is_full(pair, kafka, daemon):
    """Then the source waits, with its log, and the load goes on; a warning says so."""
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], disk="1MiB", memory="1MiB", **LAYOUTS["native"]):
        a_is_there(kafka, target, "native")
        source.psql("CREATE TABLE c (id integer PRIMARY KEY, v text)")
        lsn = written(source, *CHANGES, "UPDATE a SET v = repeat('long', 300)", "UPDATE a SET v = repeat('longer', 300)")
        wait_for("it is full", lambda: daemon.api("GET", "/jobs/k/status")["streamer"]["full"], 40)
        assert not is_read_up_to(source, lsn)
        warned, = daemon.api("GET", "/jobs/k/status")["warnings"]
        assert "1048576 bytes: the source keeps its log" in warned["message"] and "room again" not in daemon.log()
    daemon.wait_equal(source, target, ["public.a", "public.b"], 60)
    daemon.wait_state("k", "running")
    assert len([e for e in daemon.api("GET", "/jobs/k/events", headers={"Accept": "application/json"})["items"] if "filled the disk" in e["text"]]) == 1
    assert daemon.log().count("there is room again") == 1


def test_it_may_be_read_behind_the_load(pair, kafka, daemon):
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], disk=0, **LAYOUTS["native"]):
        a_is_there(kafka, target, "native")
        lsn = written(source, *CHANGES)
        assert "reading slot" not in daemon.log() and not is_read_up_to(source, lsn)
    daemon.wait_equal(source, target, ["public.a", "public.b"], 60)
    assert "reading slot" in daemon.log()


def test_stopped_and_paused_with_changes_held(pair, kafka, daemon):
    line, target = pair
    source = line[0]
    with begun(daemon, kafka, line, [target], **LAYOUTS["native"]):
        a_is_there(kafka, target, "native")
        for verb, state in ("pause", "paused"), ("resume", "loading"), ("stop", "stopped"):
            written(source, "UPDATE a SET v = v || '+' WHERE id % 2 = 0")
            daemon.api("POST", f"/jobs/k/{verb}")
            daemon.wait_state("k", state, 20)
    daemon.api("POST", "/jobs/k/start")
    daemon.wait_equal(source, target, ["public.a", "public.b"], 60)
    daemon.wait_state("k", "running")


def test_a_table_that_is_loaded_again_under_writes(pair, kafka, daemon):
    line, target = pair
    source = line[0]
    source.psql("DELETE FROM a WHERE id > 5000")
    with begun(daemon, kafka, line, [target], **LAYOUTS["both"]):
        pass
    daemon.wait_state("k", "running")
    is_over = threading.Event()

    def write():
        with contextlib.closing(source.server.connect(source.name)) as c, c.cursor() as cur:
            n = 0
            while not is_over.wait(0.002):
                n += 1
                cur.execute(f"UPDATE a SET v = 'w{n}' WHERE id % 50 = {n % 50}; DELETE FROM b WHERE id = {n % 500}; INSERT INTO b VALUES ({n % 500}, 'w{n}')")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(2, 5):
            for table in "a", "b":
                wait_for("it may be loaded", lambda: daemon.call("POST", f"/jobs/k/tables/public.{table}/reload")[0] == 202)
                wait_for("it is loaded", lambda: daemon.log().count(f"table public.{table} read") >= n and daemon.state_of("k") == "running", 40)
    finally:
        is_over.set()
        writer.join()
    daemon.wait_equal(source, target, ["public.a", "public.b"], 60)
    caught_up(daemon, "k", source)
    for table in "a", "b":
        assert as_table(kafka.records(f"{kafka.prefix}.public.{table}"), deduplicated=True) == source_table(source, table, ["id"])


@pytest.mark.parametrize("disk", ["10GiB", 0])
def test_a_table_that_is_loaded_again_is_loading_until_the_target_has_it(pair, kafka, daemon, disk):
    """It stands in the topic long before."""
    line, target = pair
    source = line[0]
    source.psql("DELETE FROM a WHERE id > 5000")
    with begun(daemon, kafka, line, [target], disk=disk, **LAYOUTS["native"]):
        pass
    daemon.wait_state("k", "running")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    n = daemon.log().count("table public.b read")
    with locked(target, "b"):
        daemon.api("POST", "/jobs/k/tables/public.b/reload")
        wait_for("it is read", lambda: daemon.log().count("table public.b read") > n)
        source.psql("INSERT INTO b VALUES (501, 'behind')")
        for _ in range(30):
            time.sleep(.1)
            status = daemon.api("GET", "/jobs/k/status")
            assert (status["state"], status["load"]["done"], status["targets"][0]["load_done"]) == ("loading", False, False)
    daemon.wait_state("k", "running")
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    status = daemon.api("GET", "/jobs/k/status")
    assert status["load"]["done"] and status["targets"][0]["load_done"]


def killed_amid_a_transaction(daemon, line, target, point=None):
    """And a table is new; the target, on the source's own server, has the first half of the transaction open: no snapshot is made before that is over. Without
    a point: when some of it was stored."""
    source, proxy = line
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("k", "running")
    if point:
        daemon.kill()
        n = daemon.log().count("reading slot")
        daemon.start({"DMSR_FAILPOINT": f"{point}:kill"}, wait=False)
        wait_for("the stream is read", lambda: daemon.log().count("reading slot") > n)
    else:
        proxy.piece, proxy.every = 1 << 14, .01  # it comes slowly
    source.psql("CREATE TABLE c (id integer PRIMARY KEY, v text); BEGIN; UPDATE a SET v = v || '!'; INSERT INTO c VALUES (1, 'c'); COMMIT")
    if point:
        wait_for("it is killed", lambda: daemon.process.poll() is not None)
    else:
        first_half_is_stored(daemon)
        daemon.kill()
    proxy.every = 0


@pytest.mark.parametrize("point", [None, "kafka.acknowledged:60", "kafka.acknowledged:8"])
@pytest.mark.parametrize("disk", ["10GiB", 0])
def test_killed_amid_a_transaction_and_a_table_is_new(pair, kafka, daemon, disk, point):
    """Its end is read first, but for what it has of the new table, which is in that one's rows; also if nothing of it was stored."""
    line, target = pair
    source = line[0]
    source.psql("CREATE PUBLICATION given FOR ALL TABLES")
    with begun(daemon, kafka, line, [target], disk=disk, source_options={"batch_bytes": "16KiB", "publication": "given"}, **LAYOUTS["native"]):
        pass
    killed_amid_a_transaction(daemon, line, target, point)
    daemon.start()
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.c"])
    daemon.wait_state("k", "running")
    first = daemon.log().split("the end of the transaction")[1].split("tables that are left are loaded now")[0]
    assert "-> running" not in first
    source.psql("UPDATE a SET v = v || '.' WHERE id % 17 = 0; INSERT INTO c VALUES (2, 'c')")
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.c"])


def test_killed_amid_one_transaction_of_many(pair, kafka, daemon):
    """The run that reads its end does not end amid another one."""
    line, target = pair
    source = line[0]
    source.psql("CREATE PUBLICATION given FOR ALL TABLES")
    with begun(daemon, kafka, line, [target], disk=0, source_options={"batch_bytes": "16KiB", "publication": "given"}, **LAYOUTS["native"]):
        pass
    killed_amid_a_transaction(daemon, line, target)
    is_over = threading.Event()

    def write():
        while not is_over.is_set():
            source.psql("UPDATE a SET v = left(v || '.', 120) WHERE id < 12000")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(1)
        daemon.start()
        wait_for("the new table is read", lambda: "table public.c read" in daemon.log(), 60)
    finally:
        is_over.set()
        writer.join()
    assert daemon.log().count("the end of the transaction") == 1
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.c"])


def test_killed_amid_a_transaction_that_is_held_and_a_table_is_new(pair, start_kafka, daemon):
    """The log, which follows, ends inside of it, and the target, on the source's own server, is given that first: its end is read before a snapshot is made."""
    line, target = pair
    source, kafka = line[0], start_kafka()
    with begun(daemon, kafka, line, [target], memory="1MiB", source_options={"batch_bytes": "16KiB"}, **LAYOUTS["native"]):
        a_is_there(kafka, target, "native")
        lsn = written(source, *CHANGES)
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
    wait_for("they follow", lambda: "the changes that were held meanwhile follow" in daemon.log(), step=.002)
    kafka.pause()
    line[1].piece, line[1].every = 1 << 14, .01  # it comes slowly
    source.psql("CREATE TABLE c (id integer PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'c'); UPDATE a SET v = v || '!'")
    first_half_is_stored(daemon)
    assert held(daemon) > 0
    daemon.kill()
    kafka.resume()
    line[1].every = 0
    daemon.start()
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.c"])
    daemon.wait_state("k", "running")
    assert "the end of the transaction" in daemon.log()
    source.psql("UPDATE a SET v = v || '.' WHERE id % 17 = 0; INSERT INTO c VALUES (2, 'c')")
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.c"])
