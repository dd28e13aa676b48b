"""The PostgreSQL target is killed at each of its failpoints and at random, or its server is: in the end the rows are neither lost nor doubled."""
import random
import re
import threading
import time

import pytest
from conftest import TOP
from feed import UNCHANGED, Feed, Script, c, column, d, u

V1 = [column("id", "int4", key=1), column("a"), column("n", "int8")]
V2 = V1 + [column("m", "public.mood")]
LOG = [column("at", "int8"), column("what")]
DDL = [(1, "primary-key", "public.items.items_pkey", "ALTER TABLE public.items ADD CONSTRAINT items_pkey PRIMARY KEY (id)"),
       (1, "index", "public.items_a", "CREATE INDEX items_a ON public.items (a)")]
MOOD = [(0, "enum", "public.mood", "CREATE TYPE public.mood AS ENUM ('ok', 'so so')")]
LOADED, TRANSACTIONS, BIG = 300, 60, 100


def stream(said):
    """What a source would send to a target that says this."""
    at = int(re.search(r"ready (?:none|pg:7:0/([0-9A-F]+):)", said.lines[0]).group(1) or "0", 16)
    have = {line.split()[1] for line in said.all("loaded")}
    script = Script().rel("v1", "items", V1, ddl=DDL).rel("v2", "items", V2, ddl=DDL + MOOD).rel("log", "log", LOG, key="none")
    if "public.items" not in have:
        script.begin("v1", parts=3)
        for part in (1, 2, 3):
            script.rows("v1", "".join(f"{i}\tr{i}\t{i}\n" for i in range(LOADED) if i % 3 == part - 1), part=part)
        script.end_part("v1", 3).end_part("v1", 1).end_part("v1", 2).end("v1")
    if "public.log" not in have:
        script.load("log", "0\tloaded\n")
    if "load_done=0" in said.lines[0]:
        script.add({"schema": "v1"}, {"schema": "log"}, {"done": True}, script.emit_load())
    changes(script, at)
    return script.wait()


def changes(script, at):
    """Row 10 k + 3 gets k, 10 k + 4 is deleted, 1000 + k is made; in mid-stream a column comes, later an enum's label that nobody told of."""
    for k in range(TRANSACTIONS):
        lsn = 1000 + 10 * k
        new = [] if k < 20 else ["ok" if k < 40 else "new"]
        rel = "v2" if new else "v1"
        words = [{"schema": "v2", "old": "v1"}] if k == 20 else []
        words += [c("log", str(k), "x"), u(rel, [str(10 * (k % 30) + 3), f"u{k}", str(k), *new]), c("log", str(k), "y"), c(rel, str(1000 + k), "c", "0", *new)]
        words += [d(rel, str(10 * k + 4), *[UNCHANGED] * (2 + len(new)))] if k < 30 else []
        if lsn >= at:
            script.tx(lsn, *words)
    big(script, at)


def big(script, at):
    """One transaction that is more than is held."""
    if at > 5000:
        return
    script.part(5000, first=True)
    for k in range(BIG):
        script.part(5000, c("v2", str(2000 + k), {"fill": 200000}, "1", "ok"), c("log", str(k), "big"), events=2 * k + 2)
    script.add({"again": 5000}, {"commit": True}, {"emit": {"end": [5000, -1, 5001]}})


def check(db):
    items = {i: (f"r{i}", i, None) for i in range(LOADED)}
    for k in range(TRANSACTIONS):
        mood = None if k < 20 else "ok" if k < 40 else "new"
        items[10 * (k % 30) + 3] = (f"u{k}", k, mood)
        items[1000 + k] = ("c", 0, mood)
        if k < 30:
            del items[10 * k + 4]
    items.update({2000 + k: (f"big {200000}", 1, "ok") for k in range(BIG)})
    have = db.sql("SELECT id, CASE WHEN length(a) > 99 THEN 'big ' || length(a) ELSE a END, n, m::text FROM items ORDER BY id")
    assert have == [(i, *items[i]) for i in sorted(items)]
    log = db.sql("SELECT what, count(*), count(DISTINCT at) FROM log GROUP BY what ORDER BY what")
    assert log == [("big", BIG, BIG), ("loaded", 1, 1), ("x", TRANSACTIONS, TRANSACTIONS), ("y", TRANSACTIONS, TRANSACTIONS)]
    assert db.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'items'") == 2


def resume(feed):
    return stream(feed.ok(Script()))


def failpoints():
    out = [name for path in (TOP / "src" / "connectors" / "postgres").glob("target*.c") for name in re.findall(r'failpoint\("([a-z0-9.-]+)"\)', path.read_text())]
    assert len(out) >= 12
    return sorted(set(out) - {"target.load-part-merged"})  # test_load_turns.py


@pytest.mark.parametrize("point", failpoints())
def test_killed_at_each_failpoint(pg, point):
    db = pg.database("kill")
    feed = Feed(db, commit_rows=40)
    hits = 0
    for n in (1, 1, 2, 5):
        hits += feed.killed(resume(feed), f"{point}:{n}")
    assert hits, f"{point} is never passed"
    # Failing is another way to die: told, and without a signal.
    said = feed.run(resume(feed), f"{point}:2:fail")
    assert said.status == 0 or said.failed_id == "target.failpoint", said
    feed.ok(resume(feed))
    check(db)


@pytest.mark.parametrize("options", [{}, {"commit_rows": 3, "session_replication_role": "off"}])
def test_killed_at_random(any_pg, options):
    db = any_pg.database("kill")
    feed = Feed(db, **options)
    for _ in range(10):
        feed.killed_after(resume(feed), 0.6)
    feed.ok(resume(feed))
    check(db)


def test_server_dies(pg):
    """The server is killed under it: retriable, and then all goes on."""
    from conftest import Postgres
    server = Postgres()
    try:
        db = server.database("kill")
        feed = Feed(db, commit_rows=20)
        script = resume(feed)
        for _ in range(4):
            stopper = threading.Timer(0.2 + random.random() * 0.3, server.stop, ["immediate"])
            stopper.start()
            said = feed.run(script)
            stopper.join()
            assert said.status == 0 or ("retriable=1" in said.failed and said.failed_id == "target.unreachable"), said
            server.start()
            script = resume(feed)
        feed.ok(script)
        check(db)
    finally:
        server.close()


@pytest.fixture
def power():
    """A server that writes its log to the disk when it must, and long after otherwise; and what takes its power away and gives it back."""
    from conftest import Postgres
    server = Postgres(settings=["wal_writer_delay=10s", "wal_writer_flush_after=1GB", "autovacuum=off"])

    def fail():
        server.stop("immediate")
        server.start()
    yield server, fail
    server.close()


LAZY = {"commit_rows": 1, "synchronous_commit": False}


def log_of(first, last):
    script = Script().rel("log", "log", LOG, key="none")
    for lsn in range(first, last):
        script.tx(lsn, c("log", str(lsn), "x"))
    return script


@pytest.mark.parametrize("options", [{}, LAZY, {**LAZY, "apply": "parallel"}], ids=["off-for-all", "off-for-the-job", "parallel"])
def test_power_fails_behind_what_was_told(power, options):
    """What was told as applied is there, also with nothing behind it, and whoever said that commits need not wait for the disk."""
    server, fail = power
    db = server.database("power")
    if not options:
        db.sql(f"ALTER DATABASE {db.name} SET synchronous_commit = off")
    feed = Feed(db, **options)
    feed.ok(Script().rel("log", "log", LOG, key="none").load("log", "0\tloaded\n").done().add({"close": True}))
    fail()
    assert db.sql("SELECT * FROM log") == [(0, "loaded")]
    said = feed.ok(log_of(1000, 1300).add({"wait": "applied"}, {"close": True}))  # nobody asks for it
    commits = db.one("SELECT count(DISTINCT xmin::text) FROM log")
    fail()
    assert db.one("SELECT count(*) FROM log") == 301 and db.one("SELECT max(position) FROM dmsr.positions WHERE position LIKE 'pg%'") > ""
    if options == LAZY:
        assert commits > 200 and len(said.all("counts")) < 100


@pytest.mark.parametrize("options", [LAZY, {**LAZY, "commit_rows": 5, "apply": "parallel"}], ids=["strict", "parallel"])
def test_power_fails_amid_commits_that_do_not_wait(power, options):
    server, fail = power
    db = server.database("power")
    feed = Feed(db, **options)
    feed.ok(Script().rel("log", "log", LOG, key="none").load("log", "").done())
    told = 1000
    for _ in range(4):
        stopper = threading.Timer(0.4 + random.random() * 0.3, server.stop, ["immediate"])
        process = feed.start(log_of(told, told + 3000).wait())
        stopper.start()
        said = feed.end(process)
        stopper.join()
        server.start()
        told += said.applied
        have = [n for n, in db.sql("SELECT at FROM log ORDER BY at")]
        assert have[:told - 1000] == list(range(1000, told)) and len(have) == len(set(have)), (told, have[-5:], said)
    end = have[-1] + 100  # what was not told may be there all the same
    feed.ok(log_of(told, end).wait())
    assert [n for n, in db.sql("SELECT at FROM log ORDER BY at")] == list(range(1000, end))


def test_two_of_the_same_job(pg):
    """The second waits for the first, and takes over when that is gone."""
    db = pg.database("kill")
    feed = Feed(db)
    script = Script().rel("log", "log", LOG, key="none").load("log", "").done().tx(1000, c("log", "1", "x")).add({"flush": True}, {"sleep": 1500})
    first = feed.start(script)
    first.stdin.write(first.script)
    first.stdin.close()
    first.stdin = None
    deadline = time.monotonic() + 10
    while not db.one("SELECT to_regclass('log') IS NOT NULL") and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    said = feed.ok(Script())
    assert time.monotonic() - began > 0.3 and "pg:7:0/3E8" in said.lines[0]
    out, _ = first.communicate(timeout=20)
    assert "stopped" in out
    assert db.one("SELECT count(*) FROM log") == 1
