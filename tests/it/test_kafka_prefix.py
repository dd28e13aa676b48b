"""Two jobs with one prefix: their records stand in the same topics. Whoever would take part in that is refused, or fails loudly; and no row is lost."""
import contextlib
import json
import sqlite3
import struct
import time

import pytest

from conftest import ApiError, Dmsrd, wait_for
from test_kafka import LAYOUTS, end_of, streamer

pytestmark = pytest.mark.spread

BOTH = {name: LAYOUTS[name] for name in ("native", "ordered", "both")}
TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 50) i"


@pytest.fixture
def other(tmp_path):
    """A daemon of its own."""
    daemon = Dmsrd(tmp_path / "other")
    yield daemon
    daemon.kill()


def databases(pg, name):
    source, target = pg.database(name), pg.database(f"{name}_copy")
    source.psql(TABLE)
    return source, target


def make(daemon, kafka, name, source, targets=(), **how):
    daemon.job(name, source.connection(), [t.connection(name=t.name) for t in targets], streamer=streamer(kafka, **how))


def error_of(daemon, name):
    return daemon.api("GET", f"/jobs/{name}").get("error") or {}


def uid_of(daemon, name):
    return daemon.api("GET", f"/jobs/{name}")["uid"]


def warnings(daemon, name):
    return " ".join(w["message"] for w in daemon.api("GET", f"/jobs/{name}/status")["warnings"])


def start(daemon, name):
    daemon.api("POST", f"/jobs/{name}/start")


def stop(daemon, name):
    daemon.api("POST", f"/jobs/{name}/stop")
    daemon.wait_state(name, ("stopped", "failed"))


def refused(call, *more):
    """It is a conflict at the prefix, which names the job that has it, and says what to do."""
    with pytest.raises(ApiError) as e:
        call()
    assert e.value.status == 409 and e.value.body["code"] == "job.conflict", e.value.body
    [one] = e.value.body["errors"]
    assert one["pointer"] == "/streamer/prefix" and one["code"] == "conflict", one
    assert all(word in one["detail"] for word in more), one
    return e.value.body


# ---- of one daemon ----

@pytest.mark.parametrize("layout", [*BOTH, "table"])
def test_two_jobs_of_one_daemon(pg, kafka, dmsrd, layout):
    how = BOTH.get(layout, {"layout": "table"})
    source, target = databases(pg, "a")
    make(dmsrd, kafka, "a", source, [target] if layout in BOTH else [], **how)
    spec = {"name": "b", "source": source.connection(slot="b", publication="b"), "targets": [], "streamer": streamer(kafka, **how)}
    told = refused(lambda: dmsrd.api("POST", "/jobs", spec), "job a", "prefix of its own", '"connector": "kafka"')
    assert "a" in told["detail"], told
    refused(lambda: dmsrd.api("PUT", "/jobs/b", spec), "job a")
    refused(lambda: dmsrd.api("POST", "/jobs?dry_run=true", spec), "job a")
    assert [e["pointer"] for e in dmsrd.api("POST", "/jobs/validate", spec)["errors"]] == ["/streamer/prefix"]
    assert dmsrd.call("GET", "/jobs/b")[0] == 404
    # one that was stopped has it still; one that is gone has not
    stop(dmsrd, "a")
    refused(lambda: dmsrd.api("POST", "/jobs", spec), "job a")
    dmsrd.api("DELETE", "/jobs/a")
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/a")[0] == 404)
    assert dmsrd.call("POST", "/jobs", spec)[0] == 201


def test_ways_to_one_name(pg, kafka, dmsrd):
    """The prefix of a job that gives none is its name; what Kafka does not allow in a topic's name is written otherwise; and brokers have several addresses."""
    source = pg.database("a")
    source.psql(TABLE)
    name = kafka.prefix
    dmsrd.api("POST", "/jobs", {"name": name, "desired_state": "stopped", "source": source.connection(slot="a"), "targets": [],
                                "streamer": {"type": "kafka", "bootstrap_servers": kafka.bootstrap}})
    b = {"name": "b", "desired_state": "stopped", "source": source.connection(slot="b"), "targets": [], "streamer": streamer(kafka)}
    refused(lambda: dmsrd.api("POST", "/jobs", b), f"job {name}")
    elsewhere = {**b, "streamer": {**b["streamer"], "bootstrap_servers": f"localhost:{kafka.port}"}}
    refused(lambda: dmsrd.api("POST", "/jobs", elsewhere), f"job {name}")
    b["streamer"]["prefix"] = f"{name}-ü"
    dmsrd.api("POST", "/jobs", b)
    c = {**b, "name": "c", "streamer": {**b["streamer"], "prefix": f"{name}-_xC3_xBC"}}
    refused(lambda: dmsrd.api("POST", "/jobs", c), "job b")
    # a change is looked at as a new job is, and one may keep what it has
    c["streamer"] = {**b["streamer"], "prefix": f"{name}-c"}
    dmsrd.api("POST", "/jobs", c)
    any_one = {"If-Match": "*"}
    refused(lambda: dmsrd.api("PATCH", "/jobs/c", {"streamer": {"prefix": name}}, any_one), f"job {name}")
    refused(lambda: dmsrd.api("PUT", "/jobs/c", {**c, "streamer": streamer(kafka)}, any_one), f"job {name}")
    dmsrd.api("PATCH", "/jobs/c", {"streamer": {"linger": "5ms"}}, any_one)
    # what another has let go is free
    dmsrd.api("PATCH", "/jobs/b", {"streamer": {"prefix": f"{name}-b"}}, any_one)
    dmsrd.api("PATCH", "/jobs/c", {"streamer": {"prefix": f"{name}-ü"}}, any_one)


def test_jobs_that_are_files(pg, kafka, daemon):
    source = pg.database("a")
    source.psql(TABLE)
    jobs = daemon.dir / "jobs.d"
    jobs.mkdir()
    for name in "ab":
        spec = {"name": name, "source": source.connection(slot=name, publication=name), "targets": [], "streamer": streamer(kafka, layout="table")}
        (jobs / f"{name}.json").write_text(json.dumps(spec))
    daemon.start()
    daemon.wait_state("a", "running")
    assert daemon.call("GET", "/jobs/b")[0] == 404
    assert "/streamer/prefix" in daemon.log() and "job a" in daemon.log(), daemon.log()


def sum_of(table, columns):
    """Of a row of the state store, as src/engine/store_db.c has it."""
    def hashed(data, seed):
        h = 0xcbf29ce484222325 ^ seed
        for byte in data:
            h = (h ^ byte) * 0x100000001b3 % 2**64
        for factor in (0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53):
            h = (h ^ h >> 33) * factor % 2**64
        return h ^ h >> 33
    total = hashed(table.encode(), 0)
    for column in columns:
        kind = 0 if column is None else 1 if isinstance(column, int) else 2
        data = column.encode() if kind == 2 else b""
        total = hashed(struct.pack(">QQ", kind, column % 2**64 if kind == 1 else len(data)), total)
        total = hashed(data, total) if kind == 2 else total
    return total - 2**64 if total >= 2**63 else total


def test_jobs_of_an_older_build(pg, kafka, daemon):
    """The store has two: the daemon starts, and the one that was made later says what is wrong, until it is changed."""
    source, target = databases(pg, "a")
    theirs, copy = databases(pg, "b")
    daemon.start()
    make(daemon, kafka, "a", source, [target], layout="ordered")
    daemon.job("b", theirs.connection(), [copy.connection(name=copy.name)], streamer={**streamer(kafka, layout="ordered"), "prefix": f"{kafka.prefix}-b"},
               desired_state="stopped")
    daemon.wait_equal(source, target)
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.state / "state.db")) as db, db:
        row = list(db.execute("SELECT * FROM job WHERE name = 'b'").fetchone()[:-1])
        row[2], row[4] = row[2].replace(f"{kafka.prefix}-b", kafka.prefix), "running"
        db.execute("UPDATE job SET spec = ?, desired_state = ?, sum = ? WHERE name = 'b'", (row[2], row[4], sum_of("job", row)))
    daemon.start()
    daemon.wait_state("b", "failed")
    error = error_of(daemon, "b")
    assert error["code"] == "job.conflict" and "/streamer/prefix" in error["message"] and "job a" in error["message"], error
    daemon.wait_state("a", "running")
    refused(lambda: start(daemon, "b"), "job a")
    stop(daemon, "a")
    start(daemon, "a")  # the older one has the right to it
    daemon.api("PATCH", "/jobs/b", {"streamer": {"prefix": f"{kafka.prefix}-c"}}, {"If-Match": "*"})
    start(daemon, "b")
    daemon.wait_equal(theirs, copy)
    source.psql("UPDATE t SET v = 'still'")
    daemon.wait_equal(source, target)


# ---- of two ----

@pytest.mark.parametrize("layout", BOTH)
def test_two_daemons(pg, kafka, dmsrd, other, layout):
    """The one that was there before is sent what it cannot have written: it says whose that is, and goes on with its own when that is over."""
    source, target = databases(pg, "a")
    make(dmsrd, kafka, "a", source, [target], **BOTH[layout])
    dmsrd.wait_equal(source, target)
    theirs, copy = databases(pg, "b")
    other.start()
    make(other, kafka, "b", theirs, [copy], **BOTH[layout])
    wait_for("the first says so", lambda: error_of(dmsrd, "a").get("code") == "kafka.foreign")
    error = error_of(dmsrd, "a")
    assert f"{kafka.prefix}.__stream" in error["message"] and uid_of(other, "b")[-8:] in error["message"], error
    assert "prefix" in error["suggestion"], error
    assert dmsrd.state_of("a") == "failed"
    # the new one has begun behind it, and says so
    other.wait_equal(theirs, copy)
    wait_for("the new one says so", lambda: uid_of(dmsrd, "a")[-8:] in warnings(other, "b"))
    # when it is gone, the first goes on
    other.api("DELETE", "/jobs/b")
    wait_for("it is gone", lambda: other.call("GET", "/jobs/b")[0] == 404)
    source.psql("UPDATE t SET v = 'after' WHERE id <= 50")
    start(dmsrd, "a")
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    source.psql("UPDATE t SET v = 'and after that'")
    dmsrd.wait_equal(source, target)


def test_both_go_on(pg, kafka, dmsrd, other):
    """Whoever starts a job once more in spite of what it said loses nothing either: each passes over what the other writes, and not over its own."""
    source, target = databases(pg, "a")
    theirs, copy = databases(pg, "b")
    make(dmsrd, kafka, "a", source, [target], layout="ordered")
    dmsrd.wait_equal(source, target)
    other.start()
    make(other, kafka, "b", theirs, [copy], layout="ordered")
    wait_for("the first says so", lambda: error_of(dmsrd, "a").get("code") == "kafka.foreign")
    other.wait_equal(theirs, copy)
    failures, deadline = {"a": 0, "b": 0}, time.monotonic() + 60
    for n in range(4):
        for daemon, name, database in ((dmsrd, "a", source), (other, "b", theirs)):
            database.psql(f"UPDATE t SET v = '{name}{n}'")
            failures[name] += daemon.state_of(name) == "failed"
            if daemon.state_of(name) == "failed":
                start(daemon, name)
            time.sleep(1)
    for daemon, name, database, to in ((dmsrd, "a", source, target), (other, "b", theirs, copy)):
        while not is_same(database, to):
            assert time.monotonic() < deadline, (daemon.state_of(name), error_of(daemon, name))
            if daemon.state_of(name) == "failed":
                start(daemon, name)
            time.sleep(0.5)
    assert failures["a"] and failures["b"], failures


def is_same(a, b):
    return a.sql("SELECT * FROM t ORDER BY id") == b.sql("SELECT * FROM t ORDER BY id")


@pytest.mark.parametrize("how", [{"layout": "table"}, {"layout": "ordered"}, {"layout": "both", "exactly_once": True}], ids=lambda h: "-".join(map(str, h.values())))
def test_nobody_reads(pg, kafka, dmsrd, other, how):
    """Without targets a job sees no record: at its start it looks whose the newest are."""
    source, _ = databases(pg, "a")
    theirs, _ = databases(pg, "b")
    make(dmsrd, kafka, "a", source, **how)
    dmsrd.wait_state("a", "running")
    stop(dmsrd, "a")
    other.start()
    make(other, kafka, "b", theirs, **how)
    other.wait_state("b", "running")
    wait_for("the new one says so", lambda: uid_of(dmsrd, "a")[-8:] in warnings(other, "b"))
    stop(other, "b")
    source.psql("UPDATE t SET v = 'while it was stopped'")
    topic = f"{kafka.prefix}.__stream" if how["layout"] == "ordered" else f"{kafka.prefix}.public.t"
    before = end_of(kafka, topic)
    start(dmsrd, "a")
    dmsrd.wait_state("a", "failed")
    error = error_of(dmsrd, "a")
    assert error["code"] == "kafka.foreign" and uid_of(other, "b")[-8:] in error["message"] and "prefix" in error["suggestion"], error
    assert end_of(kafka, topic) == before
    start(dmsrd, "a")
    wait_for("it goes on", lambda: end_of(kafka, topic) > before)
    start(other, "b")
    other.wait_state("b", "failed")
    assert error_of(other, "b")["code"] == "kafka.foreign"


def test_made_anew(pg, kafka, dmsrd):
    """A job that was deleted leaves its topics. The next of its name is another job: it begins behind what is there, and says so."""
    source, target = databases(pg, "a")
    make(dmsrd, kafka, "a", source, [target], layout="both")
    dmsrd.wait_equal(source, target)
    old = uid_of(dmsrd, "a")
    dmsrd.api("DELETE", "/jobs/a")
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/a")[0] == 404)
    source.psql("UPDATE t SET v = 'between'")
    target.psql("DROP TABLE t")
    make(dmsrd, kafka, "a", source, [target], layout="both")
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    assert old[-8:] in warnings(dmsrd, "a"), warnings(dmsrd, "a")
    # that is said once: a later start has records of its own
    stop(dmsrd, "a")
    source.psql("UPDATE t SET v = 'later'")
    start(dmsrd, "a")
    dmsrd.wait_equal(source, target)
    assert old[-8:] not in warnings(dmsrd, "a"), warnings(dmsrd, "a")


# ---- who reads another job's stream ----

def read(daemon, kafka, target, name="r", **more):
    daemon.job(name, {"connector": "kafka", "bootstrap_servers": kafka.bootstrap, "prefix": kafka.prefix}, [target.connection(name=target.name)], **more)


def test_a_reader_sees_that_another_writes(pg, kafka, dmsrd, other):
    """The writer was deleted and made anew: what changed between the two is nobody's to tell, so a reader does not go on as if nothing had been."""
    source, target = databases(pg, "a")
    make(dmsrd, kafka, "a", source, layout="ordered")
    other.start()
    read(other, kafka, target)
    other.wait_equal(source, target)
    dmsrd.api("DELETE", "/jobs/a")
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/a")[0] == 404)
    source.psql("UPDATE t SET v = 'in between'")
    make(dmsrd, kafka, "a", source, layout="ordered")
    wait_for("the reader says so", lambda: error_of(other, "r").get("code") == "kafka.foreign")
    error = error_of(other, "r")
    assert uid_of(dmsrd, "a")[-8:] in error["message"], error
    other.begin_anew("r", source, target)
    source.psql("UPDATE t SET v = 'after'")
    other.wait_equal(source, target)


def test_a_reader_of_one_of_two(pg, kafka, dmsrd, other):
    """Somebody writes between what it reads, and goes again: it goes on."""
    source, target = databases(pg, "a")
    theirs, _ = databases(pg, "b")
    make(dmsrd, kafka, "a", source, layout="ordered")
    read(dmsrd, kafka, target)
    dmsrd.wait_equal(source, target)
    other.start()
    make(other, kafka, "b", theirs, layout="ordered")
    wait_for("the reader says so", lambda: error_of(dmsrd, "r").get("code") == "kafka.foreign")
    other.api("DELETE", "/jobs/b")
    source.psql("UPDATE t SET v = 'after'")
    start(dmsrd, "r")
    dmsrd.wait_equal(source, target)
