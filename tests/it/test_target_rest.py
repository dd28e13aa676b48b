"""A load that goes on: the PostgreSQL target keeps the parts that it has, takes the others, and makes of them what the source had at the newest snapshot."""
import pytest

from feed import UNCHANGED, Feed, c, column, d, u
from test_target_lanes import COLUMNS, lines, parts, tables

assert COLUMNS
PARTS = {1: (0, 50), 2: (100, 50), 3: (200, 50)}


def torn(db, **options):
    """Parts 3 and 2 of three are there as of 100; the daemon died then."""
    feed = Feed(db, **options)
    script = tables("t").begin("t", parts=3)
    for part in (3, 2, 1):
        script.rows("t", lines(*PARTS[part], f"p{part}"), part=part).end_part("t", part).add({"wait": "consumed"})  # it is committed then
    assert feed.killed(script.end("t").done(), "target.load-part-done:2")
    return feed


def rest(lsn=200, parts_=(1,), since=100):
    script = tables("t").begin("t", lsn, 3, since)
    for part in parts_:
        script.rows("t", lines(*PARTS[part], f"new p{part}"), lsn, part).end_part("t", part, lsn)
    return script.end("t", lsn, since)


def rest_of_places():
    """Part 1 has rows that were in part 2 when that was read, by now with other values, and lacks its row 5: that moved the other way."""
    script = tables("t").begin("t", 200, 3, 100, moves=True)
    script.rows("t", lines(0, 5, "new p1") + lines(6, 44, "new p1") + lines(100, 3, "moved"), 200, 1).end_part("t", 1, 200)
    return script.end("t", 200, 100)


def by_key(change):
    """As a source sends the old row that has the default replica identity."""
    return {**change, "key_only": True}


def begun(said):
    return [line.split()[1:] for line in said.all("begun")]


def loads(db):
    return db.sql("SELECT split_part(job_uid, '/', 2), split_part(position, ':', 3), rows FROM dmsr.loads WHERE table_name = 't' ORDER BY 1")


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_it_goes_on(any_pg, apply):
    db = any_pg.database("rest")
    feed = torn(db, apply=apply)
    assert loads(db) == [("", "", -1), ("2", "0/64", 50), ("3", "0/64", 50)] or loads(db)[0][1] is None
    said = feed.ok(tables("t"))
    assert [(b[0], b[2]) for b in begun(said)] == [("public.t", "2")] and not said.all("loaded")
    # Part 2 comes too: another target did not have it. Between the snapshots rows of part 1 changed that are as of the newer one already.
    script = rest(parts_=(2, 1))
    script.tx(120, c("t", "300", "inserted, and deleted"), c("t", "7", "older than the row that is there"), by_key(d("t", "49", UNCHANGED)))
    script.tx(130, u("t", ["100", "changed"]), by_key(d("t", "101", UNCHANGED)), u("t", ["777", "gone later"]), by_key(d("t", "300", UNCHANGED)))
    script.tx(140, by_key(u("t", ["400", "moved"], ["102", UNCHANGED])), by_key(u("t", ["8", "moved onto"], ["103", UNCHANGED])),
              by_key(u("t", ["9", "from nowhere"], ["778", UNCHANGED]))).wait()
    said = feed.ok(script)
    assert begun(said) and db.one("SELECT count(*) FROM t") == 50 + 50 + 50 - 1 - 3 + 1
    assert loads(db) == [("", "0/64", 150), ("0", "0/C8", 0)]
    assert said.counts("public.t")["loaded"] == 150
    # It is the same in the next run, up to the newer snapshot.
    script = tables("t").tx(150, c("t", "400", "again"), by_key(d("t", "900", UNCHANGED)), u("t", ["901", "x"])).tx(160, u("t", ["10", UNCHANGED])).wait()
    said = feed.ok(script)
    assert not begun(said) and "0/64" in said.all("loaded")[0]
    assert dict(db.sql("SELECT id, a FROM t WHERE id IN (7, 8, 9, 10, 100, 150, 400) OR id > 290 ORDER BY 1")) == {
        7: "older than the row that is there", 8: "moved onto", 9: "from nowhere", 10: "new p1", 100: "changed", 400: "again"}
    assert not db.one("SELECT count(*) FROM t WHERE id IN (49, 101, 102, 103, 300)")
    said = feed.run(tables("t").tx(200, u("t", ["902", "not there"])).wait())
    assert said.failed_id == "target.row-missing"
    feed.ok(tables("t").tx(200, u("t", ["10", "there"])).done())
    assert db.one("SELECT a FROM t WHERE id = 10") == "there" and db.one("SELECT count(*) FROM pg_indexes WHERE tablename = 't'") == 2


def test_it_is_torn_again_and_goes_on(any_pg):
    db = any_pg.database("rest")
    feed = torn(db)
    assert feed.killed(rest().wait(), "target.load-part-noted") and [b[2] for b in begun(feed.ok(tables("t")))] == ["2"]
    assert feed.killed(rest().wait(), "target.load-part-done") and [b[2] for b in begun(feed.ok(tables("t")))] == ["3"]
    assert feed.killed(rest(300, ()).wait(), "target.load-before-commit") and [b[2] for b in begun(feed.ok(tables("t")))] == ["3"]
    feed.ok(rest(400, ()).done())
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("new p1", 50), ("p2", 50), ("p3", 50)]
    assert loads(db) == [("", "0/64", 150), ("0", "0/190", 0)]


def test_it_begins_anew_all_the_same(any_pg):
    """If the source says so: no row of before is left, undivided or in parts."""
    for n in (0, 3):
        db = any_pg.database("rest")
        feed = torn(db)
        script = parts(tables("t"), "t", 200) if n else tables("t").load("t", lines(0, 5), 200)
        feed.ok(script.done())
        assert db.one("SELECT count(*) FROM t") == (300 if n else 5) and not db.one("SELECT count(*) FROM t WHERE id IN (150, 250)")
        assert [x[:2] for x in loads(db)] == [("", "0/C8")]


def test_what_it_cannot_do_with(any_pg):
    """A key that moves and leaves values out: neither of the rows need be the one that had them."""
    db = any_pg.database("rest")
    feed = torn(db)
    said = feed.run(rest().tx(150, u("t", ["500", UNCHANGED], ["5", None])).wait())
    assert (said.failed_id, "retriable=1" in said.failed) == ("target.load-lost", True), said
    assert loads(db) == [("", None, -2)]
    said = feed.ok(tables("t").tx(150, u("t", ["500", UNCHANGED], ["5", None])).wait())
    assert [(b[0], b[1], b[2]) for b in begun(said)] == [("public.t", "none", "0")] and not said.all("loaded")
    feed.ok(parts(tables("t"), "t", 200).done())
    assert db.one("SELECT count(*) FROM t") == 300 and not begun(feed.ok(tables("t")))


@pytest.mark.spread
@pytest.mark.parametrize("what", ["CREATE UNIQUE INDEX ON t (a, id)", "CREATE TABLE r (t int); ALTER TABLE t ADD PRIMARY KEY (id); ALTER TABLE r ADD FOREIGN KEY (t) REFERENCES t",
                                  "ALTER TABLE t DROP a", "DROP TABLE t", "TRUNCATE t"])
def test_the_table_was_changed_at_the_target(any_pg, what):
    db = any_pg.database("rest")
    feed = torn(db)
    db.sql(what)
    said = feed.run(rest().wait())
    assert (said.failed_id, "retriable=1" in said.failed) == ("target.load-lost", True), said
    assert loads(db) == [("", None, -2)]


def test_parts_of_which_none_is_told(any_pg):
    """The stream is past them; or nothing may be removed from a table."""
    db = any_pg.database("rest")
    feed = torn(db)
    assert not begun(Feed(db, prepare="none").ok(tables("t")))
    assert begun(feed.ok(tables("t")))
    feed.ok(tables("t").tx(150, u("t", ["150", "x"])).wait())
    assert not begun(feed.ok(tables("t")))
    db.sql("UPDATE dmsr.loads SET position = replace(position, '0/64', '0/C8') WHERE job_uid LIKE '%/2'")
    assert not begun(feed.ok(tables("t"))), "it is past one of them"
    assert loads(db)[0][2] == -1


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("prepare", ["create", "truncate"])
def test_rows_that_moved(any_pg, prepare, apply):
    """A row that two parts have is there once; of one that none has the update makes it."""
    db = any_pg.database("rest")
    if prepare == "truncate":
        db.sql("CREATE TABLE t (id int PRIMARY KEY, a text)")
    feed = torn(db, apply=apply, prepare=prepare)
    script = rest_of_places().tx(120, u("t", ["100", "moved"]), u("t", ["101", UNCHANGED]), u("t", ["5", "made"])).wait()
    said = feed.ok(script)
    assert begun(said) and loads(db) == [("", "0/64", 152), ("0", "0/C8", -4)]
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("made", 1), ("moved", 3), ("new p1", 49), ("p2", 47), ("p3", 50)]
    # In the next run, up to the newer snapshot, too; behind that a row that is not there is what it ever was.
    feed.ok(tables("t").tx(150, u("t", ["5", UNCHANGED]), u("t", ["700", "made"]), by_key(d("t", "701", UNCHANGED))).wait())
    assert db.one("SELECT count(*) FROM t WHERE a = 'made'") == 2
    assert feed.run(tables("t").tx(210, u("t", ["702", "x"])).wait()).failed_id == "target.row-missing"


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("when", ["at once", "in the next run", "amid many"])
@pytest.mark.parametrize("missing", ["stop", "ignore", "dead-letter"])
def test_a_row_that_no_part_has(any_pg, when, apply, missing):
    """And an update that leaves a value out: whatever is done with rows that are missing, the load is lost, and nothing of that transaction is there."""
    db = any_pg.database("rest")
    feed = torn(db, apply=apply, on_missing_row=missing)
    script = rest_of_places()
    if when == "in the next run":
        feed.ok(script.wait())
        script = tables("t")
    many = [u("t", [str(i), f"many {i}"]) for i in range(100, 150)] * 40 if when == "amid many" else []
    said = feed.run(script.tx(120, u("t", ["7", "changed"])).tx(130, *many, u("t", ["5", UNCHANGED]), *many).tx(140, u("t", ["8", "changed"])).wait())
    assert (said.failed_id, "retriable=1" in said.failed) == ("target.load-lost", True), said
    assert not said.all("dead") and loads(db) == [("", None, -2)]
    assert begun(feed.ok(tables("t"))) == [["public.t", "none", "0"]]
    feed.ok(tables("t").load("t", lines(0, 5), 300).done())
    assert db.one("SELECT count(*) FROM t") == 5 and [x[:2] for x in loads(db)] == [("", "0/12C")]


@pytest.mark.parametrize("at", ["target.load-part-merged", "target.load-part-noted", "target.load-part-done"])
def test_killed_while_rows_that_moved_are_merged(any_pg, at):
    db = any_pg.database("rest")
    feed = torn(db)
    assert feed.killed(rest_of_places().done(), at)
    said = feed.ok(tables("t"))
    assert [(b[0], b[2]) for b in begun(said)] == [("public.t", "3" if at == "target.load-part-done" else "2")]
    feed.ok(rest_of_places().tx(120, u("t", ["5", "made"])).wait())
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("made", 1), ("moved", 3), ("new p1", 49), ("p2", 47), ("p3", 50)]
    assert db.one("SELECT count(*) FROM pg_indexes WHERE tablename = 't'") > 0


@pytest.mark.parametrize("key", ["full", "none", "unique"])
def test_tables_that_are_not_noted(pg, key):
    """What cannot be made one by its primary key starts over."""
    db = pg.database("rest")
    script = tables("t").rel("t", "t", [column("id", "int4", key=1 if key == "unique" else 0), column("a")], key=key).begin("t", parts=2)
    script.rows("t", lines(0, 5), part=1).end_part("t", 1).add({"wait": "consumed"}).end_part("t", 2).end("t").done()
    feed = Feed(db)
    assert feed.killed(script, "target.load-part-done:1")
    assert not begun(feed.ok(tables("t"))) and len(loads(db)) == 1


BETWEEN = {"nothing": lambda s: None, "a transaction": lambda s: s.tx(60, c("o", "1", "x")), "another snapshot": lambda s: s.load("o", "1\tx\n", 200)}


@pytest.mark.spread
@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("between", BETWEEN)
def test_it_is_cut_and_goes_on_in_one_run(any_pg, between, apply):
    """As it comes out of a streamer that keeps it all: the parts that had their end stay, and of the one that was cut no row is there twice."""
    db = any_pg.database("rest")
    db.sql("CREATE TABLE o (id int PRIMARY KEY, a text)")
    feed = Feed(db, prepare="truncate" if between == "another snapshot" else "create", apply=apply)
    script = tables("t", "o").begin("t", parts=3)
    script.rows("t", lines(*PARTS[2], "p2"), part=2).end_part("t", 2).rows("t", lines(*PARTS[1], "cut"), part=1).rows("t", lines(*PARTS[3], "p3"), part=3)
    script.end_part("t", 3)
    BETWEEN[between](script)
    if between != "nothing":
        script.rows("t", lines(0, 3, "late"), part=1).end_part("t", 1)  # of nothing any more
    script.begin("t", 200, 3, 100).rows("t", lines(*PARTS[1], "new p1"), 200, 1).end_part("t", 1, 200)
    script.rows("t", lines(*PARTS[2], "again"), 200, 2).end_part("t", 2, 200).end("t", 200, 100)
    script.tx(150, c("t", "300", "between"), by_key(d("t", "101", UNCHANGED))).tx(210, u("t", ["5", "behind"])).done()
    said = feed.ok(script)
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("behind", 1), ("between", 1), ("new p1", 49), ("p2", 49), ("p3", 50)]
    assert said.counts("public.t")["loaded"] == 150
    assert [x[:2] for x in loads(db)] == [("", "0/64"), ("0", "0/C8")]
    assert db.one("SELECT count(*) FROM pg_indexes WHERE tablename = 't'") == 2


@pytest.mark.spread
@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("between", BETWEEN)
def test_it_is_cut_and_begins_anew(any_pg, between, apply):
    db = any_pg.database("rest")
    db.sql("CREATE TABLE o (id int PRIMARY KEY, a text)")
    feed = Feed(db, prepare="truncate" if between == "another snapshot" else "create", apply=apply)
    script = tables("t", "o").begin("t", parts=3).rows("t", lines(*PARTS[2], "p2"), part=2).end_part("t", 2).rows("t", lines(*PARTS[1], "cut"), part=1)
    BETWEEN[between](script)
    if between != "nothing":
        script.rows("t", lines(0, 3, "late"), part=1).end_part("t", 1)  # of nothing any more
    parts(script, "t", 200)
    feed.ok(script.done())
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("p1", 100), ("p2", 100), ("p3", 100)]
    assert loads(db) == [("", "0/C8", 300)]


def test_its_end_had_come(any_pg):
    """And whoever sends it did not know: what goes on means nothing, and so do its rows."""
    db = any_pg.database("rest")
    feed = Feed(db)
    script = tables("t").begin("t", parts=3)
    for part in (3, 2, 1):
        script.rows("t", lines(*PARTS[part], f"p{part}"), part=part).end_part("t", part)
    script.end("t").begin("t", 200, 3, 100).rows("t", lines(*PARTS[1], "again"), 200, 1).end_part("t", 1, 200).end("t", 200, 100)
    feed.ok(script.tx(150, u("t", ["5", "behind"])).done())
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("behind", 1), ("p1", 49), ("p2", 50), ("p3", 50)]


def test_parts_that_hold_no_rows(any_pg):
    """That nothing is in the table says nothing then."""
    db = any_pg.database("rest")
    feed = Feed(db)
    script = tables("t").begin("t", parts=3).end_part("t", 2).rows("t", lines(*PARTS[1], "cut"), part=1)
    script.begin("t", 200, 3, 100)
    for part in (1, 3):
        script.rows("t", lines(*PARTS[part], f"new p{part}"), 200, part).end_part("t", part, 200)
    feed.ok(script.end("t", 200, 100).done())
    assert db.sql("SELECT a, count(*) FROM t GROUP BY a ORDER BY a") == [("new p1", 50), ("new p3", 50)]


def test_a_load_that_was_lost_goes_on_all_the_same(any_pg):
    """It was sent before its source was told: nothing of it counts, and the one behind it does."""
    db = any_pg.database("rest")
    feed = torn(db)
    assert feed.run(rest().tx(150, u("t", ["500", UNCHANGED], ["5", None])).wait()).failed_id == "target.load-lost"
    said = feed.ok(rest().wait())
    assert [(b[1], b[2]) for b in begun(said)] == [("none", "0")] and loads(db) == [("", None, -2)]
    script = tables("t").begin("t", parts=3).rows("t", lines(*PARTS[2], "p2"), part=2).end_part("t", 2)  # and all of it once more
    script.begin("t", 200, 3, 100).rows("t", lines(*PARTS[1], "p1"), 200, 1).end_part("t", 1, 200).end("t", 200, 100)
    feed.ok(script.tx(150, u("t", ["500", UNCHANGED], ["5", None])).load("t", lines(0, 5), 300).done())
    assert db.one("SELECT count(*) FROM t") == 5 and [x[:2] for x in loads(db)] == [("", "0/12C")]


@pytest.mark.parametrize("how", ["none", "another unique index"])
def test_it_goes_on_where_no_parts_are_kept(any_pg, how):
    """Of a stream that was written for other targets: it says that the load is lost, so that it comes anew, and passes over what stands there then."""
    db = any_pg.database("rest")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, UNIQUE (a, id))")
    feed = Feed(db, prepare="none" if how == "none" else "truncate")
    script = tables("t").begin("t", parts=3).rows("t", lines(*PARTS[2], "p2"), part=2).end_part("t", 2).rows("t", lines(*PARTS[1], "cut"), part=1)
    script.begin("t", 200, 3, 100).rows("t", lines(*PARTS[1], "p1"), 200, 1).end_part("t", 1, 200).end("t", 200, 100)
    said = feed.run(script.wait())
    assert (said.failed_id, "retriable=1" in said.failed) == ("target.load-lost", True), said
    assert begun(feed.ok(tables("t"))) == [["public.t", "none", "0"]]
    script.tx(150, u("t", ["5", "left out"])).load("t", lines(0, 5), 300)
    if how == "none":
        assert feed.run(script.done()).failed_id == "target.table-loaded"
        return
    feed.ok(script.done())
    assert db.one("SELECT count(*) FROM t") == 5 and [x[:2] for x in loads(db)] == [("", "0/12C")]
