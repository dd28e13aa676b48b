"""What the API and the files of jobs_dir say to people who make mistakes, on a real server."""
import json
import signal

import pytest

from conftest import wait_for


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
    hangup(0)
    logged(dmsrd, "reloaded, but 3 files of")
    job = dmsrd.api("GET", "/jobs/file")
    assert job["generation"] == 1 and job["state"] == "running" and job["source"]["database"] == source.name
    assert "a.json: /source/database: the job's position belongs to this source" in job["file_error"]
    log = dmsrd.log()
    assert "a.json: /source/host: stop the job" in log and "b.json: line 2" in log and "c.json: /desired_state: must be one of" in log
    events = dmsrd.call("GET", "/jobs/file/events", headers={"Accept": "application/json"})[2]["items"]
    assert any(e["kind"] == "config" and "/source/database" in e["text"] for e in events)
    assert dmsrd.call("GET", "/jobs/other")[0] == 404
    # what it says is followed, and what was wrong is forgotten
    (jobs / "b.json").unlink()
    (jobs / "c.json").unlink()
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


def test_a_desire_that_is_none_has_a_pointer(pair, dmsrd):
    source, target = pair
    spec = {"name": "wish", "source": source.connection(), "targets": [target.connection(name="copy")], "desired_state": "sleeping"}
    status, _, body = dmsrd.call("POST", "/jobs", spec)
    assert status == 422 and body["errors"][0]["pointer"] == "/desired_state" and body["errors"][0]["code"] == "enum"
    assert dmsrd.api("POST", "/jobs", {**spec, "desired_state": "paused"})["desired_state"] == "paused"
