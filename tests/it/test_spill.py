"""The spill log of the embedded streamer, on real servers: killed while it is full, and forgotten with the positions."""
import contextlib

import pytest

from conftest import Dmsrd, wait_for

TABLE = "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i"
STREAMER = {"type": "embedded", "memory": "12MiB"}  # more than a target takes at once


@pytest.fixture
def pair(pg):
    source, target = pg.database("spill"), pg.database("spill_copy")
    source.psql(TABLE)
    return pg, source, target


@pytest.fixture
def dmsrd(tmp_path):
    daemon = Dmsrd(tmp_path / "dmsrd", options=["-o", "drain_timeout=1s"]).start()
    yield daemon
    daemon.kill()


@contextlib.contextmanager
def locked(server, database):
    c = server.connect(database.name)
    try:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        yield
        c.rollback()
    finally:
        c.close()


def log_bytes(daemon):
    return daemon.api("GET", "/jobs/f/status")["streamer"]["log_bytes"]


def overflow(daemon, source):
    for _ in range(20):
        source.psql("UPDATE t SET v = md5(random()::text) || repeat('w', 2000)")
    wait_for("batches are in the log", lambda: log_bytes(daemon) > 0)


def start(daemon, source, target, **more):
    daemon.job("f", source.connection(), [target.connection(name="copy", **more)], streamer=STREAMER)
    daemon.wait_state("f", "running")
    daemon.wait_equal(source, target)


def test_killed_with_a_full_log(pair, dmsrd):
    server, source, target = pair
    start(dmsrd, source, target)
    with locked(server, target):
        overflow(dmsrd, source)
        dmsrd.kill()
        source.psql("UPDATE t SET v = 'late' WHERE id % 3 = 0; INSERT INTO t SELECT i, 'new' FROM generate_series(2000, 2100) i; DELETE FROM t WHERE id < 50")
        dmsrd.start()
        dmsrd.kill()
        dmsrd.start()
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)
    wait_for("the log is empty", lambda: log_bytes(dmsrd) == 0)


NARROW = ("CREATE TABLE t (id integer PRIMARY KEY, a integer, b integer, c integer, d integer, e integer, f integer, g integer); "
          "INSERT INTO t SELECT i, 1, 2, 3, 4, 5, 6, 7 FROM generate_series(1, 20000) i")
BATCH = (1 << 20) + (1 << 17)  # four times batch_bytes, what many small values take, and a chunk


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("rows", [20, 20000])
def test_a_blocked_target_holds_no_more_than_the_cap(pg, dmsrd, apply, rows):
    """Small transactions, or ones that are bigger than the memory, of small values, which take several times the room of their bytes."""
    source, target = pg.database("spill"), pg.database("spill_copy")
    source.psql(NARROW)
    start(dmsrd, source, target, apply=apply)
    seen = []

    def streamer():
        seen.append(dmsrd.api("GET", "/jobs/f/status")["streamer"])
        return seen[-1]

    def is_read():
        streamer()
        return sum(t["captured"]["update"] for t in dmsrd.api("GET", "/jobs/f/tables")["items"]) == 4 * 20000

    with locked(pg, target):
        for _ in range(4):
            source.psql(f"DO $$ BEGIN FOR i IN 0..{20000 // rows - 1} LOOP "
                        f"UPDATE t SET a = a + 1, b = a WHERE id > i * {rows} AND id <= (i + 1) * {rows}; COMMIT; END LOOP; END $$")
            streamer()
        wait_for("all changes are read", is_read, 60)
        assert seen[-1]["log_bytes"] > 0
    wait_for("all is applied", lambda: streamer()["batches"] == 0, 60, 0.01)
    dmsrd.wait_equal(source, target)
    most = max(s["memory_bytes"] for s in seen)
    assert most <= (12 << 20) + 3 * BATCH, f"{most >> 20} MiB"


def test_forgotten_positions_take_the_log_with_them(pair, dmsrd):
    """What waits in it was for the rows of the load before: nobody may get it, least of all before the new load."""
    server, source, target = pair
    start(dmsrd, source, target)
    with locked(server, target):
        overflow(dmsrd, source)
        dmsrd.api("POST", "/jobs/f/stop")
        dmsrd.wait_state("f", "stopped")
    target.psql("DROP TABLE t")
    dmsrd.api("DELETE", "/jobs/f/positions")
    dmsrd.api("POST", "/jobs/f/start")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)
    assert log_bytes(dmsrd) == 0


def test_a_log_that_is_damaged_is_left_as_the_hint_says(pair, dmsrd):
    server, source, target = pair
    start(dmsrd, source, target)
    with locked(server, target):
        overflow(dmsrd, source)
        dmsrd.kill()
    segments = [p for p in dmsrd.state.rglob("*") if p.is_file() and "log" in str(p.relative_to(dmsrd.state)) and p.stat().st_size > 1 << 16]
    assert segments
    for p in segments:
        data = bytearray(p.read_bytes())
        for at in range(4096, len(data), 4096):  # in every entry
            data[at] ^= 0xff
        p.write_bytes(data)
    dmsrd.start()
    dmsrd.wait_state("f", "failed")
    error = dmsrd.api("GET", "/jobs/f")["error"]
    source.sql("DELETE FROM t WHERE id % 5 = 0")
    dmsrd.follow(error["suggestion"], "f")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)
