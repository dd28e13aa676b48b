"""What happens at the source and its stream does not tell, in a whole job: its tables are the source's in the end, and what could not be mended is said."""
import contextlib
import subprocess

import pytest

from conftest import wait_for
from test_jobs import CHANGES, SHOP, shop  # noqa: F401 (a fixture)

NO_INDEX = "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '42501'; END$$;" \
           "CREATE EVENT TRIGGER no_index ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION no(); ALTER EVENT TRIGGER no_index ENABLE ALWAYS"


def events(dmsrd, name, kind):
    return [e["text"] for e in dmsrd.api("GET", f"/jobs/{name}/events?limit=200")["items"] if e["kind"] == kind]


def test_columns_that_came_and_went_before_a_row_did(shop, dmsrd):
    """Older rows have what they have at the source, not what the default was by the time that the target heard of it."""
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    for sql in ("ALTER TABLE customers ADD was int DEFAULT 7; ALTER TABLE customers ALTER was SET DEFAULT 8",
                "ALTER TABLE customers ADD gone text NOT NULL DEFAULT 'it''s, \"so\"'; ALTER TABLE customers ALTER gone DROP DEFAULT",
                "ALTER TABLE customers ADD late int; ALTER TABLE customers ALTER late SET DEFAULT 5",
                "ALTER TABLE customers ADD list text[] DEFAULT '{a,NULL}'; ALTER TABLE customers ALTER list SET DEFAULT '{}'",
                "ALTER TABLE customers ADD area box DEFAULT '(2,2),(1,1)'; ALTER TABLE customers ALTER area DROP DEFAULT",
                # the last one goes, another of its type comes: that is no new name
                "ALTER TABLE orders ADD x date; UPDATE orders SET x = '2026-02-02'",
                "ALTER TABLE orders DROP x; ALTER TABLE orders ADD y date",
                "ALTER TABLE orders RENAME total TO placed2; ALTER TABLE orders RENAME placed TO total; ALTER TABLE orders RENAME placed2 TO placed"):
        source.psql(sql)
        source.psql("UPDATE orders SET customer_id = 1 WHERE id = 5; UPDATE customers SET name = name || '.' WHERE id = 5")
        dmsrd.wait_equal(source, target)
    dflt = "SELECT table_name, column_name, column_default FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, ordinal_position"
    assert source.sql(dflt) == target.sql(dflt)
    assert not events(dmsrd, "shop", "error")


def test_a_change_of_columns_is_counted_and_told_once(shop, dmsrd):
    """Also the first of a run, which has not seen the table before, and by a run that was killed and says it again."""
    source, target = shop
    counts = lambda: {t["name"]: t["ddl"] for t in dmsrd.api("GET", "/jobs/shop/tables")["items"]}
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    assert set(counts().values()) == {0} and not events(dmsrd, "shop", "ddl")
    for n, how in enumerate(("running", "stopped", "killed"), 1):
        if how == "stopped":
            dmsrd.api("POST", "/jobs/shop/stop")
            dmsrd.wait_state("shop", "stopped")
        source.psql(f"BEGIN; UPDATE orders SET customer_id = 1 WHERE id = 60; ALTER TABLE orders ADD c{n} int; UPDATE orders SET c{n} = 1 WHERE id = 60; COMMIT")
        if how == "stopped":
            dmsrd.api("POST", "/jobs/shop/start")
        if how == "killed":
            dmsrd.kill()
            dmsrd.start()
        dmsrd.wait_state("shop", "running")
        dmsrd.wait_equal(source, target)
        assert counts()["orders"] == n and sum(counts().values()) == n, how
        told = events(dmsrd, "shop", "ddl")
        assert len(told) == n or how == "killed" and len(told) == n + 1, told
        assert all(t.startswith("public.orders: from ") for t in told)


@pytest.mark.parametrize("ddl", ["apply", "stop"])
def test_a_table_that_is_rewritten_is_loaded_again(shop, dmsrd, ddl):
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy", ddl=ddl)])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    source.psql("ALTER TABLE orders ALTER total TYPE numeric(14,2) USING total * 2" + (", ADD note uuid NOT NULL DEFAULT gen_random_uuid()" if ddl == "apply" else ""))
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("shop", "running")
    assert "table public.orders was rewritten" in events(dmsrd, "shop", "error")[0]
    assert [e for e in events(dmsrd, "shop", "warning") if "public.orders" in e and "loaded again" in e]
    assert "public.orders" in dmsrd.api("GET", "/jobs/shop/status")["warnings"][0]["message"]
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("how", ["swap", "away"])
def test_tables_that_take_other_names_are_loaded_again(shop, dmsrd, how):
    """Rows that follow the swap go, by their names, to the other table's rows."""
    source, target = shop
    source.psql("CREATE TABLE one (id int PRIMARY KEY, v text); INSERT INTO one SELECT i, 'one' FROM generate_series(1, 9) i;"
                "CREATE TABLE two (id int PRIMARY KEY, v text); INSERT INTO two SELECT i, 'two' FROM generate_series(5, 12) i")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    if how == "swap":
        source.psql("BEGIN; ALTER TABLE one RENAME TO t; ALTER TABLE two RENAME TO one; ALTER TABLE t RENAME TO two; COMMIT")
        source.psql("INSERT INTO one VALUES (100, 'was two'); INSERT INTO two VALUES (101, 'was one'); DELETE FROM one WHERE id = 7; UPDATE two SET v = 'x' WHERE id = 8")
        dmsrd.wait_equal(source, target)
    else:
        source.psql("ALTER TABLE one RENAME TO three")
        source.psql("INSERT INTO three VALUES (100, 'was one'); UPDATE three SET v = 'x' WHERE id = 8")
        dmsrd.wait_equal(source, target, tables=["public.three", "public.two", "public.orders"])
    dmsrd.wait_state("shop", "running")
    assert [e for e in events(dmsrd, "shop", "error") if "had another name" in e]


AWAY = {"another name": "ALTER TABLE customers RENAME TO zz; INSERT INTO zz (name) VALUES ('away'); UPDATE zz SET name = 'away' WHERE id = 5; ALTER TABLE zz RENAME TO customers",
        "another schema": "CREATE SCHEMA IF NOT EXISTS elsewhere; ALTER TABLE customers SET SCHEMA elsewhere; UPDATE elsewhere.customers SET name = 'away' WHERE id = 6;"
                          "ALTER TABLE elsewhere.customers SET SCHEMA public",
        "each other's name": "ALTER TABLE one RENAME TO zz; ALTER TABLE two RENAME TO one; ALTER TABLE zz RENAME TO two; INSERT INTO one VALUES (50); INSERT INTO two VALUES (60);"
                             "ALTER TABLE one RENAME TO zz; ALTER TABLE two RENAME TO one; ALTER TABLE zz RENAME TO two"}


@pytest.mark.spread
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("how", AWAY)
def test_a_table_that_has_another_name_for_a_while(shop, dmsrd, how, at_once):
    """What is written to it meanwhile is the table's, and no other table's of the target that has the name."""
    source, target = shop
    target.psql("CREATE SCHEMA elsewhere; CREATE TABLE zz (id bigint PRIMARY KEY, name text, email text, created timestamptz);"
                "INSERT INTO zz SELECT i, 'theirs' FROM generate_series(1, 9) i; CREATE TABLE elsewhere.customers AS SELECT * FROM zz")
    source.psql("CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY); INSERT INTO one VALUES (1); INSERT INTO two VALUES (2)")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], tables={"include": ["public.customers", "public.orders", "public.one", "public.two"]})
    dmsrd.wait_state("shop", "running")
    source.psql(f"BEGIN; {AWAY[how]}; COMMIT" if at_once else AWAY[how])
    source.psql("INSERT INTO customers (name) VALUES ('after'); INSERT INTO one VALUES (101); INSERT INTO two VALUES (102)")
    tables = ["public.customers", "public.one", "public.two"]
    for _ in range(2):
        dmsrd.wait_equal(source, target, tables)
        dmsrd.wait_state("shop", "running")
        for theirs in "zz", "elsewhere.customers":
            assert target.sql(f"SELECT count(*), min(id), count(*) FILTER (WHERE name <> 'theirs') FROM {theirs}") == [(9, 1, 0)]
        dmsrd.api("POST", "/jobs/shop/restart")
        dmsrd.wait_state("shop", "running")


@pytest.mark.parametrize("include", ["public.live", "public.*"])
def test_a_table_that_another_took_the_place_of_is_truncated(shop, dmsrd, include):
    """It is not the new one that is emptied at the target: that one is loaded, in one go. A name that nobody else has is the table's all along."""
    source, target = shop
    source.psql("CREATE TABLE live (id int PRIMARY KEY, v text); INSERT INTO live SELECT i, 'old' FROM generate_series(1, 9) i;"
                "CREATE TABLE fresh (id int PRIMARY KEY, v text); INSERT INTO fresh SELECT i, 'new' FROM generate_series(5, 12) i")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], tables={"include": ["public.customers", include]})
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target, ["public.live"])
    source.psql("BEGIN; ALTER TABLE live RENAME TO zz; TRUNCATE zz; INSERT INTO zz VALUES (1, 'back'); ALTER TABLE zz RENAME TO live; COMMIT")
    dmsrd.wait_equal(source, target, ["public.live"])
    assert not events(dmsrd, "shop", "error")
    source.psql("ALTER TABLE live RENAME TO live_old; ALTER TABLE fresh RENAME TO live; TRUNCATE live_old")
    dmsrd.wait_equal(source, target, ["public.live"])
    dmsrd.wait_state("shop", "running")
    told = "had another name", "is another one now than the one that was truncated"  # the former if that is seen first
    assert [e for e in events(dmsrd, "shop", "error") if "table public.live " in e and any(t in e for t in told[include == "public.live":])]
    source.psql("INSERT INTO live VALUES (100, 'more'); UPDATE customers SET name = 'x' WHERE id = 5")
    dmsrd.wait_equal(source, target, ["public.live", "public.customers"])


def test_a_table_that_was_left_out_is_told_where_nothing_is_loaded(shop, any_pg, dmsrd):
    source, target = shop
    target.psql(SHOP)
    for database in source, target:
        database.psql("CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY)")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy", prepare="none")], mode="cdc", tables={"include": ["public.one", "public.two"]})
    dmsrd.wait_state("shop", "running")

    def change(include):
        dmsrd.api("PATCH", "/jobs/shop", {"tables": {"include": include}}, {"If-Match": "*"})
        dmsrd.wait_state("shop", "running")
        source.psql("INSERT INTO one SELECT count(*) FROM one")
        dmsrd.wait_equal(source, target, ["public.one"])
        return [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]]

    change(["public.one"])
    source.psql("INSERT INTO two VALUES (1)")
    told = change(["public.*"])
    assert len([t for t in told if "public.two was no part of the job at its last start" in t]) == 1 and not any("public.one" in t for t in told), told
    dmsrd.api("POST", "/jobs/shop/restart")
    dmsrd.wait_state("shop", "running")
    assert not dmsrd.api("GET", "/jobs/shop/status")["warnings"]


def test_a_load_that_is_left_for_good_is_told(shop, dmsrd):
    """Its rows are there, and its indexes are not."""
    source, target = shop
    target.psql(NO_INDEX)
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "failed")
    target.psql("DROP EVENT TRIGGER no_index")
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    assert any("a load was not over" in w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"])
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    wait_for("all is there", lambda: target.one("SELECT to_regclass('orders_placed_idx')"))
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    assert not dmsrd.api("GET", "/jobs/shop/status")["warnings"]


@pytest.mark.parametrize("mode", ["full-load-and-cdc", "cdc"])
def test_a_load_alone_that_is_to_be_followed(shop, dmsrd, mode):
    """What was written since then is in no stream: it is loaded again, or told."""
    source, target = shop
    target.psql(NO_INDEX)
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], mode="full-load")
    dmsrd.wait_state("shop", "failed")
    target.psql("DROP EVENT TRIGGER no_index")
    source.psql(CHANGES)
    dmsrd.api("PATCH", "/jobs/shop", {"mode": mode}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    if mode == "full-load-and-cdc":
        dmsrd.wait_equal(source, target)
        source.psql("UPDATE customers SET name = name || '!'; DELETE FROM orders WHERE id % 7 = 0")
        dmsrd.wait_equal(source, target)
    told = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]]
    assert [t for t in told if "tables were loaded when nothing followed their changes" in t and ("loaded again" if mode != "cdc" else "is missing at the targets") in t], told


@pytest.mark.parametrize("killed", [True, False])
def test_a_job_that_does_not_follow_for_a_while(shop, dmsrd, killed):
    """Its slot stays, which is told, and it goes on from there."""
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "full-load"}, {"If-Match": "*"})
    dmsrd.wait_state("shop", "completed")
    slot = source.one("SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()")
    told = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]]
    assert [t for t in told if f"slot {slot} stays" in t], told
    source.psql(CHANGES)
    said = dmsrd.api("PATCH", "/jobs/shop", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    assert said["state"] == "stopped" and "/jobs/shop/start" in said["note"], said
    if killed:
        dmsrd.kill()
        dmsrd.start()
        assert dmsrd.state_of("shop") == "stopped"
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    assert dmsrd.log().count("table public.orders read") == 1


@contextlib.contextmanager
def commits_wait(database):
    """Of all but the job, as if for a standby: they are in the log, and nobody sees them."""
    with contextlib.closing(database.server.connect(database.name)) as c:
        cur = c.cursor()
        cur.execute("ALTER ROLE dmsr SET synchronous_commit = local")
        cur.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        cur.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            cur.execute("SET synchronous_commit = local")
            cur.execute("ALTER ROLE dmsr RESET synchronous_commit")
            cur.execute("ALTER SYSTEM RESET synchronous_standby_names")
            cur.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("hold_wal", [True, False])
def test_a_load_alone_amid_a_stream(shop, dmsrd, hold_wal):
    """What was committed before its snapshot, by the log, need not be in its rows: no stream that goes on may pass over that."""
    source, target = shop
    dmsrd.job("shop", source.connection(hold_wal=hold_wal), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    for table in ("customers", "orders"):
        dmsrd.api("POST", f"/jobs/shop/tables/public.{table}/reload")
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "full-load"}, {"If-Match": "*"})
    target.psql(NO_INDEX)
    with commits_wait(source):
        waits = subprocess.Popen(["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(source.server.port), "-U", "postgres", "-d", source.name,
                                  "-c", "UPDATE customers SET name = 'late' WHERE id = 3"])
        wait_for("it waits", lambda: source.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
        dmsrd.api("POST", "/jobs/shop/start")
        dmsrd.wait_state("shop", "failed")
        assert target.one("SELECT count(*) FROM customers") and target.one("SELECT count(*) FROM orders")
    assert waits.wait(30) == 0
    target.psql("DROP EVENT TRIGGER no_index")
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    source.psql("UPDATE customers SET name = 'later' WHERE id = 4")
    dmsrd.wait_equal(source, target)


def test_a_pattern_without_a_table_is_told(shop, dmsrd):
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], tables={"include": ["public.customers", "public.odrers"]})
    dmsrd.wait_state("shop", "running")
    told = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]]
    assert len(told) == 1 and "public.odrers means no table" in told[0], told


def test_a_paused_job_that_is_changed(shop, any_pg, dmsrd):
    """It stays paused, and goes on as it was changed."""
    source, target = shop
    late = any_pg.database("late")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.api("POST", "/jobs/shop/pause")
    dmsrd.wait_state("shop", "paused")
    both = {"targets": [target.connection(name="copy"), late.connection(name="late")]}
    assert "restarted" not in dmsrd.api("PATCH", "/jobs/shop", both, {"If-Match": "*"})
    source.psql(CHANGES)
    assert dmsrd.api("GET", "/jobs/shop")["state"] == "paused"
    dmsrd.api("POST", "/jobs/shop/resume")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_equal(source, late)
    dmsrd.wait_state("shop", "running")


def test_a_table_is_loaded_again_when_somebody_asks(shop, dmsrd):
    """Whatever is wrong with its rows at the target; also when dmsrd dies behind its answer."""
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    target.psql("UPDATE orders SET total = 7777")
    source.psql(CHANGES)
    status, _, body = dmsrd.call("POST", "/jobs/shop/tables/public.orders/reload")
    assert status == 202, body
    source.psql("UPDATE orders SET total = total + 1 WHERE id < 20; INSERT INTO customers (name) VALUES ('meanwhile')")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("shop", "running")
    loads = target.sql("SELECT table_name, position FROM dmsr.loads ORDER BY 1")

    target.psql("TRUNCATE orders CASCADE")
    assert dmsrd.call("POST", "/jobs/shop/tables/public.orders/reload")[0] == 202
    dmsrd.kill()
    dmsrd.start()
    dmsrd.wait_equal(source, target, ["public.orders"])
    now = target.sql("SELECT table_name, position FROM dmsr.loads ORDER BY 1")
    assert [a == b for a, b in zip(loads, now)] == [t != "orders" for t, _ in loads]
    assert any("orders to be loaded anew" in e for e in events(dmsrd, "shop", "audit"))


WAYS = {"embedded": {}, "embedded, behind the load": {"hold_wal": True}, "kafka": {"type": "kafka"}, "kafka native": {"type": "kafka", "codec": "native"},
        "kafka direct": {"type": "kafka", "load": "direct"}, "kafka exactly once": {"type": "kafka", "exactly_once": True}}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_table_whose_row_is_missing_is_loaded_again(pg, request, dmsrd, way, killed):
    """As the error says: what stopped the job does not stop it again, though it comes before the rows. Nor does another change from before them."""
    source, target = pg.database("s"), pg.database("s_copy")
    source.psql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 1000) i; CREATE TABLE b (id int PRIMARY KEY)")
    how = dict(WAYS[way])
    hold_wal = how.pop("hold_wal", False)
    if how:
        kafka = request.getfixturevalue("kafka")
        how = {"bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix, **how}
    dmsrd.job("j", source.connection(hold_wal=hold_wal), [target.connection(name="copy")], streamer={"type": "embedded", **how})
    dmsrd.wait_state("j", "running")
    dmsrd.wait_equal(source, target)
    target.psql("DELETE FROM a WHERE id BETWEEN 5 AND 500")
    source.psql("BEGIN; UPDATE a SET v = 'x' WHERE id < 10; INSERT INTO b VALUES (1); COMMIT; INSERT INTO b VALUES (2)")
    assert dmsrd.wait_state("j", "failed")["error"]["code"] == "target.row-missing"
    source.psql("UPDATE a SET v = 'y' WHERE id = 100; DELETE FROM a WHERE id > 400")
    dmsrd.api("POST", "/jobs/j/tables/public.a/reload")
    if killed:
        dmsrd.kill()
        dmsrd.start(env={"DMSR_FAILPOINT": "target.load-after-commit:1"})
        dmsrd.api("POST", "/jobs/j/start")
        wait_for("it is killed", lambda: dmsrd.process.poll() is not None)
        dmsrd.start()
    else:
        dmsrd.api("POST", "/jobs/j/start")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("j", "running")
    source.psql("UPDATE a SET v = 'z' WHERE id < 10; INSERT INTO a VALUES (401); DELETE FROM b WHERE id = 1")
    dmsrd.wait_equal(source, target)


def test_a_table_that_is_taken_out_and_in_again(shop, dmsrd):
    """What was written to it meanwhile is not lost: it is loaded anew."""
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    was = target.digest("orders")
    dmsrd.api("PATCH", "/jobs/shop", {"tables": {"exclude": ["public.orders"]}}, headers={"If-Match": "*"})
    source.psql("UPDATE orders SET total = 4711 WHERE id < 50; UPDATE customers SET name = 'seen' WHERE id = 5")
    wait_for("the others go on", lambda: target.one("SELECT name FROM customers WHERE id = 5") == "seen")
    dmsrd.wait_state("shop", "running")
    assert target.digest("orders") == was
    states = {t["name"]: t["state"] for t in dmsrd.api("GET", "/jobs/shop/tables")["items"]}
    assert states["orders"] == "excluded" and states["customers"] == "loaded"
    told = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "orders" in w["message"]]
    assert told == ["tables: table public.orders is no part of the job any more: the rows that were written stay"]
    dmsrd.api("PATCH", "/jobs/shop", {"tables": None}, headers={"If-Match": "*"})
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("shop", "running")
    assert {t["name"]: t["state"] for t in dmsrd.api("GET", "/jobs/shop/tables")["items"]}["orders"] == "loaded"


def test_a_table_that_is_taken_out_of_changes_alone(shop, dmsrd):
    """Nobody has loaded it: its source tells."""
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], mode="cdc")
    dmsrd.wait_state("shop", "running")
    dmsrd.api("PATCH", "/jobs/shop", {"tables": {"exclude": ["public.orders"]}}, headers={"If-Match": "*"})
    told = wait_for("a word", lambda: [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "not read any more" in w["message"]])
    assert len(told) == 1 and '"public"."orders"' in told[0]


def test_a_table_that_cannot_be_loaded_again_now(shop, dmsrd):
    source, target = shop
    source.psql('CREATE SCHEMA a; CREATE SCHEMA "a.b"; CREATE TABLE a."b.c" (id int PRIMARY KEY); CREATE TABLE "a.b".c (id int PRIMARY KEY)')
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], tables={"include": ["public.*", "a.*", '"a.b".*']})
    dmsrd.wait_state("shop", "running")
    status, _, body = dmsrd.call("POST", "/jobs/shop/tables/a.b.c/reload")
    assert (status, body["code"]) == (409, "table.ambiguous")
    dmsrd.api("POST", "/jobs/shop/pause")
    dmsrd.wait_state("shop", "paused")
    status, _, body = dmsrd.call("POST", "/jobs/shop/tables/public.orders/reload")
    assert (status, body["code"]) == (409, "job.invalid-transition") and "resume" in body["suggestion"]
    dmsrd.api("POST", "/jobs/shop/resume")
    dmsrd.wait_state("shop", "running")
    assert dmsrd.call("POST", "/jobs/shop/tables/public.orders/reload")[0] == 202
    dmsrd.wait_state("shop", "running")


def test_a_table_of_a_job_that_stands_still_is_loaded_again_at_its_start(shop, dmsrd):
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    target.psql("UPDATE orders SET total = 7777")
    assert dmsrd.call("POST", "/jobs/shop/tables/public.orders/reload")[0] == 202
    assert dmsrd.state_of("shop") == "stopped"
    for table, status, code in (("public.orders", 404, "table.not-loaded"), ("public.nothing", 404, "table.not-loaded"), ("orders", 404, "table.not-loaded")):
        got, _, body = dmsrd.call("POST", f"/jobs/shop/tables/{table}/reload")
        assert (got, body["code"]) == (status, code)
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_equal(source, target)


# ---- columns ----

def table_t(pg, dmsrd, columns):
    source, target = pg.database("source"), pg.database("target")
    source.psql(f"CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t (id, a, b) SELECT i, -i, i FROM generate_series(1, 10) i")
    dmsrd.job("j", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("j", "running")
    dmsrd.wait_equal(source, target)
    return source, target


def same_by_name(source, target):
    """Wherever a column stands; a load leaves those that the source has no more."""
    columns = "SELECT string_agg(attname, ',' ORDER BY attname) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped"
    names = source.one(columns)
    rows = f"SELECT {names} FROM t ORDER BY id"
    wait_for("t is the same", lambda: set(names.split(",")) <= set(target.one(columns).split(",")) and source.sql(rows) == target.sql(rows), timeout=30)


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("columns, ddl", [("a int, b bigint", "DROP a; ALTER TABLE t RENAME b TO a"), ("a text, b text", "RENAME a TO x; ALTER TABLE t RENAME b TO a"),
                                          ("a int, b int", "RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b"),
                                          ("a text, b int", "RENAME a TO x; ALTER TABLE t ADD a text"), ("a int, b int", "DROP b")])
def test_columns_that_take_other_names(pg, dmsrd, columns, ddl, down):
    """Each value stays with its column, also of rows that were written before and are read when the catalog has the new names. Nothing is loaded again."""
    source, target = table_t(pg, dmsrd, columns)
    if down:
        dmsrd.kill()
    source.psql(f"INSERT INTO t (id, a, b) VALUES (99, '7', '8'); BEGIN; ALTER TABLE t {ddl}; COMMIT; INSERT INTO t (id, a) VALUES (100, '9')")
    if down:
        dmsrd.start()
    same_by_name(source, target)
    assert dmsrd.state_of("j") == "running"
    assert not events(dmsrd, "j", "error") and not [e for e in events(dmsrd, "j", "warning") if "again" in e]


def test_columns_of_a_time_that_nobody_knows(pg, dmsrd):
    """A row that has names which neither the last run nor the catalog knows: the table is loaded again, but once."""
    source, target = table_t(pg, dmsrd, "a int, b int")
    dmsrd.kill()
    for sql in ("INSERT INTO t VALUES (97, 1, 2)", "ALTER TABLE t RENAME a TO x; INSERT INTO t VALUES (98, 3, 4)",
                "ALTER TABLE t DROP x; ALTER TABLE t RENAME b TO a; INSERT INTO t VALUES (99, 5)"):
        source.psql(sql)
    dmsrd.start()
    for i in range(3):
        same_by_name(source, target)
        dmsrd.wait_state("j", "running")
        source.psql(f"INSERT INTO t VALUES ({100 + i}, 6)")
        dmsrd.kill()
        dmsrd.start()
    same_by_name(source, target)
    assert len([e for e in events(dmsrd, "j", "error") if "table public.t got other columns" in e]) == 1
    assert len([e for e in events(dmsrd, "j", "warning") if "public.t" in e and "loaded again" in e]) == 1


@pytest.mark.parametrize("killed", ["before it is dropped", "after it is dropped"])
def test_columns_that_took_other_names_in_a_table_that_is_dropped(pg, dmsrd, killed):
    """While the stream stood still. What the target has is all that is left of it."""
    source, target = table_t(pg, dmsrd, "a int, b text, c int")
    dmsrd.api("POST", "/jobs/j/pause")
    dmsrd.wait_state("j", "paused")
    source.psql("INSERT INTO t VALUES (99, 7, 'eight', 9); BEGIN; ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; COMMIT;"
                " INSERT INTO t VALUES (100, 17, 'eighteen', 19); CREATE TABLE fresh (id int PRIMARY KEY)")
    wait_for("that is seen", lambda: [e for e in events(dmsrd, "j", "warning") if "public.fresh is new" in e], timeout=30)
    if killed == "before it is dropped":
        dmsrd.kill()
    source.psql("DROP TABLE t; CREATE TABLE other (id int PRIMARY KEY)")
    if killed == "after it is dropped":
        wait_for("that is seen", lambda: [e for e in events(dmsrd, "j", "warning") if "public.other is new" in e], timeout=30)
        dmsrd.kill()
    dmsrd.start()
    for _ in range(2):
        wait_for("the job is there", lambda: dmsrd.state_of("j") in ("paused", "running"), timeout=30)
        if dmsrd.state_of("j") == "paused":
            dmsrd.api("POST", "/jobs/j/resume")
        wait_for("the last row is there", lambda: target.one("SELECT count(*) FROM t WHERE id = 100") == 1, timeout=30)
        assert target.sql("SELECT id, x, a, c FROM t WHERE id IN (10, 99, 100) ORDER BY 1") == [(10, -10, "10", None), (99, 7, "eight", 9), (100, 17, "eighteen", 19)]
        dmsrd.kill()
        dmsrd.start()
    assert not events(dmsrd, "j", "error") and not [e for e in events(dmsrd, "j", "warning") if "again" in e and "public.t" in e]


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_a_column_that_is_generated_no_more(any_pg, dmsrd, down):
    """Its values are sent from then on, and those that it had stay."""
    source, target = table_t(any_pg, dmsrd, "a int, g int GENERATED ALWAYS AS (a * 2) STORED, b int")
    if down:
        dmsrd.kill()
    source.psql("INSERT INTO t (id, a) VALUES (99, 5); ALTER TABLE t ALTER g DROP EXPRESSION; UPDATE t SET g = 77 WHERE id = 2; INSERT INTO t VALUES (100, 3, 99)")
    if down:
        dmsrd.start()
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("j", "running")
