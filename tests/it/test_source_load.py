"""Tables that are loaded in parts, side by side: the parts are the table, however its key is made and whatever happens between two of them."""
import contextlib
import re
import socket
import threading
import time

import psycopg2
import pytest

from conftest import wait_for
from proxy import Proxy
from source import Dump
from test_source import Work, db, dump, server  # pylint: disable=unused-import

assert db and dump and server

PARTS = ("load_connections=4", "load_part_bytes=64KiB", "batch_bytes=16KiB")
# Tables of about half a MiB. What stands first: by what each is to be cut.
SHAPES = {
    "serial": ("key", "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) SELECT md5(i::text) FROM generate_series(1, 8000) i"),
    "backwards": ("key", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT -i, md5(i::text) FROM generate_series(1, 8000) i"),
    "skewed pairs": ("key", """CREATE TABLE t ("A key" int, b bigint, v text, PRIMARY KEY ("A key", b));
        INSERT INTO t SELECT CASE WHEN i < 7000 THEN 1 ELSE i END, i, md5(i::text) FROM generate_series(1, 8000) i"""),
    "odd texts": ("key", r"""CREATE TABLE t (id text COLLATE "C" PRIMARY KEY, v text);
        INSERT INTO t SELECT lpad(i::text, 5, '0') || E'\'"\\ä\t', md5(i::text) FROM generate_series(1, 8000) i"""),
    "texts": ("block", """CREATE TABLE t (id text PRIMARY KEY, v text); INSERT INTO t SELECT lpad(i::text, 5, '0'), md5(i::text) FROM generate_series(1, 8000) i"""),
    "long texts": ("any", """CREATE TABLE t (id text COLLATE "C" PRIMARY KEY, v text);
        INSERT INTO t SELECT repeat(chr(97 + i % 26) || lpad(i::text, 3, '0'), 50000), md5(i::text) FROM generate_series(1, 50) i;
        INSERT INTO t SELECT lpad(i::text, 5, '0'), md5(i::text) FROM generate_series(1, 8000) i"""),
    "times": ("key", """CREATE TABLE t (id timestamptz PRIMARY KEY, v text);
        INSERT INTO t SELECT '2020-01-01'::timestamptz + i * interval '0.001537s', md5(i::text) FROM generate_series(1, 8000) i;
        INSERT INTO t VALUES ('-infinity', 'before'), ('infinity', 'after')"""),
    "numbers with NaN": ("key", """CREATE TABLE t (id numeric PRIMARY KEY, v text);
        INSERT INTO t SELECT i / 3.0, md5(i::text) FROM generate_series(-4000, 4000) i; INSERT INTO t VALUES ('NaN', 'not')"""),
    "scattered": ("block", "CREATE TABLE t (id uuid PRIMARY KEY, v text); INSERT INTO t SELECT md5(i::text)::uuid, 'v' || i FROM generate_series(1, 12000) i"),
    "no key": ("block", "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT i % 100, md5(i::text) FROM generate_series(1, 8000) i"),
    "another's type": ("block", """CREATE DOMAIN word AS text; CREATE TABLE t (id word PRIMARY KEY, v text);
        INSERT INTO t SELECT lpad(i::text, 5, '0'), md5(i::text) FROM generate_series(1, 8000) i"""),
    "a domain of an enum": ("block", """CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN feeling AS mood;
        CREATE TABLE t (k feeling, id int, v text, PRIMARY KEY (k, id));
        INSERT INTO t SELECT CASE WHEN i < 4000 THEN 'a' ELSE 'b' END::mood, i, md5(i::text) FROM generate_series(1, 8000) i"""),
    "mostly empty": ("key", """CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 9000) i;
        DELETE FROM t WHERE id % 3 <> 0 AND id > 1000"""),
    "big values": ("any", """CREATE TABLE t (id int PRIMARY KEY, v text);
        INSERT INTO t SELECT i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) j) FROM generate_series(1, 200) i"""),
    "partitions": ("any", """CREATE TABLE t (v text, id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE t_1 (id int NOT NULL, gone text, v text); ALTER TABLE t_1 DROP gone; ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (0) TO (6000);
        CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (6000) TO (9000) PARTITION BY HASH (id);
        CREATE TABLE t_2a PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE t_2b PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE t_3 PARTITION OF t DEFAULT; INSERT INTO t SELECT md5(i::text), i FROM generate_series(1, 9500) i"""),
}


def parts_of(d, table="t"):
    m = re.search(rf"table public.{table} is read in (\d+) parts", d.text())
    return int(m.group(1)) if m else 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parts_are_the_table(db, dump, shape):
    how, sql = SHAPES[shape]
    key = {("public", "t"): "v"} if shape in ("skewed pairs", "no key", "a domain of an enum") else None
    db.sql(sql + "; ANALYZE t")
    d = dump("table=public.*", "mode=full-load", "debug=1", *PARTS, key=key).start()
    assert d.wait() == 0, d.text()
    n = parts_of(d)
    assert n > 3, d.text()
    d.same(["t"])
    ops = d.replica().ops
    assert (ops["L"], ops["P"], ops["E"]) == (1, n, 1), ops
    seen = d.text()
    assert how == "any" or ("is cut by ranges of its key" in seen) == (how == "key"), seen


def test_many_tables_and_writes(db, dump):
    """Big and small tables side by side, under writes: each is loaded once, and the stream goes on from there."""
    db.sql("".join(f"CREATE TABLE s{i} (id int PRIMARY KEY, v text); INSERT INTO s{i} SELECT i, 'v' FROM generate_series(1, {i}) i;" for i in range(30)))
    db.sql("CREATE TABLE a (id serial PRIMARY KEY, v text, n numeric, t timestamptz DEFAULT now(), b bytea, big text);"
           "INSERT INTO a (v, big) SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i;"
           "CREATE TABLE k (a int, b text); ALTER TABLE k REPLICA IDENTITY FULL; INSERT INTO k SELECT i, repeat('k', 50) FROM generate_series(1, 5000) i;"
           "CREATE TABLE u (a int NOT NULL UNIQUE, v text); ALTER TABLE u REPLICA IDENTITY USING INDEX u_a_key; INSERT INTO u SELECT i, repeat('u', 60) FROM generate_series(1, 5000) i;"
           "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (3000);"
           "CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (3000) TO (100000); INSERT INTO p SELECT i, repeat('p', 60) FROM generate_series(1, 6000) i")
    work = Work(db, seed=7, pause=0.02)
    work.start()
    d = dump("table=public.*", *PARTS, "load_part_bytes=200KiB", key={("public", "u"): "a", ("public", "k"): "a"}).start().streaming()
    assert work.stop() > 10
    d.caught_up().stop()
    d.same()
    assert all(parts_of(d, t) > 1 for t in "akup")
    ops = d.replica().ops
    assert ops["L"] == ops["E"] == 34 and ops["P"] == sum(parts_of(d, t) for t in "akup")


@pytest.mark.spread
@pytest.mark.parametrize("what", ["TRUNCATE t; INSERT INTO t VALUES (1, 'one')", "ALTER TABLE t ALTER v TYPE varchar(99)", "DROP TABLE t", "VACUUM FULL t",
                                  "ALTER TABLE t RENAME TO tt"])
@pytest.mark.parametrize("mode", ["full-load", "full-load-and-cdc"])
def test_a_table_that_is_rewritten_between_its_parts(db, dump, mode, what):
    """Some parts were read, the others cannot be: the table is read again, and what was sent of it does not count."""
    db.sql(SHAPES["serial"][1] + "; CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
    d = dump("table=public.*", f"mode={mode}", "slow_ms=50", *PARTS, "load_connections=1").start()
    d.says("is read in")
    wait_for("a part is there", lambda: any(line[0] == "P" for line in d.lines()))
    db.sql(what)
    assert "table public.t read" not in d.text()
    if mode == "full-load":
        assert d.wait() == 0, d.text()
    else:
        d.streaming().caught_up().stop()
    d.same([t for t in ("t", "other") if db.one("SELECT to_regclass(%s) IS NOT NULL", t)])


@pytest.mark.parametrize("mode", ["full-load", "full-load-and-cdc"])
def test_a_partition_that_goes_between_its_parts(db, dump, mode):
    """It is none of the tree's any more, and looks empty in the snapshot."""
    db.sql(SHAPES["partitions"][1])
    d = dump("table=public.t", f"mode={mode}", "slow_ms=50", *PARTS, "load_connections=1").start()
    d.says("is read in")
    wait_for("a part is there", lambda: any(line[0] == "P" for line in d.lines()))
    db.sql("ALTER TABLE t DETACH PARTITION t_1; TRUNCATE t_1")
    assert "table public.t read" not in d.text()
    if mode == "full-load":
        assert d.wait() == 0, d.text()
    else:
        d.streaming().caught_up().stop()
    d.same(["t"])


def test_a_whole_partition_is_read_as_it_lies(db, dump):
    """Not by an index, though that has all of its columns."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);"
           "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (10000); INSERT INTO t SELECT generate_series(100, 9000);"
           "INSERT INTO t SELECT (i * 37) % 100 FROM generate_series(0, 99) i")
    db.sql("VACUUM ANALYZE t")
    d = dump("table=public.*", "mode=full-load", *PARTS).start()
    assert d.wait() == 0, d.text()
    assert parts_of(d) > 3
    d.same(["t"])
    ids = [int(line[4]["id"]) for line in d.lines() if line[0] == "r"]
    assert [i for i in ids if i < 100] == [i * 37 % 100 for i in range(100)]


@contextlib.contextmanager
def role(db, name, more=""):
    db.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'few' {more}")
    try:
        yield f"user={name}", "password=few"
    finally:
        db.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("what", ["", "GRANT SELECT ON t_1, t_2, t_2a, t_2b, t_3 TO {}; ALTER TABLE t_2a ENABLE ROW LEVEL SECURITY"], ids=["rights", "row security"])
def test_a_role_that_may_read_the_root_only(db, dump, what):
    """Its partitions are read through it, undivided."""
    db.sql(SHAPES["partitions"][1])
    name = f"root_{db.name}"
    with role(db, name) as who:
        db.sql(f"GRANT SELECT ON t TO {name};" + what.format(name))
        d = dump("table=public.t", "mode=full-load", *who, *PARTS).start()
        assert d.wait() == 0, d.text()
    assert not parts_of(d)
    d.same(["t"])


def copies(db, table):
    """Begun by a connection, and nothing after it."""
    return db.sql("SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s", f'COPY%"{table}"%')


def test_no_copy_is_begun_when_the_host_is_full(db, dump):
    """The second reader has looked at its table, after waiting for a lock; in the meantime the rows of the first were refused. Then it lets go of it."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i;"
           "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")
    d = dump("table=public.*", "mode=full-load", "slow_ms=3000", "batch_bytes=32KiB", "load_connections=2").start()
    wait_for("the first word", d.lines)
    with contextlib.closing(db.server.connect(db.name)) as c:
        c.cursor().execute("BEGIN; LOCK TABLE u IN ACCESS EXCLUSIVE MODE")
        wait_for("it looks at the other table", lambda: db.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))
        time.sleep(0.3)
    time.sleep(1)
    assert copies(db, "t") and not copies(db, "u")
    db.sql("SET lock_timeout = '1s'; ALTER TABLE u ADD v text")
    assert copies(db, "t") and "table public.u read" not in d.text()
    assert d.wait() == 0, d.text()
    d.same(["t"])
    assert [line[4] for line in d.lines() if line[:3] == ["r", "public", "u"]] == [{"id": "1"}]


def test_a_reader_that_has_nothing_to_read_holds_no_table(db, dump):
    """Who wants to alter it would wait for the end of the load, and everybody else for him."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 12000) i;"
           "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 10000) i; ANALYZE")
    d = dump("table=public.*", "mode=full-load", "slow_ms=50", "batch_bytes=16KiB", "load_connections=2").start()
    d.says("table public.t read")
    db.sql("SET lock_timeout = '1s'; ALTER TABLE t ADD x text")
    assert "table public.u read" not in d.text()
    assert d.wait() == 0, d.text()
    d.same(["u"])


def test_a_reader_with_nothing_to_read_holds_up_no_other(db, dump):
    """Somebody waits for the lock of the one, and the other for him, until the table is put off; and again, when both wait for the load's own lock."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 8000) i; ANALYZE t")
    d = dump("table=public.t", *PARTS, "slow_ms=10").start()
    d.says("is read in")
    db.sql("VACUUM FULL t")
    stopping = threading.Event()

    def alter():
        n = 0
        with contextlib.closing(db.server.connect(db.name)) as c:
            while not stopping.wait(.01):
                c.cursor().execute(f"ALTER TABLE t ALTER v SET DEFAULT {n}")
                n += 1
    thread = threading.Thread(target=alter, daemon=True)
    d.says("is put off")
    thread.start()
    try:
        wait_for("t is read", lambda: "table public.t read:" in d.text(), 60)
    finally:
        stopping.set()
        thread.join(30)
    d.streaming().caught_up().stop()
    d.same()
    assert d.text().count("is put off") == 1 and "lock timeout" not in d.text(), d.text()


@pytest.mark.parametrize("words", [(), ("load_part_bytes=400KiB",)], ids=["undivided", "in parts"])
def test_a_copy_that_the_server_breaks_off_is_no_table(db, dump, words):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE MAIN; INSERT INTO t SELECT i, repeat('v', 20000) FROM generate_series(1, 3000) i")
    d = dump("table=public.*", "mode=full-load", *words, "slow_ms=100", "batch_bytes=1MiB", "load_connections=1").start()
    wait_for("a row is there", lambda: any(line[0] == "r" for line in d.lines()))
    [(pid, state)] = copies(db, "t")
    assert state == "active" and db.one("SELECT pg_cancel_backend(%s)", pid)
    id_, may_retry, text = d.failure()
    assert (id_, may_retry) == ("source.cancelled", True) and "reading table public.t" in text, (id_, text)
    ops = {line[0] for line in d.lines()}
    assert "r" in ops and "E" not in ops and not d.saved()["loaded"]


def test_a_table_whose_rows_the_server_cannot_give_is_told(db, dump):
    """What is missing is no table that somebody has dropped or altered: another round would not mend it."""
    db.sql("CREATE TYPE odd;"
           "CREATE FUNCTION odd_in(cstring) RETURNS odd IMMUTABLE STRICT LANGUAGE internal AS 'textin';"
           "CREATE FUNCTION odd_out(odd) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';"
           "CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = text); CREATE TABLE t (id int PRIMARY KEY, v odd); INSERT INTO t VALUES (1, 'x');"
           "UPDATE pg_proc SET prosrc = 'no_such_function' WHERE proname = 'odd_out'")
    d = dump("table=public.*", "mode=full-load").start()
    id_, may_retry, text = d.failure()
    assert (id_, may_retry) == ("source.undefined", False) and "reading table public.t" in text and "no_such_function" in text, (id_, text)


def test_the_load_is_done_when_its_rounds_fit_each_other(db, dump):
    """Two tables of one foreign key, read at different times: until the stream has passed the later of these, a row may lack the one that it refers to."""
    db.sql(SHAPES["serial"][1] + "; CREATE TABLE u (id int PRIMARY KEY, of int REFERENCES t); INSERT INTO u VALUES (1, 1)")
    d = dump("table=public.*", "slow_ms=30", *PARTS, "load_connections=1").start(env={"DMSR_FAILPOINT": "pg.load-done:kill"})
    d.says("is read in")
    db.sql("TRUNCATE u; INSERT INTO t VALUES (9000, 'new'); INSERT INTO u VALUES (1, 9000)")
    assert "table public.t read" not in d.text()
    assert d.wait() == -9 and "read in another snapshot" in d.text(), d.text()
    assert [line[4] for line in d.lines() if line[:3] == ["r", "public", "u"]] == [{"id": "1", "of": "9000"}]
    wait_for("the slot is free", lambda: not db.one("SELECT bool_or(active) FROM pg_replication_slots WHERE database = current_database()"))
    d.start().streaming().caught_up().stop()
    what = [line[0] if line[0] in "EF" else line[4]["id"] for line in d.lines() if line[0] in "EF" or line[:3] == ["c", "public", "t"]]
    assert what == ["E", "E", "9000", "F"], what
    d.same()


PARTITIONS = {
    "rotated": "ALTER TABLE t_1 RENAME TO t_old; CREATE TABLE t_1 (LIKE t INCLUDING ALL); ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (90000) TO (99000)",
    "swapped": "ALTER TABLE t_1 RENAME TO x; ALTER TABLE t_2 RENAME TO t_1; ALTER TABLE x RENAME TO t_2",
    "detached": "ALTER TABLE t DETACH PARTITION t_1; ALTER TABLE t_1 RENAME TO x; CREATE TABLE t_1 (v text, id int)"}
TABLES = {
    "table": "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (LIKE t_old INCLUDING ALL)",
    "sequence": "ALTER TABLE t RENAME TO t_old; CREATE SEQUENCE t",
    "schema": "ALTER SCHEMA public RENAME TO s; CREATE SCHEMA public; CREATE TABLE public.t (LIKE s.t INCLUDING ALL)"}
WHEN = [("full-load", "before"), ("full-load-and-cdc", "between its parts")]


def changed_while_it_loads(db, dump, mode, when, what):
    """public.t is loaded, and while another is read, or t itself is, that happens."""
    if when == "before":
        db.sql("CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i")
    db.sql("ANALYZE")
    d = dump("table=*.first", "table=*.t*", f"mode={mode}", "slow_ms=50" if when == "before" else "slow_ms=100", *PARTS, "load_connections=1").start()
    if when == "before":
        d.says("table public.first is read in")
    else:
        wait_for("a part is there", lambda: any(line[:3] == ["P", "public", "t"] for line in d.lines()))
    db.sql(f"BEGIN; {what}; COMMIT")
    assert "table public.t read" not in d.text() and (when != "before" or not parts_of(d))
    if mode == "full-load":
        assert d.wait() == 0, d.text()
    else:
        d.streaming().caught_up().stop()
    return d


@pytest.mark.spread
@pytest.mark.parametrize("what", PARTITIONS)
@pytest.mark.parametrize("mode, when", WHEN)
def test_the_name_of_a_partition_is_anothers(db, dump, mode, when, what):
    """A part's partition is found by its name: that is the one of the snapshot, or the table is read again."""
    db.sql("""CREATE TABLE t (v text, id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (5000); CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (5000) TO (9000);
        INSERT INTO t SELECT md5(i::text), i FROM generate_series(1, 8000) i""")
    changed_while_it_loads(db, dump, mode, when, PARTITIONS[what]).same(["t"])


@pytest.mark.parametrize("mode, connections", [("full-load", 1), ("full-load-and-cdc", 4)])
def test_a_deadlock_with_somebody_puts_the_table_off(db, dump, mode, connections):
    """He holds a partition and wants its root, of which a reader has the lock and wants the partition's."""
    db.sql("""CREATE TABLE t (v text, id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (5000); CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (5000) TO (9000);
        INSERT INTO t SELECT md5(i::text), i FROM generate_series(1, 8000) i; ANALYZE""")
    d = dump("table=public.t", f"mode={mode}", "slow_ms=100", *PARTS, f"load_connections={connections}").start()
    wait_for("a part is there", lambda: any(line[0] == "P" for line in d.lines()))
    was_refused = False
    try:
        db.sql("BEGIN; ALTER TABLE t_1 RENAME TO t_old; CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (9000) TO (9999); COMMIT")
    except psycopg2.errors.DeadlockDetected:
        was_refused = True
    if mode == "full-load":
        assert d.wait() == 0, d.text()
    else:
        d.streaming().caught_up().stop()
    d.same(["t"])
    assert was_refused or "table public.t is put off" in d.text()


@pytest.mark.spread
@pytest.mark.parametrize("what", TABLES)
@pytest.mark.parametrize("mode, when", WHEN)
def test_the_name_of_a_table_is_anothers(db, dump, mode, when, what):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 6000) i")
    r = changed_while_it_loads(db, dump, mode, when, TABLES[what]).replica()
    assert len(r.rows(*("s", "t") if what == "schema" else ("public", "t_old"))) == 6000


COLUMNS = {"a new one": "ALTER TABLE t RENAME a TO old_a; ALTER TABLE t ADD a text",
           "swapped": "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b"}


@pytest.mark.spread
@pytest.mark.parametrize("what", COLUMNS)
@pytest.mark.parametrize("mode, when", WHEN)
@pytest.mark.parametrize("kind", ["table", "partitions"])
def test_the_name_of_a_column_is_anothers(db, dump, mode, when, kind, what):
    """COPY reads the columns that have the names today, and the shape that goes before it is of the snapshot."""
    db.sql(f"CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) STORED, b text) {'PARTITION BY RANGE (id)' if kind == 'partitions' else ''}")
    if kind == "partitions":
        db.sql("CREATE TABLE t_1 (b text, gone int, id int NOT NULL, a text, g int GENERATED ALWAYS AS (id * 2) STORED); ALTER TABLE t_1 DROP gone;"
               "ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (0) TO (3000); CREATE TABLE t_2 PARTITION OF t DEFAULT")
    db.sql("INSERT INTO t (id, a, b) SELECT i, md5(i::text), 'b' FROM generate_series(1, 6000) i")
    changed_while_it_loads(db, dump, mode, when, COLUMNS[what]).same(["t"])


def test_it_reads_side_by_side_and_a_connection_less_is_no_failure(db, dump):
    db.sql(SHAPES["serial"][1] + "; CREATE TABLE x (id int PRIMARY KEY, v text); INSERT INTO x SELECT i, md5(i::text) FROM generate_series(1, 8000) i")
    d = dump("table=public.*", "mode=full-load", "slow_ms=100", *PARTS, "load_connections=3").start()
    wait_for("three at once", lambda: db.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%%'") == 3)
    assert d.wait() == 0
    d.same()
    name = f"few_{db.name}"
    with role(db, name, "CONNECTION LIMIT 3") as who:
        db.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
        d = dump("table=public.*", "mode=full-load", "slow_ms=50", *who, *PARTS, "load_connections=8").start()
        assert d.wait() == 0, d.text()
    assert "goes on with fewer connections" in d.text()
    d.same()


def test_an_index_in_another_order_than_the_collation_loses_no_row(db, dump):
    """The library that sorts texts was upgraded under the index: what is read by it would miss rows."""
    db.sql("""CREATE COLLATION c1 (provider = icu, locale = 'en'); CREATE TABLE t (id text COLLATE c1 PRIMARY KEY, v text);
        INSERT INTO t SELECT x, md5(x) FROM (SELECT chr(97 + i / 1000) || chr(97 + i / 40 % 25) || lpad(i::text, 6, '0') AS x FROM generate_series(0, 9000) i) y
        ORDER BY x COLLATE c1; ANALYZE t""")
    columns = [r[0] for r in db.sql("SELECT attname FROM pg_attribute WHERE attrelid = 'pg_collation'::regclass AND attname IN ('colliculocale', 'colllocale') AND NOT attisdropped")]
    db.sql(f"UPDATE pg_collation SET {(columns or ['collcollate'])[0]} = 'da' WHERE collname = 'c1'")
    d = dump("table=public.*", "mode=full-load", *PARTS).start()
    assert d.wait() == 0, d.text()
    assert parts_of(d) > 3 and len(d.replica().rows("public", "t")) == 9001


class Late:
    """A proxy whose later connections hear nothing before the first has committed, and that one's answer comes late."""

    def __init__(self, port):
        self.there, self.listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.exported, self.committed = threading.Event(), threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, there = self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.there))
                state = {"is_late": self.exported.is_set()}
                threading.Thread(target=self.up, args=(here, there, state), daemon=True).start()
                threading.Thread(target=self.down, args=(there, here, state), daemon=True).start()

    def up(self, here, there, state):
        with contextlib.suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
                if b"pg_export_snapshot" in data:
                    self.exported.set()
                    state["is_loader"] = True
                elif state.get("is_loader") and b"COMMIT\0" in data:
                    state["is_slow"] = True
                    time.sleep(0.2)
                    self.committed.set()
        with contextlib.suppress(OSError):
            there.shutdown(socket.SHUT_WR)

    def down(self, there, here, state):
        with contextlib.suppress(OSError):
            while data := there.recv(65536):
                if state["is_late"]:
                    self.committed.wait(30)
                if state.get("is_slow"):
                    time.sleep(2)
                here.sendall(data)
        with contextlib.suppress(OSError):
            here.shutdown(socket.SHUT_WR)


def test_a_connection_that_comes_when_all_is_read(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE u (id int PRIMARY KEY)")
    late = Late(db.server.port)
    d = dump("table=public.*", "mode=full-load", "load_connections=2", "sslmode=disable", port=late.port).start()
    try:
        assert d.wait() == 0, d.text()
    finally:
        late.listener.close()
    d.same()


# ---- what passes, and is told when it does not ----

def test_a_table_that_is_taken_in_each_snapshot(db, dump):
    """Whoever locks it lets go when the catalog is read, and is back before its rows are."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE free (id int PRIMARY KEY)")
    with contextlib.closing(db.server.connect(db.name)) as other:
        other.autocommit = False

        def change(data):
            other.rollback()
            if b"LOCK TABLE" in data or b'COPY "public"."t"' in data:
                other.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            return data.replace(b"lock_timeout = '10s'", b"lock_timeout = '1ms'")
        with Proxy(db.server.port, change=change) as proxy:
            d = dump("table=public.*", "mode=full-load", "load_connections=1", "sslmode=disable", port=proxy.port).start()
            id_, may_retry, text = d.failure()
    assert (id_, may_retry) == ("source.table-busy", True) and "of 8 snapshots: public.t (let what does that rest" in text, (id_, text)
    d.port = db.server.port
    assert d.start().wait() == 0, d.text()
    d.same()


def test_a_snapshot_that_went_with_its_session(db, dump):
    """As far as the server is concerned, who is asked for another one."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with Proxy(db.server.port, change=lambda data: data.replace(b"SNAPSHOT '0000", b"SNAPSHOT '7777")) as proxy:
        d = dump("table=public.*", "sslmode=disable", port=proxy.port).start()
        id_, may_retry, text = d.failure()
    assert (id_, may_retry) == ("source.snapshot-lost", True) and "snapshot" in text and db.name in text and "a new one is taken" in text, (id_, text)
    d.port = db.server.port
    d.start().streaming().caught_up().stop()
    d.same()


def test_a_note_of_the_slot_that_cannot_be_read(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    d = dump("table=public.*").start().streaming().stop()
    state = d.state.read_text()
    assert "note\tslot\t" in state
    d.state.write_text(re.sub(r"(?m)^note\tslot\t.*$", "note\tslot\tnonsense", state))
    id_, may_retry, text = d.start().failure()
    assert (id_, may_retry) == ("position.unknown", False) and "slot" in text and "delete the job and make it anew" in text, (id_, text)


# What the server says by its SQLSTATE -> id, whether a later attempt may succeed by itself, and a word of what to do.
STATES = {"57P01": ("source.unreachable", True, "reachable"), "57014": ("source.cancelled", True, "who cancels"), "53300": ("source.busy", True, "raise its limits"),
          "53100": ("source.disk-full", True, "free space"), "53400": ("source.limit", False, "raise the server's limit"),
          "55006": ("source.in-use", True, "pg_stat_activity"), "55P03": ("source.locked", True, "pg_locks"), "55000": ("source.state", False, "state that is asked for"),
          "40P01": ("source.conflict", True, "tried again"), "25006": ("source.read-only", False, "default_transaction_read_only"), "28000": ("source.auth", False, "pg_hba.conf"),
          "42501": ("source.privilege", False, "the owner of the tables"), "23514": ("source.constraint", False, "of the source's own"), "22003": ("source.data", False, "mend at the source"),
          "42P01": ("source.undefined", True, "create what is named"), "42P07": ("source.exists", False, "drop or rename"), "58030": ("source.io", True, "disk"),
          "58P01": ("source.missing-file", False, "log"), "0A000": ("source.unsupported", False, "version"), "XX000": ("source.internal", False, "log"),
          "42601": ("source.sql", False, "log")}


def test_what_each_state_of_the_server_means(pg):
    """An event trigger of the source says it of the job's publication; the job's end names it, and what to do."""
    db = pg.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE state (state text); INSERT INTO state VALUES ('')")
    db.sql("CREATE FUNCTION say() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'as asked' USING ERRCODE = (SELECT state FROM public.state); END $$")
    db.sql("CREATE EVENT TRIGGER say ON ddl_command_start WHEN TAG IN ('CREATE PUBLICATION') EXECUTE FUNCTION say()")
    d = Dump(db, "table=public.t")
    try:
        for state, (id_, may_retry, do) in STATES.items():
            db.sql("UPDATE state SET state = %s", state)
            found = d.start().failure()
            assert found[:2] == (id_, may_retry), (state, found)
            assert "as asked" in found[2] and f"[{state}" in found[2] and db.name in found[2] and do in found[2].split(" (", 1)[1], (state, found)
        db.sql("DROP EVENT TRIGGER say")
        d.start().streaming().stop()
        assert d.replica().rows("public", "t") == [{"id": "1"}]
    finally:
        d.kill()


def test_a_source_that_cannot_be_one(pg):
    """A database that is not there; a role with as many connections as it may have; one that may not write."""
    db = pg.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    found = Dump(db, "table=public.*", "database=nowhere").start().failure()
    assert found[:2] == ("source.database", False) and '"nowhere"' in found[2] and "mend the option database" in found[2], found
    name = f"few_{db.name}"
    with role(db, name, "REPLICATION CONNECTION LIMIT 0") as who:
        db.sql(f"GRANT SELECT ON t TO {name}; GRANT CREATE ON DATABASE {db.name} TO {name}; ALTER TABLE t OWNER TO {name}")
        d = Dump(db, "table=public.*", *who)
        found = d.start().failure()
        assert found[:2] == ("source.busy", True) and f'"{name}"' in found[2] and "raise its limits" in found[2], found
        db.sql(f"ALTER ROLE {name} CONNECTION LIMIT -1; ALTER ROLE {name} SET default_transaction_read_only = on")
        found = d.start().failure()
        assert found[:2] == ("source.read-only", False) and "CREATE PUBLICATION" in found[2] and "read-only" in found[2], found
        db.sql(f"ALTER ROLE {name} RESET ALL")
        d.start().streaming().stop()
        assert d.replica().rows("public", "t") == [{"id": "1"}]
        db.sql("ALTER TABLE t OWNER TO postgres")


def test_a_role_that_may_not_ask_who_the_server_is(db, dump):
    """A load alone does without."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    name = f"blind_{db.name}"
    with role(db, name) as who:
        db.sql(f"REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; GRANT SELECT ON t TO {name}")
        d = dump("table=public.*", "mode=full-load", *who).start()
        assert d.wait() == 0
    d.same()


@pytest.mark.parametrize("how", ["DROP TABLE gone", "ALTER TABLE gone RENAME TO there"])
@pytest.mark.parametrize("is_new", [False, True], ids=["", "new"])
def test_a_table_that_goes_before_it_is_published(db, dump, how, is_new):
    """Whoever drops or renames it holds it, while the publication is made for it, or gets it: another look finds what there is."""
    db.sql("CREATE TABLE stays (id int PRIMARY KEY); INSERT INTO stays VALUES (1)")
    d = dump("table=public.*")
    if is_new:
        d.start().streaming().caught_up().stop()
    db.sql("CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1)")
    with contextlib.closing(db.server.connect(db.name)) as c:
        c.autocommit = False
        c.cursor().execute(how)
        d.start()
        wait_for("the publication waits", lambda: db.one("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        c.commit()
    id_, retry, text = d.failure()
    assert (id_, retry) == ("source.undefined", True) and '"public.gone" does not exist' in text, text
    d.start().streaming().caught_up().stop()
    d.same()


def test_a_table_that_goes_while_the_catalog_is_read(db, dump):
    """Its sequence was found, and is asked for its value."""
    db.sql("CREATE TABLE stays (id serial PRIMARY KEY); CREATE TABLE gone (id serial PRIMARY KEY); INSERT INTO stays DEFAULT VALUES")

    def change(data):
        if b"last_value" in data:
            db.sql("DROP TABLE IF EXISTS gone")
        return data
    with Proxy(db.server.port, change=change) as proxy:
        d = dump("table=public.*", port=proxy.port).start()
        id_, retry, text = d.failure()
        assert (id_, retry) == ("source.undefined", True) and '"public.gone_id_seq" does not exist' in text, text
        d.start().streaming().caught_up().stop()
        d.same()
