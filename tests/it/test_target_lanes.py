"""Loads of tables side by side, and beside the stream: what the PostgreSQL target makes of batches that come in any order, and of loads that are torn."""
import threading
import time

import pytest
from feed import Feed, Script, c, column, u

COLUMNS = [column("id", "int4", key=1), column("a")]
LOG = [column("at", "int4"), column("what")]


def tables(*names):
    """Each with a key, an index, and what else is in ddl."""
    script = Script()
    for n in names:
        script.rel(n, n, COLUMNS, id=1000 + sum(map(ord, n)), ddl=[
            (1, "primary-key", f"public.{n}.{n}_pkey", f"ALTER TABLE public.{n} ADD CONSTRAINT {n}_pkey PRIMARY KEY (id)"),
            (1, "index", f"public.{n}_a", f"CREATE INDEX {n}_a ON public.{n} (a)")])
    return script


def lines(first, n, a="x"):
    return "".join(f"{i}\t{a}\n" for i in range(first, first + n))


def run_beside(feed, script, look, **options):
    """Runs a script and, again and again, look; returns what the target said and the first thing that look gave."""
    process, out = feed.start(script, **options), []
    runner = threading.Thread(target=lambda: out.append(feed.end(process)))
    runner.start()
    seen = None
    while runner.is_alive():
        seen = seen or look()
        time.sleep(0.05)
    runner.join()
    return out[0], seen


COPIES = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %' AND state = 'active' ORDER BY pid"


def copies(db, n):
    """The sessions that are in a COPY, when there are so many."""
    pids = [r[0] for r in db.sql(COPIES)]
    return pids if len(pids) >= n else None


def whole(db, *names):
    """Are the key and the index of each there?"""
    return all(db.one("SELECT count(*) FROM pg_indexes WHERE tablename = %s", n) == 2 for n in names)


def test_tables_side_by_side(any_pg):
    db = any_pg.database("lanes")
    script = tables("t", "u").begin("t").rows("t", lines(0, 10)).begin("u").rows("u", lines(0, 5)).sleep(1500).rows("t", lines(10, 10)).end("u")
    script.rows("t", lines(20, 10)).end("t").done()
    said, pids = run_beside(Feed(db), script, lambda: copies(db, 2))
    assert said.status == 0 and len(set(pids or [])) == 2, said
    assert db.sql("SELECT count(*), max(id) FROM t") == [(30, 29)] and db.sql("SELECT count(*) FROM u") == [(5,)]
    assert said.counts("public.t") == {"loaded": 30} and said.counts("public.u") == {"loaded": 5} and whole(db, "t", "u")
    assert [int(line.split()[1]) for line in said.all("applied")] == list(range(1, 10))


def test_many_small_tables(pg):
    """More lanes than a few are not opened for loads that have their end."""
    db = pg.database("lanes")
    names = [f"t{i}" for i in range(200)]
    script = tables(*names)
    for n in names:
        script.begin(n).rows(n, lines(0, 3)).end(n)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dmsr%'"
    most = [0]
    said, _ = run_beside(Feed(db), script.done(), lambda: most.append(db.one(sessions)))
    assert said.status == 0 and 0 < max(most) <= 6, (most, said)
    assert db.one("SELECT count(*) FROM dmsr.loads WHERE position IS NOT NULL") == 200 and whole(db, "t0", "t199")


def test_a_change_of_the_stream_voids_what_has_no_end(any_pg):
    db = any_pg.database("lanes")
    script = tables("t", "u", "log").load("log", "0\tloaded\n").begin("t").rows("t", lines(0, 1000)).begin("u").rows("u", lines(0, 2)).end("u")
    script.tx(200, c("log", "1", "x")).wait().rows("t", lines(1000, 10)).end("t").tx(210, c("log", "2", "x")).wait()
    said = Feed(db).ok(script)
    assert said.applied == 10 and db.one("SELECT to_regclass('t')") is None and db.rows("u") and db.one("SELECT count(*) FROM log") == 3
    # What an earlier run had begun may go on in this one: it means nothing.
    said = Feed(db).ok(tables("t").rows("t", lines(0, 5)).end("t").add({"wait": "applied"}))
    assert said.applied == 2 and db.one("SELECT to_regclass('t')") is None
    Feed(db).ok(tables("t").load("t", lines(0, 7), lsn=300).done())
    assert db.one("SELECT count(*) FROM t") == 7


def test_another_snapshot_voids_all_that_are_open(any_pg):
    db = any_pg.database("lanes")
    script = tables("t", "u", "v").begin("t").rows("t", lines(0, 100)).begin("u").rows("u", lines(0, 100)).load("v", lines(0, 3)).sleep(300)
    script.begin("t", lsn=200).rows("u", lines(100, 100)).rows("t", lines(0, 7), lsn=200).end("u").end("t", lsn=200).load("u", lines(0, 8), lsn=200)
    said = Feed(db).ok(script.done())
    assert [db.one(f"SELECT count(*) FROM {t}") for t in "tuv"] == [7, 8, 3] and whole(db, "t", "u", "v")
    assert db.sql("SELECT table_name, split_part(position, ':', 3) FROM dmsr.loads ORDER BY 1") == [("t", "0/C8"), ("u", "0/C8"), ("v", "0/64")]
    assert said.counts("public.t") == {"loaded": 7} and said.counts("public.u") == {"loaded": 8}


def test_a_session_of_a_load_is_cut(pg):
    db = pg.database("lanes")
    script = tables("t", "u").begin("t").rows("t", lines(0, 10)).begin("u").rows("u", lines(0, 5)).sleep(1500).end("u").end("t").done()

    def cut():
        pids = copies(db, 2)
        return pids and db.sql("SELECT pg_terminate_backend(%s)", pids[0])
    said, _ = run_beside(Feed(db), script, cut)
    assert said.failed_id in ("target.unreachable", "target.shutdown") and "retriable=1" in said.failed, said
    assert db.one("SELECT to_regclass('t') IS NULL AND to_regclass('u') IS NULL")
    Feed(db).ok(script)
    assert db.one("SELECT count(*) FROM t") == 10 and db.one("SELECT count(*) FROM u") == 5 and whole(db, "t", "u")


def test_a_session_of_an_earlier_run_is_waited_for(pg):
    """A lane's COMMIT that is on its way when dmsrd dies: the next run reads what is loaded only when that is through."""
    db = pg.database("lanes")
    feed = Feed(db)
    feed.ok(Script())
    other = db.server.connect(db.name)
    other.autocommit = True
    script = tables("t").begin("t").rows("t", lines(0, 10)).sleep(1000).end("t").done()
    said, shared = run_beside(feed, script, lambda: db.one("SELECT min((classid::bigint << 32) | objid::bigint) FROM pg_locks WHERE locktype = 'advisory' "
                                                           "AND granted AND mode = 'ShareLock'"))
    assert said.status == 0 and shared
    other.cursor().execute("SELECT pg_advisory_lock_shared(%s)", (shared,))
    began = time.monotonic()
    feed.ok(Script())
    assert time.monotonic() - began > 2.5
    with pytest.raises(Exception):
        other.cursor().execute("SELECT 1")


# ---- in the middle of a transaction ----

def opened(*changes, fill=0):
    """The first half of a transaction, on log."""
    script = tables("t", "b").rel("log", "log", LOG, key="none")
    script.part(500, *[c("log", str(i), {"fill": 1 << 20}) for i in range(fill)], c("log", "100", "first half"), *changes, first=True, events=fill + 1 + len(changes))
    return script


def rest(script, *changes):
    return script.add({"again": 500}, *changes, {"commit": True}, {"emit": {"end": [500, -1, 501]}}).wait()


@pytest.mark.parametrize("fill", [0, 12])
def test_a_load_in_the_middle_of_a_transaction(any_pg, fill):
    """The job was stopped inside of one, and a table added. It stays whole."""
    db = any_pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables().rel("log", "log", LOG, key="none").load("log", "").done())
    script = opened(fill=fill).load("t", lines(0, 20), lsn=600)
    assert feed.killed(script.sleep(2000), "target.load-after-commit")
    assert db.one("SELECT count(*) FROM log") == 0 and db.one("SELECT position FROM dmsr.positions") == "none"
    assert db.one("SELECT count(*) FROM t") == 20
    script = opened(fill=fill).add({"schema": "log"}, {"schema": "t"}, {"done": True}, Script.emit_load(600))
    said = feed.ok(rest(script, c("log", "200", "second half"), c("t", "900", "in the rows"), c("log", "300", "end")))
    assert db.one("SELECT count(*) FROM log") == fill + 3 and db.one("SELECT count(*) FROM t") == 20 and whole(db, "t")
    assert db.one("SELECT position FROM dmsr.positions").startswith("pg:7:0/1F4:*") and db.one("SELECT load_done FROM dmsr.positions")
    assert said.counts("public.log") == {"c": fill + 3}


def test_a_row_that_is_refused_behind_such_a_load(any_pg):
    """What is read again is the transaction, and not the load."""
    db = any_pg.database("lanes")
    feed = Feed(db, on_data_error="dead-letter", on_constraint_error="dead-letter")
    db.sql("CREATE TABLE log (at int CHECK (at <> 13), what text)")
    feed.ok(tables().rel("log", "log", LOG, key="none").load("log", "").done())
    script = opened().load("t", lines(0, 20), lsn=600).begin("b", lsn=600).rows("b", lines(0, 3), lsn=600).end("b", lsn=600)
    script.add({"done": True}, Script.emit_load(600))
    said = feed.ok(rest(script, c("log", "200", "second half"), c("log", "13", "bad"), c("log", "300", "end")))
    assert said.all("dead") == ["dead create public.log target.constraint"]
    assert db.sql("SELECT at FROM log ORDER BY 1") == [(100,), (200,), (300,)] and [db.one(f"SELECT count(*) FROM {t}") for t in "tb"] == [20, 3]
    assert said.counts("public.t") == {"loaded": 20} and whole(db, "t", "b")


def test_foreign_keys_wait_for_the_end_of_the_transaction(pg):
    """They need locks of tables that it has written to."""
    db = pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables("t").load("t", lines(0, 2)).done())
    fk = [(2, "foreign-key", "public.b.fk", "ALTER TABLE public.b ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES public.t (id)")]
    script = tables("t").rel("b", "b", COLUMNS, ddl=fk).part(500, u("t", ["1", "changed"]), first=True, events=1).load("b", lines(0, 2), lsn=600)
    script.add({"schema": "t"}, {"schema": "b"}, {"done": True}, Script.emit_load(600))
    said = feed.ok(rest(script, c("t", "7", "x")))
    assert db.rows("t") and db.one("SELECT count(*) FROM t") == 3 and db.one("SELECT count(*) FROM pg_constraint WHERE conname = 'fk'") == 1
    assert said.applied == 4


def test_a_table_that_the_open_transaction_has_changed(pg):
    """Its load would wait for the transaction, and that for the load."""
    db = pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables("t").load("t", lines(0, 2)).done())
    script = tables("t").part(500, u("t", ["1", "changed"]), first=True, events=1).load("t", lines(0, 3), lsn=600).add({"wait": "applied"})
    said = feed.run(script)
    assert said.failed_id == "target.load-in-transaction" and "retriable=0" in said.failed, said
    assert db.sql("SELECT a FROM t ORDER BY id") == [("x",), ("x",)]


def test_tables_that_are_dropped_and_refer_to_each_other(pg):
    """What a drop locks of other tables is not held while rows come."""
    db = pg.database("lanes")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE u (id int PRIMARY KEY REFERENCES t, a text); ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES u")
    script = tables("t").rel("u", "u", COLUMNS).begin("t").rows("t", lines(0, 10)).begin("u")
    for i in range(12):
        script.rows("u", lines(1 + i * 100000, 1, "y" * (1 << 20)))
    script.rows("t", lines(10, 10)).end("t").end("u").done()
    said = Feed(db, prepare="drop-and-create").ok(script)
    assert db.one("SELECT count(*) FROM t") == 20 and db.one("SELECT count(*) FROM u") == 12, said
