"""Option transaction_topic: what stands in the topic of transactions is what the source has done, whatever is killed."""
import json
import random
import time

import pytest

from test_kafka import caught_up, position, streamer

TABLES = "CREATE TABLE a (id integer PRIMARY KEY, v text); CREATE TABLE b (id integer PRIMARY KEY, v text); CREATE TABLE none (id integer PRIMARY KEY);"


def records(kafka, is_exact=False):
    """[(BEGIN, END)] in their order, without what stands there twice. With exactly_once nothing does."""
    found, newest = [], (0, -1)
    for r in kafka.records(f"{kafka.prefix}.__transactions"):
        at, value = position(r), json.loads(r.value)
        assert value["id"] == r.key and at[1] == (0 if value["status"] == "BEGIN" else float("inf"))
        if at > newest:
            found.append(value)
            newest = at
        else:
            assert not is_exact, value
    pairs = list(zip(found[::2], found[1::2]))
    assert len(found) % 2 == 0 and all(b["status"] == "BEGIN" and e["status"] == "END" and b["id"] == e["id"] and b["ts_ms"] == e["ts_ms"] for b, e in pairs), found
    return pairs


def counts(pairs):
    for begin, end in pairs:
        assert begin["event_count"] is None and end["event_count"] == sum(c["event_count"] for c in end["data_collections"])
    return [{c["data_collection"]: c["event_count"] for c in end["data_collections"]} for _, end in pairs]


@pytest.mark.parametrize("more", [{"layout": "table"}, {"layout": "ordered", "codec": "native"}, {"layout": "both", "exactly_once": True}])
def test_each_transaction_with_rows(pg, kafka, dmsrd, more):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES + "INSERT INTO a VALUES (-1, 'loaded')")
    targets = [] if more["layout"] == "table" else [target.connection(name="copy")]
    dmsrd.job("k", source.connection(), targets, streamer=streamer(kafka, transaction_topic=True, **more))
    dmsrd.wait_state("k", "running")
    source.psql("BEGIN; INSERT INTO a SELECT i, 'x' FROM generate_series(1, 3) i; INSERT INTO b VALUES (1, 'y'); UPDATE a SET v = 'z' WHERE id = 1; COMMIT;"
                "SELECT pg_logical_emit_message(true, 'no', 'row'); CREATE TABLE more (id integer); BEGIN; DELETE FROM b; TRUNCATE a, none; COMMIT;"
                "BEGIN; INSERT INTO a SELECT i, repeat('a', 200) FROM generate_series(1, 20000) i; INSERT INTO b SELECT i, repeat('b', 200) FROM generate_series(1, 7000) i; COMMIT;")
    caught_up(dmsrd, "k", source)
    pairs = records(kafka, "exactly_once" in more)
    assert counts(pairs) == [{"public.a": 4, "public.b": 1}, {"public.b": 1, "public.a": 1, "public.none": 1}, {"public.a": 20000, "public.b": 7000}]
    if more["layout"] != "ordered":
        said = {json.loads(r.value)["transaction"]["id"] for r in kafka.records(f"{kafka.prefix}.public.b") if r.value}
        assert said == {end["id"] for _, end in pairs}, "the rows name their transaction as it is named there"


@pytest.mark.parametrize("is_exact", [False, True])
def test_killed_inside_of_transactions(pg, kafka, dmsrd, is_exact):
    """Each is counted whole, also when a run ends and the next one begins in its middle."""
    source, dice = pg.database("k"), random.Random(int(is_exact))
    source.psql(TABLES)
    dmsrd.job("k", source.connection(), [], streamer=streamer(kafka, transaction_topic=True, memory="1MiB", exactly_once=is_exact, transaction_timeout="10s"))
    dmsrd.wait_state("k", "running")
    begun_inside = 0
    for n in range(8):
        source.psql(f"BEGIN; INSERT INTO a SELECT i, repeat('a', 200) FROM generate_series({n}00001, {n}30000) i;"
                    f"UPDATE b SET v = 'x'; INSERT INTO b SELECT {n}, 'y'; UPDATE a SET v = 'z' WHERE id > {n}20000 AND id < {n}30000; COMMIT")
        time.sleep(dice.uniform(0.2, 0.9))
        dmsrd.kill()
        dmsrd.start()
        begun_inside += (dmsrd.api("GET", "/jobs/k/positions")["position"] or "::::").split(":")[3] not in ("*", "0", "")
    caught_up(dmsrd, "k", source)
    assert counts(records(kafka, is_exact)) == [{"public.a": 39999, "public.b": n + 1} for n in range(8)]
    assert begun_inside or is_exact, "the kills were to hit it there"
