"""load direct of the streamer kafka: rows of a load go straight to the targets, and changes alone into the topics, read while tables are loaded."""
import json
import time

import pytest

import test_kafka
from conftest import ApiError, wait_for
from test_kafka import CHANGES, Kills, TABLES, caught_up, read, streamer
from test_load_beside import TABLES as BESIDE
from test_load_beside import WHILE, becomes, is_read_up_to, locked, written

LAYOUTS = {f"direct {name}": {**options, "load": "direct"} for name, options in test_kafka.LAYOUTS.items()}
LAYOUTS["direct exact"] = {"layout": "both", "load": "direct", "exactly_once": True}


def stream(kafka):
    """What the records of the stream are: an operation for a row, else a word or "mark"."""
    values = [json.loads(m.value()) for m in read(kafka, f"{kafka.prefix}.__stream")]
    return [v.get("op") or v.get("word") or "mark" for v in values]


@pytest.fixture
def pair(pg):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES)
    return source, target


def begin(daemon, kafka, source, *targets, layout="direct both", **more):
    daemon.job("k", source.connection(**more), [t.connection(name=t.name) for t in targets], streamer=streamer(kafka, **LAYOUTS[layout]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_go_straight_and_changes_through_the_topics(pair, kafka, dmsrd, layout):
    source, target = pair
    begin(dmsrd, kafka, source, target, layout=layout)
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    caught_up(dmsrd, "k", source)
    if "native" not in layout:
        seen = stream(kafka)
        assert not {"r", "load-begin", "load-end"} & set(seen) and {"c", "u", "d"} <= set(seen), set(seen)
    if layout != "direct ordered" and "native" not in layout:
        topic = [json.loads(r.value)["op"] for r in kafka.records(f"{kafka.prefix}.public.t") if r.value]
        assert "r" not in topic and "u" in topic


@pytest.mark.parametrize("layout", ["direct native", "direct both"])
def test_changes_are_in_the_topic_while_the_load_stands(pair, kafka, dmsrd, layout):
    """The source keeps no log for it, nobody is given a change before its rows, and a kill then changes nothing."""
    source, target = pair
    source.psql("CREATE TABLE a (id integer PRIMARY KEY, v text); INSERT INTO a SELECT i, repeat('a', 500) FROM generate_series(1, 5000) i")
    target.psql("CREATE TABLE a (id integer PRIMARY KEY, v text)")
    with locked(target, "a"):
        begin(dmsrd, kafka, source, target, layout=layout)
        wait_for("the load stands", lambda: "reading slot" in dmsrd.log())
        lsn = written(source, CHANGES, "UPDATE a SET v = 'changed' WHERE id % 3 = 0; DELETE FROM a WHERE id % 7 = 0")
        wait_for("the slot has passed", lambda: is_read_up_to(source, lsn), 40)
        assert dmsrd.state_of("k") == "loading"
        dmsrd.kill()
        source.psql("INSERT INTO a SELECT i, 'late' FROM generate_series(10001, 10010) i; UPDATE a SET v = 'later' WHERE id % 11 = 0")
    dmsrd.start()
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("layout", ["direct native", "direct both", "direct exact"])
def test_killed_again_and_again(pg, kafka, daemon, layout):
    kills = Kills(daemon, kafka, pg, pg, LAYOUTS[layout], seed=len(layout))
    places = ["kafka.sent", "target.load-after-commit", "pipeline.before-store", "kafka.acknowledged", "pipeline.stored", "pg.load-done"]
    try:
        for n in range(12):
            time.sleep(kills.random.choice([0.02, 0.1, 0.3, 0.6]))
            kills.daemon_dies(f"{places[n // 2]}:{kills.random.randrange(1, 6)}:kill" if n % 2 else None)
    finally:
        kills.load.stop()
    kills.end()


@pytest.mark.parametrize("layout", ["direct both", "direct exact"])
def test_new_tables_reloads_and_targets(pair, any_pg, kafka, dmsrd, layout):
    """All get their rows from the source again, and the changes from the topic."""
    source, target = pair
    other = any_pg.database("other")
    begin(dmsrd, kafka, source, target, layout=layout)
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES + "CREATE TABLE fresh (id int PRIMARY KEY, v text); INSERT INTO fresh SELECT i, 'f' FROM generate_series(1, 100) i")
    source.psql("CREATE TABLE old (id int PRIMARY KEY)")
    dmsrd.api("POST", "/jobs/k/restart")
    dmsrd.wait_equal(source, target)
    # what a new target has no use for stands in the topic: of a table that is gone, and that nobody remembers
    source.psql("INSERT INTO old SELECT generate_series(1, 100); DROP TABLE old")
    for _ in range(2):
        caught_up(dmsrd, "k", source)
        dmsrd.api("POST", "/jobs/k/restart")
        dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)
    target.psql("DELETE FROM t WHERE id % 2 = 0")
    dmsrd.api("POST", "/jobs/k/tables/public.t/reload")
    source.psql("UPDATE t SET v = 'beside' WHERE id % 5 = 0")
    dmsrd.wait_equal(source, target)
    both = [target.connection(name=target.name), other.connection(name="other")]
    dmsrd.api("PATCH", "/jobs/k", {"targets": both}, {"If-Match": "*"})
    source.psql("UPDATE t SET v = 'for two' WHERE id % 3 = 0; INSERT INTO fresh VALUES (200, 'two')")
    dmsrd.wait_equal(source, other)
    dmsrd.wait_equal(source, target)
    # one that is away meanwhile is as one that is new
    dmsrd.api("PATCH", "/jobs/k", {"targets": both[:1]}, {"If-Match": "*"})
    source.psql("UPDATE t SET v = 'for one' WHERE id % 3 = 1; DELETE FROM fresh WHERE id < 10")
    dmsrd.wait_equal(source, target)
    dmsrd.api("PATCH", "/jobs/k", {"targets": both}, {"If-Match": "*"})
    dmsrd.wait_equal(source, other)
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("how", ["runs", "is down"])
@pytest.mark.parametrize("what", WHILE)
def test_what_becomes_of_a_table_that_is_not_loaded_yet(pg, kafka, daemon, what, how):
    """As with the streamer embedded: changes of it stand in the topic already."""
    source, target = pg.database("beside"), pg.database("beside_copy")
    source.psql(BESIDE)
    target.psql("CREATE TABLE a (id integer PRIMARY KEY, v text); CREATE TABLE b (id integer PRIMARY KEY, v text)")
    becomes(source, target, daemon, what, how, streamer(kafka, load="direct", codec="native" if how == "runs" else "json"))


def test_mode_cdc_gives_a_new_target_nothing(pair, any_pg, kafka, dmsrd):
    """The topic never had its rows."""
    source, target = pair
    begin(dmsrd, kafka, source, target)
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    both = [target.connection(name=target.name), any_pg.database("other").connection(name="other")]
    dmsrd.api("PATCH", "/jobs/k", {"mode": "cdc", "targets": both}, {"If-Match": "*"})
    job = dmsrd.wait_state("k", "failed")
    assert job["error"]["code"] == "target.behind", job["error"]


def test_what_does_not_go_together(pair, kafka, dmsrd):
    source, target = pair

    def refused(targets=(), mode="full-load-and-cdc", **more):
        with pytest.raises(ApiError) as e:
            dmsrd.job("k", source.connection(**more), list(targets), mode=mode, streamer=streamer(kafka, load="direct"))
        assert e.value.status == 422
        return [(p["pointer"], p["detail"]) for p in e.value.body["errors"]]

    copy = [target.connection(name="copy")]
    assert [p for p, _ in refused()] == ["/streamer/load"]
    assert "mode full-load" in refused(copy, mode="full-load")[0][1]
    assert "hold_wal" in refused(copy, hold_wal=True)[0][1]
    # and what has begun one way goes on that way
    source.psql("CREATE TABLE a (id integer PRIMARY KEY); INSERT INTO a VALUES (1)")
    target.psql("CREATE TABLE a (id integer PRIMARY KEY)")
    with locked(target, "a"):
        dmsrd.job("through", source.connection(), copy, streamer={**streamer(kafka), "prefix": f"{kafka.prefix}-through"})
        wait_for("rows are in the topic", lambda: "table public.a read" in dmsrd.log())
        with pytest.raises(ApiError) as e:
            dmsrd.api("PATCH", "/jobs/through", {"streamer": {"load": "direct"}}, {"If-Match": "*"})
        assert e.value.status == 422 and [p["pointer"] for p in e.value.body["errors"]] == ["/streamer/load"]
    dmsrd.api("DELETE", "/jobs/through", headers={"If-Match": "*"})
    wait_for("it is gone", lambda: "through" not in [j["name"] for j in dmsrd.api("GET", "/jobs")["items"]])
    with locked(target, "a"):
        dmsrd.job("k", source.connection(), copy, streamer=streamer(kafka, load="direct"))
        wait_for("the load stands", lambda: "job=k msg=\"reading slot" in dmsrd.log())
        with pytest.raises(ApiError) as e:
            dmsrd.api("PATCH", "/jobs/k", {"streamer": {"load": "stream"}}, {"If-Match": "*"})
        assert e.value.status == 422 and [p["pointer"] for p in e.value.body["errors"]] == ["/streamer/load"]
