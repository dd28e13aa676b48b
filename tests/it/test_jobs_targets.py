"""A job's several targets: each at its own pace; added late, taken out, and added again."""
import contextlib

import pytest

from conftest import wait_for
from test_jobs import CHANGES, SHOP, shop  # noqa: F401 (a fixture)

pytestmark = pytest.mark.spread


def test_a_late_target_gets_what_the_others_have(shop, any_pg, dmsrd):
    """What is remembered as loaded is so only if each target has it."""
    source, target = shop
    late = any_pg.database("late")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    dmsrd.api("PATCH", "/jobs/shop", {"targets": [target.connection(name="copy"), late.connection(name="late")]}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    source.psql("INSERT INTO customers (name) VALUES ('after')")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_equal(source, late)


@pytest.mark.parametrize("mode", ["full-load-and-cdc", "cdc"])
def test_a_target_keeps_its_place(shop, any_pg, dmsrd, mode):
    """What it has of the job is there, and not elsewhere. Under another name it is one that is new, as the answer says."""
    source, target = shop
    other = any_pg.database("other")
    if mode == "cdc":
        target.psql(SHOP)
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")], mode=mode, desired_state="stopped")

    def move(name, database, **more):
        return dmsrd.call("PATCH", "/jobs/shop", {"targets": [database.connection(name=name, **more)]}, {"If-Match": "*"})
    assert [move("copy", other)[0], move("copy", target)[0]] == [200, 200]  # it has nothing yet
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target, None if mode != "cdc" else ["public.orders"])
    wait_for("that is stored", lambda: dmsrd.api("GET", "/jobs/shop/positions")["targets"]["copy"])
    assert move("copy", target, host="localhost")[2]["errors"][0]["pointer"] == "/targets/0/host"
    for state in ("running", "stopped"):
        status, _, problem = move("copy", other)
        assert (status, [(e["code"], e["pointer"]) for e in problem["errors"]]) == (422, [("immutable", "/targets/0/database")]), problem
        assert ("make a new job" if mode == "cdc" else "give the target another name") in problem["errors"][0]["detail"]
        assert dmsrd.state_of("shop") == state
        if state == "running":
            dmsrd.api("POST", "/jobs/shop/stop")
            dmsrd.wait_state("shop", "stopped")
    assert move("copy", target, host="localhost")[0] == 200  # the same server by another address
    if mode != "cdc":
        was = target.digest("customers")
        assert move("elsewhere", other)[0] == 200
        source.psql("INSERT INTO customers (name) VALUES ('later')")
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    if mode != "cdc":
        dmsrd.wait_equal(source, other)
        assert target.digest("customers") == was


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize("how", ["when-it-is-taken", "beside"])
def test_a_late_target_has_no_use_for_what_waits_for_another(shop, any_pg, dmsrd, how, was_there):
    """Its rows would not be there. It is told so, again and again, and both ways out that the hint names are ways out."""
    source, target = shop
    late = any_pg.database("late")
    both = {"targets": [target.connection(name="copy"), late.connection(name="late")]}
    dmsrd.job("shop", source.connection(hold_wal=True), both["targets"] if was_there else both["targets"][:1], streamer={"type": "embedded", "memory": "1MiB"})
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    if was_there:
        dmsrd.wait_equal(source, late)
        dmsrd.api("PATCH", "/jobs/shop", {"targets": both["targets"][:1]}, {"If-Match": "*"})
        source.psql("INSERT INTO customers (name) VALUES ('missed')")
        dmsrd.wait_equal(source, target)

    def log_bytes():
        return dmsrd.api("GET", "/jobs/shop/status")["streamer"]["log_bytes"]

    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        source.psql(CHANGES + "; INSERT INTO customers (name) SELECT repeat('waits', 100) || i FROM generate_series(1, 20000) i")
        wait_for("something waits in the log", log_bytes)
        dmsrd.api("PATCH", "/jobs/shop", both, {"If-Match": "*"})
        for _ in range(2):
            dmsrd.wait_state("shop", "failed")
            error = dmsrd.api("GET", "/jobs/shop")["error"]
            assert error["code"] == "target.behind" and ("late was no part" if was_there else "late is new") in error["message"], error
            dmsrd.kill()
            dmsrd.start()
            dmsrd.api("POST", "/jobs/shop/start")
        dmsrd.wait_state("shop", "failed")
        if how == "beside":
            dmsrd.api("PATCH", "/jobs/shop", {"source": {**source.connection(), "hold_wal": False}}, {"If-Match": "*"})
        else:
            dmsrd.api("PATCH", "/jobs/shop", {"targets": [target.connection(name="copy")]}, {"If-Match": "*"})
        dmsrd.api("POST", "/jobs/shop/start")
        c.rollback()
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    if how != "beside":
        wait_for("nothing waits", lambda: not log_bytes())
        dmsrd.api("PATCH", "/jobs/shop", both, {"If-Match": "*"})
    dmsrd.wait_equal(source, late)
    source.psql("INSERT INTO customers (name) VALUES ('after')")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_equal(source, late)


def test_a_new_target_in_the_place_of_the_only_one(shop, any_pg, dmsrd):
    """Nobody is left who could take what waits in the log: what is said to do helps."""
    source, target = shop
    other = any_pg.database("other")
    dmsrd.job("shop", source.connection(hold_wal=True), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "1MiB"})
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        source.psql(CHANGES + "; INSERT INTO customers (name) SELECT repeat('waits', 100) || i FROM generate_series(1, 20000) i")
        wait_for("something waits in the log", lambda: dmsrd.api("GET", "/jobs/shop/status")["streamer"]["log_bytes"])
        change_targets(dmsrd, other.connection(name="elsewhere"))
        error = dmsrd.wait_state("shop", "failed")["error"]
    assert error["code"] == "target.behind" and "elsewhere is new" in error["message"] and "take it out" not in error["suggestion"], error
    dmsrd.follow(error["suggestion"], "shop")
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, other)


def change_targets(dmsrd, *targets):
    dmsrd.api("PATCH", "/jobs/shop", {"targets": list(targets)}, {"If-Match": "*"})


@pytest.mark.parametrize("hold_wal", [True, False])
@pytest.mark.parametrize("failpoint", [None, "target.load-after-commit:1", "target.load-after-commit:4", "pg.load-done:1", "pipeline.stored:1", "pipeline.stored:2"])
def test_a_target_that_was_away_gets_what_it_missed(shop, any_pg, dmsrd, hold_wal, failpoint):
    """Taken out of the job, and added again under its old name: the others have what went by, and nobody holds it. A crash changes nothing about that."""
    source, target = shop
    other = any_pg.database("other")
    copy, away = target.connection(name="copy"), other.connection(name="away")
    dmsrd.job("shop", source.connection(hold_wal=hold_wal), [copy, away])
    dmsrd.wait_state("shop", "running")
    source.psql("INSERT INTO customers (name) VALUES ('together')")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_equal(source, other)
    change_targets(dmsrd, copy)
    source.psql(CHANGES + "; ALTER TABLE orders ADD COLUMN note text DEFAULT 'n'; TRUNCATE keyless; CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1);"
                "INSERT INTO orders (customer_id, total) VALUES (1, 98)")
    dmsrd.wait_equal(source, target, tables=["public.customers", "public.orders"])
    wait_for("nothing waits", lambda: not dmsrd.api("GET", "/jobs/shop/status")["streamer"]["log_bytes"])
    if failpoint:
        dmsrd.api("POST", "/jobs/shop/stop")
        dmsrd.wait_state("shop", "stopped")
        change_targets(dmsrd, copy, away)
        dmsrd.stop()
        dmsrd.start(env={"DMSR_FAILPOINT": failpoint + ":kill"})
        dmsrd.call("POST", "/jobs/shop/start")
        wait_for("it is killed", lambda: dmsrd.process.poll() is not None)
        dmsrd.kill()
        dmsrd.start()
    else:
        change_targets(dmsrd, copy, away)
    dmsrd.wait_equal(source, other)
    source.psql("INSERT INTO orders (customer_id, total) VALUES (1, 99)")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_equal(source, other)
    dmsrd.wait_state("shop", "running")
    if not failpoint:
        assert any("away was no part of the job" in e["message"] for e in dmsrd.api("GET", "/jobs/shop/status")["warnings"])


def test_a_target_that_was_away_cannot_be_mended_without_a_load(shop, any_pg, dmsrd):
    source, target = shop
    other = any_pg.database("other")
    for database in source, target, other:
        database.psql("CREATE TABLE t (v text PRIMARY KEY)")
    copy, away = target.connection(name="copy", prepare="none"), other.connection(name="away", prepare="none")
    dmsrd.job("shop", source.connection(), [copy, away], mode="cdc", tables={"include": ["public.t"]})
    dmsrd.wait_state("shop", "running")
    source.psql("INSERT INTO t VALUES ('together')")
    dmsrd.wait_equal(source, other, ["public.t"])
    change_targets(dmsrd, copy)
    source.psql("INSERT INTO t VALUES ('alone')")
    dmsrd.wait_equal(source, target, ["public.t"])
    change_targets(dmsrd, copy, away)
    dmsrd.wait_state("shop", "failed")
    error = dmsrd.api("GET", "/jobs/shop")["error"]
    assert error["code"] == "target.behind" and "away has missed a part" in error["message"], error
    change_targets(dmsrd, copy)
    dmsrd.api("POST", "/jobs/shop/start")
    source.psql("INSERT INTO t VALUES ('alone again')")
    dmsrd.wait_equal(source, target, ["public.t"])


def test_two_targets_at_their_own_pace(shop, any_pg, dmsrd):
    source, target = shop
    other = any_pg.database("other")
    dmsrd.job("fan", source.connection(), [target.connection(name="copy"), other.connection(name="other")])
    dmsrd.wait_state("fan", "running")
    lock = any_pg.connect(other.name)
    lock.autocommit = False
    lock.cursor().execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    lock.rollback()
    dmsrd.wait_equal(source, other)
    lock.close()
