"""The PostgreSQL target on real servers: what it is fed, and what stands in the tables afterwards."""
from feed import UNCHANGED, Feed, Script, c, column, d, u

ITEMS = [column("id", "int4", key=1), column("name"), column("n", "int8")]


def items(**more):
    return Script().rel("items", "items", ITEMS, **more)


def rows(db, table="items", order="id"):
    return db.sql(f"SELECT * FROM {table} ORDER BY {order}")


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
    for point in ("target_altered", "target_before_commit"):
        assert feed.killed(script, point)
        assert columns_of(db) == columns_of(db)[:3] and len(rows(db)) == 2
    assert feed.killed(script, "target_committed")
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
