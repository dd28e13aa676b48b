"""A load through Kafka's topics that is killed in the middle of a table goes on with the parts that are missing: those that stand in the topics are not read
again at the source, and in the end the target is the source, row by row."""
import contextlib
import json
import random
import time

import pytest

from conftest import Dmsrd, wait_for
from proxy import Proxy
from test_kafka import as_table, caught_up, source_table, streamer
from test_kafka_source import stream
from test_load_rest import CHANGES, KILLS, PARTS, TABLES, Writers, goes_on, killed, parts_of, rows_read

LAYOUTS = {"native": {"layout": "ordered", "codec": "native"}, "both": {"layout": "both"}, "exact": {"layout": "ordered", "exactly_once": True}}


@pytest.fixture
def pair(pg):
    source, target = pg.database("rest"), pg.database("rest_copy")
    source.psql(TABLES)
    return source, target


def make(daemon, kafka, source, targets, tables=("public.n",), hold_wal=False, parts=PARTS, **options):
    daemon.job("k", source.connection(**parts, hold_wal=hold_wal), targets, streamer=streamer(kafka, **options), tables={"include": list(tables)})


def plain(rows):
    """Without the generated column, which only some servers send with a change."""
    return {key: {c: v for c, v in row.items() if c != "g"} for key, row in rows.items()}


def checked(kafka, source, table):
    """Whoever reads a table's topic has the table in the end."""
    records = kafka.records(f"{kafka.prefix}.public.{table}")
    assert plain(as_table(records)) == plain(source_table(source, table, ["id"]))
    return [json.loads(r.value) for r in records if r.value]


@pytest.mark.spread
@pytest.mark.parametrize("is_quiet", [True, False], ids=["quiet", "written"])
@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("layout", ["native", "both"])
def test_finished_parts_are_not_read_again(pair, kafka, daemon, layout, apply, is_quiet):
    source, target = pair
    cut = int(source.one("SELECT pg_table_size('n')") / (128 << 10)) + 1
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02  # the target is as fast as the source
        parts = {**PARTS, "load_connections": 1, "port": proxy.port}
        killed(daemon, f"target.load-part-done:{int(cut * .6)}",
               lambda: make(daemon, kafka, source, [target.connection(name="copy", apply=apply)], parts=parts, **LAYOUTS[layout]))
        there = parts_of(target, "n")
        assert int(cut * .6) <= there < cut, (there, cut)
        proxy.every = 0
        finish(daemon, kafka, source, target, layout, is_quiet)


def finish(daemon, kafka, source, target, layout, is_quiet):
    sessions = None if is_quiet else Writers(source.server, source, seed=1)
    try:
        time.sleep(0 if is_quiet else 1)
        daemon.start()
        daemon.wait_state("k", "running")
        read = rows_read(daemon, "k", "n")
        time.sleep(0 if is_quiet else 1)
    finally:
        if sessions:
            sessions.stop()
    daemon.wait_equal(source, target, ["public.n"])
    assert len(goes_on(daemon, "n")) == 1, daemon.log()[-3000:]
    assert 0 < read < 20000 * .6, read
    wait_for("its indexes are made", lambda: target.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'n'") == 2)
    assert parts_of(target, "n") == 0
    caught_up(daemon, "k", source)
    source.psql("UPDATE n SET k = -1 WHERE id % 5 = 0; DELETE FROM n WHERE id % 7 = 0")
    daemon.wait_equal(source, target, ["public.n"])
    if layout == "both":
        ops = [v["op"] for v in checked(kafka, source, "n")]
        assert ops.count("r") < 20000 * 1.5 and "t" not in ops


@pytest.mark.spread
@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("disk", ["10GiB", 0])
@pytest.mark.parametrize("layout", ["native", "both", "exact"])
def test_killed_again_and_again(pair, kafka, daemon, layout, disk, apply):
    """A few parts further each time, under writes; then in the time in which the parts are made one."""
    source, target = pair
    r = random.Random(f"{layout} {disk} {apply}")
    sessions = Writers(source.server, source, seed=r.randrange(1000))
    daemon.start()
    make(daemon, kafka, source, [target.connection(name="copy", apply=apply)], ["public.*"], parts={**PARTS, "load_connections": 3}, disk=disk, **LAYOUTS[layout])
    daemon.kill()
    try:
        points = ["target.load-part-done", "target.load-part-done", "target.load-part-noted", "pg.part-copied", "pg.table-copied", "pg.cut-noted",
                  "kafka.acknowledged", "pipeline.stored"]
        daemon.kill_again_and_again(r, (f"{r.choice(points)}:{r.randrange(1, 20)}" for _ in range(KILLS)), [0.5, 1])
    finally:
        sessions.stop()
    daemon.start()
    daemon.wait_state("k", "running", 120)
    daemon.wait_equal(source, target)
    caught_up(daemon, "k", source)
    assert sessions.done > 100
    if layout == "both":
        for table in "n", "big", "p":
            checked(kafka, source, table)


def test_topics_alone(pair, kafka, daemon):
    """Without a target: what the brokers have acknowledged counts."""
    source, _ = pair
    daemon.start()
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        make(daemon, kafka, source, [], parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="table")
        daemon.wait_state("k", "loading")
        wait_for("most is read", lambda: any((t["load"]["rows_read"] or 0) > 13000 for t in daemon.api("GET", "/jobs/k/tables")["items"]))
        daemon.kill()
        proxy.every = 0
        after_the_kill(daemon, kafka, source)


def after_the_kill(daemon, kafka, source):
    source.psql("UPDATE n SET v = md5(v) WHERE id % 3 = 0; DELETE FROM n WHERE id % 4 = 0; UPDATE n SET id = id + 1000000 WHERE id % 11 = 0")
    daemon.start()
    daemon.wait_state("k", "running")
    caught_up(daemon, "k", source)
    assert goes_on(daemon, "n")
    assert 0 < rows_read(daemon, "k", "n") < 20000 * .6
    wait_for("the topic is the table", lambda: plain(as_table(kafka.records(f"{kafka.prefix}.public.n"))) == plain(source_table(source, "n", ["id"])))
    assert "t" not in [v["op"] for v in checked(kafka, source, "n")]


def test_values_that_cannot_be_had(pair, kafka, daemon):
    """A key moves, between the snapshots, of a row whose big value is not sent: the table starts over, behind what stands in the topic."""
    source, target = pair
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .01
        killed(daemon, "target.load-part-done:15", lambda: make(daemon, kafka, source, [target.connection(name="copy")], ["public.big"],
                                                                parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered", codec="native"))
        proxy.every = 0
        source.psql("UPDATE big SET k = k + 1; UPDATE big SET id = id + 1000 WHERE id % 10 = 0; UPDATE big SET k = k + 1")
        daemon.start()
        daemon.wait_equal(source, target, ["public.big"])
        daemon.wait_state("k", "running")
        assert goes_on(daemon, "big") and "target.load-lost" in daemon.log()
        source.psql("UPDATE big SET k = -1")
        daemon.wait_equal(source, target, ["public.big"])


@pytest.mark.parametrize("other", ["postgres", "file"])
def test_two_targets(pair, kafka, daemon, tmp_path, pg, other):
    """Where one of them keeps no parts all begins anew."""
    source, target = pair
    second = pg.database("rest_copy")
    also = second.connection(name="second") if other == "postgres" else {"connector": "file", "name": "second", "path": str(tmp_path / "out")}
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        killed(daemon, "target.load-part-done:24" if other == "postgres" else "target.load-part-done:12", lambda: make(
            daemon, kafka, source, [target.connection(name="copy"), also], parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered"))
        proxy.every = 0
        sessions = Writers(source.server, source, seed=1)
        time.sleep(1)
        sessions.stop()
        daemon.start()
        daemon.wait_state("k", "running")
        for t in (target, second) if other == "postgres" else (target,):
            daemon.wait_equal(source, t, ["public.n"])
        assert bool(goes_on(daemon, "n")) == (other == "postgres")


@pytest.mark.parametrize("what", CHANGES)
def test_what_happened_while_nobody_looked(pair, kafka, daemon, what):
    source, target = pair
    source.psql("DROP TABLE child")
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        killed(daemon, "target.load-part-done:12", lambda: make(daemon, kafka, source, [target.connection(name="copy")],
                                                                parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered"))
        proxy.every = 0
        for statement in CHANGES[what].split("; "):
            source.sql(statement)
        daemon.start()
        daemon.wait_state("k", "running")
        daemon.wait_equal(source, target, ["public.n"])
        source.psql("UPDATE n SET k = k + 1 WHERE id % 3 = 0; DELETE FROM n WHERE id % 5 = 0")
        daemon.wait_equal(source, target, ["public.n"])
        assert bool(goes_on(daemon, "n")) == (what in ("emptied", "identity")), daemon.log()[-3000:]


HANDS = ["position", "mode"]


@pytest.mark.parametrize("what", HANDS)
def test_what_lies_between_does_not_come(pair, kafka, daemon, what):
    """The position is set by hand, or the stream is followed without the load for a while: no part of before counts."""
    source, target = pair
    patch = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        daemon.start()
        make(daemon, kafka, source, [target.connection(name="copy")], parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered")
        wait_for("half is there", lambda: target.one("SELECT to_regclass('dmsr.loads') IS NOT NULL") and parts_of(target, "n") > 10)
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
        source.psql("DELETE FROM n WHERE id % 3 = 0")
        proxy.every = 0
        if what == "position":
            lsn = source.one("SELECT pg_current_wal_lsn()")
            position = f"pg:{source.one('SELECT system_identifier FROM pg_control_system()')}:{lsn}:0:{lsn}"
            daemon.api("PATCH", "/jobs/k/positions", {"position": position}, patch)
            daemon.api("POST", "/jobs/k/start")
        else:
            daemon.api("PATCH", "/jobs/k", {"mode": "cdc"}, patch)
            daemon.api("POST", "/jobs/k/start")
            daemon.wait_state("k", "running")
            caught_up(daemon, "k", source)
            daemon.api("PATCH", "/jobs/k", {"mode": "full-load-and-cdc"}, patch)
        daemon.wait_equal(source, target, ["public.n"])
        daemon.wait_state("k", "running")
        assert not goes_on(daemon, "n")


@pytest.mark.parametrize("layout", ["native", "both"])
def test_jobs_that_read_the_stream(pair, kafka, daemon, pg, tmp_path, layout):
    """One that was there, one that comes late; and those whose targets cannot take back the part that was cut wait for a load that is whole."""
    source, target = pair
    first, late, unique = pg.database("rest_copy"), pg.database("rest_copy"), pg.database("rest_copy")
    other = Dmsrd(tmp_path / "other")
    other.start()
    try:
        with Proxy(source.server.port) as proxy:
            proxy.piece, proxy.every = 1 << 14, .02
            parts = {**PARTS, "load_connections": 1, "port": proxy.port}

            def begin():
                make(daemon, kafka, source, [target.connection(name="copy")], parts=parts, **LAYOUTS[layout])
                other.job("first", stream(kafka, layout), [first.connection(name="first")])
            killed(daemon, "target.load-part-done:12", begin)
            proxy.every = 0
            source.psql("UPDATE n SET k = k + 1 WHERE id % 3 = 0; DELETE FROM n WHERE id % 7 = 0")
            daemon.start()
            daemon.wait_state("k", "running")
            daemon.wait_equal(source, target, ["public.n"])
            assert goes_on(daemon, "n")
            other.wait_equal(source, first, ["public.n"])
            other.job("late", stream(kafka, layout), [late.connection(name="late")])
            other.wait_equal(source, late, ["public.n"])
            other.job("files", stream(kafka, layout), [{"connector": "file", "name": "files", "path": str(tmp_path / "out")}])
            unique.psql("CREATE TABLE n (id integer PRIMARY KEY, v text, k integer NOT NULL, g integer GENERATED ALWAYS AS (k + 1) STORED, UNIQUE (id, k))")
            other.job("unique", stream(kafka, layout), [unique.connection(name="unique", prepare="truncate")])
            for name in "files", "unique":
                wait_for(f"{name} waits for another load", lambda name=name: "kafka.no-load" in json.dumps(other.api("GET", f"/jobs/{name}")), 60)
            daemon.api("POST", "/jobs/k/tables/public.n/reload")
            source.psql("DELETE FROM n WHERE id % 5 = 0")
            for name in "files", "unique":
                if other.state_of(name) == "failed":
                    wait_for("the writer has loaded it again", lambda: daemon.state_of("k") == "running" and daemon.log().count("public.n read:") == 2)
                    other.api("POST", f"/jobs/{name}/start")
            for name, database in ("k", target), ("first", first), ("late", late), ("unique", unique):
                (daemon if name == "k" else other).wait_equal(source, database, ["public.n"])
            other.wait_state("files", "running")
    finally:
        other.kill()


def test_a_table_that_was_to_begin_anew(pair, pg18, kafka, daemon):
    """The target had no part of it when the second run began, which left its changes out of the stream, for its rows to come; of those none came."""
    source, target = pair[0], pg18.database("rest_copy")
    with Proxy(source.server.port) as proxy, contextlib.closing(target.server.connect(target.name)) as locked:
        proxy.piece, proxy.every = 1 << 14, .02
        target.psql("CREATE TABLE n (id integer PRIMARY KEY, v text, k integer NOT NULL, g integer GENERATED ALWAYS AS (k + 1) STORED)")
        locked.autocommit = False
        locked.cursor().execute("LOCK TABLE n IN SHARE MODE")
        daemon.start()
        make(daemon, kafka, source, [target.connection(name="copy", prepare="truncate")], ["public.n", "public.w"],
             parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered", codec="native")
        daemon.wait_state("k", "loading")
        wait_for("parts are there", lambda: any((t["load"]["rows_read"] or 0) > 9000 for t in daemon.api("GET", "/jobs/k/tables")["items"]))
        time.sleep(.5)  # and noted
        daemon.kill()
        assert parts_of(target, "n") == 0
        source.psql("UPDATE n SET k = k + 1; CREATE TABLE w AS SELECT i AS id, repeat('w', 100) AS v FROM generate_series(1, 60000) i; ALTER TABLE w ADD PRIMARY KEY (id); ANALYZE w")
        n = daemon.log().count("reading slot")
        daemon.start()
        wait_for("the other one is read, and the stream", lambda: "2 tables to load" in daemon.log() and daemon.log().count("reading slot") > n)
        source.psql("INSERT INTO n VALUES (-1, 'behind both', 1)")
        locked.rollback()
        wait_for("the target has parts of the first run", lambda: parts_of(target, "n") > 0)
        daemon.kill()
        proxy.every = 0
        daemon.start()
        daemon.wait_equal(source, target, ["public.n", "public.w"])
        daemon.wait_state("k", "running")
        assert not goes_on(daemon, "n") and "changes of it went by since" in daemon.log()


def test_a_file_target_that_comes_late(pair, kafka, daemon, tmp_path):
    """It is given all that stands in the topic, and cannot take back the part that was cut."""
    source, target = pair
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        copy = target.connection(name="copy")
        killed(daemon, "target.load-part-done:12",
               lambda: make(daemon, kafka, source, [copy], parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered"))
        proxy.every = 0
        daemon.start()
        daemon.wait_state("k", "running")
        assert goes_on(daemon, "n")
        files = {"connector": "file", "name": "files", "path": str(tmp_path / "out")}
        daemon.api("PATCH", "/jobs/k", {"targets": [copy, files]}, {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
        job = daemon.wait_state("k", "failed")
        assert job["error"]["code"] == "target.load-goes-on" and "/jobs/k/positions" in job["error"]["suggestion"], job
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
        daemon.api("DELETE", "/jobs/k/positions")
        daemon.api("POST", "/jobs/k/start")
        daemon.wait_state("k", "running")
        source.psql("DELETE FROM n WHERE id % 5 = 0")
        daemon.wait_equal(source, target, ["public.n"])


@pytest.mark.parametrize("load", ["stream", "direct"])
def test_ranges_of_blocks(pair, kafka, daemon, load):
    """What stands in the topics has other readers than these: a table that is cut by its place on disk starts over, but where its rows go past them."""
    source, target = pair
    source.psql("CREATE TABLE u AS SELECT gen_random_uuid() AS id, repeat(md5(i::text), 3) AS v FROM generate_series(1, 20000) i; ALTER TABLE u ADD PRIMARY KEY (id); ANALYZE u")
    with Proxy(source.server.port) as proxy:
        proxy.piece, proxy.every = 1 << 14, .02
        killed(daemon, "target.load-part-done:12", lambda: make(daemon, kafka, source, [target.connection(name="copy")], ["public.u"],
                                                                parts={**PARTS, "load_connections": 1, "port": proxy.port}, layout="ordered", load=load))
        proxy.every = 0
        source.psql("DELETE FROM u WHERE id::text > 'e'")
        source.psql("VACUUM u")
        source.psql("UPDATE u SET v = 'x' WHERE id::text < '8'")
        daemon.start()
        daemon.wait_state("k", "running")
        daemon.wait_equal(source, target, ["public.u"])
    assert bool(goes_on(daemon, "u")) == (load == "direct") and ("starts over" in daemon.log()) == (load != "direct")
