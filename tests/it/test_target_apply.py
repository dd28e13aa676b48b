"""The PostgreSQL target's changes, sentence by sentence: toasted values, keys that move, rows without a key, generated and identity columns, truncates, order."""
import threading
import time

import pytest
from feed import UNCHANGED, Feed, Script, c, column, d, schema, u


def run(db, columns, *transactions, key="primary", table="t", options=None, **more):
    """Each transaction is a list of changes of the relation t."""
    script = Script().rel("t", table, columns, key=key, **more)
    for i, changes in enumerate(transactions):
        script.tx(200 + 10 * i, *changes)
    return Feed(db, prepare="none", **(options or {})).ok(script.wait())


def same(db, sql, rows):
    assert [tuple(r) for r in db.sql(sql)] == rows


KV = [column("id", "int4", key=1), column("a"), column("big")]


@pytest.mark.parametrize("role", ["auto", "off"])
def test_values_that_were_not_sent(any_pg, role):
    """They stay what they are: alone, in sets, merged with an insert or another update, and when the key moves."""
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); INSERT INTO t SELECT i, 'a', 'toast ' || i FROM generate_series(1, 12) i")
    inside = [c("t", "20", "a", "toast 20"), u("t", ["20", "b", UNCHANGED])]
    twice = [u("t", ["1", "b", "new"]), u("t", ["1", "c", UNCHANGED]), u("t", ["2", UNCHANGED, "new"]), u("t", ["2", "c", UNCHANGED])]
    many = [u("t", [str(i), "set", UNCHANGED]) for i in range(3, 8)] + [u("t", [str(i), UNCHANGED, None]) for i in range(8, 11)]
    moved = [u("t", ["111", "moved", UNCHANGED], ["11", UNCHANGED, UNCHANGED]), u("t", ["111", "again", UNCHANGED])]
    run(db, KV, inside + twice, many + moved, options={"session_replication_role": role})
    same(db, "SELECT * FROM t ORDER BY id", [(1, "c", "new"), (2, "c", "new")] + [(i, "set", f"toast {i}") for i in range(3, 8)] +
         [(i, "a", None) for i in range(8, 11)] + [(12, "a", "toast 12"), (20, "b", "toast 20"), (111, "again", "toast 11")])


def test_keys_that_move(any_pg):
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); INSERT INTO t SELECT i, 'r' || i FROM generate_series(1, 6) i")
    old = [UNCHANGED, UNCHANGED]
    # 1 and 2 change places over 9; 3 goes where 4 was, which is gone; 5 moves and comes back; what was gathered before stays in order.
    run(db, KV, [u("t", ["1", "x1", None]), u("t", ["9", "x1", None], ["1", *old]), u("t", ["1", "x2", None], ["2", *old]), u("t", ["2", "x1", None], ["9", *old]),
                 d("t", "4", *old), u("t", ["4", "r3", None], ["3", *old]), c("t", "3", "new 3", None)],
        [u("t", ["50", "r5", None], ["5", *old]), u("t", ["5", "back", None], ["50", *old]), d("t", "6", *old), c("t", "6", "six", None), d("t", "6", *old)])
    same(db, "SELECT id, a FROM t ORDER BY id", [(1, "x2"), (2, "x1"), (3, "new 3"), (4, "r3"), (5, "back")])


def test_deleted_and_made_again(pg):
    db = pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); INSERT INTO t SELECT i, 'r' || i, 'b' FROM generate_series(1, 9) i")
    changes = []
    for i in range(1, 6):
        changes += [d("t", str(i), UNCHANGED, UNCHANGED), c("t", str(i), f"again {i}", None)]
    changes += [u("t", ["1", "twice", UNCHANGED]), d("t", "2", UNCHANGED, UNCHANGED), c("t", "77", "x", "y"), d("t", "77", UNCHANGED, UNCHANGED)]
    said = run(db, KV, changes)
    same(db, "SELECT * FROM t ORDER BY id", [(1, "twice", None)] + [(i, f"again {i}", None) for i in (3, 4, 5)] + [(i, f"r{i}", "b") for i in range(6, 10)])
    assert said.counts("public.t") == {"c": 6, "u": 1, "d": 7}


def test_rows_without_a_key(any_pg):
    """One of several that are alike; NULL is NULL; what has no equality; 1.0 is not 1.00."""
    db = any_pg.database("apply")
    columns = [column("a", "int4"), column("j", "json"), column("n", "numeric"), column("f", "float8"), column("p", "point")]
    db.sql("CREATE TABLE t (a int, j json, n numeric, f float8, p point); "
           "INSERT INTO t VALUES (1, '{}', 1.0, 'NaN', '(1,2)'), (1, '{}', 1.0, 'NaN', '(1,2)'), (1, '{}', 1.00, 'NaN', '(1,2)'), (NULL, NULL, NULL, NULL, NULL), "
           "(NULL, NULL, NULL, NULL, NULL), (2, '{\"a\":1}', 2, 0, NULL), (2, '{\"a\": 1}', 2, '-0', NULL)")
    twin, none = ["1", "{}", "1.0", "NaN", "(1,2)"], [None] * 5
    run(db, columns, [d("t", *twin), u("t", ["7", *twin[1:]], twin), d("t", *none), u("t", ["8", None, None, None, None], none),
                      d("t", "2", '{"a": 1}', "2", "-0", None), c("t", "9", None, None, None, None)], key="full")
    same(db, "SELECT a, j::text, n::text, f::text FROM t ORDER BY a", [(1, "{}", "1.00", "NaN"), (2, '{"a":1}', "2", "0"), (7, "{}", "1.0", "NaN"),
                                                                      (8, None, None, None), (9, None, None, None)])


def test_unchanged_row_without_a_key_is_looked_for(pg):
    db = pg.database("apply")
    db.sql("CREATE TABLE t (a int, b text)")
    said = Feed(db, prepare="none").run(Script().rel("t", "t", [column("a", "int4"), column("b")], key="full").tx(200, d("t", "1", "x")).wait())
    assert said.failed_id == "target.row-missing" and 'delete on "public"."t", transaction' in said.failed


def test_generated_and_identity_columns(any_pg):
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a int, g int GENERATED ALWAYS AS (a * 2) STORED)")
    columns = [column("id", "int4", key=1, identity="a"), column("n", "int4", identity="a"), column("a", "int4"), column("g", "int4", generated=True)]
    run(db, columns, [c("t", str(i), str(100 + i), str(i), UNCHANGED) for i in range(5)], [u("t", [str(i), str(100 + i), "7", UNCHANGED]) for i in range(4)] +
        [d("t", "0", UNCHANGED, UNCHANGED, UNCHANGED)])
    same(db, "SELECT * FROM t ORDER BY id", [(1, 101, 7, 14), (2, 102, 7, 14), (3, 103, 7, 14), (4, 104, 4, 8)])
    # A value that moved there would be lost: it is said.
    full = {"u": "t", "before": ["1", "101", "7", UNCHANGED], "after": ["1", "555", "7", UNCHANGED]}
    sets = [u("t", [str(i), str(100 + i + (i == 3)), "8", UNCHANGED]) for i in (1, 2, 3, 4)]
    for changes, row in (([full], "(id=1)"), ([u("t", ["1", "555", "7", UNCHANGED])], "(id=1)"), ([u("t", ["1", "555", UNCHANGED, UNCHANGED])], "(id=1)"),
                         (sets, "(id=3)"), ([u("t", ["9", "101", "7", UNCHANGED], ["1"] + [UNCHANGED] * 3)], "(id=1)")):
        said = Feed(db, prepare="none").run(Script().rel("t", "t", columns).tx(300, *changes).wait())
        assert said.failed_id == "target.identity" and row in said.failed, said
        assert 'ALTER TABLE "public"."t" ALTER COLUMN "id" SET GENERATED BY DEFAULT, ALTER COLUMN "n" SET GENERATED BY DEFAULT' in said.failed
    same(db, "SELECT * FROM t ORDER BY id", [(1, 101, 7, 14), (2, 102, 7, 14), (3, 103, 7, 14), (4, 104, 4, 8)])


def test_truncates(any_pg):
    db = any_pg.database("apply")
    db.sql("CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE b (a int REFERENCES a); CREATE TABLE other (a int REFERENCES a); INSERT INTO a SELECT FROM "
           "generate_series(1, 3); INSERT INTO b VALUES (1); INSERT INTO other VALUES (2)")
    script = Script().rel("a", "a", [column("id", "int4", key=1)]).rel("b", "b", [column("a", "int4")], key="none")
    script.tx(200, c("a", "9"), c("b", "9"), {"t": "a", "more": True, "cascade": True, "restart": True}, {"t": "b", "cascade": True, "restart": True}, c("a", "7"),
              c("b", "7"))
    said = Feed(db, prepare="none").ok(script.wait())
    same(db, "SELECT a.id, b.a, nextval('a_id_seq') FROM a, b", [(7, 7, 1)])
    assert db.one("SELECT count(*) FROM other") == 0
    assert said.counts("public.a") == {"c": 2, "t": 1}
    # Without the word nobody else's rows go.
    db.sql("INSERT INTO other VALUES (7)")
    said = Feed(db, prepare="none").run(Script().rel("a", "a", [column("id", "int4", key=1)]).tx(300, {"t": "a"}).wait())
    assert said.failed and db.one("SELECT count(*) FROM other") == 1


def test_triggers_and_foreign_keys_that_work(any_pg):
    """Without the right to let them rest, everything goes in the source's order."""
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); CREATE TABLE child (t int REFERENCES t DEFERRABLE); CREATE TABLE seen (n serial, what text);"
           "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen (what) VALUES (TG_OP || ' ' || COALESCE(NEW.id, OLD.id));"
           "RETURN NULL; END $$; CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()")
    script = Script().rel("t", "t", KV).rel("child", "child", [column("t", "int4")], key="none")
    # The child comes before its parent: at the source the constraint was deferred.
    script.tx(200, c("child", "1"), c("t", "1", "a", None), c("t", "2", "a", None), u("t", ["1", "b", None]), d("t", "2", UNCHANGED, UNCHANGED)).wait()
    Feed(db, prepare="none", session_replication_role="off").ok(script)
    same(db, "SELECT what FROM seen ORDER BY n", [("INSERT 1",), ("INSERT 2",), ("UPDATE 1",), ("DELETE 2",)])
    script = Script().rel("child", "child", [column("t", "int4")], key="none").tx(300, c("child", "8")).wait()
    assert Feed(db, prepare="none", session_replication_role="off").run(script).failed_id == "target.constraint"
    Feed(db, prepare="none").ok(script)
    assert db.one("SELECT count(*) FROM child") == 2 and db.one("SELECT count(*) FROM seen") == 4


@pytest.mark.parametrize("altered", ["other", "t"])
def test_a_column_comes_between_a_child_and_its_parent(any_pg, altered):
    """What the source checks at its commit is not checked before, where the table is altered neither; but what the table itself waits for must be."""
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE other (id int PRIMARY KEY, a text); CREATE TABLE child (t int REFERENCES t DEFERRABLE);"
           "INSERT INTO t VALUES (1), (2)")
    two, three = [column("id", "int4", key=1), column("a")], [column("id", "int4", key=1), column("a"), column("more", nullable=True)]
    script = Script().rel("t", "t", two, id=1).rel("other", "other", two, id=2).rel("child", "child", [column("t", "int4")], key="none")
    script.rel("wide", altered, three, id=1 if altered == "t" else 2).tx(200, d("t", "2", UNCHANGED), c("child", "1"), emit=False)
    child, parent = c("child", "8"), c("wide" if altered == "t" else "t", "8", "a", *(["more"] if altered == "t" else []))
    if altered == "t":
        script.tx(300, schema("wide", "t"), parent, child, emit=False)
    else:
        script.tx(300, child, schema("wide", "other"), c("wide", "8", "a", "more"), parent, emit=False)
    parent = {**parent, "after": ["9", *parent["after"][1:]]}
    Feed(db, prepare="none", session_replication_role="off", commit_interval=5000).ok(script.tx(400, c("child", "9"), parent).wait())
    same(db, "SELECT t FROM child ORDER BY t", [(1,), (8,), (9,)])
    same(db, f"SELECT id, more FROM {altered} WHERE id > 2 ORDER BY id", [(8, "more"), (9, "more")] if altered == "t" else [(8, "more")])
    assert db.one("SELECT count(DISTINCT xmin::text) FROM child") == 1


def test_many_transactions_in_one(pg):
    """While one is written the next grows; what is read together is committed together."""
    db = pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); CREATE TABLE x (x xid)")
    run(db, KV, *[[c("t", str(i), "a", None)] for i in range(500)], options={"commit_interval": 200})
    assert db.one("SELECT count(*) FROM t") == 500 and db.one("SELECT count(DISTINCT xmin::text) FROM t") <= 10
    db.sql("TRUNCATE t; DELETE FROM dmsr.positions")
    run(db, KV, *[[c("t", str(i), "a", None)] for i in range(100)], options={"commit_rows": 1})
    assert db.one("SELECT count(DISTINCT xmin::text) FROM t") == 100
    db.sql("TRUNCATE t; DELETE FROM dmsr.positions")
    run(db, KV, *[[c("t", str(i), "a", "x" * 2000)] for i in range(100)], options={"commit_bytes": 20000, "commit_interval": 60000})
    assert 9 <= db.one("SELECT count(DISTINCT xmin::text) FROM t") <= 12


def test_deadlock_is_tried_again(pg):
    db = pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text); INSERT INTO t SELECT i, 'r' FROM generate_series(1, 10) i")
    feed = Feed(db, prepare="none", session_replication_role="off")
    db.sql("CREATE TABLE child (t int REFERENCES t)")
    # With a foreign key on it the table's changes go one by one: first row 1, then row 2.
    script = Script().rel("t", "t", KV).tx(200, u("t", ["1", "mine", None]), u("t", ["2", "mine", None]), c("t", "20", "x", None)).wait()
    other = db.server.connect(db.name)
    other.autocommit = False
    cursor = other.cursor()
    cursor.execute("UPDATE t SET a = 'theirs' WHERE id = 2")
    said = []
    runner = threading.Thread(target=lambda: said.append(feed.run(script)))
    runner.start()
    while not db.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"):
        time.sleep(0.02)
    cursor.execute("UPDATE t SET a = 'theirs' WHERE id = 1")
    other.commit()
    other.close()
    runner.join()
    assert said[0].status == 0, said[0]
    same(db, "SELECT a FROM t WHERE id IN (1, 2)", [("mine",), ("mine",)])
    assert db.one("SELECT count(*) FROM t") == 11


def test_partitions_of_the_target(any_pg):
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); "
           "CREATE TABLE t2 PARTITION OF t DEFAULT")
    run(db, KV, [c("t", str(i), "a", None) for i in range(5, 15)], [u("t", [str(i), "b", None]) for i in range(7, 13)] +
        [u("t", ["50", "moved", None], ["5", UNCHANGED, UNCHANGED]), d("t", "6", UNCHANGED, UNCHANGED)])
    same(db, "SELECT tableoid::regclass::text, count(*), count(*) FILTER (WHERE a = 'b') FROM t GROUP BY 1 ORDER BY 1", [("t1", 3, 3), ("t2", 6, 3)])


def test_odd_values_in_sets(any_pg):
    """Each as the server itself would read it."""
    db = any_pg.database("apply")
    types = ["text", "bytea", "int4[]", "text[]", "box", "json", "jsonb", "xml", "bit", "bpchar", "date", "numeric", "uuid", "float8", "public.pair", "public.pair[]",
             "public.name2"]
    db.sql("CREATE TYPE pair AS (a int, b text); CREATE DOMAIN name2 AS text[] CHECK (cardinality(VALUE) < 9)")
    columns = [column("id", "int4", key=1)] + [column(f"c{i}", t) for i, t in enumerate(types)]
    sql = {"bit": "bit(3)", "bpchar": "char(5)"}
    db.sql("CREATE TABLE t (id int PRIMARY KEY, " + ", ".join(f"c{i} {sql.get(t, t)}" for i, t in enumerate(types)) + ")")
    values = [["NULL", "\\x00ff5c", "{1,NULL}", '{"a b",NULL,"NULL"}', "(1,2),(0,0)", '{"a":  1}', '{"b": [1]}', "<a>&amp;</a>", "101", "ab   ", "0044-03-15 BC", "NaN",
               "00000000-0000-0000-0000-00000000000a", "-Infinity", '(1,"a,""b")', '{"(1,x)",NULL}', '{"{","\\\\"}'],
              ["a\\b\"c'd{},", "\\x", "{}", "{{a,b},{c,d}}", "(0,0),(0,0)", "null", "null", "", "000", "     ", "infinity", "1E-20",
               "ffffffff-0000-0000-0000-00000000000a", "1e+300", "(,)", "{}", "{}"],
              ["", "\\x22", "[0:1]={1,2}", "{,}".replace(",", '"",""'), "(3,3),(1,1)", '"\\u00e9"', '"é"', "text", "111", "é    ", "2026-01-01", "-0.10", None, "-0", None, None, None],
              [None] * len(types)]
    run(db, columns, [c("t", str(i), *row) for i, row in enumerate(values)], [u("t", [str(i + 1) if i < 3 else "0", *row]) for i, row in enumerate(values)])
    expected = db.server.database("apply")
    expected.sql("CREATE TYPE pair AS (a int, b text); CREATE DOMAIN name2 AS text[]")
    for i, row in enumerate(values):
        want = [expected.one(f"SELECT (%s::text)::{sql.get(t, t) if t != 'xml' else 'text'}::text", v) if v is not None else None for t, v in zip(types, row)]
        have = db.sql("SELECT " + ", ".join(f"c{k}::text" for k in range(len(types))) + f" FROM t WHERE id = {(i + 1) % 4}")[0]
        assert list(have) == want


@pytest.mark.parametrize("size", [1, 9])
def test_refused_behind_a_pause_in_a_transaction(any_pg, size):
    """More than is held came before; then nothing for a while, and the savepoint is made when there is no next change yet. From it all is read again."""
    db = any_pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY CHECK (id <> 13), a text, big text)")
    script = Script().rel("t", "t", KV)
    for i in range(10):
        script.part(500, c("t", str(100 + i), "before", {"fill": size << 20}), first=not i, events=i + 1)
    script.sleep(700).part(500, c("t", "1", "after", None), events=11).part(500, c("t", "2", "after", None), c("t", "13", "bad", None), events=13)
    script.add({"again": 500}, c("t", "3", "after", None), {"commit": True}, {"emit": {"end": [500, -1, 501]}}).wait()
    said = Feed(db, on_constraint_error="dead-letter").ok(script)
    same(db, "SELECT id FROM t WHERE a = 'after' ORDER BY id", [(1,), (2,), (3,)])
    assert db.one("SELECT count(*) FROM t") == 13 and said.counts("public.t") == {"c": 13, "dead": 1}


def test_lets_go_behind_a_commit_that_came_amid_letting_go(pg):
    """What was begun then has ended with it, and is not taken for a part of what is asked next."""
    db = pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, big text)")
    other = db.server.connect(db.name)
    other.autocommit = False
    other.cursor().execute("LOCK TABLE t")
    script = Script().rel("t", "t", KV).tx(400, c("t", "1", "whole", None)).add({"let_go": True}).tx(410, c("t", "2", "whole", None))
    script.sleep(500).add({"flush": True}).sleep(1000).add({"wait": "applied"})
    script.part(500, c("t", "3", "given back", None), first=True, events=1).let_go()
    script.add({"again": 500}, c("t", "4", "the end", None), {"commit": True}, {"emit": {"end": [500, -1, 501]}}).wait()
    feed = Feed(db, commit_interval=20000)
    process = feed.start(script)
    release = threading.Timer(1.2, other.rollback)
    release.start()
    said = feed.end(process, 20)
    assert said.status == 0, said
    same(db, "SELECT id FROM t ORDER BY id", [(i,) for i in range(1, 5)])


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_lets_go_in_mid_transaction(pg, apply):
    """What it has read is not read again from there, and what comes while it lets go is: a row that is refused costs no other."""
    db = pg.database("apply")
    db.sql("CREATE TABLE t (id int PRIMARY KEY CHECK (id <> 13), a text, big text)")
    script = Script().rel("t", "t", KV).tx(400, c("t", "1", "whole", None))
    script.part(500, c("t", "2", "given back", None), first=True, events=1).let_go()
    script.part(500, c("t", "7", "on its way", None), events=2).add({"let_go": True}).sleep(0)
    script.part(500, *[c("t", str(k), "came meanwhile", None) for k in range(20, 40)], events=22).let_go()
    script.part(500, c("t", "3", "behind", None), c("t", "13", "bad", None), events=24).part(500, c("t", "4", "behind", None), events=25).let_go()
    script.add({"again": 500}, c("t", "5", "behind", None), {"commit": True}, {"emit": {"end": [500, -1, 501]}})
    script.tx(600, c("t", "6", "whole", None)).add({"let_go": True}, {"wait": "applied"})
    said = Feed(db, apply=apply, commit_interval=20000, on_constraint_error="dead-letter").ok(script)
    same(db, "SELECT id FROM t ORDER BY id", [(i,) for i in (*range(1, 8), *range(20, 40))])
    assert said.counts("public.t") == {"c": 27, "dead": 1}
