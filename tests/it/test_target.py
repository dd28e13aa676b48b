"""The PostgreSQL target on real servers: what it is fed, and what stands in the tables afterwards."""
import contextlib
import hashlib
import os
import subprocess
import threading

import pytest

from conftest import BUILD, PASSWORD, Postgres, wait_for
from feed import UNCHANGED, Feed, Script, c, column, d, schema, u
from proxy import Proxy

ITEMS = [column("id", "int4", key=1), column("name"), column("n", "int8")]


def items(**more):
    return Script().rel("items", "items", ITEMS, **more)


def rows(db, table="items", order="id"):
    return db.sql(f"SELECT * FROM {table} ORDER BY {order}")


def test_each_statement_gets_one_answer(any_pg):
    """Refused ones and those behind them too, whenever the next is sent: amid the answers, and when a turn of the loop ended between two of them."""
    db = any_pg.database("answers")
    words = [f"{key}={value}" for key, value in db.connection().items() if key in ("host", "port", "database", "user")]
    out = subprocess.run([BUILD / "tests" / "it" / "pg_pipeline", "3000", f"password={PASSWORD}", *words], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    answered, whole, groups = [int(word) for word in out.stdout.replace(" of ", " ").split() if word.isdigit()]
    assert answered == 3000 and whole == groups > 100, out.stdout


def test_load_then_changes_then_restart(any_pg):
    db = any_pg.database("target")
    feed = Feed(db)
    ddl = [(1, "primary-key", "public.items.items_pkey", "ALTER TABLE public.items ADD CONSTRAINT items_pkey PRIMARY KEY (id)"),
           (1, "index", "public.items_name", "CREATE INDEX items_name ON public.items (name)")]
    script = items(ddl=ddl).load("items", "1\ta\t10\n2\tb\t\\N\n").done()
    script.tx(90, c("items", "9", "before the snapshot", "1"))
    script.tx(200, c("items", "3", "c", "30"), u("items", ["1", "A", "11"]))
    script.tx(210, d("items", "2", UNCHANGED, UNCHANGED)).wait()
    said = feed.ok(script)
    assert rows(db) == [(1, "A", 11), (3, "c", 30)]
    assert said.counts("public.items") == {"loaded": 2, "c": 1, "u": 1, "d": 1}
    assert db.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'items'") == 2
    # The same stream again: all of it is known. One more transaction is not.
    again = items(ddl=ddl).tx(200, c("items", "3", "c", "30"), u("items", ["1", "A", "11"])).tx(210, d("items", "2", UNCHANGED, UNCHANGED))
    said = feed.ok(again.tx(220, c("items", "4", "d", None)).wait())
    assert said.lines[0].startswith("ready pg:7:") and "load_done=1" in said.lines[0]
    assert said.all("loaded") == ["loaded public.items pg:7:0/64:0:0/0"]
    assert rows(db) == [(1, "A", 11), (3, "c", 30), (4, "d", None)]


def test_what_is_passed_over_is_told_with_its_transaction(pg):
    """It is nowhere in the target, which would say when it starts again that it stands before it: whoever was told of it would take that for a loss."""
    db = pg.database("items")
    feed = Feed(db)
    script = items(ddl=[PKEY]).load("items", "1\ta\t10\n", lsn=300).done().wait()
    told = feed.ok(script).applied
    script.part(250, c("items", "9", "in the load", "1"), first=True, events=1).sleep(500)
    assert feed.ok(script).applied == told
    script.add({"again": 250}, c("items", "8", "too", "1"), {"commit": True}, {"emit": {"end": [250, -1, 251]}}).wait()
    assert feed.ok(script).applied == told + 2
    assert feed.ok(items(ddl=[PKEY])).lines[0].startswith("ready pg:7:0/FA:*:") and rows(db) == [(1, "a", 10)]


# ---- columns that change in mid-stream ----

PKEY = (1, "primary-key", "public.items.items_pkey", "ALTER TABLE public.items ADD CONSTRAINT items_pkey PRIMARY KEY (id)")


def loaded(db, feed, columns=None, text="1\ta\t10\n2\tb\t20\n"):
    """A table that was loaded by an earlier life of the job."""
    feed.ok(Script().rel("v1", "items", columns or ITEMS, ddl=[PKEY]).load("v1", text).done())


def changed(columns, *changes, old=None, **more):
    """The columns became others, and then the changes came."""
    script = Script().rel("v1", "items", old or ITEMS).rel("v2", "items", columns, **more)
    return script.tx(200, {"schema": "v2", "old": "v1"}, *changes)


def columns_of(db, table="items"):
    return [tuple(r) for r in db.sql("SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                                     "AND NOT attisdropped ORDER BY attnum", table)]


def test_ddl_add(any_pg):
    db = any_pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    mood = [(0, "schema", "odd", 'CREATE SCHEMA IF NOT EXISTS "odd"'), (0, "enum", "odd.mood", "CREATE TYPE \"odd\".\"mood\" AS ENUM ('ok', 'so so')")]
    v2 = ITEMS + [column("plain", "text"), column("five", "int4", dflt="5", nullable=False), column("feels", "odd.mood", dflt="'ok'::odd.mood"),
                  column("double", "int8", generated=True, dflt="n * 2")]
    said = feed.ok(changed(v2, u("v2", ["1", "A", "11", "p", "6", "so so", UNCHANGED]), c("v2", "3", "c", "30", None, "7", "ok", UNCHANGED), ddl=mood).wait())
    assert rows(db) == [(1, "A", 11, "p", 6, "so so", 22), (2, "b", 20, None, 5, "ok", 40), (3, "c", 30, None, 7, "ok", 60)]
    assert said.counts("public.items")["ddl"] == 4
    assert db.one("SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnotnull AND attnum > 0") == "id,five"
    # Once more, as after a crash of the source's side: nothing is done twice.
    said = feed.ok(changed(v2, c("v2", "3", "c", "30", None, "7", "ok", UNCHANGED), ddl=mood).tx(210, d("v2", "3", *[UNCHANGED] * 6)).wait())
    assert [r[0] for r in rows(db)] == [1, 2] and "ddl" not in said.counts("public.items")


def test_ddl_of_a_column_that_is_still_to_come(any_pg):
    """After a crash the end of a load is said again, with what the source's tables are like by then."""
    db = any_pg.database("target")
    feed = Feed(db)
    late = [(1, "default", "public.items.late", "ALTER TABLE public.items ALTER COLUMN late SET DEFAULT 7"),
            (1, "index", "public.items_late", "CREATE INDEX items_late ON public.items (late)")]
    said = feed.ok(items(ddl=[PKEY, *late]).load("items", "1\ta\t10\n").done())
    assert "index public.items_late was not made" in str(said) and "default public.items.late" not in str(said), said
    feed.ok(changed(ITEMS + [column("late", "int4", dflt="7")], c("v2", "2", "b", "20", "8")).wait())
    db.sql("INSERT INTO items (id) VALUES (3)")
    assert rows(db) == [(1, "a", 10, 7), (2, "b", 20, 8), (3, None, None, 7)]


def test_ddl_drop_rename_retype(any_pg):
    db = any_pg.database("target")
    feed = Feed(db)
    loaded(db, feed, ITEMS + [column("x", "int4"), column("y", "text")], "1\ta\t10\t7\tq\n")
    db.sql("ALTER TABLE items ALTER n SET DEFAULT 3")
    # name is dropped, n becomes text, x is now called z; y stays.
    v2 = [ITEMS[0], column("n", "text", dflt="'3'::text"), column("z", "int4"), column("y", "text")]
    old = ITEMS + [column("x", "int4"), column("y", "text")]
    feed.ok(changed(v2, c("v2", "2", "twenty", "8", "w"), old=old).wait())
    assert columns_of(db) == [("id", "integer"), ("n", "text"), ("z", "integer"), ("y", "text")]
    assert rows(db) == [(1, "10", 7, "q"), (2, "twenty", 8, "w")]
    db.sql("INSERT INTO items (id) VALUES (3)")
    assert rows(db)[2] == (3, "3", None, None)


def test_ddl_after_a_restart_is_told_from_memory(pg):
    """The stream begins behind the change: there is no word of it."""
    db = pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    v2 = [ITEMS[0], column("label"), ITEMS[2], column("more", "int4")]
    feed.ok(Script().rel("v2", "items", v2).tx(200, c("v2", "3", "c", "30", "1")).wait())
    assert columns_of(db) == [("id", "integer"), ("label", "text"), ("n", "bigint"), ("more", "integer")]
    assert rows(db)[0] == (1, "a", 10, None)


def test_ddl_inside_a_transaction_between_its_rows(any_pg):
    db = any_pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    v2 = [ITEMS[0], ITEMS[1], column("n", "text")]
    v3 = [ITEMS[0], ITEMS[1]]
    script = Script().rel("v1", "items", ITEMS).rel("v2", "items", v2).rel("v3", "items", v3)
    script.tx(200, u("v1", ["1", "A", "11"]), {"schema": "v2", "old": "v1"}, u("v2", ["2", "B", "many"]), {"schema": "v3", "old": "v2"}, c("v3", "3", "c"))
    feed.ok(script.wait())
    assert rows(db) == [(1, "A"), (2, "B"), (3, "c")]


def test_ddl_is_all_or_nothing(pg):
    db = pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    script = changed(ITEMS + [column("more")], c("v2", "3", "c", "30", "x"), u("v2", ["1", "A", "1", "y"])).wait()
    for point in ("target.altered", "target.before-commit"):
        assert feed.killed(script, point)
        assert columns_of(db) == columns_of(db)[:3] and len(rows(db)) == 2
    assert feed.killed(script, "target.after-commit")
    feed.ok(script)
    assert rows(db) == [(1, "A", 1, "y"), (2, "b", 20, None), (3, "c", 30, "x")]


def test_ddl_policy_stop_then_by_hand(pg):
    db = pg.database("target")
    feed = Feed(db, ddl="stop")
    loaded(db, feed)
    script = changed([ITEMS[0], column("label"), ITEMS[2], column("more")], c("v2", "3", "c", "30", "x")).wait()
    said = feed.run(script)
    assert said.failed_id == "target.schema-changed" and 'RENAME COLUMN "name" TO "label"; ALTER TABLE "public"."items" ADD COLUMN "more" text' in said.failed
    db.sql("ALTER TABLE items RENAME name TO label; ALTER TABLE items ADD more text")
    feed.ok(script)
    assert rows(db) == [(1, "a", 10, None), (2, "b", 20, None), (3, "c", 30, "x")]


def test_ddl_policy_ignore(pg):
    db = pg.database("target")
    feed = Feed(db, ddl="ignore")
    loaded(db, feed)
    feed.ok(changed([ITEMS[0], ITEMS[2], column("more")], c("v2", "3", "30", "x"), u("v2", ["1", "11", "y"])).wait())
    assert rows(db) == [(1, "a", 11), (2, "b", 20), (3, None, 30)]


def test_ddl_key(any_pg):
    db = any_pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    db.sql("UPDATE items SET n = id")
    v2 = [column("id", "int4"), column("name"), column("n", "int8", key=1)]
    feed.ok(changed(v2, u("v2", ["1", "A", "1"]), d("v2", UNCHANGED, UNCHANGED, "2")).wait())
    assert rows(db) == [(1, "A", 1)]
    assert db.sql("SELECT contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'items'::regclass AND contype = 'p'") == [("p", "PRIMARY KEY (n)")]


# ---- what is refused ----

def table(db, sql, *changes, feed=None, rel="t", key="primary", columns=None, **options):
    """A table that is there, and one transaction on it."""
    db.sql(sql)
    columns = columns or [column("id", "int4", key=1), column("a"), column("n", "int4")]
    script = Script().rel(rel, "t", columns, key=key).tx(200, *changes).wait()
    return (feed or Feed(db, prepare="none", **options)), script


T = "CREATE TABLE t (id int PRIMARY KEY, a text, n int UNIQUE CHECK (n < 1000))"


def many(n, bad=None):
    """Rows, of which one or some are not like the others."""
    return [c("t", str(i), f"row {i}", (bad or {}).get(i, str(i))) for i in range(n)]


def test_refused_row_is_named(any_pg):
    db = any_pg.database("target")
    feed, script = table(db, T, *many(50, {17: "1000"}))
    said = feed.run(script)
    assert said.failed_id == "target.constraint" and 'create on "public"."t" (id=17), transaction 0/C8' in said.failed and "t_n_check" in said.failed
    assert "retriable=0" in said.failed
    assert db.one("SELECT count(*) FROM t") == 0 and db.one("SELECT position FROM dmsr.positions") == "none"
    said = feed.run(script, on_constraint_error="retry")
    assert "retriable=1" in said.failed
    db.sql("ALTER TABLE t DROP CONSTRAINT t_n_check")
    feed.ok(script)
    assert db.one("SELECT count(*) FROM t") == 50


def test_bad_value_is_named(pg):
    db = pg.database("target")
    feed, script = table(db, T, *many(50, {17: "many"}), u("t", ["3", "x", "77"]))
    said = feed.run(script)
    assert said.failed_id == "target.data" and "(id=17)" in said.failed and "retriable=0" in said.failed
    said = feed.run(script, on_data_error="retry")
    assert said.failed_id == "target.data" and "retriable=1" in said.failed
    said = feed.ok(script, on_data_error="dead-letter")
    assert said.all("dead") == ["dead create public.t target.data"]
    assert db.sql("SELECT count(*), max(n) FROM t") == [(49, 77)]
    assert said.counts("public.t") == {"c": 49, "u": 1, "dead": 1}


# What the server says by its SQLSTATE -> id, whether a later attempt may succeed by itself, and a word of what to do.
STATES = {"08006": ("target.unreachable", 1, "reachable"), "57P01": ("target.unreachable", 1, "reachable"), "57P02": ("target.unreachable", 1, "reachable"),
          "57P03": ("target.unreachable", 1, "reachable"), "57P05": ("target.unreachable", 1, "reachable"), "25P03": ("target.unreachable", 1, "reachable"),
          "57014": ("target.cancelled", 1, "who cancels"), "53300": ("target.busy", 1, "raise its limits"), "53200": ("target.busy", 1, "raise its limits"),
          "53100": ("target.disk-full", 1, "free space"), "53400": ("target.limit", 0, "raise the server's limit"),
          "54000": ("target.limit", 0, "raise the server's limit"), "55006": ("target.in-use", 1, "pg_stat_activity"), "55P03": ("target.locked", 1, "pg_locks"),
          "55000": ("target.state", 0, "state that is asked for"), "40001": ("target.conflict", 1, "tried again"), "40P01": ("target.conflict", 1, "tried again"),
          "25006": ("target.read-only", 0, "primary"), "28000": ("target.auth", 0, "pg_hba.conf"), "42501": ("target.privilege", 0, "GRANT"),
          "3D000": ("target.database", 0, "create the database"), "23514": ("target.constraint", 0, "on_constraint_error"), "22003": ("target.data", 0, "on_data_error"),
          "42804": ("target.data", 0, "on_data_error"), "42P01": ("target.undefined", 0, "create what is named"),
          "42703": ("target.undefined", 0, "create what is named"), "42704": ("target.undefined", 0, "create what is named"),
          "42883": ("target.undefined", 0, "create what is named"), "3F000": ("target.undefined", 0, "create what is named"),
          "42P06": ("target.exists", 0, "drop or rename"), "42P07": ("target.exists", 0, "drop or rename"), "42701": ("target.exists", 0, "drop or rename"),
          "42710": ("target.exists", 0, "drop or rename"), "58030": ("target.io", 1, "disk"), "58P01": ("target.missing-file", 0, "log"),
          "0A000": ("target.unsupported", 0, "version"), "XX000": ("target.internal", 0, "log"), "42601": ("target.sql", 0, "log")}


def test_what_each_state_of_the_server_means(pg):
    """A trigger of the target says it; the job's end names it, and what to do."""
    db = pg.database("target")
    feed, script = table(db, T, c("t", "1", "a", "1"))
    db.sql("CREATE TABLE state (state text); INSERT INTO state VALUES ('')")
    db.sql("CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'as asked' USING ERRCODE = (SELECT state FROM public.state); END $$")
    db.sql("CREATE TRIGGER say BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION say(); ALTER TABLE t ENABLE ALWAYS TRIGGER say")
    for state, (id_, retriable, do) in STATES.items():
        db.sql("UPDATE state SET state = %s", state)
        said = feed.run(script)
        assert (said.failed_id, f"retriable={retriable}" in said.failed) == (id_, True), (state, said)
        assert f"as asked [{state}" in said.failed and do in said.failed.split(" | ")[1], (state, said.failed)
    # A server that is out of transaction ids says what it says of a row that is too long for an index, and that is no row to be set aside.
    db.sql("UPDATE state SET state = '54000'")
    assert feed.run(script, on_data_error="dead-letter").failed_id == "target.limit"
    db.sql("DROP TRIGGER say ON t")
    feed.ok(script)
    assert db.one("SELECT count(*) FROM t") == 1


# What servers refuse for reasons of their own: how the table came to it, the row's change, the id, what is said, and what the hint comes to.
REFUSED = {
    "published, and has no key": ("ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE PUBLICATION p FOR TABLE t", "A", "target.state",
                                  ('update on "public"."t"', "publishes updates", "set REPLICA IDENTITY using ALTER TABLE"), "ALTER TABLE t REPLICA IDENTITY FULL"),
    "too long for an index": ("CREATE INDEX big ON t (a)", "".join(hashlib.md5(b"%d" % i).hexdigest() for i in range(125)), "target.limit",
                              ('update on "public"."t" (id=1)', '"big"', "Values larger than 1/3 of a buffer page cannot be indexed"), "DROP INDEX big"),
    "too long for any index": ("CREATE INDEX big ON t (a)", "A" * 1000000, "target.limit",
                               ('update on "public"."t" (id=1)', "index row requires", "on_data_error"), "DROP INDEX big"),
    "too long for a page": ("ALTER TABLE t ALTER a SET STORAGE PLAIN", "A" * 10000, "target.limit",
                            ('update on "public"."t" (id=1)', "row is too big", "on_data_error"), "ALTER TABLE t ALTER a SET STORAGE EXTENDED"),
    "too many words": ("ALTER TABLE t ADD w tsvector GENERATED ALWAYS AS (to_tsvector('simple', a)) STORED", " ".join(f"w{i:09}" for i in range(100000)), "target.limit",
                       ('update on "public"."t" (id=1)', "tsvector", "on_data_error"), "ALTER TABLE t DROP w"),
    "hidden by a policy": ("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id > 9)", "A", "target.row-security",
                           ('"t"', 'ALTER ROLE "{role}" BYPASSRLS'), 'ALTER ROLE "{role}" BYPASSRLS')}


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_server_refuses(pg, why):
    how, value, id_, says, mend = REFUSED[why]
    db = pg.database("target")
    role = f"writes_{db.name}"
    feed, script = table(db, T + "; INSERT INTO t VALUES (1, 'a', 1)", u("t", ["1", value, "1"]), user=role)
    db.sql(f"{how}; CREATE ROLE {role} LOGIN; GRANT ALL ON t TO {role}; GRANT CREATE ON DATABASE {db.name} TO {role}")
    try:
        said = feed.run(script)
        assert said.failed_id == id_ and "retriable=0" in said.failed and all(text.format(role=role) in said.failed for text in says), said
        assert db.one("SELECT a FROM t") == "a"
        if id_ == "target.limit":
            assert Feed(db, uid="02hzfeedfeedfeedfeedfeedfe", prepare="none", user=role, on_data_error="dead-letter").ok(script).all("dead")
        db.sql(mend.format(role=role))
        feed.ok(script)
        assert db.one("SELECT a FROM t") == value
    finally:
        db.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_database_that_is_not_there(pg):
    db = pg.database("target")
    feed, script = table(db, T, c("t", "1", "a", "1"))
    said = feed.run(script, database="nowhere")
    assert said.failed_id == "target.database" and '"nowhere"' in said.failed and "mend the option database" in said.failed and "retriable=0" in said.failed, said
    feed.ok(script)


def test_a_statement_that_is_cancelled(pg):
    """By somebody who sees it wait for a lock; the row comes when he lets it."""
    db = pg.database("target")
    feed, script = table(db, T + "; INSERT INTO t VALUES (1, 'a', 1)", u("t", ["1", "A", "1"]))
    with contextlib.closing(db.server.connect(db.name)) as other:
        other.autocommit = False
        other.cursor().execute("SELECT FROM t FOR UPDATE")
        process = feed.start(script)
        out = []
        runner = threading.Thread(target=lambda: out.append(feed.end(process)))
        runner.start()
        wait_for("it waits", lambda: waits(db))
        db.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dmsr:%' AND wait_event_type = 'Lock'")
        runner.join()
        other.rollback()
    assert out[0].failed_id == "target.cancelled" and "retriable=1" in out[0].failed and '"t"' in out[0].failed and "who cancels" in out[0].failed, out[0]
    feed.ok(script)
    assert db.one("SELECT a FROM t") == "A"


def test_a_commit_that_is_none(pg):
    """A server that answers so has nothing of it; a line in between tells the lie."""
    db = pg.database("target")
    feed, script = table(db, T, c("t", "1", "a", "1"))
    feed.ok(Script())
    with Proxy(pg.port, lie=(b"C\0\0\0\x0bCOMMIT\0", b"C\0\0\0\x0bNOTHIS\0")) as proxy:
        said = feed.run(script, port=proxy.port)
    assert said.failed_id == "target.rolled-back" and "retriable=1" in said.failed and str(proxy.port) in said.failed and "server's log" in said.failed, said
    feed.ok(script)
    assert rows(db, "t") == [(1, "a", 1)]


def test_a_row_that_is_there_twice(pg):
    db = pg.database("target")
    feed, script = table(db, "CREATE TABLE t (id int, a text, n int); INSERT INTO t VALUES (1, 'a', 1), (1, 'b', 2), (2, 'c', 3)", u("t", ["1", "A", "1"]))
    said = feed.run(script)
    assert said.failed_id == "target.row-ambiguous" and 'update on "public"."t" (id=1)' in said.failed and "not unique here" in said.failed, said
    assert [r[0] for r in db.sql("SELECT a FROM t ORDER BY a")] == ["a", "b", "c"]
    db.sql("DELETE FROM t WHERE a = 'b'; ALTER TABLE t ADD PRIMARY KEY (id)")
    feed.ok(script)
    assert rows(db, "t") == [(1, "A", 1), (2, "c", 3)]


def test_a_change_that_tells_no_row(pg):
    db = pg.database("target")
    feed, script = table(db, T + "; INSERT INTO t VALUES (1, 'a', 1)", d("t", UNCHANGED, UNCHANGED, UNCHANGED))
    said = feed.run(script)
    assert said.failed_id == "target.no-key" and '"public"."t"' in said.failed and 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL' in said.failed, said
    assert rows(db, "t") == [(1, "a", 1)]


def test_dead_letters_of_each_kind(any_pg):
    db = any_pg.database("target")
    # 5 and 9 are refused by the check, 11 has 7's number, 13 is no number; a row that is not there; what follows goes on.
    changes = many(20, {5: "1001", 9: "1002", 11: "7", 13: "x"}) + [u("t", ["99", "nobody", "500"]), d("t", "98", UNCHANGED, UNCHANGED),
                                                                    u("t", ["3", "three", "333"]), d("t", "4", UNCHANGED, UNCHANGED)]
    feed, script = table(db, T, *changes, on_constraint_error="dead-letter", on_data_error="dead-letter", on_missing_row="dead-letter")
    said = feed.ok(script)
    assert sorted(said.all("dead")) == ["dead create public.t target.constraint"] * 3 + ["dead create public.t target.data"] + \
        ["dead delete public.t target.row-missing", "dead update public.t target.row-missing"]
    assert [r[0] for r in db.sql("SELECT id FROM t ORDER BY id")] == [i for i in range(20) if i not in (4, 5, 9, 11, 13)]
    assert db.one("SELECT a FROM t WHERE id = 3") == "three"
    assert said.counts("public.t") == {"c": 16, "u": 1, "d": 1, "dead": 6}
    assert feed.ok(script).all("dead") == []


def test_missing_row(pg):
    db = pg.database("target")
    feed, script = table(db, T + "; INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)", u("t", ["1", "A", "1"]), u("t", ["2", "B", "2"]), u("t", ["3", "C", "3"]))
    said = feed.run(script)
    assert said.failed_id == "target.row-missing" and 'update on "public"."t" (id=3)' in said.failed
    feed.ok(script, on_missing_row="ignore")
    assert db.sql("SELECT a FROM t ORDER BY id") == [("A",), ("B",)]


def test_numbers_that_are_swapped(any_pg):
    """Right row by row, in the source's order; refused as a set."""
    db = any_pg.database("target")
    rows = "".join(f", ({i}, 'x', {i})" for i in range(2, 9))
    feed, script = table(db, T + f"; INSERT INTO t VALUES (1, 'x', 1){rows}", u("t", ["1", "x", "99"]), u("t", ["2", "x", "1"]), u("t", ["1", "x", "2"]),
                         u("t", ["3", "x", "100"]), u("t", ["4", "x", "3"]), u("t", ["3", "x", "4"]), u("t", ["5", "y", "5"]))
    said = feed.ok(script)
    assert "one by one" in said.err and said.counts("public.t") == {"u": 7}
    assert [r[0] for r in db.sql("SELECT n FROM t ORDER BY id")] == [2, 1, 4, 3, 5, 6, 7, 8]


def test_swap_in_one_statement(any_pg):
    """Between its rows the source's own constraint does not hold."""
    db = any_pg.database("target")
    sql = "CREATE TABLE t (id int PRIMARY KEY, a text, n int UNIQUE DEFERRABLE); INSERT INTO t VALUES (1, 'x', 1), (2, 'x', 2)"
    changes = [u("t", ["1", "x", "2"]), u("t", ["2", "x", "1"])]
    feed, script = table(db, sql, *changes)
    feed.ok(script)
    assert db.sql("SELECT n FROM t ORDER BY id") == [(2,), (1,)]
    db2 = any_pg.database("target")
    feed, script = table(db2, sql, *changes, session_replication_role="off")
    feed.ok(script)
    assert db2.sql("SELECT n FROM t ORDER BY id") == [(2,), (1,)]


def test_enum_that_got_a_label(any_pg):
    db = any_pg.database("target")
    columns = [column("id", "int4", key=1), column("m", "public.mood"), column("n", "int4")]
    changes = [c("t", str(i), "new" if i > 5 else "old", "1") for i in range(10)] + [c("t", "77", "it's", "1")]
    feed, script = table(db, "CREATE TYPE mood AS ENUM ('old'); CREATE TABLE t (id int PRIMARY KEY, m mood, n int)", *changes, columns=columns)
    assert feed.run(script, ddl="stop").failed_id == "target.data"
    assert feed.killed(script, "target.mended")
    feed.ok(script)
    assert db.sql("SELECT m::text, count(*) FROM t GROUP BY t.m ORDER BY t.m") == [("old", 6), ("new", 4), ("it's", 1)]
    # Another value that is refused for the same reason is not mended for ever.
    script = Script().rel("t", "t", columns).tx(210, c("t", "100", "old", "x")).wait()
    assert feed.run(script).failed_id == "target.data"


def test_enum_that_got_a_label_in_the_transaction_that_makes_it(any_pg):
    """Its type is rolled back with the rows: there is nothing yet that could get the label."""
    db = any_pg.database("target")
    feed = Feed(db)
    loaded(db, feed)
    mood = [(0, "schema", "odd", 'CREATE SCHEMA IF NOT EXISTS "odd"'), (0, "enum", "odd.mood", "CREATE TYPE \"odd\".\"mood\" AS ENUM ('ok')")]
    script = changed(ITEMS + [column("m", "odd.mood")], c("v2", "3", "c", "30", "ok"), c("v2", "4", "d", "40", "it's"), ddl=mood)
    script.tx(210, c("v2", "5", "e", "50", "new")).wait()
    assert feed.killed(script, "target.mended")
    feed.ok(script)
    assert rows(db)[2:] == [(3, "c", 30, "ok"), (4, "d", 40, "it's"), (5, "e", 50, "new")]


def test_column_that_may_be_null_now(pg):
    db = pg.database("target")
    feed = Feed(db)
    columns = [ITEMS[0], {**ITEMS[1], "nullable": False}, ITEMS[2]]
    loaded(db, feed, columns)
    feed.ok(Script().rel("v1", "items", columns).tx(200, c("v1", "3", None, "1"), c("v1", "4", "x", "1")).wait())
    assert rows(db)[2] == (3, None, 1)
    # A table that is not ours is left as it is.
    db = pg.database("target")
    db.sql("CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, n bigint)")
    said = Feed(db, prepare="none").run(Script().rel("v1", "items", ITEMS).tx(200, c("v1", "3", None, "1")).wait())
    assert said.failed_id == "target.constraint"


def test_row_with_an_image_that_makes_no_sense(pg):
    db = pg.database("target")
    changes = many(10) + [{"c": "t", "after": ["10", {"hex": "78"}, {"hex": "0102"}]}]
    feed, script = table(db, T, *changes, on_data_error="dead-letter")
    said = feed.ok(script)
    assert len(said.all("dead")) == 1 and db.one("SELECT count(*) FROM t") == 10


def test_a_shape_behind_the_position(pg):
    """In the middle of a transaction: its number is that of the change before it, which is known, and it is not."""
    db = pg.database("target")
    feed = Feed(db)
    feed.ok(items().load("items", "1\ta\t10\n").done().tx(200, c("items", "3", "c", "30")).wait())
    db.sql(r"UPDATE dmsr.positions SET position = regexp_replace(position, ':\*:', ':1:')")
    assert db.one("SELECT position FROM dmsr.positions").split(":")[2:4] == ["0/C8", "1"]
    wide = items().rel("wide", "items", [*ITEMS, column("late")])
    feed.ok(wide.tx(200, c("items", "3", "c", "30"), schema("wide", "items")).wait())
    assert rows(db) == [(1, "a", 10, None), (3, "c", 30, None)]


# ---- what makes an end of it ----

def test_a_standby_takes_no_writes():
    server = Postgres()
    try:
        db = server.database("standby")
        server.stop()
        signal, owner = server.dir / "data" / "standby.signal", (server.dir / "data").stat()
        signal.touch()
        os.chown(signal, owner.st_uid, owner.st_gid)
        server.start()
        said = Feed(db).run(items())
        assert said.failed_id == "target.read-only" and "connect to the primary" in said.failed, said
    finally:
        server.close()


def advisory(db):
    return {r[0] for r in db.sql("SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted "
                                 "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")}


def waits(db):
    return db.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dmsr:%' AND wait_event_type = 'Lock'")


def test_another_session_writes_for_the_job(any_pg):
    """The second of the job's locks is taken between its start and the load of a table, for which a connection is opened."""
    db = any_pg.database("target")
    feed = Feed(db, apply="strict")
    feed.ok(items().load("items", "1\ta\t10\n").done())
    with contextlib.closing(db.server.connect(db.name)) as one, contextlib.closing(db.server.connect(db.name)) as two:
        one.autocommit = two.autocommit = False
        one.cursor().execute("LOCK TABLE items")
        two.cursor().execute("LOCK TABLE dmsr.positions")
        out = []
        process = feed.start(items().tx(200, c("items", "3", "c", "30")).wait().rel("u", "u", ITEMS).load("u", "1\ta\t1\n", 300).done())
        runner = threading.Thread(target=lambda: out.append(feed.end(process)))
        runner.start()
        wait_for("it wants its position", lambda: waits(db))
        both = advisory(db)
        two.rollback()
        wait_for("it writes a row", lambda: len(advisory(db)) == 1 and waits(db))
        lanes = both - advisory(db)
        assert len(both) == 2 and len(lanes) == 1
        two.cursor().execute("SELECT pg_advisory_lock(%s)", tuple(lanes))
        one.rollback()
        runner.join()
        two.rollback()
    assert out[0].failed_id == "target.in-use" and "retriable=1" in out[0].failed and "second dmsrd" in out[0].failed, out[0]
    assert len(rows(db)) == 2


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_a_position_of_another_server(pg, apply):
    """As after a copy of the target's database was put in its place, which was fed from elsewhere."""
    db = pg.database("target")
    feed = Feed(db, apply=apply)
    feed.ok(items().load("items", "1\ta\t10\n").done().tx(200, c("items", "3", "c", "30")).wait())
    feed.ok(items())
    db.sql("UPDATE dmsr.positions SET position = regexp_replace(position, '^pg:[0-9]+', 'pg:77')")
    said = feed.run(items().tx(300, c("items", "4", "d", "40")).wait())
    assert said.failed_id == "target.position-foreign" and "retriable=0" in said.failed, said
    assert [r[0] for r in rows(db)] == [1, 3]


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_the_position_is_lost(any_pg, dmsrd, apply):
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    dmsrd.job("l", source.connection(), [target.connection(apply=apply)])
    dmsrd.wait_state("l", "running")
    dmsrd.wait_equal(source, target)
    target.sql("DELETE FROM dmsr.positions")
    source.sql("INSERT INTO t VALUES (2)")
    dmsrd.wait_state("l", "failed")
    error = dmsrd.api("GET", "/jobs/l")["error"]
    assert error["code"] == "target.position-lost" and target.sql("SELECT id FROM t") == [(1,)], error
    dmsrd.follow(error["suggestion"], "l")
    dmsrd.wait_state("l", "running")
    dmsrd.wait_equal(source, target)
