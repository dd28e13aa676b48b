"""What goes wrong in a life: slots that go, servers that change, lines that are cut, disks that are full, rows that a target refuses, schemas that move."""
import contextlib
import datetime
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time

import pytest

from conftest import Dmsrd, Postgres, differences, wait_for
from proxy import Proxy

@contextlib.contextmanager
def locked(server, database, table="t"):
    """Nobody else may touch the table meanwhile."""
    c = server.connect(database.name)
    try:
        c.autocommit = False
        c.cursor().execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        c.rollback()
    finally:
        c.close()


SIMPLE = "CREATE TABLE t (id integer PRIMARY KEY, v text, n integer NOT NULL DEFAULT 0); INSERT INTO t SELECT i, 'v' || i, i FROM generate_series(1, 1000) i;"


@pytest.fixture
def pair(any_pg):
    source, target = any_pg.database("f"), any_pg.database("f_copy")
    source.psql(SIMPLE)
    return any_pg, source, target


def running(dmsrd, source, target, **more):
    dmsrd.job("f", source.connection(), [target.connection(name="copy", **more)])
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)


def slot_of(source):
    return source.one("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")


def failed(dmsrd, code, name="f"):
    job = dmsrd.wait_state(name, "failed")
    assert job["error"]["code"] == code, job["error"]
    assert job["error"]["suggestion"], "no word about what to do"
    return job["error"]


def failed_till_anew(dmsrd, source, target, *codes):
    """What the suggestion says is what helps."""
    error = dmsrd.wait_state("f", "failed")["error"]
    assert error["code"] in codes and "stop the job, DELETE /jobs/f/positions, start it" in error["suggestion"], error
    dmsrd.begin_anew("f", source, target)


# ---- the slot and the server ----

def test_slot_dropped(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    source.sql("SELECT pg_drop_replication_slot(%s)", slot_of(source))
    dmsrd.api("POST", "/jobs/f/start")
    source.psql("UPDATE t SET v = 'lost' WHERE id = 1")
    failed_till_anew(dmsrd, source, target, "slot.lost")


def test_slot_recreated(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    name = slot_of(source)
    source.sql("SELECT pg_drop_replication_slot(%s)", name)
    source.psql("UPDATE t SET v = 'lost' WHERE id = 1")
    source.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    dmsrd.api("POST", "/jobs/f/start")
    failed_till_anew(dmsrd, source, target, "slot.lost", "position.behind-slot")


def test_slot_advanced_by_somebody(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    source.psql("UPDATE t SET v = 'lost' WHERE id = 1")
    source.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", slot_of(source))
    dmsrd.api("POST", "/jobs/f/start")
    failed_till_anew(dmsrd, source, target, "position.behind-slot")


def test_publication_dropped(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    source.psql(f"DROP PUBLICATION {source.one('SELECT pubname FROM pg_publication')}; UPDATE t SET v = 'lost' WHERE id = 1")
    dmsrd.api("POST", "/jobs/f/start")
    failed_till_anew(dmsrd, source, target, "publication.lost")


def test_slot_in_use_is_waited_for(pair, dmsrd):
    server, source, target = pair
    running(dmsrd, source, target)
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    recvlogical = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pg_recvlogical"))[-1]
    reader = subprocess.Popen([recvlogical, "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", source.name, "-S", slot_of(source), "--start", "-f", "/dev/null",
                               "-o", "proto_version=1", "-o", "publication_names=" + source.one("SELECT pubname FROM pg_publication"), "-s", "1", "-F", "0"], stderr=subprocess.DEVNULL)
    try:
        wait_for("taken", lambda: source.one("SELECT active FROM pg_replication_slots WHERE database = current_database()"))
        dmsrd.api("POST", "/jobs/f/start")
        job = dmsrd.wait_state("f", "retrying")
        assert job["error"]["code"] == "slot.in-use"
    finally:
        reader.kill()
        reader.wait()
    source.psql("UPDATE t SET v = 'after' WHERE id < 10")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)


def test_another_server_under_the_same_address(tmp_path):
    a = Postgres()
    daemon = Dmsrd(tmp_path / "dmsrd").start()
    try:
        source, target = a.database("same"), a.database("same_copy")
        source.psql(SIMPLE)
        daemon.job("f", source.connection(), [target.connection(name="copy")])
        daemon.wait_state("f", "running")
        daemon.api("POST", "/jobs/f/stop")
        daemon.wait_state("f", "stopped")
        a.stop()
        os.rename(a.dir / "data", a.dir / "old")
        a.start()
        with contextlib.closing(a.connect("postgres")) as c:
            c.cursor().execute("CREATE ROLE dmsr LOGIN SUPERUSER PASSWORD 'dmsr-secret'")
            c.cursor().execute(f'CREATE DATABASE "{source.name}"')
            c.cursor().execute(f'CREATE DATABASE "{target.name}"')
        daemon.api("POST", "/jobs/f/start")
        failed(daemon, "server.changed")
    finally:
        daemon.kill()
        a.close()


def test_target_restored_from_an_older_copy(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    target.psql("CREATE TABLE old AS SELECT * FROM dmsr.positions; CREATE TABLE old_t AS SELECT * FROM t")
    source.psql("UPDATE t SET v = 'new'")
    dmsrd.wait_equal(source, target, ["t"])
    wait_for("stored", lambda: dmsrd.api("GET", "/jobs/f/positions")["position"] == dmsrd.api("GET", "/jobs/f/positions")["targets"]["copy"])
    dmsrd.api("POST", "/jobs/f/stop")
    dmsrd.wait_state("f", "stopped")
    target.psql("DELETE FROM dmsr.positions; INSERT INTO dmsr.positions SELECT * FROM old; TRUNCATE t; INSERT INTO t SELECT * FROM old_t; DROP TABLE old, old_t")
    dmsrd.api("POST", "/jobs/f/start")
    failed(dmsrd, "target.behind")
    # what the suggestion says works
    dmsrd.begin_anew("f", source, target)


def test_walsender_killed(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    for i in range(5):
        source.psql(f"UPDATE t SET v = 'k{i}'")
        source.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        target.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("f", "running")


def test_idle_database_lets_wal_go(pair, dmsrd):
    """Nothing changes in our tables, much is written elsewhere: the slot still moves."""
    server, source, target = pair
    running(dmsrd, source, target)
    other = server.database("busy")
    other.psql("CREATE TABLE noise AS SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
    lsn = source.one("SELECT pg_current_wal_lsn()")
    wait_for("the slot passes it", lambda: source.one("SELECT bool_and(confirmed_flush_lsn >= %s::pg_lsn) FROM pg_replication_slots WHERE database = current_database()", lsn), 30)


def test_an_idle_job_comes_to_rest(pair, dmsrd):
    """Source and target are one server: the position that the target notes is WAL that moves the stream, which would be noted again."""
    server, source, target = pair
    dmsrd.job("f", source.connection(heartbeat_interval="100ms"), [target.connection(name="copy")])
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)
    time.sleep(4)  # 1, 2, 4, 8, 16 intervals
    began = target.one("SELECT updated_at FROM dmsr.positions")
    moves = 0
    for _ in range(80):
        time.sleep(0.1)
        now = target.one("SELECT updated_at FROM dmsr.positions")
        moves, began = moves + (now != began), now
    assert moves <= 6, f"{moves} times in 8 s"


def test_idle_jobs_cost_little(pg, dmsrd):
    """Each is looked at when something is due, not each second; and what comes then is confirmed as soon as ever."""
    source, jobs, seconds = pg.database("f"), 6, 10
    source.psql(SIMPLE)
    for n in range(jobs):
        dmsrd.job(f"f{n}", source.connection(), [{"name": "null", "connector": "null"}], mode="cdc")
        dmsrd.wait_state(f"f{n}", "running")

    def turns():
        return int(re.search(r"^dmsr_event_loop_lag_seconds_count (\d+)", dmsrd.api("GET", "/metrics"), re.M).group(1))

    def cost():
        nothing = turns()
        nothing = turns() - nothing  # what the question takes
        before = turns()
        time.sleep(seconds)
        return (turns() - before - nothing) / seconds
    wait_for("it asks rarely how the slots are, and nothing else", lambda: cost() < 1.1 * jobs + 1, 150)
    lsn = source.one("SELECT pg_current_wal_lsn()")
    source.psql("INSERT INTO t VALUES (-1, 'x', 0)")
    began = time.monotonic()
    wait_for("the slots pass it", lambda: source.one("SELECT bool_and(confirmed_flush_lsn > %s::pg_lsn) FROM pg_replication_slots "
                                                     "WHERE database = current_database()", lsn), 30)
    assert time.monotonic() - began < 5
    assert all(dmsrd.api("GET", f"/jobs/f{n}/status")["lag"]["seconds"] == 0 for n in range(jobs))


# ---- the line ----

def test_line_cut_and_slow(pair, dmsrd):
    server, source, target = pair
    with Proxy(server.port) as line:
        dmsrd.job("f", source.connection(port=line.port), [target.connection(name="copy", port=line.port)])
        dmsrd.wait_state("f", "running")
        for i in range(4):
            source.psql(f"UPDATE t SET v = 'cut{i}'; INSERT INTO t VALUES ({5000 + i}, 'x', 0)")
            line.cut()
            time.sleep(0.3)
        line.piece, line.every = 512, 0.05
        source.psql("UPDATE t SET v = 'slow' WHERE id < 100")
        # the API answers at once all the while
        began = time.monotonic()
        dmsrd.api("GET", "/jobs/f/status")
        assert time.monotonic() - began < 1
        dmsrd.wait_equal(source, target, timeout=60)


def test_server_that_says_nothing(dmsrd, pg):
    """A line that takes the connection and never answers: an error in time, and other jobs go on."""
    source, target, other = pg.database("mute"), pg.database("mute_copy"), pg.database("mute_other")
    source.psql(SIMPLE)
    with Proxy(pg.port) as line:
        line.is_stuck.set()
        dmsrd.job("mute", source.connection(port=line.port, connect_timeout="1s"), [other.connection(name="copy")])
        dmsrd.job("well", source.connection(), [target.connection(name="copy")])
        dmsrd.wait_state("well", "running")
        dmsrd.wait_equal(source, target)
        job = dmsrd.wait_state("mute", "retrying", 20)
        assert "timeout" in job["error"]["code"] or "unreachable" in job["error"]["code"], job["error"]
        line.is_stuck.clear()
        dmsrd.wait_state("mute", "running")
        line.is_stuck.set()  # and amid the stream: kept alive by nobody, it is cut in the end
        source.psql("UPDATE t SET v = 'unheard' WHERE id < 100")
        dmsrd.wait_equal(source, target)
        line.cut()
        line.is_stuck.clear()
        dmsrd.wait_equal(source, other)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_stays_away(pg, daemon, side):
    """The pauses double up to the longest; where a job is not to try for ever it fails in the end, and goes on when somebody says so."""
    daemon.options += ["-o", "jobs.retry_forever=false", "-o", "jobs.retry_initial=20ms", "-o", "jobs.retry_max=200ms"]
    daemon.start()
    with contextlib.closing(Postgres()) as away:
        source, target = ((away, pg) if side == "source" else (pg, away))
        source, target = source.database("away"), target.database("away_copy")
        source.psql(SIMPLE)
        running(daemon, source, target)
        if side == "target":
            away.stop()
        source.psql("UPDATE t SET v = 'meanwhile' WHERE id < 100")
        if side == "source":
            away.stop()
        error = failed(daemon, f"{side}.unreachable")
        assert error["stage"] == {"source": "source", "target": "copy"}[side], error
        pauses = [int(ms) for ms in re.findall(r"retrying: .*, again in (\d+) ms", daemon.log())]
        assert len(pauses) == 10 and all(0.85 * w <= ms <= 1.15 * w for ms, w in zip(pauses, [min(20 * 2 ** n, 200) for n in range(10)])), pauses
        away.start()
        daemon.api("POST", "/jobs/f/start")
        daemon.wait_state("f", "running")
        daemon.wait_equal(source, target)
        daemon.kill()


# ---- disks ----

@pytest.fixture
def small_disk(tmp_path):
    at = tmp_path / "disk"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(at)], check=True)
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)


def fill(disk):
    with open(disk / "fill", "wb", buffering=0) as f:  # nothing is left to write when it is closed
        with contextlib.suppress(OSError):
            while True:
                f.write(b"x" * 65536)


@contextlib.contextmanager
def full(daemon, pair, disk):
    """Its job has failed, for there is no room on the disk; when it gets some again the target is still held."""
    server, source, target = pair
    daemon.start()
    try:
        daemon.job("f", source.connection(), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "1MiB"})
        daemon.wait_state("f", "running")
        fill(disk)
        with locked(server, target):
            source.psql("INSERT INTO t SELECT i, repeat('d', 500), 0 FROM generate_series(10000, 40000) i")
            job = daemon.wait_state("f", "failed", 60)
            assert job["error"]["code"].startswith("state."), job["error"]
            yield
        if daemon.process.poll() is None:
            daemon.wait_state("f", "running")
            daemon.wait_equal(source, target)
    finally:
        daemon.kill()


@pytest.mark.parametrize("way", ["goes on", "killed", "another name"])
def test_state_disk_full(pair, small_disk, way, monkeypatch):
    """Once there is room again, the daemon begins anew by itself, as the same process, however it was called."""
    daemon = Dmsrd(small_disk / "dmsrd")
    if way == "another name":
        popen, binary = subprocess.Popen, daemon.command()[0]
        monkeypatch.setattr(subprocess, "Popen", lambda c, **k: popen(["-dmsrd", *c[1:]], executable=c[0], **k) if c[0] == binary else popen(c, **k))
    with full(daemon, pair, small_disk):
        assert daemon.call("GET", "/readyz")[0] == 503 and daemon.call("GET", "/livez")[0] == 200
        pid = daemon.process.pid
        if way == "killed":
            daemon.kill()
            (small_disk / "fill").unlink()
            daemon.start()
        else:
            if way == "goes on":
                os.truncate(small_disk / "fill", (small_disk / "fill").stat().st_size - (4 << 20))
                time.sleep(10)
                assert daemon.state_of("f") == "failed" and "beginning anew" not in daemon.log(), "there is not enough room yet"
            (small_disk / "fill").unlink()
            wait_for("it has begun anew", lambda: "beginning anew" in daemon.log() and daemon.is_ready(), 30)
        assert way == "killed" or (daemon.process.pid == pid and daemon.call("GET", "/readyz")[0] == 200)


def test_terminated_while_it_is_about_to_begin_anew(pair, small_disk, tmp_path):
    """It reads the configuration first: many files make that long."""
    daemon = Dmsrd(tmp_path / "dmsrd", options=["-o", f"state_dir={small_disk}/state"])
    with full(daemon, pair, small_disk):
        (daemon.dir / "conf.d").mkdir()
        for i in range(20000):
            (daemon.dir / "conf.d" / f"{i}.json").write_text("{}")
        (small_disk / "fill").unlink()
        fds = f"/proc/{daemon.process.pid}/fd"

        def reads():
            with contextlib.suppress(OSError):
                return any("conf.d" in os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds))
        wait_for("it reads", reads, 20, .001)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) in (0, -signal.SIGTERM)


def job_file(daemon):
    """One that is put into the store at the start, and does nothing."""
    jobs = daemon.dir / "jobs.d"
    jobs.mkdir()
    source = {"connector": "postgres", "host": "127.0.0.1", "port": 1, "database": "none", "user": "none"}
    (jobs / "a.json").write_text(json.dumps({"name": "a", "source": source, "targets": [{"name": "n", "connector": "null"}], "desired_state": "stopped"}))


def times_of(daemon, text):
    lines = [line for line in daemon.log().splitlines() if text in line]
    return [datetime.datetime.fromisoformat(line.split()[0].removeprefix("ts=").replace("Z", "+00:00")).timestamp() for line in lines]


def test_state_full_again_and_again(daemon):
    """There is room to be seen, and none for what is written: each time the daemon waits longer, and says so."""
    job_file(daemon)
    daemon.start({"DMSR_FAILPOINT": "store.full:1:fail"}, wait=False)
    wait_for("it begins anew for the third time", lambda: len(times_of(daemon, "beginning anew")) >= 3 or daemon.process.poll() is not None, 90)
    anew, pid = times_of(daemon, "beginning anew"), daemon.process.pid
    assert daemon.process.poll() is None and daemon.log().count(f", pid {pid}, ") >= 3
    assert anew[1] - anew[0] >= 6 and anew[2] - anew[1] >= 12, anew
    told = [line for line in daemon.log().splitlines() if "full again" in line]
    assert len(told) == 2 and str(daemon.state) in told[0] and "No space left on device" in told[0] and "ulimit -f" in told[0], told
    wait_for("it answers", lambda: daemon.call("GET", "/livez")[0] == 200, 10)
    assert daemon.stop() == 0


def test_state_full_as_it_begins_anew(small_disk):
    """The room was taken by somebody else in between: the daemon does not end for it."""
    daemon = Dmsrd(small_disk / "dmsrd")
    daemon.log_path = small_disk.parent / "dmsrd.log"
    try:
        job_file(daemon)
        daemon.start()
        daemon.kill()
        fill(small_disk)
        daemon.start(wait=False)
        assert daemon.process.wait(20) == 3 and "state.full" in daemon.log(), "a first start says so at once"
        daemon.start({"DMSRD_ANEW_MS": "3000"}, wait=False)
        wait_for("it waits", lambda: daemon.log().count("state.full") == 2, 20)
        time.sleep(7)
        assert daemon.process.poll() is None and daemon.log().count("state.full") == 2, daemon.log()
        assert str(daemon.state) in daemon.log().splitlines()[-1]
        assert daemon.stop() == 0
        daemon.start({"DMSRD_ANEW_MS": "3000"}, wait=False)
        wait_for("it waits", lambda: daemon.log().count("state.full") == 3, 20)
        (small_disk / "fill").unlink()
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("it is there again", daemon.is_ready, 20)
        assert daemon.api("GET", "/jobs/a")["state"] == "stopped"
    finally:
        daemon.kill()


def test_reloaded_while_it_waits_for_room(pair, small_disk, tmp_path):
    """Jobs of files wait for it, too, and are not told as failed meanwhile; the configuration is read, whichever way it waits."""
    daemon = Dmsrd(tmp_path / "dmsrd", options=["-o", "http.socket="])
    told = json.loads(daemon.config.read_text())
    daemon.config.write_text(json.dumps({**told, "state_dir": f"{small_disk}/state"}))
    with full(daemon, pair, small_disk):
        job_file(daemon)
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("it has read the rest", lambda: 'msg="reloaded"' in daemon.log(), 10)
        assert [job["name"] for job in daemon.api("GET", "/jobs")["items"]] == ["f"] and "jobs_dir are not read" in daemon.log()
        daemon.call("POST", "/jobs/f/stop")
        (small_disk / "fill").unlink()
        wait_for("it has begun anew", lambda: "beginning anew" in daemon.log() and daemon.is_ready(), 30)
        assert daemon.api("GET", "/jobs/a")["state"] == "stopped"
    fill(small_disk)
    daemon.start({"DMSRD_ANEW_MS": "100000"}, wait=False)
    try:
        wait_for("it waits", lambda: "cannot begin anew in the state directory" in daemon.log(), 20)
        daemon.config.write_text("{ nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("it says so", lambda: "not reloaded: all stays as it was" in daemon.log(), 10)
        daemon.config.write_text(json.dumps({**told, "state_dir": f"{tmp_path}/elsewhere"}))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("it begins where there is room", daemon.is_ready, 20)
        assert [job["name"] for job in daemon.api("GET", "/jobs")["items"]] == ["a"]
    finally:
        daemon.kill()


def test_slow_target_does_not_hold_wal(pair, dmsrd):
    """Over the memory cap batches go to disk: the source's slot moves while a target is stuck."""
    server, source, target = pair
    dmsrd.job("f", source.connection(), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "1MiB"})
    dmsrd.wait_state("f", "running")
    with locked(server, target):
        for _ in range(10):
            source.psql("UPDATE t SET v = md5(random()::text) || repeat('w', 2000)")
        lsn = source.one("SELECT pg_current_wal_lsn()")
        wait_for("the slot passes it", lambda: source.one("SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE database = current_database()", lsn), 30)
        assert dmsrd.api("GET", "/jobs/f/status")["streamer"]["log_bytes"] > 0
        dmsrd.kill()
    dmsrd.start()
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)
    wait_for("the log is empty", lambda: dmsrd.api("GET", "/jobs/f/status")["streamer"]["log_bytes"] == 0)


# ---- a target that does not answer ----

@contextlib.contextmanager
def no_standby(database):
    """Commits wait for one that is not there."""
    with contextlib.closing(database.server.connect(database.name)) as c:
        cur = c.cursor()
        cur.execute("SET synchronous_commit = local")
        try:
            cur.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            cur.execute("SELECT pg_reload_conf()")
            yield
        finally:
            cur.execute("ALTER SYSTEM RESET synchronous_standby_names")
            cur.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_a_target_whose_standby_is_away(pg, pg18, dmsrd, apply):
    source, target = pg.database("f"), pg18.database("f_copy")
    source.psql(SIMPLE)

    def told():
        return [w["message"] for w in dmsrd.api("GET", "/jobs/f/status")["warnings"] if "gave no answer" in w["message"]]
    with no_standby(target):
        dmsrd.job("f", source.connection(), [target.connection(name="copy", apply=apply)])
        wait_for("it is told", told, 30)
        assert dmsrd.api("GET", "/jobs/f")["state"] in ("starting", "loading")
        assert target.one("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dmsr:f:%%' AND wait_event = 'SyncRep'"), "as the text says"
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/f/restart")
    dmsrd.wait_state("f", "running")
    assert not told()
    with no_standby(target):
        source.psql("UPDATE t SET n = n + 1")
        wait_for("it is told", told, 30)
        assert [t for t in told() if "a COMMIT for 10 s" in t and "synchronous standby" in t], told()
    dmsrd.wait_equal(source, target)


def waiting(dmsrd):
    return [w["message"] for w in dmsrd.api("GET", "/jobs/f/status")["warnings"] if "gave no answer to a statement for 10 s: it may wait for a lock" in w["message"]]


def test_a_target_where_somebody_holds_a_table(pg, pg18, dmsrd):
    source, target = pg.database("f"), pg18.database("f_copy")
    source.psql(SIMPLE)
    target.psql("CREATE TABLE t (id integer PRIMARY KEY, v text, n integer NOT NULL DEFAULT 0)")
    with locked(pg18, target):
        dmsrd.job("f", source.connection(), [target.connection(name="copy")])
        wait_for("it is told before the rows come", lambda: waiting(dmsrd), 30)
    dmsrd.wait_equal(source, target)


def test_a_target_where_somebody_holds_a_row(pg, pg18, dmsrd):
    """When nobody has looked at what is under way for longer than anybody waits."""
    source, target = pg.database("f"), pg18.database("f_copy")
    source.psql(SIMPLE)
    running(dmsrd, source, target)
    time.sleep(11)
    with contextlib.closing(pg18.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("SELECT FROM t WHERE id = 3 FOR UPDATE")
        source.psql("UPDATE t SET n = n + 1")
        wait_for("it is told of a row", lambda: waiting(dmsrd), 30)
        c.rollback()
    dmsrd.wait_equal(source, target)


def test_a_target_that_is_slow_and_answers(pg, pg18, dmsrd):
    """All the time something is under way, and all the time something of it comes to its end."""
    source, target = pg.database("f"), pg18.database("f_copy")
    source.psql(SIMPLE)
    running(dmsrd, source, target)
    target.psql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(.1); RETURN NEW; END$$;"
                "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow(); ALTER TABLE t ENABLE ALWAYS TRIGGER slow")
    source.psql("INSERT INTO t SELECT i, repeat('s', 50000), 0 FROM generate_series(-130, -1) i")
    dmsrd.wait_equal(source, target, timeout=90)
    assert [w for w in dmsrd.api("GET", "/jobs/f/status")["warnings"] if "gave no answer" in w["message"]] == []


@pytest.mark.parametrize("ends", ["drained", "in time", "at once"])
def test_a_busy_daemon_is_told_to_end(pair, daemon, ends):
    """SIGTERM while a target is held up: it waits, for as long as it may, or until it is told again; and says to the source no more than what is stored."""
    server, source, target = pair
    daemon.options += ["-o", "drain_timeout=1s" if ends == "in time" else "drain_timeout=60s"]
    running(daemon.start(), source, target)
    with locked(server, target):
        source.psql("UPDATE t SET v = 'held', n = n + 1 WHERE id <= 500")
        wait_for("the target has it", lambda: daemon.api("GET", "/jobs/f/tables")["items"][0]["captured"]["update"] == 500 and
                 source.one("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        assert daemon.process.poll() is None and "draining" in daemon.log()
        if ends == "at once":
            daemon.process.send_signal(signal.SIGTERM)
        if ends != "drained":
            assert daemon.process.wait(20) == (0 if ends == "in time" else 128 + signal.SIGTERM)
    if ends == "drained":
        assert daemon.process.wait(20) == 0 and "msg=drained" in daemon.log().replace('"', "")
        assert not differences(source, target)
        with contextlib.closing(sqlite3.connect(daemon.state / "state.db")) as db:
            stored = [value.split(":")[-1] for value, in db.execute("SELECT value FROM kv WHERE kind = 'position' AND value LIKE 'pg:%'")]
        assert stored and source.one("SELECT confirmed_flush_lsn <= %s::pg_lsn FROM pg_replication_slots WHERE database = current_database()", max(stored))
        assert target.one("SELECT split_part(position, ':', 5) FROM dmsr.positions") in stored
    else:
        assert ("ending all the same" if ends == "in time" else "a second signal") in daemon.log()
    daemon.start()
    daemon.wait_state("f", "running")
    daemon.wait_equal(source, target)


# ---- rows that a target refuses ----

BAD = "INSERT INTO t VALUES (2001, 'good', 1), (2002, 'bad', -1), (2003, 'good', 1)"


def constrain(target):
    target.psql("ALTER TABLE t ADD CONSTRAINT positive CHECK (n >= 0)")


def test_constraint_stop(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    constrain(target)
    source.psql(BAD)
    error = failed(dmsrd, "target.constraint")
    assert "positive" in error["message"] and "t" in error["message"]
    assert target.one("SELECT count(*) FROM t WHERE id > 2000") == 0
    target.psql("ALTER TABLE t DROP CONSTRAINT positive")
    dmsrd.api("POST", "/jobs/f/start")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)


def test_constraint_retry(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target, on_constraint_error="retry")
    constrain(target)
    source.psql(BAD)
    assert dmsrd.wait_state("f", "retrying")["error"]["code"] == "target.constraint"
    target.psql("ALTER TABLE t DROP CONSTRAINT positive")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)


def test_a_target_whose_disk_is_full(pair, dmsrd):
    """As the server says it, by a trigger's mouth: it is waited for, and nothing is lost."""
    _, source, target = pair
    running(dmsrd, source, target)
    target.sql("CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$")
    target.sql("CREATE TRIGGER full_ BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION full_(); ALTER TABLE t ENABLE ALWAYS TRIGGER full_")
    source.psql("INSERT INTO t SELECT i, 'more' FROM generate_series(2001, 2100) i; UPDATE t SET v = 'later' WHERE id = 1")
    error = dmsrd.wait_state("f", "retrying")["error"]
    assert error["code"] == "target.disk-full" and "could not extend file" in error["message"] and "free space" in error["suggestion"], error
    assert target.one("SELECT count(*) FROM t WHERE id > 2000 OR v = 'later'") == 0
    target.sql("DROP TRIGGER full_ ON t")
    dmsrd.wait_state("f", "running")
    dmsrd.wait_equal(source, target)


def test_the_status_says_who_is_slow_and_how_long_it_takes(pg, dmsrd):
    source, target = pg.database("f"), pg.database("f_copy")
    source.psql(SIMPLE + "INSERT INTO t SELECT i, repeat('v', 100) FROM generate_series(1001, 30000) i")

    def status():
        return dmsrd.api("GET", "/jobs/f/status")
    with Proxy(pg.port, piece=4096, every=0.01) as proxy:
        dmsrd.job("f", source.connection(port=proxy.port, batch_bytes="16KiB"), [target.connection(name="copy")])
        left = wait_for("an estimate", lambda: status()["load"]["eta_seconds"], step=0.02)
        load = status()["load"]
        assert isinstance(left, int) and left > 0 and 0 < load["percent"] < 100 and not load["done"]
        proxy.piece, proxy.every = None, 0
        dmsrd.wait_state("f", "running")
        load = status()["load"]
        assert load["eta_seconds"] is None and load["percent"] == 100 and load["done"]
        wait_for("all is done", lambda: status()["slowest_stage"] is None)
        with locked(pg, target):
            for i in range(20):
                source.psql(f"UPDATE t SET n = n + {i} WHERE id % 10 = 0")
            wait_for("the target is named", lambda: status()["slowest_stage"] == "copy")
    dmsrd.kill()


def test_what_is_not_known_of_a_load_is_null(pg, dmsrd):
    """How many rows a table has that was never analyzed; and a number that is known is one that people can read."""
    source, target = pg.database("f"), pg.database("f_copy")
    source.psql("CREATE TABLE t (id integer PRIMARY KEY, v text) WITH (autovacuum_enabled = false);"
                "INSERT INTO t SELECT i, repeat('v', 100) FROM generate_series(1, 30000) i")
    seen = []

    def load():
        seen.append(dmsrd.call("GET", "/jobs/f/status")[2]["load"])
        return seen[-1]
    with Proxy(pg.port, piece=4096, every=0.01) as proxy:
        dmsrd.job("f", source.connection(port=proxy.port, batch_bytes="16KiB"), [target.connection(name="copy")])
        wait_for("some rows", lambda: load()["rows"])
        assert seen[-1]["rows_total"] is None and seen[-1]["bytes_total"] > 0
        wait_for("more rows", lambda: load()["percent"] > 10)
        proxy.piece, proxy.every = None, 0
        dmsrd.wait_state("f", "running")
    assert load()["rows_total"] == 30000
    dmsrd.kill()


def test_one_dead_letter_where_its_commit_was_not_reached(pair, dmsrd):
    """Killed between the two, the target refuses the row once more."""
    _, source, target = pair
    running(dmsrd, source, target, on_constraint_error="dead-letter")
    constrain(target)
    dmsrd.kill()
    dmsrd.start(env={"DMSR_FAILPOINT": "target.before-commit:1:kill"})
    source.psql(BAD)
    wait_for("it is killed", lambda: dmsrd.process.poll() is not None)
    dmsrd.start()
    wait_for("the rest goes on", lambda: target.one("SELECT array_agg(id ORDER BY id) FROM t WHERE id > 2000") == [2001, 2003])
    assert len(dmsrd.api("GET", "/jobs/f/errors")["items"]) == 1


def test_constraint_dead_letter(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target, on_constraint_error="dead-letter")
    constrain(target)
    source.psql(BAD)
    source.psql("UPDATE t SET v = 'later' WHERE id = 1")
    wait_for("the rest goes on", lambda: target.one("SELECT v FROM t WHERE id = 1") == "later")
    assert target.one("SELECT array_agg(id ORDER BY id) FROM t WHERE id > 2000") == [2001, 2003]
    letters = dmsrd.api("GET", "/jobs/f/errors")["items"]
    assert len(letters) == 1 and letters[0]["table"] == "t" and letters[0]["code"] == "target.constraint"
    assert letters[0]["change"]["after"]["id"] == 2002
    assert dmsrd.api("GET", "/jobs/f/status")["dead_letters"] == 1
    dmsrd.kill()
    dmsrd.start()
    dmsrd.wait_state("f", "running")
    assert len(dmsrd.api("GET", "/jobs/f/errors")["items"]) == 1
    assert dmsrd.api("GET", "/jobs/f/status")["dead_letters"] == 1


# ---- rows that are not seen ----

@pytest.fixture
def weak(pair):
    """A role that may read and follow, and goes with the test."""
    _, source, _ = pair
    name = f"weak_{source.name}"
    source.sql(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{name}'")
    yield name
    source.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("mode", ["full-load", "full-load-and-cdc"])
@pytest.mark.parametrize("table", ["t", "p"])
def test_rows_that_a_policy_hides(pair, dmsrd, weak, table, mode):
    """Neither some of them nor none: the job ends, and says what the role needs."""
    _, source, target = pair
    source.psql(f"""
        CREATE TABLE p (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (2000);
        INSERT INTO p SELECT id, v FROM t; GRANT SELECT ON t, p, p_1 TO {weak}; CREATE PUBLICATION given FOR TABLE t, p WITH (publish_via_partition_root = true);
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON {table} FOR SELECT USING (id <= 10)""")
    own = {} if mode == "full-load" else {"publication": "given"}
    job = {"source": source.connection(user=weak, password=weak, **own), "targets": [target.connection(name="copy")], "mode": mode,
           "tables": {"include": [f"public.{table}"]}}
    found = dmsrd.api("POST", "/jobs?dry_run=1", {"name": "f", **job})
    assert [(c["object"], c["fix"]) for c in found["checks"] if c["id"] == "postgres.row-security"] == [(f"public.{table}", f'ALTER ROLE "{weak}" BYPASSRLS')]
    dmsrd.job("f", job["source"], job["targets"], mode=mode, tables=job["tables"])
    assert failed(dmsrd, "source.row-security")["suggestion"] == f'ALTER ROLE "{weak}" BYPASSRLS'
    assert not target.one("SELECT to_regclass(%s) IS NOT NULL", table) or target.one(f"SELECT count(*) FROM {table}") == 0
    source.sql(f"ALTER ROLE {weak} BYPASSRLS")
    dmsrd.api("POST", "/jobs/f/start")
    dmsrd.wait_state("f", "completed" if mode == "full-load" else "running")
    dmsrd.wait_equal(source, target, tables=[f"public.{table}"])


# ---- schemas that move ----

def test_ddl_in_mid_stream(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target)
    source.psql("""
        ALTER TABLE t ADD COLUMN a integer; UPDATE t SET a = id WHERE id < 100;
        BEGIN; INSERT INTO t (id, v) VALUES (3000, 'before'); ALTER TABLE t ADD COLUMN b numeric(10,2) DEFAULT 1.5; INSERT INTO t (id, v, b) VALUES (3001, 'after', 2.5); COMMIT;
        BEGIN; UPDATE t SET v = 'x' WHERE id = 1; ALTER TABLE t DROP COLUMN a; UPDATE t SET v = 'y' WHERE id = 2; COMMIT;
        ALTER TABLE t ALTER COLUMN n TYPE bigint; UPDATE t SET n = 5000000000 WHERE id = 3;
        ALTER TABLE t RENAME COLUMN v TO w; UPDATE t SET w = 'renamed' WHERE id = 4;
        CREATE TYPE color AS ENUM ('red'); ALTER TABLE t ADD COLUMN c color; UPDATE t SET c = 'red' WHERE id = 5;
    """)
    source.psql("ALTER TYPE color ADD VALUE 'green'")
    source.psql("UPDATE t SET c = 'green' WHERE id = 6")
    dmsrd.wait_equal(source, target)
    # the new type of n is a rewrite, after which the table is loaded again
    wait_for("t is loaded again", lambda: any("loaded again" in e["text"] for e in dmsrd.api("GET", "/jobs/f/events?limit=200")["items"] if e["kind"] == "warning"))
    source.psql("ALTER TYPE color ADD VALUE 'blue' BEFORE 'red'")
    source.psql("UPDATE t SET c = 'blue' WHERE id = 7")
    dmsrd.wait_equal(source, target)
    # and a label of another name, which older rows have too
    source.psql("ALTER TYPE color RENAME VALUE 'red' TO 'crimson'")
    dmsrd.wait_equal(source, target)
    source.psql("UPDATE t SET c = 'crimson' WHERE id = 8")
    dmsrd.wait_equal(source, target)
    columns = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname"
    assert source.sql(columns) == target.sql(columns)
    kinds = [e["kind"] for e in dmsrd.api("GET", "/jobs/f/events")["items"]]
    assert "ddl" in kinds


def test_ddl_policy_stop(pair, dmsrd):
    _, source, target = pair
    running(dmsrd, source, target, ddl="stop")
    source.psql("ALTER TABLE t ADD COLUMN a integer; UPDATE t SET a = 1 WHERE id = 1")
    failed(dmsrd, "target.schema-changed")


# ---- size ----

def test_a_transaction_of_a_gigabyte(pg, dmsrd):
    """What is held of it in memory is bounded: a fraction of it, whatever its size."""
    source, target = pg.database("big"), pg.database("big_copy")
    source.psql("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    dmsrd.job("big", source.connection(), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "8MiB"})
    dmsrd.wait_state("big", "running")
    # with rolled back sub-transactions in it
    source.psql("BEGIN; INSERT INTO t SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 500000) i; SAVEPOINT s; INSERT INTO t SELECT -i, 'gone' FROM generate_series(1, 1000) i; ROLLBACK TO s; "
                "INSERT INTO t SELECT i, repeat(md5(i::text), 32) FROM generate_series(500001, 1000000) i; COMMIT")
    wait_for("it is there", lambda: target.one("SELECT count(*) FROM t") == 1000000, 300, step=1)
    dmsrd.wait_equal(source, target)
    assert dmsrd.rss_kib() < 90 * 1024


def test_a_source_that_comes_back_from_an_older_copy(pg, daemon):
    """Of its own disk: with the same identifier, timeline and slot. What it writes there next has places in its log that the job has passed."""
    with contextlib.closing(Postgres()) as server:
        source, target = server.database("s"), pg.database("t")
        source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'r' FROM generate_series(1, 1000) i")
        daemon.start()
        daemon.job("j", source.connection(), [target.connection()])
        daemon.wait_state("j", "running")
        daemon.wait_equal(source, target)
        daemon.kill()
        server.disconnect(source.name)
        server.stop()
        subprocess.run(["cp", "-a", server.dir, f"{server.dir}.old"], check=True)
        server.start()
        daemon.start()
        source.psql("UPDATE t SET v = repeat('w', 1000); DELETE FROM t WHERE id > 900")
        daemon.wait_equal(source, target)
        daemon.kill()
        server.disconnect(source.name)
        server.stop("immediate")
        subprocess.run(["rm", "-rf", server.dir], check=True)
        subprocess.run(["mv", f"{server.dir}.old", server.dir], check=True)
        server.start()
        source.psql("UPDATE t SET v = 'anew' WHERE id < 100")
        daemon.start()
        error = daemon.wait_state("j", "failed")["error"]
        assert error["code"] == "position.ahead" and "put back to an older state" in error["message"], error
        daemon.follow(error["suggestion"], "j")
        daemon.wait_state("j", "running")
        daemon.wait_equal(source, target)


def test_a_message_right_before_a_commit(pg, daemon):
    """It ends where the commit's record begins: to whoever takes the one for the other the transaction goes back, or is there already."""
    source, target = pg.database("s"), pg.database("t")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    daemon.start()
    daemon.job("j", source.connection(), [target.connection()])
    daemon.wait_state("j", "running")
    for n in range(5):
        source.psql(f"BEGIN; INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series({n}000, {n}999) i; "
                    "SELECT pg_logical_emit_message(true, 'app', repeat('m', 1000000)), pg_logical_emit_message(false, 'app', 'small'); COMMIT")
    daemon.wait_equal(source, target)
    assert "position.backwards" not in daemon.log()
    daemon.kill()
    daemon.start()
    source.psql("INSERT INTO t VALUES (-1, 'end')")
    daemon.wait_equal(source, target)
