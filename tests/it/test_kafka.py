"""The streamer kafka on a real broker: what stands in its topics, what a target has in the end, and what is said when the broker is not as it should be."""
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from conftest import ApiError, Postgres, free_port, wait_for
from proxy import Proxy
from test_kill import TABLES, Load

SMALL = """
CREATE TABLE t (id integer PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 500) i;
"""


def streamer(kafka, **more):
    return {"type": "kafka", "bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix, **more}


LAYOUTS = {"native": {"layout": "ordered", "codec": "native", "record_bytes": "20KiB"}, "ordered": {"layout": "ordered"}, "both": {"layout": "both"}}


# ---- a table topic, read as a stock consumer reads it ----

def position(record):
    """(lsn, event) of a record; the end of a transaction is behind all its events."""
    _, _, lsn, event, _ = dict(record.headers)["dmsr-pos"].split(":")
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16), float("inf") if event == "*" else int(event)


def as_table(records, deduplicated=False):
    """Key -> row. A value that did not change may have been left out of a record: it is that of the row before."""
    rows, at, emptied = {}, {}, 0
    for r in records:
        value = r.value and json.loads(r.value)
        if position(r)[0] < emptied:
            continue
        if r.key is None:
            assert value["op"] == "t"
            rows.clear()
            emptied = position(r)[0]
            continue
        if deduplicated and position(r) < at.get(r.key, (0, 0)):
            continue
        at[r.key] = position(r)
        if not value or value["op"] == "d":
            rows.pop(r.key, None)
        else:
            rows[r.key] = {**rows.get(r.key, {}), **value["after"]}
    return {tuple(json.loads(k).values()): row for k, row in rows.items()}


def as_rows(records):
    """The rows of a table without a key, each as often as it is there. What was sent twice is known by its position."""
    rows, seen, emptied = collections.Counter(), (0, 0), 0
    for r in records:
        value, at = json.loads(r.value), position(r)
        if at[0] < emptied:  # what a run that is dead had under way may come behind the next one's load, which has it
            continue
        if value["op"] == "t":
            rows.clear()
            emptied = at[0]
            continue
        if value["op"] != "r":
            if at <= seen:
                continue
            seen = at
        if value["before"]:
            rows[json.dumps(value["before"])] -= 1
        if value["after"]:
            rows[json.dumps(value["after"])] += 1
    return +rows


def source_table(database, table, key):
    columns = [r[0] for r in database.sql("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", table)]
    rows = [dict(zip(columns, row)) for row in database.sql(f"SELECT * FROM {table}")]
    return {tuple(row[k] for k in key): row for row in rows}


def check_topics(kafka, source, keys, keyless=()):
    """The topics of tables, as a table and without what stands there twice, are the source's rows; each shape that a record names is known."""
    fingerprints, servers = set(), set()
    for table, key in keys.items():
        records = kafka.records(f"{kafka.prefix}.public.{table}")
        expected = source_table(source, table, key)
        assert as_table(records, deduplicated=True) == expected, table
        assert as_table(records) == expected, table
        fingerprints |= {dict(r.headers)["dmsr-schema"] for r in records}
        servers |= {dict(r.headers)["dmsr-pos"].split(":")[1] for r in records}
    for table in keyless:
        records = kafka.records(f"{kafka.prefix}.public.{table}")
        assert as_rows(records) == collections.Counter(json.dumps(r) for r in map(dict, source_rows(source, table))), table
        fingerprints |= {dict(r.headers)["dmsr-schema"] for r in records}
    shapes = {r.key: json.loads(r.value) for r in kafka.records(f"{kafka.prefix}.__schemas")}
    assert servers == {str(source.one("SELECT system_identifier FROM pg_control_system()"))}, "rows of the load, too, say of which server they are"
    assert fingerprints <= set(shapes) and all(s["fingerprint"] == k for k, s in shapes.items())
    return shapes


def source_rows(database, table):
    columns = [r[0] for r in database.sql("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", table)]
    return [list(zip(columns, row)) for row in database.sql(f"SELECT * FROM {table}")]


def caught_up(daemon, job, source):
    """Everything that is committed now is durable downstream."""
    end = source.one("SELECT pg_current_wal_insert_lsn() - '0/0'")

    def there():
        slot = source.sql("SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE database = current_database()")
        return slot and slot[0][0] is not None and slot[0][0] >= end
    source.sql("SELECT pg_logical_emit_message(false, 'dmsr-test', ''), txid_current()")  # with a commit, or the server may not write it to its log for 15 s
    wait_for(f"job {job} has confirmed all", there, 30)


KEYS = {"t": ["id"], "counters": ["id"], "big": ["id"], "u": ["id"]}

CHANGES = """
BEGIN; UPDATE t SET v = 'changed' WHERE id <= 100; DELETE FROM t WHERE id BETWEEN 101 AND 150; INSERT INTO t (v) VALUES ('new'), (NULL), (E'line\\nä\\t"q"'); COMMIT;
UPDATE t SET id = id + 10000000 WHERE id BETWEEN 200 AND 220;
UPDATE big SET n = n + 1; DELETE FROM keyless WHERE a = 3; UPDATE keyless SET b = 'z' WHERE a = 4; INSERT INTO keyless VALUES (1, NULL);
UPDATE u SET x = 1 - x;
"""


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_and_changes(pg, kafka, dmsrd, layout, apply):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(TABLES)
    dmsrd.job("k", source.connection(), [target.connection(name="copy", apply=apply)], streamer=streamer(kafka, **LAYOUTS[layout]))
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)
    names = {"__stream", "__schemas"} | ({f"public.{t}" for t in [*KEYS, "keyless"]} if layout == "both" else set())
    assert set(kafka.topics(kafka.prefix)) == {f"{kafka.prefix}.{n}" for n in names}
    if layout == "both":
        shapes = check_topics(kafka, source, KEYS, ["keyless"])
        assert {s["table"] for s in shapes.values()} == {*KEYS, "keyless"}
    caught_up(dmsrd, "k", source)
    assert dmsrd.api("GET", "/jobs/k/status")["state"] == "running"


def test_a_topic_for_each_table_and_no_target(pg, kafka, dmsrd):
    source = pg.database("k")
    source.psql("CREATE TABLE two (a integer, b text, v text, PRIMARY KEY (b, a)); INSERT INTO two SELECT i, 'b' || i % 7, 'v' FROM generate_series(1, 300) i; " + TABLES)
    dmsrd.job("k", source.connection(), [], streamer=streamer(kafka, partitions=4))
    dmsrd.wait_state("k", "running")
    source.psql(CHANGES + "".join(f"UPDATE two SET v = '{i}' WHERE a % 3 = {i % 3};" for i in range(12)))
    source.psql("UPDATE two SET a = a + 1000 WHERE a = 5; DELETE FROM two WHERE a = 6; UPDATE t SET v = 'last' WHERE id = 1")
    caught_up(dmsrd, "k", source)
    assert f"{kafka.prefix}.__stream" not in kafka.topics(kafka.prefix)
    assert kafka.topics(kafka.prefix)[f"{kafka.prefix}.public.two"] == 4
    check_topics(kafka, source, {**KEYS, "two": ["b", "a"]}, ["keyless"])
    records = kafka.records(f"{kafka.prefix}.public.two")
    assert len({r.partition for r in records}) == 4
    homes = collections.defaultdict(list)
    for r in records:
        homes[r.key].append(r)
    for of_key in homes.values():
        assert len({r.partition for r in of_key}) == 1
        assert [position(r) for r in of_key] == sorted(position(r) for r in of_key), "a key's changes stand in their order"


def test_a_changed_key_in_one_partition(pg, kafka, dmsrd):
    source = pg.database("k")
    source.psql(SMALL)
    dmsrd.job("k", source.connection(), [], streamer=streamer(kafka))
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET id = 9001 WHERE id = 7")
    source.psql("TRUNCATE t; INSERT INTO t VALUES (1, 'after')")
    caught_up(dmsrd, "k", source)
    said = [(r.key and json.loads(r.key)["id"], r.value and json.loads(r.value)["op"]) for r in kafka.records(f"{kafka.prefix}.public.t")[500:]]
    assert said == [(7, "d"), (7, None), (9001, "c"), (None, "t"), (1, "c")]


@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_a_newer_load_stands_for_all_of_the_table(pg, kafka, dmsrd, policy):
    """Keys that went between the two have no record of their own: the topic says that it begins anew, unless it takes no record without a key."""
    source, topic = pg.database("k"), f"{kafka.prefix}.public.t"
    source.psql(SMALL + "CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1)")
    for name in (topic, f"{kafka.prefix}.public.emptied") if policy == "compact" else ():
        kafka.create(name, 1, cleanup_policy="compact")
    dmsrd.job("k", source.connection(), [], streamer=streamer(kafka))
    dmsrd.wait_state("k", "running")
    caught_up(dmsrd, "k", source)
    assert not [r for r in kafka.records(topic) if r.key is None], "nothing is emptied that was made for this load"
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    dmsrd.api("DELETE", "/jobs/k/positions")
    source.psql("DELETE FROM t WHERE id <= 100; DELETE FROM emptied")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'later' WHERE id = 200")
    caught_up(dmsrd, "k", source)
    records = kafka.records(topic)
    if policy == "delete":
        check_topics(kafka, source, {"t": ["id"], "emptied": ["id"]})
        assert [json.loads(r.value)["op"] for r in records if r.key is None] == ["t"]
    else:
        assert not [r for r in records if r.key is None]
        assert json.loads(records[-1].value)["after"] == {"id": 200, "v": "later"}


def error_code(daemon):
    return (daemon.api("GET", "/jobs/k")["error"] or {}).get("code")


# ---- whether anybody is there ----

def test_topics_that_somebody_else_makes(pg, kafka, dmsrd):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, create_topics=False))
    wait_for("it says so", lambda: error_code(dmsrd) == "kafka.topic-missing", 40)
    for name in ("__stream", "__schemas"):
        kafka.create(f"{kafka.prefix}.{name}")
    if dmsrd.state_of("k") == "failed":
        dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)


# ---- a broker that is away ----

def test_a_start_without_a_broker(pg, dmsrd):
    """Who refuses, or has no address, is told of soon, with the reason; who is slow is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        silent, nobody = f"127.0.0.1:{s.getsockname()[1]}", f"127.0.0.1:{free_port()}"
        away = {"refused": (nobody, "refused"), "nameless": ("nobody.invalid:9092", "nobody.invalid")}
        source, target = pg.database("k"), pg.database("k_copy")
        source.psql(SMALL)
        for name, servers in {"refused": nobody, "nameless": away["nameless"][0], "slow": silent, "slow-too": f"{nobody},{silent}"}.items():
            dmsrd.job(name, source.connection(), [target.connection(name="copy")], streamer={"type": "kafka", "bootstrap_servers": servers, "exactly_once": "slow" in name})
        began = time.monotonic()
        for name, (_, why) in away.items():
            error = wait_for(f"{name} is told", lambda name=name: dmsrd.api("GET", f"/jobs/{name}")["error"], 9 - (time.monotonic() - began))
            assert error["code"] == "kafka.unreachable" and error["retriable"] and why in error["message"], error
        time.sleep(max(0, 13 - (time.monotonic() - began)))
        for name in ("slow", "slow-too"):
            assert dmsrd.state_of(name) == "starting" and not dmsrd.api("GET", f"/jobs/{name}")["error"]


def rss_kib(daemon):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()).group(1))


def test_a_broker_that_is_away(pg, start_kafka, dmsrd):
    """Not there at first; then stopped, and killed, for longer than the source's patience, with more written than may wait in memory."""
    kafka = start_kafka(running=False)
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL + "ALTER SYSTEM SET wal_sender_timeout = '5s'; SELECT pg_reload_conf()")
    try:
        dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, memory="2MiB", layout="both"))
        wait_for("it says so", lambda: error_code(dmsrd) == "kafka.unreachable", 40)
        assert dmsrd.state_of("k") in ("retrying", "starting")
        kafka.start()
        dmsrd.wait_state("k", "running")
        dmsrd.wait_equal(source, target)
        before = rss_kib(dmsrd)
        for away, back in ((kafka.pause, kafka.resume), (kafka.kill, kafka.start)):
            away()
            if away == kafka.kill:  # of one that hangs librdkafka learns a minute later
                status = wait_for("it is told", lambda: (s := dmsrd.api("GET", "/jobs/k/status"))["streamer"]["error"] and s, 20)
                assert status["streamer"]["error"]["code"] == "kafka.unreachable" and kafka.bootstrap in status["streamer"]["error"]["message"]
                assert (status["state"], status["error"]) == ("running", None) and status["streamer"]["error"]["since"] > status["since"]
                assert 'dmsr_streamer_connected{job="k"} 0' in dmsrd.api("GET", "/metrics")
            for n in range(8):
                source.psql(f"UPDATE t SET v = repeat(md5(random()::text), 200) || '{n}'")
                time.sleep(1)
            assert rss_kib(dmsrd) < before + 40000
            assert source.one("SELECT active FROM pg_replication_slots WHERE database = current_database()"), "the slot is alive"
            assert dmsrd.state_of("k") == "running"
            back()
            dmsrd.wait_equal(source, target)
            wait_for("it is told no more", lambda: dmsrd.api("GET", "/jobs/k/status")["streamer"]["error"] is None)
            assert 'dmsr_streamer_connected{job="k"} 1' in dmsrd.api("GET", "/metrics")
        said = json.dumps(dmsrd.api("GET", "/jobs/k/events?limit=200")["items"])
        assert "no broker of" in said and "answer again" in said
        assert dmsrd.api("GET", "/jobs/k/status")["retries"]["total"] <= 40
        check_topics(kafka, source, {"t": ["id"]})
    finally:
        source.psql("ALTER SYSTEM RESET wal_sender_timeout; SELECT pg_reload_conf()")


# ---- a stream that is not what it was ----

def run_small(pg, kafka, daemon, **more):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    daemon.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, **more))
    daemon.wait_state("k", "running")
    for n in range(5):
        source.psql(f"UPDATE t SET v = 'n{n}' WHERE id <= {n * 10}")
    daemon.wait_equal(source, target)
    caught_up(daemon, "k", source)
    return source, target


def failed(daemon, *codes):
    error = daemon.wait_state("k", "failed", 60)["error"]
    assert error["code"] in codes, error
    return error


@pytest.mark.parametrize("how", ["running", "stopped", "killed"])
def test_a_topic_made_anew(pg, kafka, dmsrd, how):
    source, target = run_small(pg, kafka, dmsrd)
    stream = f"{kafka.prefix}.__stream"
    if how == "stopped":
        dmsrd.api("POST", "/jobs/k/stop")
        dmsrd.wait_state("k", "stopped")
    elif how == "killed":
        source.psql("UPDATE t SET v = 'just now'")  # the newest is acknowledged, and no second has passed
        caught_up(dmsrd, "k", source)
        dmsrd.kill()
    kafka.delete(stream)
    kafka.create(stream)
    source.psql("UPDATE t SET v = 'afterwards'")
    if how == "killed":
        dmsrd.start()
    elif how == "stopped":
        dmsrd.api("POST", "/jobs/k/start")
    failed(dmsrd, "kafka.stream-lost", "kafka.topic-changed")
    dmsrd.begin_anew("k", source, target)


def test_another_topic_as_long_as_the_old_one(pg, kafka, dmsrd):
    source, target = run_small(pg, kafka, dmsrd)
    stream = f"{kafka.prefix}.__stream"
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    records = read(kafka, stream)
    kafka.delete(stream)
    kafka.create(stream)
    producer = Producer(kafka.client())
    for r in [*records, records[-1]]:  # even the same records: they were written at another time
        producer.produce(stream, r.value(), headers=r.headers())
    producer.flush(30)
    dmsrd.api("POST", "/jobs/k/start")
    failed(dmsrd, "kafka.topic-changed")
    dmsrd.begin_anew("k", source, target)


def delete_records(kafka, topic, below, tmp_path):
    what = tmp_path / "offsets.json"
    what.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": below}]}))
    kafka.tool("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", str(what))


@contextlib.contextmanager
def consumer_of(kafka):
    consumer = Consumer({**kafka.client(), "group.id": "test", "enable.partition.eof": True})
    try:
        yield consumer
    finally:
        consumer.close()


def end_of(kafka, topic):
    with consumer_of(kafka) as consumer:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]


def read(kafka, topic):
    """The messages of a topic of one partition whose values are no text."""
    found = []
    with consumer_of(kafka) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while (m := consumer.poll(30)) and not m.error():
            found.append(m)
    assert m.error().code() == KafkaError._PARTITION_EOF  # pylint: disable=protected-access
    return found


def test_records_that_are_gone_before_they_were_read(pg, kafka, dmsrd, tmp_path):
    """The target waits for a lock while the broker throws away what it has not read."""
    source, target = run_small(pg, kafka, dmsrd)
    stream = f"{kafka.prefix}.__stream"
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        source.psql("UPDATE t SET v = 'unread'")
        caught_up(dmsrd, "k", source)
        dmsrd.kill()
        source.psql("UPDATE t SET v = 'unread too'")
        c.rollback()
    delete_records(kafka, stream, end_of(kafka, stream), tmp_path)
    dmsrd.start()
    failed(dmsrd, "kafka.retention")
    dmsrd.begin_anew("k", source, target)


def test_shapes_that_are_gone(pg, kafka, dmsrd):
    """A row whose table cannot be known is not passed over."""
    source, target = run_small(pg, kafka, dmsrd)
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        source.psql("UPDATE t SET v = 'unread'")
        caught_up(dmsrd, "k", source)
        dmsrd.kill()
        c.rollback()
    kafka.delete(f"{kafka.prefix}.__schemas")
    kafka.create(f"{kafka.prefix}.__schemas", cleanup_policy="compact")
    dmsrd.start()
    wait_for("it says so", lambda: error_code(dmsrd) == "kafka.schema-missing", 40)
    dmsrd.begin_anew("k", source, target)


def test_records_that_are_gone_after_they_were_read(pg, kafka, dmsrd, tmp_path):
    """An idle job outlives the retention: nothing is missing."""
    source, target = run_small(pg, kafka, dmsrd)
    stream = f"{kafka.prefix}.__stream"
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    delete_records(kafka, stream, end_of(kafka, stream), tmp_path)
    source.psql("UPDATE t SET v = 'goes on'")
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)
    delete_records(kafka, stream, end_of(kafka, stream), tmp_path)
    source.psql("UPDATE t SET v = 'and on'")
    dmsrd.wait_equal(source, target)


def test_somebody_else_writes_there(pg, kafka, dmsrd):
    run_small(pg, kafka, dmsrd)
    producer = Producer(kafka.client())
    producer.produce(f"{kafka.prefix}.__stream", b"hello")
    producer.flush(30)
    failed(dmsrd, "kafka.foreign")


def test_an_emptied_broker(pg, start_kafka, dmsrd):
    kafka = start_kafka()
    source, target = run_small(pg, kafka, dmsrd)
    kafka.empty()
    source.psql("UPDATE t SET v = 'lost?'")
    failed(dmsrd, "kafka.stream-lost", "kafka.topic-missing", "kafka.topic-changed", "kafka.cluster-changed")
    dmsrd.begin_anew("k", source, target)


# ---- sizes ----

def with_a_record_that_is_too_large(pg, kafka, daemon, who, **more):
    """Who says no: option record_bytes before it is sent, or the broker. The error, of a job that has written rows before and has others behind it."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL.replace("500", "50"))
    if who == "the broker":
        kafka.create(f"{kafka.prefix}.{'public.t' if more['layout'] == 'both' else '__stream'}", max_message_bytes=(16 + 100) * 1024)
    daemon.job("k", source.connection(), [target.connection(name="copy")],
               streamer=streamer(kafka, compression="none", record_bytes="16KiB" if who == "the option" else "900KiB", **more))
    daemon.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'before'; INSERT INTO t SELECT 1000, string_agg(md5(i::text), '') FROM generate_series(1, 5000) i; UPDATE t SET v = v || 'behind'")
    return source, target, failed(daemon, "kafka.record-too-large")


@pytest.mark.parametrize("who, more", [("the option", {"layout": "ordered"}), ("the option", {"layout": "both"}), ("the broker", {"layout": "ordered"}),
                                       ("the broker", {"layout": "both"}), ("the broker", {"layout": "ordered", "exactly_once": True})])
def test_a_record_that_is_too_large(pg, kafka, dmsrd, who, more):
    """The job fails at once, says which table, how big, what the limit is and what to do; and when that is done it goes on, with every row."""
    source, target, error = with_a_record_that_is_too_large(pg, kafka, dmsrd, who, **more)
    topic = f"{kafka.prefix}.public.t" if who == "the broker" and more["layout"] == "both" else f"{kafka.prefix}.__stream"
    size = int(re.search(r"a record of public\.t has (\d+) bytes", error["message"])[1])
    assert 160000 < size < 161000 and topic in error["message"] and not error["retriable"], error
    assert f"record_bytes allows {(16 if who == 'the option' else 900) * 1024}" in error["message"]
    assert "max.message.bytes" in error["suggestion"] and ("codec native" in error["suggestion"]) == (more["layout"] == "ordered"), error
    assert who == "the option" or f"{(900 + 64) * 1024}" in error["suggestion"]
    if who == "the broker":
        kafka.configure(topic, max_message_bytes=(900 + 64) * 1024)
    else:
        dmsrd.api("PATCH", "/jobs/k", {"streamer": {"record_bytes": 200000}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)


def test_a_row_in_many_parts(pg, kafka, dmsrd):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    source.psql("INSERT INTO t SELECT 1000, string_agg(md5(i::text), '') FROM generate_series(1, 100000) i")
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, codec="native", record_bytes="10KiB"))
    dmsrd.wait_state("k", "running")
    source.psql("INSERT INTO t SELECT 1001, string_agg(md5((-i)::text), '') FROM generate_series(1, 100000) i")
    dmsrd.wait_equal(source, target)
    parts = [dict(m.headers()).get("dmsr-part") for m in read(kafka, f"{kafka.prefix}.__stream")]
    assert sum(p is not None for p in parts) > 600


# ---- targets come, go and stand still ----

def test_a_late_target_and_two_of_their_own_pace(pg, kafka, dmsrd):
    source, target = run_small(pg, kafka, dmsrd)
    late = pg.database("k_late")
    dmsrd.api("PATCH", "/jobs/k", {"targets": [target.connection(name="copy"), late.connection(name="late")]}, {"If-Match": "*"})
    source.psql("DELETE FROM t WHERE id % 5 = 0")
    dmsrd.wait_equal(source, late)
    dmsrd.wait_equal(source, target)
    with contextlib.closing(late.server.connect(late.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        source.psql("UPDATE t SET v = 'for one at first'")
        dmsrd.wait_equal(source, target)
        c.rollback()
    dmsrd.wait_equal(source, late)


def test_stopped_paused_begun_anew_and_deleted(pg, kafka, dmsrd):
    source, target = run_small(pg, kafka, dmsrd)
    for away, state, back in (("pause", "paused", "resume"), ("stop", "stopped", "start")):
        dmsrd.api("POST", f"/jobs/k/{away}")
        dmsrd.wait_state("k", state)
        source.psql(f"UPDATE t SET v = '{away}' WHERE id % 2 = 0")
        dmsrd.api("POST", f"/jobs/k/{back}")
        dmsrd.wait_state("k", "running")
        dmsrd.wait_equal(source, target)
    end = end_of(kafka, f"{kafka.prefix}.__stream")
    dmsrd.begin_anew("k", source, target)
    assert end_of(kafka, f"{kafka.prefix}.__stream") > end
    source.psql("UPDATE t SET v = 'behind the old ones'")
    dmsrd.wait_equal(source, target)
    dmsrd.api("DELETE", "/jobs/k")
    wait_for("the job is gone", lambda: dmsrd.call("GET", "/jobs/k")[0] == 404)
    assert not [t for t in os.listdir(f"/proc/{dmsrd.process.pid}/task") if "rdk" in thread_name(dmsrd, t)] or \
        wait_for("librdkafka's threads are gone", lambda: not [t for t in os.listdir(f"/proc/{dmsrd.process.pid}/task") if "rdk" in thread_name(dmsrd, t)])


def thread_name(daemon, thread):
    try:
        return pathlib.Path(f"/proc/{daemon.process.pid}/task/{thread}/comm").read_text()
    except OSError:
        return ""


# ---- kills ----

class Kills:
    """A job under writes, and what may be killed under it."""

    def __init__(self, daemon, kafka, source_server, target_server, options, seed, apply="strict"):
        self.daemon, self.kafka, self.random, self.options = daemon, kafka, random.Random(seed), options
        self.server = source_server
        self.source, self.target = source_server.database("k"), target_server.database("k_copy")
        self.source.psql(TABLES)
        daemon.start()
        daemon.job("k", self.source.connection(), [self.target.connection(name="copy", apply=apply)], streamer=streamer(kafka, **options))
        self.load = Load(source_server, self.source, seed=seed)

    def daemon_dies(self, failpoint=None):
        self.daemon.kill()
        self.daemon.start(env={"DMSR_FAILPOINT": failpoint} if failpoint else None, wait=not failpoint)
        if failpoint:
            with contextlib.suppress(AssertionError):
                wait_for("killed", lambda: self.daemon.process.poll() is not None, 3, 0.01)
            self.daemon.kill()
            self.daemon.start()

    def end(self):
        self.load.stop()
        self.daemon.wait_state("k", "running")
        self.daemon.wait_equal(self.source, self.target)
        caught_up(self.daemon, "k", self.source)
        if self.options["layout"] == "both" and "load" not in self.options:  # else the topics have no rows of the load: they are no table
            check_topics(self.kafka, self.source, KEYS, ["keyless"])


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("layout", ["native", "both"])
def test_killed_again_and_again(pg, kafka, daemon, layout, apply):
    kills = Kills(daemon, kafka, pg, pg, LAYOUTS[layout], len(layout), apply)
    try:
        for n in range(12):
            time.sleep(kills.random.choice([0.02, 0.1, 0.3, 0.6]))
            kills.daemon_dies(f"kafka.{['between-parts', 'sent', 'acknowledged'][n % 3]}:{kills.random.randrange(1, 20)}:kill" if n % 2 else None)
    finally:
        kills.load.stop()
    kills.end()


def test_no_row_stands_in_a_topic_without_its_shape(pg, kafka, daemon):
    """Whoever reads would wait for it: the target with the transaction of a load that is cut off, which the source's next snapshot may wait for in turn."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    daemon.start(env={"DMSR_FAILPOINT": "kafka.shape-acknowledged:1:kill"})
    daemon.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, layout="both"))
    wait_for("killed", lambda: daemon.process.poll() is not None)
    with consumer_of(kafka) as consumer:
        there = consumer.list_topics(timeout=60).topics
    assert f"{kafka.prefix}.__stream" in there  # the table's may not have been made yet
    for topic in {f"{kafka.prefix}.{name}" for name in ("__stream", "public.t")} & set(there):
        assert not [m for m in read(kafka, topic) if "dmsr-schema" in dict(m.headers())]
    daemon.start()
    daemon.wait_equal(source, target)


def test_a_big_load_that_the_target_has_is_passed_over(pg, kafka, daemon):
    """It was killed between the target's commit and the note of how far it had read: all of the load's rows come again, more than one batch of them."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 10000) i")
    daemon.start(env={"DMSR_FAILPOINT": "target.load-after-commit:1:kill"})
    with contextlib.suppress(OSError):
        daemon.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, layout="both"))
    wait_for("killed", lambda: daemon.process.poll() is not None)
    assert target.one("SELECT count(*) FROM t") == 10000
    source.psql("INSERT INTO t VALUES (100001, 'late')")
    daemon.start()
    daemon.wait_equal(source, target)
    daemon.wait_state("k", "running")


@pytest.mark.parametrize("codec", ["native", "json"])
def test_a_load_in_parts_that_is_whole_in_the_stream_alone(pg, kafka, dmsrd, codec):
    """The target had made the table, and was killed before it had a row: all of the load comes from the broker again, the source reads nothing again."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 8000) i; ANALYZE t")
    target.psql("CREATE TABLE t (id int PRIMARY KEY, v text);"
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END';"
                "CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait(); ALTER TABLE t ENABLE ALWAYS TRIGGER wait")
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.cursor().execute("SELECT pg_advisory_lock(1)")  # a lock of the table would keep it from being begun
        dmsrd.job("k", {**source.connection(), "load_part_bytes": "512KiB"}, [target.connection(name="copy")], streamer=streamer(kafka, codec=codec, layout="ordered"))
        wait_for("the source has read all", lambda: "table public.t read" in dmsrd.log(), 60)
        wait_for("it is in the stream", lambda: dmsrd.api("GET", "/jobs/k/tables")["items"][0]["state"] in ("loaded", "streaming"), 60)
        begun = "SELECT rows FROM dmsr.loads WHERE position IS NULL"
        wait_for("the target has begun it", lambda: target.sql(begun))
        assert target.sql(begun) == [(-1,)]
        time.sleep(1)
        dmsrd.kill()
    dmsrd.start()
    source.psql("INSERT INTO t VALUES (100001, 'late')")
    dmsrd.wait_equal(source, target)
    assert dmsrd.log().count("table public.t read") == 1


def test_everything_killed_in_turn(pg, start_kafka, daemon):
    kafka, other = start_kafka(), Postgres(settings=["fsync=on"])
    kills = Kills(daemon, kafka, pg, other, LAYOUTS["both"], seed=7)
    try:
        for victim in ("daemon", "broker", "target", "daemon and broker", "broker", "target", "daemon"):
            time.sleep(kills.random.choice([0.1, 0.5, 1]))
            if victim == "daemon and broker":
                kafka.kill()
                kills.daemon_dies()
                kafka.start()
            elif victim == "broker":
                kafka.kill()
                kafka.start()
            elif victim == "target":
                other.restart("immediate")
            else:
                kills.daemon_dies()
        kills.end()
    finally:
        kills.load.stopping.set()
        daemon.kill()
        other.close()


def test_a_transaction_that_ends_where_the_server_was_idle(pg, kafka, dmsrd):
    """Its commit stands at the very position that a keepalive has moved the stream to: it is whole all the same."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    options = {"commit_rows": 1, "session_replication_role": "off"}
    dmsrd.job("k", source.connection(), [target.connection(name="copy", **options)], streamer=streamer(kafka))
    dmsrd.wait_state("k", "running")
    for i in range(3):
        with contextlib.closing(source.server.connect(source.name)) as c:
            c.autocommit = False
            c.cursor().execute(f"INSERT INTO child VALUES ({i}, {i}); INSERT INTO parent VALUES ({i})")
            time.sleep(2.5)  # a heartbeat, behind all that is written so far
            c.commit()
    dmsrd.wait_equal(source, target)
    assert dmsrd.api("GET", "/jobs/k/status")["retries"]["total"] == 0


def test_a_job_keeps_its_stream(pg, kafka, dmsrd):
    """What the targets have not applied is in it, and nowhere else."""
    source, target = run_small(pg, kafka, dmsrd)
    caught_up(dmsrd, "k", source)
    dmsrd.api("POST", "/jobs/k/stop")
    dmsrd.wait_state("k", "stopped")
    for key, value in (("type", "embedded"), ("prefix", "other"), ("layout", "both"), ("codec", "native")):
        with pytest.raises(ApiError) as refused:
            other = {"type": "embedded"} if key == "type" else {**streamer(kafka), key: value}
            dmsrd.api("PUT", "/jobs/k", {"name": "k", "mode": "full-load-and-cdc", "source": source.connection(), "targets": [target.connection(name="copy")],
                                         "streamer": other}, {"If-Match": "*"})
        assert refused.value.status == 422 and f"/streamer/{key}" in [e["pointer"] for e in refused.value.body["errors"]]
        assert "/jobs/k/positions" in str(refused.value.body)
    # without its target it writes on, and the target that comes back misses nothing
    dmsrd.api("PATCH", "/jobs/k", {"targets": []}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/k/start")
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'meanwhile' WHERE id < 100; DELETE FROM t WHERE id > 400")
    caught_up(dmsrd, "k", source)
    dmsrd.api("PATCH", "/jobs/k", {"targets": [target.connection(name="copy")]}, {"If-Match": "*"})
    dmsrd.wait_equal(source, target)


def test_a_load_that_was_cut_off_holds_nobody_up(pg, kafka, dmsrd):
    """Source and target on one server: the target's open transaction, of a load whose end will never come, would keep the source from its snapshot."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i")
    dmsrd.stop()
    dmsrd.start(env={"DMSR_FAILPOINT": "kafka.acknowledged:6:kill"})
    with Proxy(pg.port) as line:
        with contextlib.suppress(OSError):
            # 10 MB of which at most one is under way: that many are acknowledged in no less than ten times
            dmsrd.job("k", source.connection(port=line.port), [target.connection(name="copy")], streamer=streamer(kafka, codec="native", memory="1MiB", compression="none"))
        dmsrd.process.wait(60)

        def sessions(what="true"):
            return target.one(f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'dmsr' AND {what}")
        held = 0

        def holds_on():
            nonlocal held
            held = held + 1 if sessions("backend_xid IS NOT NULL") else 0
            return held > 20
        wait_for("the dead one's sessions are gone", lambda: not sessions())
        # what is in the topic comes to the target before anything can come to the source; whoever holds on to it after some seconds, does for ever
        line.is_stuck.set()
        dmsrd.start()
        with contextlib.suppress(AssertionError):
            wait_for("a transaction that stays open", holds_on, 6)
        line.is_stuck.clear()
        dmsrd.wait_state("k", "running")
        dmsrd.wait_equal(source, target)
