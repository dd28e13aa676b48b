"""What the API and the files of jobs_dir say to people who make mistakes, on a real server."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

from conftest import PASSWORD, Dmsrd, wait_for


@pytest.fixture
def pair(pg):
    source, target = pg.database("api"), pg.database("api_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i")
    return source, target


def logged(dmsrd, text, times=1):
    return wait_for(text, lambda: dmsrd.log().count(text) >= times, 10)


def test_files_cannot_change_what_patch_cannot(pair, dmsrd):
    source, target = pair
    jobs = dmsrd.dir / "jobs.d"
    jobs.mkdir()
    spec = {"name": "file", "source": source.connection(), "targets": [target.connection(name="copy")]}
    (jobs / "a.json").write_text(json.dumps(spec))

    def hangup(times):
        dmsrd.process.send_signal(signal.SIGHUP)
        if times:
            logged(dmsrd, 'msg="reloaded"', times)
    hangup(1)
    dmsrd.wait_state("file", "running")
    dmsrd.wait_equal(source, target)
    wait_for("it has a position", lambda: dmsrd.api("GET", "/jobs/file/positions")["position"])
    (jobs / "a.json").write_text(json.dumps({**spec, "source": {**source.connection(), "database": "elsewhere", "host": "localhost"}}))
    (jobs / "b.json").write_text("{\n nonsense")
    (jobs / "c.json").write_text(json.dumps({**spec, "name": "other", "desired_state": "halted"}))
    (jobs / "d.json").write_text('{"name": "twice", "source": {"host": "a",\n"host": "b"}}')
    hangup(0)
    logged(dmsrd, "reloaded, but 4 files of")
    job = dmsrd.api("GET", "/jobs/file")
    assert job["generation"] == 1 and job["state"] == "running" and job["source"]["database"] == source.name
    assert "a.json: /source/database: the job's position belongs to this source" in job["file_error"]
    log = dmsrd.log()
    assert "a.json: /source/host: stop the job" in log and "b.json: line 2" in log and "d.json: line 2, column 6: /source/host is there twice" in log and "c.json: /desired_state: must be one of" in log
    events = dmsrd.call("GET", "/jobs/file/events", headers={"Accept": "application/json"})[2]["items"]
    assert any(e["kind"] == "config" and "/source/database" in e["text"] for e in events)
    assert dmsrd.call("GET", "/jobs/other")[0] == 404
    # what it says is followed, and what was wrong is forgotten
    for name in "bcd":
        (jobs / f"{name}.json").unlink()
    (jobs / "a.json").write_text(json.dumps({**spec, "desired_state": "paused"}))
    hangup(2)
    dmsrd.wait_state("file", "paused")
    assert "file_error" not in dmsrd.api("GET", "/jobs/file")
    (jobs / "a.json").write_text(json.dumps({**spec, "desired_state": "running"}))
    hangup(3)
    dmsrd.wait_state("file", "running")
    # at a start nothing runs yet: the server's address may be another one
    assert dmsrd.stop() == 0
    (jobs / "a.json").write_text(json.dumps({**spec, "source": {**source.connection(), "host": "localhost"}}))
    dmsrd.start()
    assert dmsrd.api("GET", "/jobs/file")["source"]["host"] == "localhost"
    dmsrd.wait_state("file", "running")


def test_a_directory_of_jobs_that_is_not_there_is_told(dmsrd):
    """At the start and at each reload; its jobs are left as they are, and it is read when it is there."""
    said = lambda: [line for line in dmsrd.log().splitlines() if "level=warn" in line and f"jobs_dir {dmsrd.dir}/jobs.d: No such file or directory" in line]
    assert len(said()) == 1 and "set jobs_dir to where they are" in said()[0]
    dmsrd.process.send_signal(signal.SIGHUP)
    logged(dmsrd, 'msg="reloaded"', 1)
    assert len(said()) == 2
    (dmsrd.dir / "jobs.d").mkdir()
    dmsrd.process.send_signal(signal.SIGHUP)
    logged(dmsrd, 'msg="reloaded"', 2)
    assert len(said()) == 2


def test_files_that_are_no_jobs(dmsrd):
    """One that never ends holds nobody up; and where one is wrong is told without its words, which may be a password."""
    jobs = dmsrd.dir / "jobs.d"
    jobs.mkdir()
    os.mkfifo(jobs / "fifo.json")
    (jobs / "dir.json").mkdir()
    (jobs / "endless.json").symlink_to("/dev/zero")
    (jobs / "wrong.json").write_text('{"name": "wrong", "source": {"connector": "postgres", "password" "hunter-2"}}')
    (jobs / "right.json").write_text(json.dumps({"name": "right", "source": {"connector": "postgres", "host": "127.0.0.1", "port": 1, "database": "d", "user": "u"},
                                                 "targets": [{"connector": "null"}], "desired_state": "stopped"}))
    dmsrd.process.send_signal(signal.SIGHUP)
    wait_for("the right one is there", lambda: dmsrd.call("GET", "/jobs/right", timeout=5)[0] == 200)
    told = dmsrd.log()
    assert all(f"{name}.json: " in told for name in ("fifo", "dir", "endless", "wrong")) and "hunter-2" not in told
    assert "hunter-2" not in json.dumps(dmsrd.api("GET", "/events", headers={"Accept": "application/json"}))


def test_a_job_of_a_file_is_changed_there(pair, dmsrd):
    source, target = pair
    jobs = dmsrd.dir / "jobs.d"
    jobs.mkdir()
    spec = {"name": "filed", "source": source.connection(), "targets": [target.connection(name="copy")], "desired_state": "stopped"}

    def hangup(times):
        dmsrd.process.send_signal(signal.SIGHUP)
        logged(dmsrd, 'msg="reloaded"', times)
    (jobs / "a.json").write_text(json.dumps(spec))
    hangup(1)
    for method, body, do in (("PUT", spec, "change the file and send SIGHUP"), ("PATCH", {"mode": "full-load"}, "change the file and send SIGHUP"),
                             ("DELETE", None, "remove the file and send SIGHUP, then delete it")):
        status, _, problem = dmsrd.call(method, "/jobs/filed", body, {"If-Match": "*"})
        assert (status, problem["code"]) == (409, "job.managed-by-file") and "job filed comes from a file" in problem["detail"] and do in problem["detail"], problem
    (jobs / "a.json").write_text(json.dumps({**spec, "mode": "full-load", "desired_state": "running"}))
    hangup(2)
    dmsrd.wait_state("filed", "completed")
    dmsrd.wait_equal(source, target)
    (jobs / "a.json").unlink()
    hangup(3)
    assert dmsrd.call("DELETE", "/jobs/filed")[0] in (202, 204)
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/filed")[0] == 404)


def test_no_password_comes_from_elsewhere(pair, dmsrd, tmp_path):
    """What the job does not give it does not have: a file of passwords that dmsrd could read lets nobody in by accident, and the error says what is missing."""
    source, target = pair
    files = [tmp_path / "passwords", tmp_path / ".pgpass"]
    for file in files:
        file.write_text(f"*:*:*:dmsr:{PASSWORD}\n")
        file.chmod(0o600)
    env = {"PGPASSFILE": str(files[0]), "HOME": str(tmp_path), "PGPASSWORD": PASSWORD, "PGUSER": "dmsr"}
    for which in ({"PGPASSFILE": env["PGPASSFILE"]}, {"HOME": env["HOME"]}, {"PGPASSWORD": PASSWORD}):  # each of them is good
        subprocess.run(["psql", "-w", "-X", "-h", "127.0.0.1", "-p", str(source.server.port), "-U", "dmsr", "-d", source.name, "-c", "SELECT 1"], check=True,
                       env={**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, "HOME": "/nowhere", **which}, capture_output=True)
    dmsrd.stop()
    dmsrd.start(env)
    without = {"source": source.connection(), "target": target.connection(name="copy")}
    for role, other in (("source", "target"), ("target", "source")):
        good, bad = without[other], {k: v for k, v in without[role].items() if k != "password"}
        found = dmsrd.api("POST", "/connections/test", {"role": role, **bad})["checks"]
        assert [c["id"] for c in found if c["level"] == "error"] == [f"{role}.auth"], found
        dmsrd.job(role, bad if role == "source" else good, [bad if role == "target" else good])
        error = dmsrd.wait_state(role, "failed")["error"]
        assert error["code"] == f"{role}.auth" and not error["retriable"], error
        for message, hint in ((found[0]["message"], found[0]["fix"]), (error["message"], error["suggestion"])):
            assert f"{source.server.port}/{without[role]['database']}" in message and "no password supplied" in message and "user and password" in hint, (message, hint)
    assert target.one("SELECT count(*) FROM pg_stat_activity WHERE usename = 'dmsr' AND datname = current_database()") == 0
    assert not target.tables()


def test_two_files_of_one_job(dmsrd):
    """The first one counts; they do not take turns."""
    jobs = dmsrd.dir / "jobs.d"
    jobs.mkdir()
    for file, database in (("a", "one"), ("b", "other")):
        (jobs / f"{file}.json").write_text(json.dumps({"name": "twice", "source": {"connector": "postgres", "host": "127.0.0.1", "port": 1, "database": database,
                                                                                   "user": "u"}, "targets": [{"connector": "null"}], "desired_state": "stopped"}))
    for times in (1, 2):
        dmsrd.process.send_signal(signal.SIGHUP)
        logged(dmsrd, "b.json: /name: a file before this one has the job", times)
        job = dmsrd.api("GET", "/jobs/twice")
        assert job["source"]["database"] == "one" and job["generation"] == 1
    (jobs / "a.json").unlink()
    dmsrd.process.send_signal(signal.SIGHUP)
    wait_for("the other one counts", lambda: dmsrd.api("GET", "/jobs/twice")["source"]["database"] == "other")


def test_a_desire_that_is_none_has_a_pointer(pair, dmsrd):
    source, target = pair
    spec = {"name": "wish", "source": source.connection(), "targets": [target.connection(name="copy")], "desired_state": "sleeping"}
    status, _, body = dmsrd.call("POST", "/jobs", spec)
    assert status == 422 and body["errors"][0]["pointer"] == "/desired_state" and body["errors"][0]["code"] == "enum"
    assert dmsrd.api("POST", "/jobs", {**spec, "desired_state": "paused"})["desired_state"] == "paused"


def test_one_mistake_is_told_once(pair, dmsrd):
    source, target = pair
    dmsrd.job("wrong", source.connection(), [target.connection(name="copy")], desired_state="stopped")
    for part, at in (({"port": str(source.server.port)}, "/source/port"), ({"port": 1}, "/source/password"), ({"host": 7}, "/source/host")):
        status, _, problem = dmsrd.call("PATCH", "/jobs/wrong", {"source": part}, {"If-Match": "*"})
        assert (status, [e["pointer"] for e in problem["errors"]]) == (422, [at]), problem


def test_a_job_that_is_deleted_says_what_it_waits_for(pair, dmsrd):
    source, target = pair
    dmsrd.job("gone", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("gone", "running")
    dmsrd.api("POST", "/jobs/gone/stop")
    dmsrd.wait_state("gone", "stopped")
    assert dmsrd.api("GET", "/jobs/gone")["stop_reason"] == "user"
    dmsrd.api("POST", "/jobs/gone/start")
    assert dmsrd.wait_state("gone", "running")["stop_reason"] is None
    dmsrd.api("POST", "/jobs/gone/pause")
    dmsrd.wait_state("gone", "paused")
    dmsrd.api("POST", "/jobs/gone/resume")
    assert dmsrd.wait_state("gone", "running")["stop_reason"] is None
    # the source refuses us from now on
    source.sql("ALTER ROLE dmsr PASSWORD 'another'")
    try:
        dmsrd.api("POST", "/jobs/gone/stop")
        dmsrd.wait_state("gone", "stopped")
        status, _, body = dmsrd.call("DELETE", "/jobs/gone?keep_source=0")
        assert status == 202 and body["pending"] and "force=1" in body["hint"]
        job = dmsrd.api("GET", "/jobs/gone")
        assert job["state"] == "deleting" and "force=1" in job["deletion"]["hint"] and "password" in job["deletion"]["waits_for"]
        assert job["error"]["code"].endswith(".auth") and dmsrd.api("GET", "/jobs/gone/status")["deletion"]["attempts"] >= 1
        assert [j["name"] for j in dmsrd.api("GET", "/jobs?state=deleting")["items"]] == ["gone"]
    finally:
        source.sql("ALTER ROLE dmsr PASSWORD 'dmsr-secret'")
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/gone")[0] == 404)
    assert source.one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0


def test_a_job_that_is_forgotten_says_why(pair, dmsrd):
    source, target = pair
    dmsrd.job("never", source.connection(), [target.connection(name="copy", password="wrong")])
    dmsrd.wait_state("never", "failed")
    assert dmsrd.call("DELETE", "/jobs/never")[0] == 204  # it made nothing at a target that it never reached
    dmsrd.job("once", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/once/stop")
    dmsrd.wait_state("once", "stopped")
    dmsrd.api("PATCH", "/jobs/once", {"targets": [target.connection(name="copy", password="wrong")]}, {"If-Match": "*"})
    assert dmsrd.call("DELETE", "/jobs/once")[0] == 202
    status, _, body = dmsrd.call("DELETE", "/jobs/once?force=1")
    assert status == 200 and body["error"]["code"] == "target.auth" and "password" in body["error"]["message"]
    assert body["left"] and all(left["statement"].startswith("DELETE FROM dmsr.") for left in body["left"])


def test_what_is_kept_at_the_source_is_named(pair, dmsrd):
    source, target = pair
    dmsrd.job("kept", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("kept", "running")
    status, _, body = dmsrd.call("DELETE", "/jobs/kept?keep_source=1")
    assert status == 200 and [(left["part"], left["kept"]) for left in body["left"]] == [("source", True)] * 2
    for left in body["left"]:
        source.sql(left["statement"])
    assert source.one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0
    assert source.one("SELECT count(*) FROM pg_publication") == 0


def test_a_failed_job_says_that_it_must_be_started(pair, dmsrd):
    source, target = pair
    dmsrd.job("fail", source.connection(password="wrong"), [target.connection(name="copy")])
    dmsrd.wait_state("fail", "failed")
    changed = dmsrd.api("PATCH", "/jobs/fail", {"source": {"password": "dmsr-secret"}}, {"If-Match": "*"})
    assert changed["state"] == "failed" and "POST /jobs/fail/start" in changed["note"]
    dmsrd.api("POST", "/jobs/fail/start")
    seen = dmsrd.api("GET", "/jobs/fail")
    assert seen["error"] is None or seen["state"] not in ("starting", "loading", "running")
    assert dmsrd.wait_state("fail", "running")["error"] is None
    status, _, body = dmsrd.call("GET", "/jobs?state=foo")
    assert status == 400 and "created, starting" in body["detail"] and "deleting" in body["detail"]


def test_a_completed_load_is_told_what_moves_it_on(pair, dmsrd):
    source, target = pair
    dmsrd.job("once", source.connection(), [target.connection(name="copy")], mode="full-load")
    dmsrd.wait_state("once", "completed")
    changed = dmsrd.api("PATCH", "/jobs/once", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    assert changed["state"] == "completed" and "DELETE /jobs/once/positions" in changed["note"]
    status, _, problem = dmsrd.call("POST", "/jobs/once/start")
    assert (status, problem["errors"][0]["allowed"]) == (409, []) and "DELETE /jobs/once/positions" in problem["suggestion"], problem
    assert dmsrd.api("POST", "/jobs/once/stop")["state"] == "completed"
    dmsrd.follow(problem["suggestion"], "once")
    dmsrd.wait_state("once", "running")
    source.psql("INSERT INTO t VALUES (1000, 'y')")
    dmsrd.wait_equal(source, target)


def test_a_start_that_fails_leaves_nothing(dmsrd, tmp_path):
    other = Dmsrd(tmp_path / "second")
    other.port = dmsrd.port
    other.config.write_text(json.dumps({"state_dir": str(other.state), "jobs_dir": "", "http": {"listen": f"127.0.0.1:{dmsrd.port}", "socket": ""}}))
    other.start(wait=False)
    assert other.process.wait(20) == 3 and "http.port-taken" in other.log()
    assert not other.state.exists()


def test_a_position_that_cannot_be_is_refused(pair, dmsrd):
    source, target = pair
    dmsrd.job("moved", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("moved", "running")
    dmsrd.wait_equal(source, target)
    wait_for("it has a position", lambda: dmsrd.api("GET", "/jobs/moved/positions")["position"])
    dmsrd.api("POST", "/jobs/moved/stop")
    dmsrd.wait_state("moved", "stopped")
    good = dmsrd.api("GET", "/jobs/moved/positions")["position"]
    _, server, lsn, event, flush = good.split(":")
    for bad, code in ((f"pg:42:{lsn}:{event}:{flush}", "server.changed"), (f"pg:{server}:FFFFFFF/0:{event}:FFFFFFF/0", "position.ahead"),
                      (f"pg:{server}:0/10:{event}:0/10", "position.behind-slot"), ("pg:1", "position.malformed")):
        status, _, body = dmsrd.call("PATCH", "/jobs/moved/positions", {"position": bad})
        assert status == 422 and body["code"] == code and body["errors"][0]["pointer"] == "/position", body
    assert dmsrd.api("GET", "/jobs/moved/positions")["position"] == good
    assert dmsrd.api("PATCH", "/jobs/moved/positions", {"position": good})["position"] == good
    dmsrd.api("POST", "/jobs/moved/start")
    dmsrd.wait_state("moved", "running")
    source.psql("INSERT INTO t VALUES (1000, 'y')")
    dmsrd.wait_equal(source, target)


def test_a_directory_that_cannot_be_made_is_told(pair, dmsrd):
    source, target = pair
    (dmsrd.state / "jobs").write_text("in the way")
    dmsrd.job("dirs", source.connection(), [target.connection(name="copy")])
    job = dmsrd.wait_state("dirs", ("retrying", "failed"))
    assert job["error"]["code"] == "state.io" and "jobs" in job["error"]["message"]
    (dmsrd.state / "jobs").unlink()
    dmsrd.api("POST", "/jobs/dirs/start")
    dmsrd.wait_state("dirs", "running")


def test_a_body_that_is_too_large_is_answered(dmsrd, tmp_path):
    """By a client that writes all of it before it reads, and asks for no leave."""
    body = tmp_path / "big.json"
    body.write_bytes(b" " * (9 << 20))
    for more in ([], ["-H", "Transfer-Encoding: chunked"]):
        p = subprocess.run(["curl", "-sS", "-H", "Expect:", "-H", "Content-Type: application/json", *more, "--data-binary", f"@{body}",
                            "-w", "\n%{http_code}", f"http://127.0.0.1:{dmsrd.port}/jobs"], capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, p.stderr
        problem, status = p.stdout.rsplit("\n", 1)
        assert status == "413" and json.loads(problem)["code"] == "body.too-large"


def test_an_address_is_told_once(pair, dmsrd):
    source, target = pair
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # and nobody listens
        port = s.getsockname()[1]
        dmsrd.job("away", source.connection(), [target.connection(name="copy", port=port)])
        error = dmsrd.wait_state("away", "retrying")["error"]
    assert error["code"] == "target.unreachable" and "refused" in error["message"]
    assert error["message"].count("127.0.0.1") == 1 and error["message"].count(str(port)) == 1, error
    assert "\n" not in error["message"]


def test_times_are_told_in_one_way(pair, dmsrd):
    source, target = pair
    dmsrd.job("times", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("times", "running")
    events = dmsrd.call("GET", "/jobs/times/events", headers={"Accept": "application/json"})[2]["items"]
    assert events and all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", e["ts"]) and "ts_us" not in e for e in events), events


def paged(dmsrd, path, cursor=None):
    """What all pages of path together have, and the cursors between them."""
    items, cursors = [], []
    while True:
        page = dmsrd.api("GET", path + (f"&cursor={cursor}" if cursor else ""))
        if not page["items"]:
            assert page["next_cursor"] is None
            return items, cursors
        items += page["items"]
        cursor = page["next_cursor"]
        cursors.append(cursor)


@pytest.mark.parametrize("path", ["/events", "/jobs/turned/events"])
def test_the_newest_first(dmsrd, path):
    """In either order every event comes once, also of those that happen while somebody turns the pages; and a cursor goes on in its own order."""
    dmsrd.job("turned", {"connector": "postgres", "host": "127.0.0.1", "port": 1, "database": "d", "user": "u"}, [{"connector": "null"}], desired_state="stopped")
    jobs = dmsrd.dir / "jobs.d"
    jobs.mkdir()

    def happen(names, times):
        for name in names:
            dmsrd.api("PATCH", "/jobs/turned", {"description": name}, {"If-Match": "*"})
            (jobs / f"{name}.json").write_text("nonsense")
        dmsrd.process.send_signal(signal.SIGHUP)
        logged(dmsrd, 'msg="reloaded, but', times)
    happen("abcdefg", 1)
    rising, forward = paged(dmsrd, f"{path}?limit=3")
    falling, back = paged(dmsrd, f"{path}?limit=3&order=desc")
    ids = [e["id"] for e in rising]
    assert len(ids) > 6 and ids == sorted(set(ids)) and falling == rising[::-1]
    newest = dmsrd.api("GET", f"{path}?limit=1&order=desc")
    assert newest["items"] == rising[-1:]
    happen("h", 2)
    assert paged(dmsrd, f"{path}?limit=2", newest["next_cursor"])[0] == rising[-2::-1]  # the order need not be said again
    later = paged(dmsrd, f"{path}?limit=2&order=asc", forward[0])[0]
    assert later[:len(ids) - 3] == rising[3:] and len(later) > len(ids) - 3
    for cursor, order in ((forward[0], "desc"), (back[0], "asc")):
        status, _, problem = dmsrd.call("GET", f"{path}?cursor={cursor}&order={order}")
        assert (status, problem["code"]) == (400, "query.invalid") and "other order" in problem["detail"]


def test_a_connection_before_there_is_a_job(pair, dmsrd):
    """It is tried and looked at, in either role, as a job would; nothing is made, and no password comes back."""
    source, target = pair
    source.psql("CREATE TABLE keyless (a int); CREATE SCHEMA more; CREATE TABLE more.t (id int PRIMARY KEY)")

    def where(db):
        at = db.connection()
        return f"{at['host']}:{at['port']}/{at['database']}"
    for role, db in (("source", source), ("target", target)):
        reply = dmsrd.api("POST", "/connections/test", {"role": role, **db.connection()})
        assert reply["ok"] and {"postgres.connection", "postgres.version"} <= {c["id"] for c in reply["checks"]} and {c["part"] for c in reply["checks"]} == {role}, reply
    reply = dmsrd.api("POST", "/connections/test", {"role": "source", **source.connection(password="not-this-one")})
    checks = [(c["id"], c["level"], c["object"], "retriable" in c) for c in reply["checks"]]
    assert not reply["ok"] and checks == [("source.auth", "error", where(source), False)] and "not-this-one" not in json.dumps(reply)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        reply = dmsrd.api("POST", "/connections/test", {"role": "target", **target.connection(port=nobody.getsockname()[1])})
    assert not reply["ok"] and [(c["id"], c["level"], c["retriable"]) for c in reply["checks"]] == [("target.unreachable", "error", True)], reply
    found = {(t["schema"], t["name"]): t for t in dmsrd.api("POST", "/connections/discover", {"role": "source", **source.connection()})["tables"]}
    assert set(found) == {("public", "t"), ("public", "keyless"), ("more", "t")}
    assert [c["name"] for c in found["public", "t"]["columns"]] == ["id", "v"]
    assert found["public", "t"]["rows_estimate"] is None and found["public", "keyless"]["rows_estimate"] == 0  # never analyzed, but one is empty
    source.psql("ANALYZE")
    tables = dmsrd.api("POST", "/connections/discover", {"role": "source", **source.connection()})["tables"]
    assert {t["name"]: t["rows_estimate"] for t in tables if t["schema"] == "public"} == {"t": 100, "keyless": 0}
    for path, body, status, code in (
            ("discover", {"role": "streamer", "type": "kafka", "bootstrap_servers": "127.0.0.1:1"}, 422, "discover.unsupported"),
            ("discover", {"role": "source", **source.connection(password="not-this-one")}, 502, "source.auth"),
            ("test", {"role": "source", **source.connection(prot=5432)}, 422, "connection.validation"),
            ("test", {"role": "reader", **source.connection()}, 422, "connection.validation")):
        answer = dmsrd.call("POST", f"/connections/{path}", body)
        assert (answer[0], answer[2].get("code", answer[2])) == (status, code) and "not-this-one" not in json.dumps(answer[2]), answer
    assert source.sql("SELECT count(*) FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT count(*) FROM pg_publication") == [(0,), (0,)]
    assert dmsrd.api("GET", "/jobs")["items"] == []


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_password_is_told_nowhere(pair, dmsrd, ends):
    """Not in a log that tells everything, not on the command line or in the environment, not in an answer, not in a server's own view of who is there."""
    source, target = pair
    dmsrd.api("PUT", "/loggers/default", {"level": "debug"})
    secret = PASSWORD if ends == "well" else "another-secret"
    job = {"name": "told", "source": source.connection(password=secret), "targets": [target.connection(name="copy", password=secret)]}
    said = [dmsrd.call("POST", path, body)[2] for path, body in (("/jobs?dry_run=1", job), ("/connections/test", {"role": "source", **job["source"]}), ("/jobs", job))]
    dmsrd.wait_state("told", "running" if ends == "well" else "failed")
    said += [dmsrd.call("POST", "/jobs", {**job, "name": "wrong", "sorce": 1, "targets": [{**job["targets"][0], "pasword": secret}]})[2]]
    said += [dmsrd.call("PATCH", "/jobs/told", {"source": {"password": [secret]}}, {"If-Match": "*"})[2]]
    said += [dmsrd.call("GET", path)[2] for path in ("/jobs", "/jobs?expand=spec", "/jobs/told", "/jobs/told/status", "/jobs/told/tables", "/jobs/told/positions",
                                                     "/jobs/told/errors", "/jobs/told/events?limit=500", "/events?limit=500", "/metrics")]
    seen = {path: pathlib.Path(f"/proc/{dmsrd.process.pid}/{path}").read_text(errors="replace") for path in ("cmdline", "environ")}
    assert "level=debug" in dmsrd.log() and "told" in json.dumps(said)
    for where, text in {**seen, "log": dmsrd.log(), "answers": json.dumps(said), "servers": str(source.sql("SELECT * FROM pg_stat_activity"))}.items():
        assert secret not in text, where
