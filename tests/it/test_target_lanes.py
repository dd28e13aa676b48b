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


def test_the_last_word_in_the_middle_of_a_transaction(any_pg):
    """Said again after a crash, it may come behind the first half of one that was read before. That stays whole."""
    db = any_pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables().rel("log", "log", LOG, key="none").load("log", "").add({"wait": "applied"}))
    word = [{"again": 500}, {"done": True}, {"emit": {"end": [500, 1, 0], "more": True}}]
    script = opened().add({"done": True}, Script.emit_load(600), *word, *word)
    assert not feed.killed(script.sleep(1000), "target.load-done")
    assert db.one("SELECT count(*) FROM log") == 0 and db.one("SELECT position FROM dmsr.positions") == "none"
    said = feed.ok(rest(opened().add(*word, *word), c("log", "200", "second half")))
    assert db.one("SELECT count(*) FROM log") == 2 and said.counts("public.log") == {"c": 2}
    assert db.one("SELECT load_done FROM dmsr.positions")


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_what_comes_behind_the_last_word_in_the_middle_is_given_back(any_pg, apply):
    """That waits for the transaction's end; so must not wait for it who would bring that. And what comes is still of that transaction."""
    db = any_pg.database("lanes")
    feed = Feed(db, apply=apply)
    feed.ok(tables().rel("log", "log", LOG, key="none").load("log", "").add({"wait": "applied"}))
    script = opened().add({"schema": "log"}, {"done": True}, Script.emit_load(600)).let_go()
    script.part(500, c("log", "200", "behind"), events=3).let_go()
    said = feed.ok(rest(script, c("log", "300", "end")))
    assert db.one("SELECT count(*) FROM log") == 3 and said.counts("public.log") == {"c": 3}
    assert db.one("SELECT bool_or(load_done) FROM dmsr.positions")


def test_the_rest_behind_a_word_of_a_load(pg):
    """A word between the parts does not make the last of them a transaction of its own."""
    db = pg.database("lanes")
    feed = Feed(db, apply="parallel")
    feed.ok(tables("t", "b").load("t", lines(0, 20)).load("b", "").done())
    script = tables("t", "b").tx(400, c("t", "900", "before")).part(500, c("t", "901", "first half"), first=True, events=1)
    script.add({"schema": "b"}, {"done": True}, Script.emit_load(600))
    said = feed.run(rest(script, c("t", "902", "end")), timeout=20)
    assert said.status == 0 and said.counts("public.t") == {"c": 3} and db.one("SELECT count(*) FROM t WHERE id >= 900") == 3


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


@pytest.mark.parametrize("fill", [0, 12])
def test_a_table_that_the_open_transaction_has_changed(any_pg, fill):
    """Its load would wait for the transaction, and that for the load. The next run knows that all it does to the table is in the rows to come."""
    db = any_pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables("t").rel("log", "log", LOG, key="none").load("t", lines(0, 2)).load("log", "").done())
    script = opened(u("t", ["1", "changed"]), fill=fill).load("t", lines(0, 3), lsn=600)
    rest(script, c("t", "2", "in the rows"), c("log", "300", "end")).tx(700, u("t", ["0", "behind"])).wait()
    said = feed.run(script)
    assert said.failed_id == "target.load-in-transaction" and "retriable=1" in said.failed, said
    assert db.sql("SELECT a FROM t ORDER BY id") == [("x",), ("x",)] and not db.sql("SELECT * FROM log")
    said = feed.ok(script)
    assert "loaded public.t" not in "".join(said.all("loaded"))
    assert db.sql("SELECT a FROM t ORDER BY id") == [("behind",), ("x",), ("x",)] and db.one("SELECT count(*) FROM log") == fill + 2
    # One that the job did not load is not its to empty.
    other = any_pg.database("lanes")
    other.sql("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'theirs'); CREATE TABLE log (at int, what text)")
    said = Feed(other).run(script)
    assert said.failed_id == "target.load-in-transaction" and "retriable=0" in said.failed, said


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


# ---- parts ----

def parts(script, name, lsn=100, n=3, rows=50):
    """A table in parts whose batches come mixed."""
    script.begin(name, lsn, n)
    for k in range(2):
        for part in range(1, n + 1):
            script.rows(name, lines((part * 2 + k) * 1000, rows, f"p{part}"), lsn, part)
    for part in range(n, 0, -1):
        script.end_part(name, part, lsn)
    return script.end(name, lsn)


def part_counts(db, name="t"):
    return db.sql(f"SELECT a, count(*), count(DISTINCT id) FROM {name} GROUP BY a ORDER BY a")


FULL = [(f"p{k}", 100, 100) for k in (1, 2, 3)]


def test_parts_side_by_side(any_pg):
    db = any_pg.database("lanes")
    script = tables("t", "u").begin("t", parts=2).rows("t", lines(0, 10, "p1"), part=1).rows("t", lines(100, 10, "p2"), part=2).load("u", lines(0, 5)).sleep(1500)
    script.rows("t", lines(10, 10, "p1"), part=1).end_part("t", 2).end_part("t", 1).end("t").done()
    said, pids = run_beside(Feed(db), script, lambda: copies(db, 2))
    assert said.status == 0 and len(set(pids or [])) == 2, said
    assert part_counts(db) == [("p1", 20, 20), ("p2", 10, 10)] and whole(db, "t", "u")
    assert said.counts("public.t") == {"loaded": 30} and db.sql("SELECT rows, made FROM dmsr.loads WHERE table_name = 't'") == [(30, True)]
    assert [int(line.split()[1]) for line in said.all("applied")] == list(range(1, 10))


@pytest.mark.spread
@pytest.mark.parametrize("prepare", ["create", "truncate", "drop-and-create", "none"])
def test_parts_of_several_tables(any_pg, prepare):
    db = any_pg.database("lanes")
    if prepare != "create":
        db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE u (LIKE t); INSERT INTO t VALUES (-1, 'theirs'); CREATE TABLE r (t int REFERENCES t)")
    theirs = [("theirs", 1, 1)] if prepare == "none" else []
    script = parts(tables("t"), "t")
    other = parts(tables("u"), "u", n=40)
    mixed = Script()
    mixed.lines = [w for w in script.lines + other.lines if "columns" in w]
    a, b = ([w for w in x.lines if "columns" not in w] for x in (script, other))
    while a or b:
        for x in (a, b):
            mixed.lines += x[:2]
            del x[:2]
    said = Feed(db, prepare=prepare).ok(mixed.done())
    assert part_counts(db) == FULL + theirs and len(part_counts(db, "u")) == 40 and db.one("SELECT count(*) FROM u") == 4000
    assert said.counts("public.t") == {"loaded": 300} and said.counts("public.u") == {"loaded": 4000}


def test_an_empty_part_and_an_empty_table(pg):
    db = pg.database("lanes")
    script = tables("t", "u").begin("t", parts=2).end_part("t", 1).rows("t", lines(0, 3), part=2).end_part("t", 2).end("t").begin("u", parts=1).end_part("u", 1).end("u")
    said = Feed(db).ok(script.done())
    assert db.one("SELECT count(*) FROM t") == 3 and db.one("SELECT count(*) FROM u") == 0 and whole(db, "t", "u") and said.applied == 9


def test_types_of_parts(any_pg):
    """Into a table that was made, and into one that has other types, in binary form."""
    source, db, other = any_pg.database("source"), any_pg.database("lanes"), any_pg.database("lanes")
    source.sql("CREATE TYPE mood AS ENUM ('ok', 'so so'); CREATE TABLE t (id int PRIMARY KEY, m mood, n numeric(12,2), v varchar(9));"
               "INSERT INTO t SELECT i, 'so so', 1.5, 'v' || i FROM generate_series(1, 100) i")
    other.sql("CREATE TYPE mood AS ENUM ('ok', 'so so'); CREATE TABLE t (id bigint PRIMARY KEY, m mood, n float8, v text)")
    script = Script().catalog(source, "t")
    for i, where in enumerate(("id <= 50", "id > 50")):
        piece = Script().copy(source, "public.t", f"(SELECT * FROM t WHERE {where})", form="binary").lines[1]
        script.add(*([{"load": "public.t", "lsn": 100, "parts": 2}, Script.emit_load()] if not i else []), {**piece, "lsn": 100}, {"part": "public.t"},
                   Script.emit_load(part=i + 1))
    script.end("public.t").done()
    Feed(db).ok(script)
    assert db.digest("t") == source.digest("t")
    Feed(other).ok(script)
    assert other.sql("SELECT count(*), sum(id), min(n), max(v) FROM t") == [(100, 5050, 1.5, "v99")]


MAKES = ["target.load-making", "target.load-made", "target.load-part:2", "target.load-part-done:2", "target.load-before-commit", "target.load-after-commit"]


@pytest.mark.parametrize("point", MAKES)
def test_killed_in_the_middle_of_parts(pg, point):
    """A new snapshot, in which the source has other rows: none of the old ones stay."""
    db = pg.database("lanes")
    feed = Feed(db)
    assert feed.killed(parts(tables("t"), "t").done(), point)
    said = feed.ok(Script())
    is_loaded = point == "target.load-after-commit"
    assert bool(said.all("loaded")) == is_loaded and (db.sql("SELECT rows FROM dmsr.loads WHERE position IS NULL") == [(-1,)]) == (
        not is_loaded and point != "target.load-making")
    # The rest of it, from a streamer that keeps; and changes of the table, which are in the rows that will come.
    rest_of = tables("t").rows("t", lines(7000, 10), part=3).end_part("t", 3).end("t")
    if not is_loaded and point != "target.load-making":
        rest_of.tx(150, u("t", ["1", "changed"])).wait()
    feed.ok(rest_of)
    said = feed.ok(parts(tables("t"), "t", lsn=200, rows=49).done().tx(300, u("t", ["2000", "changed"])).wait())
    assert part_counts(db) == [("changed", 1, 1), ("p1", 97, 97), ("p2", 98, 98), ("p3", 98, 98)] and whole(db, "t")
    assert said.counts("public.t") == {"loaded": 294, "u": 1}
    assert db.sql("SELECT rows, split_part(position, ':', 3) FROM dmsr.loads") == [(294, "0/C8")]


def test_a_torn_load_in_parts_begins_anew(any_pg):
    """In the same run, at once: what its lanes had under way is not there in the end, in a table that is referred to, too."""
    db = any_pg.database("lanes")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE r (t int REFERENCES t)")
    script = tables("t", "u")
    for lsn in (100, 110, 120):
        script.begin("t", lsn, 3).rows("t", lines(lsn * 1000, 20000, "void"), lsn, 1).rows("t", lines(lsn * 1000 + 30000, 10, "void"), lsn, 2).end_part("t", 2, lsn)
        script.rows("t", lines(lsn * 1000 + 40000, 10, "void"), lsn, 3).load("u", lines(0, 3), lsn=lsn).end_part("t", 1, lsn)
    said = Feed(db).ok(parts(script, "t", lsn=200).done())
    assert part_counts(db) == FULL and whole(db, "u") and said.counts("public.t") == {"loaded": 300}


def test_a_void_load_leaves_others_alone(pg):
    """u takes the connection that has made t, and is begun anew there: t is not told before it is whole."""
    script = tables("t", "u").begin("t", parts=2).sleep(500).begin("u").rows("u", lines(0, 5)).rows("t", lines(0, 10, "p1"), part=1)
    script.rows("t", lines(10, 10, "p2"), part=2).end_part("t", 1).end_part("t", 2).end("t").begin("u", lsn=200).sleep(4000)
    said = Feed(pg.database("lanes")).run(script, "target.load-before-commit")
    assert said.status == -9 and said.applied == 0, said


def test_a_load_that_never_ends_is_told(pg):
    db = pg.database("lanes")
    Feed(db).ok(tables("t").begin("t", parts=2).rows("t", lines(0, 10), part=1).sleep(1000))
    said = Feed(db).ok(tables("t").tx(300, c("t", "5", "passed over")).done().wait())
    assert [line for line in said.all("notice") if "no load of it has ended" in line] and not db.one("SELECT count(*) FROM t")


def test_parts_out_of_order(pg):
    for words in (Script().rows("t", "1\ta\n", part=4), Script().rows("t", "1\ta\n"), Script().end_part("t", 1).rows("t", "1\ta\n", part=1), Script().end("t")):
        script = tables("t").begin("t", parts=3)
        script.lines += words.lines
        said = Feed(pg.database("lanes")).run(script.add({"wait": "applied"}))
        assert said.failed_id == "target.load-order" and "public.t" in said.failed, said


def test_a_session_of_a_part_is_cut(pg):
    db = pg.database("lanes")
    script = tables("t").begin("t", parts=2).rows("t", lines(0, 10), part=1).rows("t", lines(10, 10), part=2).end_part("t", 1).rows("t", lines(20, 10), part=2).sleep(1500)
    script.end_part("t", 2).end("t").done()
    said, _ = run_beside(Feed(db), script, lambda: db.one("SELECT to_regclass('t') IS NOT NULL") and copies(db, 1) and db.one("SELECT count(*) FROM t") == 10 and db.sql(
        "SELECT pg_terminate_backend(%s)", copies(db, 1)[0]))
    assert "retriable=1" in said.failed, said
    Feed(db).ok(script)
    assert db.one("SELECT count(*) FROM t") == 30 and whole(db, "t")


# ---- indexes ----

@pytest.mark.parametrize("connections", [1, 2])
def test_indexes_side_by_side(pg, connections):
    """Of different tables; foreign keys come behind all of them."""
    db = pg.database("lanes")
    db.sql("CREATE FUNCTION slow(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN $1; END'")
    script = Script()
    for n, other in ("tu", "ut"):
        script.rel(n, n, COLUMNS, ddl=[(1, "primary-key", f"public.{n}.{n}_pkey", f"ALTER TABLE public.{n} ADD CONSTRAINT {n}_pkey PRIMARY KEY (id)"),
                                       (1, "index", f"public.{n}_a", f"CREATE INDEX {n}_a ON public.{n} (public.slow(a))"),
                                       (1, "index", f"public.{n}_b", f"CREATE INDEX {n}_b ON public.{n} (a)"),
                                       (2, "foreign-key", f"public.{n}.fk", f"ALTER TABLE public.{n} ADD CONSTRAINT {n}_fk FOREIGN KEY (id) REFERENCES public.{other} (id)")])
    for n in "tu":
        script.load(n, lines(0, 4))
    at_once = [0]
    building = "SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'CREATE INDEX %slow%'"
    said, _ = run_beside(Feed(db, index_connections=connections), script.done(), lambda: at_once.append(db.one(building)))
    assert said.status == 0 and max(at_once) == connections, (at_once, said)
    assert db.one("SELECT count(*) FROM pg_indexes WHERE tablename IN ('t', 'u')") == 6 and db.one("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 2
    # What is left over of the sessions is gone, but for the one that writes changes.
    assert "load_done=1" in Feed(db).ok(Script()).lines[0]


def test_a_table_to_be_made_anew_that_another_load_is_tied_to(pg):
    """To wait for the other one's end would be to wait for ever: it is behind our own rows."""
    db = pg.database("lanes")
    feed = Feed(db)
    feed.ok(tables("t", "u").load("t", lines(0, 3)).load("u", lines(0, 3)).done())
    db.sql("ALTER TABLE u ADD FOREIGN KEY (id) REFERENCES t")
    script = tables("u").rel("t", "t", COLUMNS + [column("b")], id=1116)
    script.begin("u", 200).rows("u", lines(0, 10), 200).sleep(500).begin("t", 200)
    for i in range(12):
        script.rows("t", "".join(f"{i}\t{'y' * (1 << 20)}\tz\n"), 200)
    script.rows("u", lines(10, 1), 200).end("u", 200).end("t", 200).done()
    said = feed.run(script)
    assert said.failed_id == "target.locked" and "retriable=1" in said.failed and '"t"' in said.failed, said
    assert db.one("SELECT count(*) FROM u") == 3


@pytest.mark.parametrize("piece", ["whole", "parts"])
def test_a_table_that_another_job_has_begun_in_parts(pg, piece):
    """None of its rows is there yet, and nothing holds the table."""
    db = pg.database("lanes")
    assert Feed(db).killed(parts(tables("t"), "t").done(), "target.load-made")
    other = Feed(db, uid="01hzotherotherotherotherot", job="other")
    script = (parts(tables("t"), "t") if piece == "parts" else tables("t").load("t", lines(0, 300))).done()
    said = other.run(script)
    assert said.failed_id == "target.table-shared" and "retriable=0" in said.failed and '"t"' in said.failed and 'job "' in said.failed, said
    assert db.one("SELECT count(*) FROM t") == 0
    # It began anew since then: no load of its is under way.
    db.sql("UPDATE dmsr.loads SET rows = -3 WHERE rows = -1")
    other.ok(script)
    assert db.one("SELECT count(*) FROM t") == 300
