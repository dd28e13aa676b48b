"""The stream is read while the tables are loaded: the source keeps its log no longer for as long as the load takes, and no target is given a change before it has
the load."""
import contextlib
import time

import pytest

from conftest import wait_for
from proxy import Proxy

pytestmark = pytest.mark.spread

TABLES = """
CREATE TABLE a (id integer PRIMARY KEY, v text);
CREATE TABLE b (id integer PRIMARY KEY, v text);
INSERT INTO a SELECT i, repeat('a', 500) FROM generate_series(1, 20000) i;
INSERT INTO b SELECT i, repeat('b', 100) FROM generate_series(1, 1000) i;
"""


@pytest.fixture
def pair(any_pg):
    source, target = any_pg.database("beside"), any_pg.database("beside_copy")
    source.psql(TABLES)
    target.psql("CREATE TABLE a (id integer PRIMARY KEY, v text); CREATE TABLE b (id integer PRIMARY KEY, v text)")
    return any_pg, source, target


@contextlib.contextmanager
def locked(target, table):
    """Nobody else gets at the table: its load stands."""
    c = target.server.connect(target.name)
    c.autocommit = False
    with c.cursor() as cur:
        cur.execute(f"LOCK TABLE {table} IN SHARE MODE")
    yield
    c.rollback()
    c.close()


EMBEDDED = {"type": "embedded", "memory": "1MiB"}


def begin(daemon, source, target, streamer=None, **more):
    daemon.start()
    daemon.job("j", source.connection(load_connections=1, batch_bytes="16KiB", load_part_bytes=0, **more),
               [target.connection(name="copy", prepare="none")], streamer=streamer or EMBEDDED, tables={"include": ["public.*"]})


def is_read_up_to(source, lsn):
    """The server may forget what is before."""
    return source.one("SELECT bool_and(confirmed_flush_lsn >= %s::pg_lsn) FROM pg_replication_slots WHERE database = %s AND NOT temporary", lsn, source.name)


def written(source, *statements):
    for s in statements:
        source.psql(s)
    lsn = source.one("SELECT pg_current_wal_lsn()")
    source.sql("SELECT txid_current()")  # an empty commit behind it, of which the server tells at once
    return lsn


def wait_read(daemon, source, lsn):
    wait_for(f"the slot to be confirmed up to {lsn}\n{daemon.log()[-1500:]}", lambda: is_read_up_to(source, lsn), 40)


CHANGES = ["UPDATE a SET v = v || '!' WHERE id % 3 = 0", "DELETE FROM a WHERE id % 7 = 0", "INSERT INTO b SELECT i, 'new' FROM generate_series(5001, 6000) i",
           "UPDATE b SET id = id + 100000 WHERE id % 5 = 0", "CREATE TABLE IF NOT EXISTS other.filler (v text)",
           "INSERT INTO other.filler SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i"]


@pytest.mark.parametrize("memory", ["1MiB", "32MiB"])
def test_the_source_keeps_no_log_for_the_load(pair, daemon, memory):
    """However little waits for the target: changes, and the log that others write."""
    _, source, target = pair
    source.psql("CREATE SCHEMA other")
    with locked(target, "b"):
        begin(daemon, source, target, {**EMBEDDED, "memory": memory})
        wait_for("a is there", lambda: target.one("SELECT count(*) FROM a") == 20000)
        wait_read(daemon, source, written(source, *CHANGES))
        assert daemon.state_of("j") == "loading"
        assert target.one("SELECT count(*) FROM a WHERE v LIKE '%%!'") == 0
        status = daemon.api("GET", "/jobs/j/status")
        assert status["streamer"]["log_bytes"] > 0, status
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("j", "running")


def test_it_may_keep_it(pair, daemon):
    _, source, target = pair
    with locked(target, "a"):
        begin(daemon, source, target, hold_wal=True)
        wait_for("the load stands", lambda: daemon.api("GET", "/jobs/j/status")["source"]["paused"])
        lsn = written(source, "UPDATE a SET v = 'x' WHERE id < 100")
        assert "reading slot" not in daemon.log() and not is_read_up_to(source, lsn)
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    assert "reading slot" in daemon.log()


@pytest.mark.parametrize("then", [False, True])
def test_killed_with_changes_in_the_log(pair, daemon, then):
    """The next run has a target that waits for the load, and a log that is in its way; also if somebody wants it otherwise then."""
    _, source, target = pair
    source.psql("CREATE SCHEMA other")
    with locked(target, "b"):
        begin(daemon, source, target)
        wait_for("a is there", lambda: target.one("SELECT count(*) FROM a") == 20000)
        wait_read(daemon, source, written(source, *CHANGES))
        daemon.kill()
    source.psql("DELETE FROM b WHERE id % 9 = 0; UPDATE a SET v = 'later' WHERE id % 11 = 0")
    if then:
        with locked(target, "b"):
            daemon.start()
            daemon.api("PATCH", "/jobs/j", {"source": {"hold_wal": True}}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    else:
        daemon.start()
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("j", "running")
    assert (daemon.api("GET", "/jobs/j")["source"].get("hold_wal", False)) == then
    source.psql("INSERT INTO a VALUES (-1, 'live')")
    daemon.wait_equal(source, target, ["public.a", "public.b"])


def test_killed_and_followed_no_more(pair, daemon):
    """Nor does a load alone, which the mode is then, get changes before the rows that they are of."""
    _, source, target = pair
    source.psql("CREATE SCHEMA other")
    with locked(target, "b"):
        begin(daemon, source, target)
        wait_for("a is there", lambda: target.one("SELECT count(*) FROM a") == 20000)
        wait_read(daemon, source, written(source, *CHANGES))
        daemon.kill()
        daemon.start()
        daemon.api("PATCH", "/jobs/j", {"mode": "full-load"}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    daemon.wait_state("j", "completed")
    daemon.wait_equal(source, target, ["public.a", "public.b"])


@pytest.mark.parametrize("mode", ["full-load-and-cdc", "full-load"])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_killed_inside_of_a_transaction(pair, daemon, mode, stored, apply):
    """No target is given what the log has of it before a load, wherever that goes: the source is on the same server, and makes no snapshot while something is
    open there. And a load alone is over without the rest, but not without what is before it."""
    _, source, target = pair
    daemon.start()
    daemon.job("j", source.connection(batch_bytes="16KiB", hold_wal=True, heartbeat_interval="100ms"), [target.connection(name="copy", apply=apply)],
               streamer={**EMBEDDED, "memory": "256KiB", "disk": "1MiB"}, tables={"include": ["public.*"]})
    daemon.wait_state("j", "running")
    with locked(target, "a"):
        source.psql("UPDATE a SET v = 'first' WHERE id < 3")
        for _ in range(3):  # heartbeats
            written(source, "SELECT txid_current()")
            time.sleep(.2)
        if stored:
            source.psql("UPDATE a SET v = v || '!'")
            wait_for("the log is full", lambda: daemon.api("GET", "/jobs/j/status")["streamer"]["full"])
            wait_for("it stands inside", lambda: (daemon.api("GET", "/jobs/j/positions")["stored"] or "::::*").split(":")[3] not in ("", "0", "*"))
        else:  # the log is ahead of what is stored; what is whole and the half are read at once
            daemon.kill()
            written(source, "UPDATE a SET v = 'second' WHERE id = 2", "UPDATE a SET v = v || '!'")
            daemon.start(env={"DMSR_FAILPOINT": "pipeline.before-store:1:kill"}, wait=False)
            wait_for("it is killed", lambda: daemon.process.poll() is not None)
        daemon.kill()
        source.psql("CREATE TABLE c (id integer PRIMARY KEY); INSERT INTO c SELECT generate_series(1, 100)")
        daemon.start()
        daemon.api("PATCH", "/jobs/j", {"mode": mode}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    daemon.wait_state("j", "completed" if mode == "full-load" else "running")
    assert target.one("SELECT count(*) FROM c") == 100
    if mode == "full-load":
        assert target.sql("SELECT v FROM a WHERE id < 3 ORDER BY id") == [("first",), ("first" if stored else "second",)]
        assert target.one("SELECT count(*) FROM a WHERE v LIKE '%%!'") == 0
    else:
        daemon.wait_equal(source, target)


PARENT_AND_CHILD = ("CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE q (id integer PRIMARY KEY, p integer REFERENCES p);"
                    "INSERT INTO p SELECT generate_series(1, 100); INSERT INTO q SELECT i, i FROM generate_series(1, 50) i")
# Who makes a table q has to wait for a lock.
SLOW = ("CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN IF to_regclass(''public.q'') IS NOT NULL THEN "
        "PERFORM pg_advisory_xact_lock_shared(1); END IF; END'; CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION slow();"
        "ALTER EVENT TRIGGER slow ENABLE ALWAYS")


def test_the_word_that_a_load_is_done_is_of_that_load(pg, daemon):
    """It stands in the stream when one of the tables has to be loaded once more, and is newer than the others then: a foreign key waits until they fit."""
    source, target = pg.database("beside"), pg.database("beside_copy")
    source.psql(TABLES + "CREATE SCHEMA other")
    target.psql(SLOW)
    daemon.start()
    daemon.job("j", source.connection(load_connections=1), [target.connection(name="copy")], streamer=EMBEDDED, tables={"include": ["public.*"]})
    daemon.wait_equal(source, target, ["public.a", "public.b"])
    daemon.wait_state("j", "running")
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = True
        c.cursor().execute("SELECT pg_advisory_lock(1)")
        source.psql(PARENT_AND_CHILD)
        daemon.api("POST", "/jobs/j/restart")
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while True:  # each has a connection of its own, and the first one begins
            wait_for("q is to be made", lambda: target.one(waits))
            with contextlib.suppress(AssertionError):
                wait_for("p is there", lambda: target.one("SELECT count(*) FROM p") == 100, 3)
                break
            daemon.kill()
            target.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            wait_for("who waited is gone", lambda: target.one(waits) == 0)
            daemon.start()
        wait_read(daemon, source, written(source, *CHANGES))
        daemon.kill()
    source.psql("INSERT INTO p VALUES (1000); INSERT INTO q VALUES (1000, 1000)")
    daemon.start()
    daemon.wait_equal(source, target, ["public.a", "public.b", "public.p", "public.q"])
    daemon.wait_state("j", "running")
    wait_for("the key refers", lambda: target.one("SELECT count(*) FROM pg_constraint WHERE conrelid = 'q'::regclass AND contype = 'f' AND convalidated") == 1)


def test_a_column_that_comes_while_a_second_run_loads(pg, daemon):
    """The stream is past it when the load is done, and what it says of the table then has all that is to be made on it."""
    source, target = pg.database("beside"), pg.database("beside_copy")
    source.psql(TABLES + PARENT_AND_CHILD)
    daemon.start()
    with Proxy(pg.port, piece=8192, every=0.02) as slow:
        daemon.job("j", {**source.connection(heartbeat_interval="100ms"), "port": slow.port}, [target.connection(name="copy")], streamer=EMBEDDED)
        have = "SELECT count(*) FROM dmsr.loads WHERE table_name IN ('p', 'q') AND position IS NOT NULL"
        wait_for("p and q are there", lambda: target.one(have) == 2)
        daemon.kill()
        source.psql("INSERT INTO a VALUES (0, 'newer')")
        daemon.start()
        wait_for("the stream is read", lambda: daemon.log().count("reading slot") == 2)
        wait_read(daemon, source, written(source, "ALTER TABLE q ADD c integer; INSERT INTO q VALUES (1000, 1, 1)"))
        assert daemon.state_of("j") == "loading"
        slow.every = 0
        daemon.wait_state("j", "running")
        daemon.wait_equal(source, target)
    keys = "SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid = 'q'::regclass ORDER BY 1"
    assert target.sql(keys) == source.sql(keys)


@pytest.mark.parametrize("hold_wal", [False, True])
@pytest.mark.parametrize("what", ["p CASCADE", "p, q"])
def test_truncated_with_a_table_whose_rows_are_newer(pg, daemon, what, hold_wal):
    """Those stay, though a foreign key leads from them to the other, which is emptied."""
    source, target = pg.database("beside"), pg.database("beside_copy")
    source.psql(PARENT_AND_CHILD)
    daemon.start()
    daemon.job("j", source.connection(hold_wal=hold_wal), [target.connection(name="copy")])
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target)
    daemon.api("POST", "/jobs/j/stop")
    daemon.wait_state("j", "stopped")
    source.psql(f"TRUNCATE {what}; INSERT INTO p SELECT generate_series(1, 20); INSERT INTO q SELECT i, i FROM generate_series(1, 10) i")
    daemon.api("POST", "/jobs/j/tables/public.q/reload")
    daemon.api("POST", "/jobs/j/start")
    wait_for("p is as it is at the source", lambda: source.digest("p") == target.digest("p"))
    daemon.wait_equal(source, target, timeout=5)
    daemon.wait_state("j", "running")
    source.psql("TRUNCATE p CASCADE; INSERT INTO p VALUES (1); INSERT INTO q VALUES (1, 1)")
    daemon.wait_equal(source, target)


WHILE = {
    "truncated": ("TRUNCATE b; INSERT INTO b SELECT i, 'again' FROM generate_series(1, 300) i", ["public.a", "public.b"]),
    "dropped": ("DROP TABLE b", ["public.a"]),
    "renamed": ("ALTER TABLE b RENAME TO c; INSERT INTO c VALUES (-7, 'c')", ["public.a", "public.c"]),
    "made anew": ("DROP TABLE b; CREATE TABLE b (id integer PRIMARY KEY, v text, w integer DEFAULT 7); INSERT INTO b VALUES (1, 'another')", ["public.a"]),
    "a column renamed": ("ALTER TABLE b RENAME v TO w; INSERT INTO b VALUES (-5, 'renamed')", ["public.a", "public.b"]),
    "altered": ("ALTER TABLE b ADD w integer DEFAULT 5; INSERT INTO b VALUES (-3, 'w', 1); ALTER TABLE b ALTER v TYPE varchar(200)", ["public.a", "public.b"]),
}


@pytest.mark.parametrize("how", ["runs", "is down"])
@pytest.mark.parametrize("what", WHILE)
def test_what_becomes_of_a_table_that_is_not_loaded_yet(pair, daemon, what, how):
    """Changes of it wait in the log already."""
    _, source, target = pair
    becomes(source, target, daemon, what, how)


def becomes(source, target, daemon, what, how, streamer=None):
    source.psql("CREATE SCHEMA other; INSERT INTO a SELECT i, repeat('z', 800) FROM generate_series(20001, 70000) i")
    target.psql("CREATE TABLE c (id integer PRIMARY KEY, v text)")
    statement, tables = WHILE[what]
    with locked(target, "a"):
        begin(daemon, source, target, streamer)
        wait_for("the load stands", lambda: "reading slot" in daemon.log())
        wait_read(daemon, source, written(source, *CHANGES))
        assert "table public.a read" not in daemon.log(), "it is the next one's turn already, which is locked then"
        if how == "is down":
            daemon.kill()
        source.psql(statement)
    if how == "is down":
        target.psql("DELETE FROM a")
        daemon.start()
    if what == "a column renamed":
        target.psql("ALTER TABLE b RENAME v TO w")
    if what in ("made anew", "altered"):
        target.psql("ALTER TABLE b ADD w integer")
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target, tables, 20)
    if what == "dropped":
        assert target.one("SELECT count(*) FROM b") == 0
    assert daemon.api("GET", "/jobs/j/errors")["items"] == []


@pytest.mark.parametrize("point", ["streamer.spill:3", "streamer.spill:4", "pipeline.before-store:3"])
def test_the_rest_of_a_transaction_is_all_in_the_rows(pg, daemon, point):
    """Its begin is in the log, of the run that was killed; the next one sends nothing of it, for the table is loaded again, and no commit. It has ended."""
    source, target = pg.database("amid"), pg.database("amid_copy")
    source.psql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, repeat('v', 100) FROM generate_series(1, 8000) i")
    daemon.start(env={"DMSR_FAILPOINT": f"{point}:kill"})
    daemon.job("j", source.connection(batch_bytes="16KiB"), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "64KiB"})
    with contextlib.suppress(OSError):
        daemon.wait_state("j", "running")
        daemon.wait_equal(source, target)
    with locked(target, "a"):
        source.psql("UPDATE a SET v = repeat('w', 100)")
        wait_for("it is killed", lambda: daemon.process.poll() is not None)
    with source.server.connect("postgres") as admin:
        admin.autocommit = True
        admin.cursor().execute(f"ALTER DATABASE {source.name} ALLOW_CONNECTIONS false")
        daemon.start()
        daemon.api("POST", "/jobs/j/tables/public.a/reload")
        admin.cursor().execute(f"ALTER DATABASE {source.name} ALLOW_CONNECTIONS true")
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target)
    lsn = source.one("SELECT pg_current_wal_lsn()")
    wait_for("nothing keeps the source's log", lambda: is_read_up_to(source, lsn), 40)


@pytest.mark.parametrize("hold_wal", [True, False])
@pytest.mark.parametrize("failpoint", ["target.load-after-commit:2", "target.load-done:1"])
def test_a_column_comes_between_the_rows_and_the_end_of_the_load(pg, daemon, failpoint, hold_wal):
    """Killed there. The end is told of the table as it is now; the column itself comes by the stream, behind that."""
    source, target = pg.database("column"), pg.database("column_copy")
    source.psql("CREATE TABLE u (id int PRIMARY KEY, x int UNIQUE, v text); INSERT INTO u SELECT i, i, 'v' FROM generate_series(1, 1000) i; "
                "CREATE TABLE w (id int PRIMARY KEY)")
    daemon.start(env={"DMSR_FAILPOINT": failpoint})
    daemon.job("j", source.connection(hold_wal=hold_wal), [target.connection(name="copy")])
    wait_for("it is killed", lambda: daemon.process.poll() is not None)
    source.psql("UPDATE u SET v = 'w' WHERE id = 3; ALTER TABLE u ADD COLUMN c integer DEFAULT 7; UPDATE u SET c = 8 WHERE id = 4")
    daemon.start()
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target)
