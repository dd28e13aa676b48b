"""The PostgreSQL target's load: what is made before, with and after the rows, and what is done with tables that are there."""
import contextlib
import subprocess

import pytest

from feed import UNCHANGED, Feed, Script, c, column, d, u
from proxy import Proxy

RICH = r"""
CREATE SCHEMA "Odd S";
CREATE EXTENSION citext;
CREATE TYPE "Odd S"."Mood" AS ENUM ('ok', 'so so', 'it''s bad');
CREATE DOMAIN public.percent AS int DEFAULT 1 CONSTRAINT range CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE public.money2 AS (amount numeric(12,2), currency char(3));
CREATE TYPE public.floatrange AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
CREATE SEQUENCE public.numbers START 100 INCREMENT 5;
CREATE TABLE public.parent (id int GENERATED ALWAYS AS IDENTITY (START WITH 50) PRIMARY KEY, name citext NOT NULL UNIQUE,
  feels "Odd S"."Mood" DEFAULT 'ok', feelings "Odd S"."Mood"[]);
CREATE TABLE "Odd S"."child ""x"" y" ("no" bigserial, "Key" text COLLATE "C" DEFAULT 'a''b\c', parent int REFERENCES public.parent ON DELETE CASCADE DEFERRABLE,
  self bigint, price public.money2, share public.percent, span public.floatrange, code int DEFAULT nextval('public.numbers'),
  double int GENERATED ALWAYS AS (code * 2) STORED, made timestamptz(3) DEFAULT now(), v varchar(20), n numeric(10,3), b bit(4),
  CONSTRAINT "the key" PRIMARY KEY ("no", "Key"), CONSTRAINT positive CHECK (code > 0), CONSTRAINT "no" UNIQUE ("no"),
  EXCLUDE USING gist (span WITH &&));
ALTER TABLE "Odd S"."child ""x"" y" ADD CONSTRAINT back FOREIGN KEY (self) REFERENCES "Odd S"."child ""x"" y" ("no") DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX ON "Odd S"."child ""x"" y" (lower("Key")) WHERE code > 3;
CREATE UNIQUE INDEX partial ON "Odd S"."child ""x"" y" (v) INCLUDE (n) WHERE v IS NOT NULL;
COMMENT ON TABLE public.parent IS 'It''s \ a parent';
COMMENT ON COLUMN "Odd S"."child ""x"" y"."Key" IS 'a key';
CREATE TABLE public.bare ();
CREATE TABLE public.parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
"""
ROWS = r"""
INSERT INTO parent (name, feels, feelings) VALUES ('One', 'so so', '{ok,"it''s bad"}'), ('tWo', NULL, '{}');
INSERT INTO "Odd S"."child ""x"" y" ("Key", parent, self, price, share, span, v, n, b) VALUES
  ('x', 50, 1, '(1.5,EUR)', 5, '[1,2)', E'tab\tnew\nline\\', 1.5, '0101'), ('y', 51, 1, NULL, NULL, '[3,Infinity)', NULL, 'NaN', NULL);
INSERT INTO bare DEFAULT VALUES;
INSERT INTO parts VALUES (1, '2026-05-05');
"""
TABLES = ["public.parent", '"Odd S"."child ""x"" y"', "public.bare", "public.parts"]


def dump(db):
    out = subprocess.run(["pg_dump", "-s", "-O", "-x", "-N", "dmsr", "-h", "127.0.0.1", "-p", str(db.server.port), "-U", "postgres", db.name], capture_output=True,
                         text=True, check=True).stdout
    # what is not told of: partitions (the root is a table like any other), and the name of a key that the server gave to one
    lines = [line for line in out.splitlines() if not line.startswith(("--", "SET ", "SELECT ", "\\")) and line]
    return "\n".join(lines)


def expected(db):
    """The source's own dump, with its partitioned table as the target has it."""
    db.sql("DROP TABLE parts; CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)); INSERT INTO parts VALUES (1, '2026-05-05')")
    return dump(db)


def statements(text):
    return sorted(s.strip() for s in text.split(";"))


def load_all(source, **options):
    script = Script().catalog(source, "*.*")
    for table in TABLES:
        rel = table.replace('"child ""x"" y"', 'child "x" y').replace('"Odd S"', "Odd S")
        script.copy(source, rel, "(SELECT * FROM parts)" if "parts" in table else table, **options)
    return script


def test_everything_is_made(pg):
    source, target = pg.database("source"), pg.database("target")
    source.sql(RICH)
    source.sql(ROWS)
    feed = Feed(target)
    feed.ok(load_all(source).done())
    values = [db.sql("SELECT nextval('numbers'), nextval('\"Odd S\".\"child \"\"x\"\" y_no_seq\"'), nextval('parent_id_seq')") for db in (source, target)]
    assert values[0] == values[1]
    assert statements(dump(target)) == statements(expected(source))
    for table in TABLES:
        assert source.rows(table) == target.rows(table)


def test_binary_rows(pg, pg18):
    """Between servers of two versions, types of our own included; and into a table that has other types."""
    source, target = pg.database("source"), pg18.database("target")
    source.sql("CREATE TYPE mood AS ENUM ('ok', 'so so'); CREATE TABLE t (id int PRIMARY KEY, m mood, n numeric, a int[], g int GENERATED ALWAYS AS (id * 2) STORED);"
               "INSERT INTO t VALUES (1, 'so so', 1.50, '{1,NULL}'), (2, NULL, 'NaN', NULL)")
    Feed(target).ok(Script().catalog(source, "t").copy(source, "public.t", form="binary").done())
    assert target.rows("t") == source.rows("t")
    other = pg18.database("target")
    other.sql("CREATE TABLE t (extra text DEFAULT 'e', id bigint PRIMARY KEY, m text, n float8, a text, g int GENERATED ALWAYS AS (3) STORED)")
    source.sql("ALTER TABLE t ALTER m TYPE text")
    Feed(other).ok(Script().catalog(source, "t").copy(source, "public.t", form="binary").done())
    assert other.sql("SELECT extra, id, m, n::text, a, g FROM t ORDER BY id") == [("e", 1, "so so", "1.5", "{1,NULL}", 3), ("e", 2, None, "NaN", None, 3)]


@pytest.mark.parametrize("form", ["text", "binary"])
def test_rows_that_go_in_pieces(pg, form):
    source, target = pg.database("source"), pg.database("target")
    source.sql("CREATE TABLE t (id int PRIMARY KEY, v text);"
               "INSERT INTO t SELECT i, (SELECT string_agg(md5((i * 1000000 + k)::text), E'\\n') FROM generate_series(1, i * 60000) k) FROM generate_series(0, 3) i")
    Feed(target).ok(Script().catalog(source, "t").copy(source, "public.t", form=form).done())
    assert target.one("SELECT max(length(v)) FROM t") > 5 << 20
    assert target.digest("t") == source.digest("t")


@pytest.mark.parametrize("form", ["text", "binary"])
def test_a_load_that_begins_anew(any_pg, form):
    """The source died in a load, and what it had sent came over a broker: what was begun is void, made table and all; another table may come first."""
    source, target = any_pg.database("source"), any_pg.database("target")
    source.sql("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 1000) i;"
               "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (5)")
    script = Script().catalog(source, "t", "u").copy(source, "public.t", lsn=100, form=form)
    assert script.lines[-2] == {"end": "public.t"}
    del script.lines[-2]
    source.sql("UPDATE t SET a = 'new' WHERE id < 500; DELETE FROM t WHERE id > 900")
    Feed(target).ok(script.copy(source, "public.u", lsn=200, form=form).copy(source, "public.t", lsn=200, form=form).done())
    assert target.digest("t") == source.digest("t") and target.rows("u") == source.rows("u")
    assert target.sql("SELECT table_name, split_part(position, ':', 3) FROM dmsr.loads ORDER BY 1") == [("t", "0/C8"), ("u", "0/C8")]


COLUMNS = [column("id", "int4", key=1), column("a")]
PKEY = [(1, "primary-key", "public.t.t_pkey", "ALTER TABLE public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id)")]


def one(**more):
    return Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", "1\tnew\n", **more).done()


def test_prepare_create(any_pg):
    db = any_pg.database("target")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (7, 'theirs')")
    said = Feed(db).run(one())
    assert said.failed_id == "target.table-not-empty" and '"public"."t"' in said.failed and "prepare" in said.failed and "retriable=0" in said.failed
    assert db.one("SELECT count(*) FROM t") == 1
    db.sql("DELETE FROM t; CREATE INDEX mine ON t (a)")
    feed = Feed(db)
    feed.ok(one())
    assert db.sql("SELECT * FROM t") == [(1, "new")] and db.one("SELECT to_regclass('mine') IS NOT NULL")
    # The same job, from a new snapshot: its own rows go.
    feed.ok(Script().rel("t", "t", COLUMNS).load("t", "2\tnewer\n", lsn=300).done())
    assert db.sql("SELECT * FROM t") == [(2, "newer")]
    # Another job finds rows that are not its own.
    assert Feed(db, uid="01hzotherotherotherotherot").run(one()).failed_id == "target.table-not-empty"


def test_another_table_under_its_name(any_pg):
    """What was made for the old one does not fit the new one; its rows go anyway."""
    db = any_pg.database("target")
    feed = Feed(db)
    feed.ok(one())
    new = [column("id", "text", key=1), column("b", "int4")]
    feed.ok(Script().rel("t", "t", new, id=77, ddl=PKEY).load("t", "x\t5\n", lsn=300).done().tx(400, c("t", "y", "6")).wait())
    assert db.sql("SELECT * FROM t ORDER BY id") == [("x", 5), ("y", 6)]
    assert db.one("SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid = 't'::regclass") == 1
    # One that somebody else made is not dropped.
    other = any_pg.database("target")
    other.sql("CREATE TABLE t (id int PRIMARY KEY, a text)")
    feed = Feed(other)
    feed.ok(one())
    said = feed.run(Script().rel("t", "t", new, id=77).load("t", "x\t5\n", lsn=300).done())
    assert said.failed_id == "target.table-mismatch" and other.sql("SELECT * FROM t") == [(1, "new")]


DOTTED = [(1, "primary-key", "public.t.t_pkey", "ALTER TABLE public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id)"),
          (1, "unique", "public.t.t_a", "ALTER TABLE public.t ADD CONSTRAINT t_a UNIQUE (a)"),
          (1, "index", "public.t.dotted", 'CREATE INDEX "t.dotted" ON public.t (a, id)')]


@pytest.mark.spread
@pytest.mark.parametrize("what", ["ALTER TABLE old RENAME CONSTRAINT old_pkey TO {}", "CREATE INDEX {} ON old (id)", "CREATE TABLE {} ()"])
@pytest.mark.parametrize("name", ["t_pkey", "t_a", '"t.dotted"'])
def test_the_name_of_an_index_is_taken(any_pg, name, what):
    """A table that was renamed keeps the names of its keys: that such a name is there does not say that the table has the index."""
    db = any_pg.database("target")
    db.sql("CREATE TABLE old (id int CONSTRAINT old_pkey PRIMARY KEY); " + what.format(name))
    feed, script = Feed(db), Script().rel("t", "t", COLUMNS, ddl=DOTTED).load("t", "1\tnew\n").done()
    said = str(feed.ok(script))
    indexes = "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = 't'::regclass ORDER BY 1"
    assert db.one("SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid = 't'::regclass") == 1
    assert len(db.sql(indexes)) == (3 if name == "t_pkey" else 2)
    assert ("was not made" in said) == (name != "t_pkey"), said


def test_prepare_none(pg):
    db = pg.database("target")
    feed = Feed(db, prepare="none")
    said = feed.run(one())
    assert said.failed_id == "target.table-missing"
    db.sql("CREATE TABLE t (id int, a text, more int DEFAULT 3); INSERT INTO t VALUES (7, 'theirs')")
    feed.ok(one())
    assert db.sql("SELECT * FROM t ORDER BY id") == [(1, "new", 3), (7, "theirs", 3)]
    assert db.one("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass") == 0
    said = feed.run(one(lsn=300))
    assert said.failed_id == "target.table-loaded" and db.one("SELECT count(*) FROM t") == 2


def test_prepare_truncate(any_pg):
    db = any_pg.database("target")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (7, 'theirs'); CREATE TABLE r (t int REFERENCES t); INSERT INTO r VALUES (NULL)")
    Feed(db, prepare="truncate").ok(one())
    assert db.sql("SELECT * FROM t") == [(1, "new")] and db.one("SELECT count(*) FROM r") == 1
    other = any_pg.database("target")
    Feed(other, prepare="truncate").ok(one())
    assert other.sql("SELECT * FROM t") == [(1, "new")]


def test_prepare_drop_and_create(any_pg):
    db = any_pg.database("target")
    db.sql("CREATE TABLE t (id text PRIMARY KEY, b int); INSERT INTO t VALUES ('x'); CREATE TABLE r (t text REFERENCES t)")
    feed = Feed(db, prepare="drop-and-create")
    feed.ok(one())
    assert db.sql("SELECT * FROM t") == [(1, "new")] and db.one("SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid = 't'::regclass") == 1
    # What others look at is not taken away from them.
    db.sql("CREATE VIEW v AS SELECT * FROM t")
    said = feed.run(one(lsn=300))
    assert said.failed_id and "retriable=0" in said.failed and db.one("SELECT count(*) FROM v") == 1


@pytest.mark.parametrize("prepare", ["create", "drop-and-create"])
def test_a_table_of_a_type_that_is_not_here(pg, prepare):
    db = pg.database("prepare")
    if prepare != "create":
        db.sql("CREATE TABLE a (id int)")
    said = Feed(db, prepare=prepare).run(Script().rel("a", "a", [column("id", "int4", 1), column("v", "nowhere")]).load("a", "1\tx\n").done())
    assert said.failed_id == "target.undefined" and '"public"."a" is to be made here' in said.failed and "nowhere" in said.failed
    assert db.tables() == ([] if prepare == "create" else ["public.a"]), "what was there is there"


def test_table_that_does_not_fit(pg):
    db = pg.database("target")
    db.sql("CREATE TABLE t (id int, b int NOT NULL)")
    said = Feed(db).run(one())
    assert said.failed_id == "target.table-mismatch" and "column a is missing" in said.failed and "column b is NOT NULL here" in said.failed


def test_row_that_the_load_cannot_take(pg):
    db = pg.database("target")
    said = Feed(db).run(Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", "1\ta\nx\tb\n").done())
    assert said.failed_id == "target.data" and 'loading "public"."t"' in said.failed
    assert "on_data_error" not in said.failed and "and start the job" in said.failed
    assert db.one("SELECT to_regclass('t')") is None
    said = Feed(db).run(Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", "1\ta\n1\tb\n").done(), on_constraint_error="retry")
    assert said.failed_id == "target.constraint" and "retriable=1" in said.failed and "t_pkey" in said.failed
    db.psql("CREATE TABLE t (id int PRIMARY KEY, a text CHECK (a <> 'b'))")
    said = Feed(db, uid="02hzfeedfeedfeedfeedfeedfe", prepare="none").run(Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", "1\ta\n2\tb\n").done())
    assert said.failed_id == "target.constraint" and "mend the row" in said.failed and "on_constraint_error" not in said.failed


def test_row_that_the_load_cannot_take_long_before_its_end(pg):
    """The server has said all that it will say by the time that the COPY is ended."""
    rows = "".join(f"{i}\t{'a' * 1000}\n" for i in range(20000))
    said = Feed(pg.database("target")).run(Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", "x\tb\n" + rows).done())
    assert said.failed_id == "target.data" and 'loading "public"."t"' in said.failed


LABELS = "SELECT t.typname, e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid ORDER BY t.typname, e.enumsortorder"


@pytest.mark.parametrize("form", ["text", "binary"])
def test_labels_that_an_enum_got(any_pg, form):
    """COPY does not say which label it lacks, so what the source's type has is there before the rows come, in the source's order."""
    source, target = any_pg.database("source"), any_pg.database("target")
    source.sql("CREATE TYPE mood AS ENUM ('b', 'd'); CREATE TYPE \"Odd (x\" AS ENUM ('one'); CREATE DOMAIN odd AS \"Odd (x\";"
               "CREATE TABLE t (id int PRIMARY KEY, m mood, o odd); INSERT INTO t VALUES (1, 'b', 'one')")
    feed = Feed(target)
    feed.ok(Script().catalog(source, "t").copy(source, "public.t", form=form).done())
    grown = r"""
        ALTER TYPE mood ADD VALUE 'e'; ALTER TYPE mood ADD VALUE 'c' BEFORE 'd'; ALTER TYPE mood ADD VALUE 'a' BEFORE 'b'; ALTER TYPE mood ADD VALUE '' BEFORE 'a';
        ALTER TYPE "Odd (x" ADD VALUE E'it''s \\ (2), $1'; INSERT INTO t SELECT 2 + row_number() OVER (), l, NULL FROM unnest(enum_range(NULL::mood)) l;
        INSERT INTO t SELECT 100 + row_number() OVER (), NULL, l FROM unnest(enum_range(NULL::"Odd (x")) l"""
    source.psql(grown)
    feed.ok(Script().catalog(source, "t").copy(source, "public.t", form=form, lsn=300).done())
    assert target.sql(LABELS) == source.sql(LABELS)
    assert target.rows("t") == source.rows("t")
    # A table and a type that somebody made before.
    theirs = any_pg.database("theirs")
    theirs.sql("CREATE TYPE mood AS ENUM ('d', 'own'); CREATE TYPE \"Odd (x\" AS ENUM (); CREATE DOMAIN odd AS \"Odd (x\";"
               "CREATE TABLE t (id int PRIMARY KEY, m mood, o odd)")
    again = Script().catalog(source, "t").copy(source, "public.t", form=form).done()
    said = Feed(theirs, prepare="truncate", ddl="stop").run(again)
    assert said.failed_id == "target.data", said
    Feed(theirs, prepare="truncate").ok(again)
    assert [label for name, label in theirs.sql(LABELS) if name == "mood"] == ["", "a", "b", "c", "d", "e", "own"]
    assert theirs.rows("t") == source.rows("t")


def test_foreign_keys_come_last(pg):
    db = pg.database("target")
    ddl = [(2, "foreign-key", "public.a.fk", "ALTER TABLE public.a ADD CONSTRAINT fk FOREIGN KEY (b) REFERENCES public.b (id)")]
    key = [(1, "primary-key", "public.b.b_pkey", "ALTER TABLE public.b ADD CONSTRAINT b_pkey PRIMARY KEY (id)")]
    script = Script().rel("a", "a", [column("b", "int4")], key="none", ddl=ddl).rel("b", "b", [column("id", "int4", key=1)], ddl=key)
    feed = Feed(db)
    said = feed.run(script.load("a", "1\n2\n").load("b", "1\n").done())
    assert said.failed_id == "target.constraint" and "foreign-key public.a.fk" in said.failed and "include the table" in said.failed
    db.sql("INSERT INTO b VALUES (2)")
    script = Script().rel("a", "a", [column("b", "int4")], key="none", ddl=ddl).rel("b", "b", [column("id", "int4", key=1)], ddl=key)
    feed.ok(script.add({"schema": "a"}, {"schema": "b"}).done())
    assert db.one("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 1


def test_stream_before_the_load_is_done(pg):
    """Keys and indexes come when the source says so, which may be behind the first changes."""
    db = pg.database("target")
    script = Script().rel("t", "t", COLUMNS, ddl=PKEY + [(1, "index", "public.i", "CREATE INDEX i ON public.t (a)")]).load("t", "1\ta\n2\tb\n")
    script.tx(200, u("t", ["1", "A"]), d("t", "2", UNCHANGED), emit=False)
    script.add({"done": True}, {"emit": {"end": [200, -1, 201]}}).tx(210, c("t", "3", "c")).wait()
    Feed(db).ok(script)
    assert db.sql("SELECT * FROM t ORDER BY id") == [(1, "A"), (3, "c")] and db.one("SELECT to_regclass('i') IS NOT NULL")


@pytest.mark.parametrize("policy", ["stop", "retry"])
def test_a_row_that_an_index_does_not_take(pg, policy):
    db = pg.database("target")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE INDEX ON t (a)")
    said = Feed(db, on_data_error=policy).run(Script().rel("t", "t", COLUMNS, ddl=PKEY).load("t", f"1\t{'A' * 1000000}\n").done())
    assert said.failed_id == "target.limit" and f"retriable={int(policy == 'retry')}" in said.failed and '"t"' in said.failed, said


@pytest.mark.parametrize("rows", ["none", "its own"])
def test_a_table_that_somebody_holds(pg, rows):
    """Who holds it may wait for a table of this job's, of which no server knows: neither waits for ever."""
    db = pg.database("target")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text)")
    feed, script = Feed(db), one()
    if rows == "its own":
        feed.ok(script)
        script = one(lsn=300)
    with contextlib.closing(db.server.connect(db.name)) as other, \
            Proxy(db.server.port, change=lambda data: data.replace(b"lock_timeout = '20s'", b"lock_timeout = '1ms'")) as proxy:
        other.autocommit = False
        other.cursor().execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
        said = feed.run(script, port=proxy.port)
    assert said.failed_id == "target.locked" and "retriable=1" in said.failed and '"t"' in said.failed and "pg_locks" in said.failed, said
    feed.ok(script)
    assert db.sql("SELECT * FROM t") == [(1, "new")]
