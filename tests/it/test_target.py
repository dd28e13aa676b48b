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
