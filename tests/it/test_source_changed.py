"""What happens at the source and its stream does not tell: a publication that somebody alters, tables that are rewritten, partitions and tables that come and go.
Nothing of that is passed over in silence: what was missed is loaded again, or the job ends and says why."""
import re
import time

import pytest

from conftest import Database, wait_for
from proxy import Proxy
from source import Dump
from test_source import KEYS, SLOT, TABLES, db, dump, free, server  # noqa: F401 (fixtures)

ROOT = "publish_via_partition_root = true"


def again(d):
    """The run ends by itself, to be tried again; the next one says what it does about it."""
    id_, retry, text = d.failure()
    assert (id_, retry) == ("source.changed", True), text
    free(d.db)
    return text


def loads(d):
    return [line[2] for line in d.lines() if line[0] == "L"]


# ---- the publication ----

@pytest.mark.parametrize("back", [False, True], ids=["", "and back"])
@pytest.mark.parametrize("what", ["SET (publish = 'insert')", "SET (publish_via_partition_root = false)"])
def test_publication_altered(db, dump, what, back):
    """All of its tables may have missed something. Also when it is as it was before, and when nobody ran meanwhile."""
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    db.sql(f"ALTER PUBLICATION {SLOT} {what}; UPDATE a SET v = 'missed'")
    if back:
        db.sql(f"ALTER PUBLICATION {SLOT} SET (publish = 'insert, update, delete, truncate', {ROOT})")
    again(d)
    for _ in range(2):
        id_, retry, text = d.start().failure()
        assert (id_, retry) == ("publication.incomplete" if "insert" in what and not back else "publication.lost", False), text
        assert "DELETE /jobs/dump/positions" in d.text()
        free(db)


def test_publication_of_another_owner(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    role = f"owner_{db.name}"
    db.sql(f"CREATE ROLE {role} SUPERUSER; ALTER PUBLICATION {SLOT} OWNER TO {role}; UPDATE a SET v = 'sent'")
    d.caught_up().stop()
    free(db)
    d.start().streaming().caught_up().stop()
    d.same()
    assert len(loads(d)) == len(set(loads(d)))


def test_publication_dropped_while_nothing_changes(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    db.sql(f"DROP PUBLICATION {SLOT}")
    again(d)
    assert d.start().failure()[:2] == ("publication.lost", False)


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "given"])
def test_a_table_out_of_the_publication_and_back(db, dump, own, down):
    """Put back by hand it looks as ever; what was missed is loaded, of that table alone."""
    db.sql(TABLES)
    name = SLOT if own else "given"
    if not own:
        db.sql(f'CREATE PUBLICATION given FOR TABLE a, "Odd ""name", k, u, p WITH ({ROOT})')
    d = dump("table=public.*", *([] if own else ["publication=given"]), key=KEYS).start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql(f"ALTER PUBLICATION {name} DROP TABLE a; UPDATE a SET v = 'missed'; UPDATE k SET b = 'seen'; ALTER PUBLICATION {name} ADD TABLE a")
    if not down:
        assert "public.a" in again(d)
    d.start().streaming().caught_up()
    assert "public.a was out of the publication" in d.text()
    d.stop()
    d.same()
    assert loads(d).count("a") == 2 and loads(d).count("k") == 1
    free(db)
    d.start().streaming().caught_up().stop()
    assert loads(d).count("a") == 2, "but once"


def test_what_a_start_finds_is_told(db, dump):
    """A table that is out of the publication, and one that took the place of another."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    db.sql(f"ALTER PUBLICATION {SLOT} DROP TABLE a; INSERT INTO a VALUES (2); DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (3, 'v')")
    d.start().streaming().caught_up().stop()
    assert "warning: table public.a was not in the publication for a while: it is loaded again" in d.text()
    assert "warning: table public.b is loaded again: it is not the one that was loaded" in d.text()
    d.same()
    assert sorted(loads(d)) == ["a", "a", "b", "b"]


def test_what_a_start_finds_of_the_others_is_not_forgotten(db, dump):
    """A table is put back into the publication, and what is noted with that keeps what is known of the others."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    db.sql(f"ALTER PUBLICATION {SLOT} DROP TABLE a; INSERT INTO a VALUES (2)")
    db.sql("ALTER TABLE b ALTER v TYPE int USING v * 2")
    d.start().streaming().caught_up().stop()
    assert "warning: table public.b was rewritten" in d.text()
    d.same()
    assert sorted(loads(d)) == ["a", "a", "b", "b"]


def test_a_new_table_is_told_when_nothing_is_loaded(db, dump):
    db.sql("CREATE TABLE a (id int PRIMARY KEY)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up().stop()
    free(db)
    db.sql("CREATE TABLE b (id int PRIMARY KEY)")
    d.start().streaming().caught_up().stop()
    assert "warning: table public.b is published from now on" in d.text() and d.text().count("warning") == 1


@pytest.mark.parametrize("given", ["ALL TABLES", "TABLE a, p"])
def test_a_new_table_that_is_published_already_is_told_when_nothing_is_loaded(db, dump, given):
    """By the publication of all tables, or as a partition: all of it was read, so it is not said that something is missing."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    db.sql(f"CREATE PUBLICATION given FOR {given}")
    d = dump("table=public.*", "mode=cdc", "publication=given").start().streaming().caught_up()
    db.sql("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9)")
    d.says("warning: table public.p_1 is new, and the job's patterns mean it: its changes are read, if the publication has it")
    db.sql("INSERT INTO p VALUES (1)")
    d.caught_up().stop()
    assert d.replica().rows("public", "p_1") == [{"id": "1"}]
    free(db)
    d.start().streaming().caught_up().stop()
    told = [line for line in d.text().splitlines() if "warning" in line]
    assert len(told) == 1 and "public.p_1 was no part of the job at its last start" in told[0] and "or the publication had it then already" in told[0], told


@pytest.mark.parametrize("part", ["t WHERE (id > 1)", "t (id)"])
def test_row_filters_and_column_lists(db, dump, part):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql(f"ALTER PUBLICATION {SLOT} SET TABLE {part}; UPDATE t SET v = 'missed'")
    again(d)
    assert d.start().failure()[:2] == ("publication.filtered", False)
    db.sql(f"ALTER PUBLICATION {SLOT} SET TABLE t")
    free(db)
    d.start().streaming().caught_up().stop()
    d.same()
    assert loads(d) == ["t", "t"]


def test_a_table_out_of_the_publication_when_nothing_is_loaded(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up()
    db.sql(f"CREATE TABLE o (id int PRIMARY KEY); ALTER PUBLICATION {SLOT} SET TABLE o; ALTER PUBLICATION {SLOT} SET TABLE t")
    again(d)
    assert d.start().failure()[:2] == ("publication.lost", False)


# ---- tables that are rewritten ----

REWRITES = ["ALTER TABLE t ALTER a TYPE bigint USING a * 2", "ALTER TABLE t ALTER a TYPE int USING a * 2", "ALTER TABLE t ALTER c TYPE int USING c * 2",
            "ALTER TABLE t ADD r float8 DEFAULT random()", "ALTER TABLE t ADD u text NOT NULL DEFAULT md5(random()::text)", "ALTER TABLE t ADD s serial",
            "ALTER TABLE t DROP a; ALTER TABLE t ADD a int", "ALTER TABLE t DROP a; ALTER TABLE t ADD a int DEFAULT 7; VACUUM FULL t"]


def statements(db, text):
    for sql in text.split("; "):
        db.sql(sql)


@pytest.mark.spread
@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("what", REWRITES)
def test_a_table_that_is_rewritten_is_loaded_again(db, dump, what, down):
    """Its rows have values that no change carries."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 9) i; ALTER TABLE t ADD c int DEFAULT 4")
    db.sql("CREATE TABLE quiet (id int PRIMARY KEY)")
    d = dump("table=public.*").start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    statements(db, what)
    db.sql("UPDATE t SET id = 100 WHERE id = 1")
    if not down:
        assert "public.t" in again(d)
    for _ in range(2):
        d.start().streaming()
        db.sql("INSERT INTO t (id) SELECT max(id) + 1 FROM t")
        d.caught_up().stop()
        free(db)
    d.same()
    assert loads(d).count("t") == 2 and loads(d).count("quiet") == 1


def looked(db, d, table):
    """It has seen the file that the table has now."""
    file = db.one("SELECT relfilenode FROM pg_class WHERE oid = %s::regclass", table)
    wait_for(f"it looked at {table}", lambda: f":{file}:" in d.saved()["note"]["tables"])


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_what_only_looks_like_that(db, dump, down):
    """Other files with the same rows, and other columns in the same files. Of a partition alone a new file may mean more."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a varchar(9)); INSERT INTO t SELECT i, i FROM generate_series(1, 9) i; ALTER TABLE t ADD c4 int DEFAULT 4")
    db.sql("CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (500)")
    d = dump("table=public.*").start().streaming().caught_up()
    for what in ("VACUUM FULL t", "CLUSTER t USING t_pkey", "VACUUM FULL p_1", "ALTER TABLE t ALTER a TYPE varchar(20)", "ALTER TABLE t ADD c5 int DEFAULT 5",
                 "ALTER TABLE t ALTER c5 SET DEFAULT 6", "ANALYZE t", "TRUNCATE p_1", "CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (500) TO (600)",
                 "INSERT INTO p VALUES (1, 'a'), (501, 'b')"):
        if down:
            d.stop()
            free(db)
            d.start().streaming()
        db.sql(what)
        d.caught_up()
        if not down:
            looked(db, d, "t"), looked(db, d, "p_1")
    db.sql("UPDATE t SET a = 'x' WHERE id < 4")
    d.caught_up().stop()
    d.same()
    assert sorted(loads(d)) == ["p", "t"] and "warning" not in d.text().replace("warning: table public.p: 1 partitions of it, or it itself, have new files", "")


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_a_label_that_is_renamed(db, dump, down):
    """All rows that have it have another value, without a word in the log. A new label is no more than that."""
    db.sql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN moods AS mood[]; CREATE TABLE t (id int PRIMARY KEY, m moods)")
    db.sql("CREATE TABLE quiet (id int PRIMARY KEY)")
    db.sql("INSERT INTO t VALUES (1, '{sad}'), (2, '{glad,sad}')")
    d = dump("table=public.*").start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; INSERT INTO t VALUES (3, '{blue}')")
    if not down:
        assert "public.t has an enum with a label that was renamed" in again(d)
    for _ in range(2):
        d.start().streaming().caught_up()
        db.sql("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'mad' BEFORE 'blue'")
        d.stop()
        free(db)
    d.same()
    assert loads(d).count("t") == 2 and loads(d).count("quiet") == 1


def test_a_label_in_a_multirange_that_is_renamed(db, dump):
    db.sql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE moods AS RANGE (subtype = mood, multirange_type_name = sorts)")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, m sorts); INSERT INTO t VALUES (1, '{[sad,glad]}')")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    db.sql("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    d.start().streaming().caught_up().stop()
    assert "public.t has an enum with a label that was renamed" in d.text()
    d.same()


def test_a_server_that_refuses_md5(db, dump):
    """As one in FIPS mode does from 14 on. And a mark of before says nothing of labels."""
    db.sql("ALTER FUNCTION pg_catalog.md5(text) RENAME TO md5_of_before")
    db.sql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, m mood); CREATE TABLE t (id int PRIMARY KEY, p pair)")
    db.sql("INSERT INTO t VALUES (1, '(1,sad)')")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    note = d.saved()["note"]["tables"]
    types = ",".join(f"e{oid}:{md5}" for oid, md5 in db.sql("SELECT oid, left(md5_of_before(enumlabel), 8) FROM pg_enum"))
    d.state.write_text(d.state.read_text().replace(note, re.sub("/[^/ ]*( *)$", rf"/{types}\1", note)))
    d.start().streaming().caught_up()
    assert "warning" not in d.text() and loads(d) == ["t"]
    db.sql("CREATE TABLE fresh (id int PRIMARY KEY)")
    d.says("warning: table public.fresh is new")
    db.sql("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    assert "public.t has an enum with a label that was renamed" in again(d)


def test_labels_that_are_no_utf8(server, db):
    """In a database of SQL_ASCII the server does not care, nor does who looks at its catalog."""
    odd = Database(server, f"{db.name}_ascii")
    db.sql(f"CREATE DATABASE {odd.name} ENCODING SQL_ASCII TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    server.made.append(odd.name)
    odd.sql("CREATE TYPE mood AS ENUM (E'\\xe9', 'glad'); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    d = Dump(odd, "table=public.*").start().streaming().caught_up()
    try:
        odd.sql("CREATE TABLE fresh (id int PRIMARY KEY)")
        d.says("warning: table public.fresh is new")
        assert "cannot be looked at" not in d.text()
    finally:
        d.stop()


def test_columns_of_a_row_type_are_told(db, dump):
    """The row type of a table that is no part of the job: a new name of a column writes nothing but pg_attribute."""
    db.sql("CREATE TABLE other (a int, b int); CREATE TABLE t (id int PRIMARY KEY, o other); INSERT INTO t VALUES (1, '(1,2)')")
    d = dump("table=public.t").start().streaming().caught_up()
    db.sql("ALTER TABLE other RENAME COLUMN b TO c")
    d.says("warning: table public.t: a composite type of its columns has other attributes now")


def test_attributes_of_a_type_are_told(db, dump):
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE TABLE t (id int PRIMARY KEY, p pair); INSERT INTO t VALUES (1, '(1,2)')")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql("ALTER TYPE pair ADD ATTRIBUTE c int")
    d.says("warning: table public.t: a composite type of its columns has other attributes now")
    d.stop()
    free(db)
    d.start().streaming().stop()
    assert "warning" not in d.text(), "but once"


def test_a_column_that_is_renamed_is_seen(db, dump):
    """It writes the column's row, and nothing else."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text)")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql("ALTER TABLE t RENAME a TO abc")
    wait_for("that is noted", lambda: f":{b'abc'.hex()}:" in d.saved()["note"]["tables"])
    d.stop()


def test_a_partitioned_table_that_is_rewritten(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up()
    db.sql("ALTER TABLE p ALTER v TYPE varchar(40) USING v || '!'")
    assert "public.p" in again(d)
    d.start().streaming().caught_up().stop()
    d.same()


def test_a_rewrite_is_told_when_nothing_is_loaded(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up()
    db.sql("ALTER TABLE t ALTER a TYPE int USING a * 2")
    d.says("warning: table public.t was rewritten")
    d.stop()
    free(db)
    d.start().streaming().stop()
    assert "warning" not in d.text(), "but once"


# ---- tables that leave no trace in the log ----

PARTED = """
    CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (500);
    CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (500) TO (1000); INSERT INTO p SELECT i * 10, 'p' FROM generate_series(1, 99) i;
    CREATE TABLE quiet (id int PRIMARY KEY)
"""


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_a_partition_that_was_unlogged_is_loaded_again(db, dump, down):
    db.sql(PARTED)
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql("ALTER TABLE p_1 SET UNLOGGED; UPDATE p_1 SET v = 'missed'")
    d.says("warning: table public.p: 1 partitions of it, or it itself, are UNLOGGED")
    if down:
        d.stop()
        free(db)
    db.sql("DELETE FROM p_1 WHERE id < 50; ALTER TABLE p_1 SET LOGGED; INSERT INTO p VALUES (1, 'seen')")
    if not down:
        assert "table public.p was UNLOGGED for a while" in again(d)
    for _ in range(2):
        d.start().streaming().caught_up().stop()
        free(db)
    d.same(["p", "quiet"])
    assert loads(d).count("p") == 2 and loads(d).count("quiet") == 1
    assert "warning" not in d.text()


BACK = "BEGIN; ALTER TABLE p_1 SET UNLOGGED; UPDATE p_1 SET v = v || 'missed'; ALTER TABLE p_1 SET LOGGED; COMMIT"


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_partitions_that_are_truncated_by_their_own_names_are_told(db, dump, down):
    """The server does not send that where partitions are published as their root. TRUNCATE of the root it sends."""
    db.sql(PARTED)
    db.sql("CREATE TABLE o (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE o_1 PARTITION OF o FOR VALUES FROM (0) TO (9)")
    d = dump("table=public.*").start().streaming().caught_up()
    for what, told in (("p", None), ("o", None), ("p_1", ("p", 1)), ("p_1, p_2", ("p", 2)), ("o_1", ("o", 1))):
        db.sql("DELETE FROM p; INSERT INTO p SELECT i * 10, 'p' FROM generate_series(1, 99) i; DELETE FROM o; INSERT INTO o VALUES (1, 'o')")
        d.caught_up()
        if down:
            d.stop()
            free(db)
        noted, said = d.saved()["note"]["tables"], d.text().count("warning")
        db.sql(f"TRUNCATE {what}")
        if down:
            d.start().streaming()
            said = 0
        wait_for("that is seen", lambda noted=noted: d.saved()["note"]["tables"] != noted)
        d.caught_up()
        assert d.text().count("warning") == said + bool(told), (what, d.text())
        assert not told or f"warning: table public.{told[0]}: {told[1]} partitions of it, or it itself, have new files" in d.text(), d.text()
        assert not d.differences(["p", "o"]) == (not told), what


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_unlogged_and_back_between_two_looks_is_loaded_again(db, dump, down):
    """What was written in between is in no log."""
    db.sql(PARTED)
    d = dump("table=public.*").start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql(BACK)
    if not down:
        assert "table public.p was UNLOGGED for a while" in again(d)
        free(db)
    d.start().streaming().caught_up().stop()
    d.same(["p"])
    assert loads(d).count("p") == 2


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_unlogged_and_back_of_short_columns_is_told(db, dump, down):
    """Nothing tells it from VACUUM FULL then: it is said what may be, and once."""
    db.sql(PARTED.replace("v text", "v varchar(10)"))
    d = dump("table=public.*").start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql(BACK)
    if down:
        d.start().streaming()
    d.says("warning: table public.p: 1 partitions of it, or it itself, have new files")
    time.sleep(6)
    d.stop()
    assert d.text().count("new files") == 1
    free(db)
    d.start().streaming().caught_up().stop()
    assert "warning" not in d.text() and loads(d).count("p") == 1


def test_partitions_that_are_unlogged_are_told(db, dump):
    """From the start, and those that come."""
    db.sql(PARTED)
    db.sql("ALTER TABLE p_2 SET UNLOGGED")
    d = dump("table=public.*", "exclude=public.p_*").start().streaming().caught_up()
    assert "warning: table public.p: 1 partitions of it, or it itself, are UNLOGGED" in d.text()
    db.sql("CREATE UNLOGGED TABLE p_3 PARTITION OF p FOR VALUES FROM (1000) TO (2000); INSERT INTO p VALUES (1001, 'missed')")
    d.says("warning: table public.p: 2 partitions of it, or it itself, are UNLOGGED")
    d.stop()
    free(db)
    d.start().streaming().caught_up()
    assert "warning: table public.p: 2 partitions of it, or it itself, are UNLOGGED" in d.text()
    db.sql("ALTER TABLE p_3 SET LOGGED")
    again(d)
    d.start().streaming().caught_up().stop()
    d.same()


def test_a_table_of_all_tables_that_was_unlogged(db, dump):
    """Nothing holds it in the publication of all tables: the start of the job in between does without it, and the one after that loads it again."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE TABLE quiet (id int PRIMARY KEY)")
    db.sql(f"CREATE PUBLICATION given FOR ALL TABLES WITH ({ROOT})")
    d = dump("table=public.*", "publication=given").start().streaming().caught_up()
    db.sql("ALTER TABLE t SET UNLOGGED")
    d.says("warning: table public.t: 1 partitions of it, or it itself, are UNLOGGED")
    d.stop()
    free(db)
    d.start().streaming().caught_up()
    assert 'warning: tables of the job are UNLOGGED and not read any more: "public"."t". ' in d.text()
    d.stop()
    free(db)
    db.sql("INSERT INTO t VALUES (2, 'missed'); ALTER TABLE t SET LOGGED")
    d.start().streaming().caught_up().stop()
    d.same()
    assert loads(d).count("t") == 2 and loads(d).count("quiet") == 1


def test_a_partition_that_went_and_came_back(db, dump):
    """What was written to it in between was another table's."""
    db.sql(PARTED)
    d = dump("table=public.*", "exclude=public.p_*").start().streaming().caught_up().stop()
    free(db)
    for _ in range(2):
        db.sql("ALTER TABLE p DETACH PARTITION p_1; UPDATE p_1 SET v = 'missed'; ALTER TABLE p ATTACH PARTITION p_1 FOR VALUES FROM (0) TO (500)")
        d.start().streaming().caught_up().stop()
        assert "warning: table public.p: 1 partitions were attached" in d.text()
        free(db)
    d.start().streaming().caught_up().stop()
    assert "warning" not in d.text()


# ---- tables and partitions that come and go ----

def test_what_comes_and_goes_is_told_once(db, dump):
    db.sql(TABLES)
    db.sql("CREATE TABLE p_3 (id int PRIMARY KEY, v text); INSERT INTO p_3 VALUES (100001, 'there')")
    d = dump("table=public.*", "exclude=public.p_*", "exclude=public.old", key=KEYS).start().streaming().caught_up()
    db.sql("ALTER TABLE p ATTACH PARTITION p_3 FOR VALUES FROM (100000) TO (200000)")
    d.says("warning: table public.p: 1 partitions were attached")
    db.sql("CREATE TABLE p_4 PARTITION OF p FOR VALUES FROM (200000) TO (300000); INSERT INTO p VALUES (200001, 'came by the stream')")
    db.sql("ALTER TABLE p DETACH PARTITION p_1")
    d.says("warning: table public.p: 1 partitions were detached")
    db.sql("CREATE TABLE fresh (id int PRIMARY KEY); CREATE TABLE p_not_meant (id int)")
    d.says("warning: table public.fresh is new")
    db.sql("CREATE TABLE u_new (LIKE u INCLUDING ALL)")
    db.sql("ALTER TABLE u_new REPLICA IDENTITY FULL")
    db.sql("BEGIN; ALTER TABLE u RENAME TO old; ALTER TABLE u_new RENAME TO u; INSERT INTO u VALUES (1, 'new one'); COMMIT")
    d.says("warning: table public.u is another table now")
    d.caught_up()
    time.sleep(6)
    d.stop()
    text = d.text()
    assert all(text.count(what) == 1 for what in ("were attached", "were detached", "fresh is new", "another table now")), text
    assert "not_meant" not in text
    free(db)
    d.start().streaming().caught_up().stop()
    assert "attached" not in d.text()
    d.same(["a", "u", "fresh"])


def test_a_look_that_fails_is_made_again(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with Proxy(db.server.port) as proxy:
        d = dump("table=public.*", "sslmode=disable", port=proxy.port).start().streaming().caught_up()
        proxy.garble = b"SELECT c.oid, n.nspname, c.relname"
        db.sql("CREATE TABLE fresh (id int PRIMARY KEY)")
        wait_for("the list is refused", lambda: proxy.garble is None)
        d.says("warning: what the stream does not tell of the tables cannot be looked at")
        d.says("warning: table public.fresh is new", 20)
        d.says("the tables can be looked at again")
        d.stop()
    assert d.text().count("looked at again") == 1 and "looked at again" in d.text().split("is new")[1]


def test_columns_of_other_tables_are_no_reason_to_look(db, dump):
    """A temporary table with a default writes pg_attribute anew."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TYPE pair AS (a int, b int); CREATE TABLE p (id int PRIMARY KEY, p pair)")
    with Proxy(db.server.port) as proxy:
        d = dump("table=public.*", "sslmode=disable", port=proxy.port).start().streaming().caught_up()
        asked = lambda what: db.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s AND pid <> pg_backend_pid()", f"%{what}%")
        db.sql("CREATE TABLE fresh (id int PRIMARY KEY)")
        d.says("warning: table public.fresh is new")
        proxy.garble = b"WITH RECURSIVE"
        db.sql("CREATE TEMP TABLE tmp (id serial, a int DEFAULT 1)")
        wait_for("it looked at the columns", lambda: asked("a.attrelid, a.attnum, a.xmin), ") and not asked("WITH RECURSIVE"), timeout=30)
        assert proxy.garble
        proxy.garble = None
        db.sql("ALTER TABLE t RENAME a TO abc")
        wait_for("that is noted", lambda: f":{b'abc'.hex()}:" in d.saved()["note"]["tables"])
        db.sql("ALTER TYPE pair RENAME ATTRIBUTE a TO x")
        d.says("warning: table public.p: a composite type of its columns has other attributes now")
        d.stop()


def test_a_row_under_another_name_does_not_go_out(db, dump):
    """Nor is a name of before the load taken for a new one."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql("INSERT INTO t VALUES (2)")
    db.sql("ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (3)")
    assert "table public.s had another name" in again(d)
    assert not [line for line in d.lines() if line[2] == "s"]
    for _ in range(2):
        d.start().streaming().caught_up().stop()
        free(db)
    d.same(["s"])
    assert loads(d) == ["t", "s"]


def test_a_name_that_the_catalog_does_not_know_any_more(db, dump):
    """The stream is older than the catalog. The rows are the table's, whatever it is called in it; and what it is called in the end is told."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    d = dump("table=public.*", "exclude=public.gone").start().streaming().caught_up()
    db.sql("ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (2); ALTER TABLE s RENAME TO gone")
    d.says('"public"."t" is now "public"."gone"')
    d.caught_up()
    assert {line[2] for line in d.lines() if line[0] == "c"} == {"t"}


def test_another_name_is_told_when_nothing_is_loaded(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.t", "table=public.s", "mode=cdc").start().streaming().caught_up()
    db.sql("ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (1)")
    d.says("warning: table public.s had another name")
    d.caught_up()
    db.sql("ALTER TABLE s RENAME TO out; INSERT INTO out VALUES (2)")
    d.caught_up()
    time.sleep(6)
    d.stop()
    told = [line for line in d.text().splitlines() if "warning" in line and "the pattern" not in line]
    assert len(told) == 1, d.text()
    assert [line[2] for line in d.lines() if line[0] == "c"] == ["s", "out"]


def test_a_schema_that_is_renamed(db, dump):
    """Its tables are the same, under names that nobody asked for: while it runs, at a start, and when they are back."""
    db.sql("CREATE SCHEMA app; CREATE SCHEMA other; CREATE TABLE app.a (id int PRIMARY KEY); CREATE TABLE app.b (id int PRIMARY KEY)")
    db.sql("CREATE TABLE other.c (id int PRIMARY KEY); INSERT INTO app.a VALUES (1); INSERT INTO other.c VALUES (1)")
    d = dump("table=app.*", "table=other.*").start().streaming().caught_up()
    db.sql("ALTER SCHEMA app RENAME TO shop")
    d.says("warning: tables of the job were renamed, and the job's patterns do not mean the new names: ")
    d.stop()
    told = [line for line in d.text().splitlines() if "warning" in line]
    assert len(told) == 1 and all(f'"app"."{t}" is now "shop"."{t}"' in told[0] for t in "ab"), told
    free(db)
    d.start().streaming()
    told = [line for line in d.text().splitlines() if "warning" in line]
    assert len(told) == 1 and all(f'"app"."{t}" is now "shop"."{t}"' in told[0] for t in "ab"), told
    db.sql("INSERT INTO shop.a VALUES (2); INSERT INTO other.c VALUES (2); ALTER SCHEMA shop RENAME TO app")
    d.caught_up().stop()
    free(db)
    d.start().streaming().caught_up().stop()
    r = d.replica()
    assert sorted(row["id"] for row in r.rows("app", "a")) == sorted(row["id"] for row in r.rows("other", "c")) == ["1", "2"]
    assert loads(d).count("a") == 2 and loads(d).count("c") == 1


def test_tables_that_are_gone_at_a_start_are_told(db, dump):
    db.sql(";".join(f"CREATE TABLE t{i} (id int PRIMARY KEY)" for i in range(8)))
    d = dump("table=public.t*").start().streaming().caught_up().stop()
    free(db)
    db.sql("DROP TABLE t0, t1, t2, t3, t4, t5; ALTER TABLE t6 RENAME TO out")
    d.start().streaming().caught_up().stop()
    text = d.text()
    assert text.count("warning") == 2 and "were dropped at the source" in text and " and 1 more. " in text and '"public"."t6" is now "public"."out"' in text
    free(db)
    d.start().streaming().caught_up().stop()
    assert "warning" not in d.text(), "but once"
    free(db)
    db.sql("ALTER TABLE t7 RENAME TO out7")
    assert d.start().failure()[:2] == ("source.no-tables", False)
    assert '"public"."t7" is now "public"."out7"' in d.text()


def test_a_note_that_is_damaged_is_told(db, dump):
    """What stands before the damage counts; of the others it is not known which table was loaded."""
    db.sql("CREATE TABLE t1 (id int PRIMARY KEY); CREATE TABLE t2 (id int PRIMARY KEY); CREATE TABLE t3 (id int PRIMARY KEY)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    note = d.saved()["note"]["tables"]
    d.state.write_text(d.state.read_text().replace(note, note.replace('"public"."t2" ', '"public"."t2" x')))
    d.start().streaming().caught_up().stop()
    assert 'what was noted of the job\'s tables cannot be read from "public"."t2" on' in d.text()
    assert d.text().count("is loaded again: what was noted of it is damaged") == 2 and sorted(loads(d)) == ["t1", "t2", "t2", "t3", "t3"]
    free(db)
    d.start().streaming().caught_up().stop()
    assert "warning" not in d.text(), "but once"
    d.same()


def test_a_new_table_without_a_key_is_left_out(db, dump):
    """The first start refuses it; a job that runs is not stopped by it."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    db.sql("CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (1); CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1)")
    d.start().streaming().caught_up()
    assert "warning: table public.keyless is left out" in d.text()
    db.sql("UPDATE keyless SET a = 2; INSERT INTO fresh VALUES (2)")
    d.caught_up()
    time.sleep(6)
    d.stop()
    assert "keyless is new" not in d.text()
    d.same(["t", "fresh"])
    db.sql("ALTER TABLE keyless REPLICA IDENTITY FULL")
    free(db)
    d.key = {("public", "keyless"): "a"}
    d.start().streaming().caught_up().stop()
    d.same()
    db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    free(db)
    assert d.start().failure()[:2] == ("source.no-key", False), "one that it has is not given up"


# ---- columns ----

def test_columns_that_cannot_be_told_apart_when_nothing_is_loaded(db, dump):
    """It goes on by the names that there were, and says so."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up().stop()
    free(db)
    for sql in ("ALTER TABLE t RENAME a TO x; INSERT INTO t VALUES (1, 2, 3)", "ALTER TABLE t DROP x; ALTER TABLE t RENAME b TO a; INSERT INTO t VALUES (2, 4)"):
        db.sql(sql)
    d.start().streaming().caught_up().stop()
    assert "warning: table public.t got other columns before a change of it was read" in d.text()
    assert [line[4] for line in d.lines() if line[0] == "c"] == [{"id": "1", "x": "2", "b": "3"}, {"id": "2", "a": "4"}]


@pytest.mark.parametrize("server", [18], ids=["18"], indirect=True)
def test_another_expression_is_told(db, dump):
    """SET EXPRESSION came with PostgreSQL 17: not on the other server."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED)")
    d = dump("table=public.*").start().streaming().caught_up()
    db.sql("ALTER TABLE t ALTER g SET EXPRESSION AS (id * 3)")
    d.says("warning: table public.t: a generated column has another expression")
    d.stop()
    free(db)
    d.start().streaming().stop()
    assert "another expression" not in d.text(), "but once"


@pytest.mark.parametrize("more", [True, False], ids=["and more columns", "names alone"])
def test_columns_that_changed_while_the_stream_stood_still(db, dump, more):
    """It is looked at what the tables are like, and noted, twice: the next run still knows what they were like when its first changes were written."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    d = dump("table=public.*", key={"t": "id"}).start().streaming().caught_up().stop()
    free(db)
    d.start("pause_ms=60000").streaming()
    db.sql("INSERT INTO t VALUES (1, 'p', 'q')")
    wait_for("the stream stands still", lambda: any(line[0] == "c" for line in d.lines()))
    for i, sql in enumerate(("ALTER TABLE t RENAME a TO x; ALTER TABLE t ADD c int", "ALTER TABLE t RENAME b TO a; ALTER TABLE t ADD d int")):
        noted = d.saved()["note"]["tables"]
        db.sql(f"INSERT INTO t VALUES ({2 + i}, 'p', 'q')")
        db.sql(sql if more else sql.split(";", maxsplit=1)[0])
        wait_for("that is noted", lambda: d.saved()["note"]["tables"] != noted)
    db.sql("INSERT INTO t VALUES (4, 'p', 'q')")
    d.kill()
    free(db)
    d.start().streaming().caught_up().stop()
    c, d_ = ({"c": None}, {"d": None}) if more else ({}, {})
    assert [line[4] for line in d.lines() if line[0] == "c"] == [
        {"id": "1", "a": "p", "b": "q"}, {"id": "2", "a": "p", "b": "q"}, {"id": "3", "x": "p", "b": "q", **c}, {"id": "4", "x": "p", "a": "q", **c, **d_}]
    assert "again" not in d.text(), d.text()


def test_columns_of_a_table_that_is_dropped_while_the_stream_stands_still(db, dump):
    """Nobody can read them in the catalog any more; they were noted."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text); CREATE TABLE big (id int PRIMARY KEY, v text)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    free(db)
    db.sql("INSERT INTO big SELECT i, repeat('v', 100) FROM generate_series(1, 20000) i")
    db.sql("INSERT INTO t VALUES (1, 'p', 'q'); ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a")
    db.sql("INSERT INTO t VALUES (2, 'p', 'q')")
    d.start("pause_ms=25000").streaming()
    wait_for("the stream stands still", lambda: any(line[0] == "c" for line in d.lines()))
    db.sql("DROP TABLE t; CREATE TABLE fresh (id int PRIMARY KEY)")
    d.says("public.fresh is new")
    assert not any(line[2] == "t" for line in d.lines()[-10:]), "nothing of it is read yet"
    d.caught_up().stop()
    assert [line[4] for line in d.lines() if line[0] == "c" and line[2] == "t"] == [{"id": "1", "a": "p", "b": "q"}, {"id": "2", "x": "p", "a": "q"}]
    assert "got other columns" not in d.text(), d.text()
    for _ in range(2):
        free(db)
        d.start().streaming().caught_up().stop()
    assert "gone" not in d.saved()["note"] or not d.saved()["note"]["gone"], "the stream is past it"


def test_two_tables_of_one_name_that_are_gone(db, dump):
    """One after the other, before the changes of either are read: each has columns of its own, in the run that sees its end and in later ones."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text); CREATE TABLE big (id int PRIMARY KEY, v text)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up().stop()

    def stands_still():
        free(db)
        d.start("pause_ms=60000").streaming().kill()
    db.sql("INSERT INTO big SELECT i, repeat('v', 100) FROM generate_series(1, 20000) i")
    for i in (1, 3):
        db.sql(f"INSERT INTO t VALUES ({i}, 'p', 'q'); ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a")
        db.sql(f"INSERT INTO t VALUES ({i + 1}, 'p', 'q')")
        stands_still()
        db.sql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
        stands_still()
    db.sql("DROP TABLE t")
    stands_still()
    gone = d.saved()["note"]["gone"]
    assert gone.count('"public"."t" ') == 3, gone
    n = len(d.lines())
    free(db)
    d.start().streaming().caught_up().stop()
    was, is_ = {"a": "p", "b": "q"}, {"x": "p", "a": "q"}
    rows = [{"id": "1", **was}, {"id": "2", **is_}, {"id": "3", **was}, {"id": "4", **is_}]
    assert [line[4] for line in d.lines()[n:] if line[0] == "c" and line[2] == "t"] == rows
    assert "got other columns" not in d.text(), d.text()


def test_generated_columns_of_a_table_that_is_gone(db, dump):
    """They are not sent; that they are generated was noted with the others."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) STORED, b text); CREATE TABLE big (id int PRIMARY KEY, v text)")
    d = dump("table=public.*", "mode=cdc").start().streaming().caught_up().stop()
    free(db)
    db.sql("INSERT INTO big SELECT i, repeat('v', 100) FROM generate_series(1, 20000) i")
    db.sql("INSERT INTO t (id, a, b) VALUES (1, 'p', 'q'); ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a")
    db.sql("INSERT INTO t (id, x, a) VALUES (2, 'p', 'q')")
    d.start("pause_ms=60000").streaming().kill()
    free(db)
    db.sql("DROP TABLE t")
    for _ in range(2):
        d.start("pause_ms=60000").streaming().kill()
        free(db)
    n = len(d.lines())
    d.start().streaming().caught_up().stop()
    rows = [line[4] for line in d.lines()[n:] if line[0] == "c" and line[2] == "t"]
    assert [{c: v for c, v in row.items() if c != "g"} for row in rows] == [{"id": "1", "a": "p", "b": "q"}, {"id": "2", "x": "p", "a": "q"}], rows
    assert "got other columns" not in d.text(), d.text()
