"""What the OpenAPI document says is what the daemon does: each answer and each body that it takes, on real servers."""
import json
import socket
import urllib.request

import jsonschema
import pytest

from conftest import wait_for
from document import Document


class Checked:
    """A daemon each of whose answers is held against its document."""

    def __init__(self, dmsrd):
        self.dmsrd, self.plain, self.seen = dmsrd, dmsrd.call, set()
        self.document = Document(dmsrd.api("GET", "/openapi.json"))
        dmsrd.call = self.call

    def call(self, method, path, body=None, headers=None, timeout=60):
        status, got, parsed = self.plain(method, path, body, headers, timeout)
        found = self.document.answer_errors(method, path, status, got.get("Content-Type", ""), parsed)
        if status < 300:
            found += self.document.request_errors(method, path, body)
        assert not found, f"{method} {path}: {status} {json.dumps(parsed)[:3000]}\n" + "\n".join(found)
        operation = self.document.operation(method, path)
        if operation:
            self.seen.add((method, operation[0]))
        return status, got, parsed


@pytest.fixture
def checked(dmsrd):
    return Checked(dmsrd)


@pytest.fixture
def pair(pg):
    source, target = pg.database("openapi"), pg.database("openapi_copy")
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i; CREATE INDEX ON t (v);"
                "CREATE TABLE u (id int PRIMARY KEY, n numeric)")
    return source, target


def test_the_document_is_one(checked):
    """Each schema is a schema, each example is what its schema says, and each body has one."""
    doc = checked.document
    for name, schema in doc.schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", ()):
            assert not doc.errors(name, example), (name, doc.errors(name, example))
    bodies = set()
    for what in doc.operations.values():
        contents = [answer.get("content", {}) for status, answer in what["responses"].items() if status != "default"]
        contents.append(what.get("requestBody", {}).get("content", {}))
        bodies |= {said["schema"]["$ref"].rpartition("/")[2] for content in contents for said in content.values()}
    bodies |= {"Problem"}
    assert [name for name in sorted(bodies - {"Document"}) if not doc.schemas[name].get("examples")] == []
    used = json.dumps(doc.json)
    assert [name for name in doc.schemas if f'"#/components/schemas/{name}"' not in used] == []
    assert [name for name in doc.json["components"]["parameters"] if f'"#/components/parameters/{name}"' not in used] == []


def test_paths_and_methods(checked):
    """The router takes the methods that the document names, no others; and its own list of paths has no other path."""
    doc = checked.document
    for path in doc.json["paths"]:
        asked = path.format(name="n", table="t", id="1", type="t")
        named = {m.upper() for name, pattern in doc.paths if pattern.match(asked) for m in doc.json["paths"][name]}
        _, headers, _ = checked.plain("TRACE", asked)
        assert set(headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == named, path
    assert set(checked.dmsrd.api("GET", "/")["links"].values()) <= set(doc.json["paths"])
    assert checked.dmsrd.call("GET", "/no-such-path")[2]["code"] == "path.not-found"


def test_what_the_daemon_refuses_the_document_refuses(checked, pair):
    source, target = pair
    good = {"name": "refused", "source": source.connection(), "targets": [target.connection(name="copy")], "tables": {"include": ["public.*"]},
            "// why": "comments are taken", "labels": {"team": "shop"}}
    assert checked.dmsrd.api("POST", "/jobs/validate", good)["valid"]
    wrong = [{**good, "sauce": {}}, {**good, "mode": "some"}, {"name": "refused"}, {**good, "name": "Not So"}, {**good, "source": source.connection(hots="h")},
             {**good, "targets": [{"connector": "nobody"}]}, {**good, "targets": [{"connector": "file", "path": "/tmp/x", "delimiter": ";"}]},
             {**good, "tables": {"only": []}}, {**good, "streamer": {"type": "embedded", "memory": 1}}, {**good, "transforms": [{"type": "filter"}]}]
    for spec in wrong:
        said = checked.plain("POST", "/jobs/validate", spec)[2]
        assert not said["valid"] and said["errors"] and checked.document.errors("JobSpec", spec), (spec, said)
    csv = {**good, "targets": [{"connector": "file", "path": "/tmp/x", "format": "csv", "delimiter": ";"}]}
    assert not checked.dmsrd.api("POST", "/jobs/validate", csv)["errors"]


def streamed(dmsrd, path, wanted):
    """The data of the first event of each wanted kind."""
    request = urllib.request.Request(f"http://127.0.0.1:{dmsrd.port}{path}", headers={"Accept": "text/event-stream"})
    found, kind = {}, None
    with urllib.request.urlopen(request, timeout=30) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        while set(found) != set(wanted):
            word, _, text = stream.readline().decode().rstrip("\n").partition(": ")
            if word == "event":
                kind = text
            elif word == "data" and kind in wanted:
                found.setdefault(kind, json.loads(text))
    return found


def look_at_all(dmsrd, name):
    for part in ("", "/status", "/tables", "/positions", "/errors", "/events"):
        dmsrd.api("GET", f"/jobs/{name}{part}")
    for path in ("/jobs", "/jobs?expand=status&limit=1", "/jobs?state=running", f"/jobs/{name}/tables?limit=1", "/readyz?verbose=1", f"/jobs/{name}/events?limit=1",
                 "/events", "/events?order=desc&limit=1", "/metrics"):
        dmsrd.api("GET", path)


def asked_without_a_job(dmsrd, source, target):
    for path in ("/", "/livez", "/readyz", "/version", "/connectors", "/loggers", "/loggers/default", "/openapi.json", "/metrics"):
        dmsrd.api("GET", path)
    for one in dmsrd.api("GET", "/connectors")["items"]:
        dmsrd.api("GET", f"/connectors/{one['name']}")
    dmsrd.api("PUT", "/loggers/job", {"level": "debug"})
    dmsrd.api("PUT", "/loggers/job", {"level": None})
    dmsrd.api("POST", "/connections/test", source.connection())
    dmsrd.api("POST", "/connections/test", {**source.connection(password="wrong"), "tables": {"include": ["public.t"]}})
    dmsrd.api("POST", "/connections/test", {**target.connection(), "role": "target"})
    dmsrd.api("POST", "/connections/test", {"type": "embedded", "role": "streamer"})
    assert len(dmsrd.api("POST", "/connections/discover", source.connection())["tables"]) == 2
    for method, path, body in (("GET", "/jobs/nobody", None), ("GET", "/connectors/none", None), ("PUT", "/loggers/none", {"level": "debug"}),
                               ("POST", "/jobs", {"name": "x", "sauce": 1}), ("GET", "/jobs?state=none", None), ("POST", "/connections/test", {"connector": "x"}),
                               ("POST", "/connections/discover", source.connection(password="wrong")), ("PUT", "/livez", None), ("POST", "/jobs", b"{")):
        assert dmsrd.call(method, path, body)[0] >= 400
    dmsrd.api("POST", "/jobs/validate", {"name": "dry", "source": source.connection(), "targets": [target.connection(name="copy")]})
    dmsrd.api("POST", "/jobs?dry_run=1", {"name": "dry", "source": source.connection(), "targets": [target.connection(name="copy")]})


def test_answers_about_a_job_that_runs(checked, pair):
    source, target = pair
    dmsrd = checked.dmsrd
    asked_without_a_job(dmsrd, source, target)
    source.psql("CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT i, repeat('x', 100) FROM generate_series(1, 200000) i; CREATE INDEX ON big (v)")
    spec = {"name": "shop", "source": source.connection(), "labels": {"team": "shop"}, "description": "d",
            "targets": [target.connection(name="copy", on_data_error="dead-letter"), {"connector": "null"}]}
    dmsrd.api("POST", "/jobs", spec)
    while dmsrd.api("GET", "/jobs/shop/status")["state"] != "running":  # and whatever it says on its way
        look_at_all(dmsrd, "shop")
    dmsrd.wait_equal(source, target)
    target.sql("ALTER TABLE t ALTER v TYPE varchar(5)")
    source.psql("UPDATE t SET v = 'y' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (-1, 'too long for it'); TRUNCATE u; ALTER TABLE u ADD w int;"
                "INSERT INTO u VALUES (1, 2, 3)")
    wait_for("a row is set aside", lambda: dmsrd.api("GET", "/jobs/shop/errors")["items"])
    wait_for("the other one is there", lambda: target.one("SELECT count(*) FROM u") == 1)
    look_at_all(dmsrd, "shop")
    progress = streamed(dmsrd, "/events?job=shop&types=progress", ["progress"])["progress"]
    assert progress.pop("job") == "shop" and progress.pop("ts")
    assert not checked.document.errors("JobStatus", progress)
    streamed(dmsrd, "/jobs/shop/events", ["progress"])
    item = dmsrd.api("GET", "/jobs/shop/errors")["items"][0]
    dmsrd.api("DELETE", f"/jobs/shop/errors/{item['id']}")
    dmsrd.api("DELETE", "/jobs/shop/errors")
    dmsrd.api("POST", "/jobs/shop/tables/public.u/reload")
    dmsrd.wait_state("shop", "running")
    for verb, state in (("pause", "paused"), ("resume", "running"), ("restart", "running"), ("stop", "stopped"), ("start", "running"), ("stop", "stopped")):
        for method in ("POST", "PUT"):  # the second time it is there already, or begins anew
            dmsrd.api(method, f"/jobs/shop/{verb}")
            dmsrd.wait_state("shop", state)
    dmsrd.api("PUT", "/jobs/shop/tables/public.u/reload")
    look_at_all(dmsrd, "shop")
    job = dmsrd.api("GET", "/jobs/shop")
    assert dmsrd.api("PUT", "/jobs/shop", job, {"If-Match": "*"})["generation"] == job["generation"]
    dmsrd.api("PATCH", "/jobs/shop", {"description": None, "labels": {"team": "other"}}, {"If-Match": "*"})
    assert dmsrd.call("PATCH", "/jobs/shop", {"description": "e"})[0] == 428
    assert dmsrd.call("GET", "/jobs/shop", headers={"If-None-Match": "*"})[0] == 304
    at = dmsrd.api("GET", "/jobs/shop/positions")["position"]
    dmsrd.api("PATCH", "/jobs/shop/positions", {"position": at})
    dmsrd.api("DELETE", "/jobs/shop/positions")
    assert dmsrd.call("DELETE", "/jobs/shop")[0] == 204
    assert not set(checked.document.operations) - checked.seen, "operations that nothing here asks for"


def test_events_are_told_as_in_the_examples(checked, pair):
    source, target = pair
    dmsrd = checked.dmsrd
    page, stream = (checked.document.schemas[name]["examples"][0] for name in ("EventPage", "EventStream"))
    words = dict(line.split(": ", 1) for line in stream.splitlines() if line)
    example, said = json.loads(words["data"]), None
    request = urllib.request.Request(f"http://127.0.0.1:{dmsrd.port}/events?types={words['event']}", headers={"Accept": "text/event-stream"})
    with urllib.request.urlopen(request, timeout=30) as lines:
        assert lines.readline() == b"retry: 3000\n"
        dmsrd.api("POST", "/jobs", {"name": "shop", "source": source.connection(), "targets": [target.connection(name="dw")]})
        while not said or said["state"] != example["state"]:
            word, _, text = lines.readline().decode().partition(": ")
            said = json.loads(text) if word == "data" else said
    assert {**said, "ts": ""} == {**example, "ts": ""}
    dmsrd.wait_state("shop", "running")
    told = [(e["kind"], e["text"]) for e in dmsrd.api("GET", "/jobs/shop/events")["items"]]
    assert [(e["kind"], e["text"]) for e in page["items"]] == told[:len(page["items"])]


def test_answers_about_jobs_that_fail_or_go(checked, pair):
    source, target = pair
    dmsrd = checked.dmsrd
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # and nobody listens
        away = target.connection(name="copy", port=s.getsockname()[1])
        assert dmsrd.call("PUT", "/jobs/away", {"source": source.connection(), "targets": [away]})[0] == 201
        dmsrd.wait_state("away", "retrying")
        look_at_all(dmsrd, "away")
        dmsrd.api("PATCH", "/jobs/away", {"targets": [target.connection(name="copy")]}, {"If-Match": "*"})
    dmsrd.wait_state("away", "running")
    dmsrd.job("wrong", source.connection(password="wrong"), [target.connection(name="copy")], mode="cdc")
    dmsrd.wait_state("wrong", "failed")
    look_at_all(dmsrd, "wrong")
    assert "note" in dmsrd.api("PATCH", "/jobs/wrong", {"labels": {"a": "b"}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/wrong/start")
    assert dmsrd.call("DELETE", "/jobs/wrong?force=1")[0] in (200, 204)
    dmsrd.job("twice", source.connection(), [target.connection(name="copy")], mode="full-load", tables={"include": ["public.u"]}, desired_state="stopped")
    dmsrd.api("POST", "/jobs/twice/start")
    dmsrd.wait_state("twice", ("completed", "failed"))
    look_at_all(dmsrd, "twice")
    assert dmsrd.call("POST", "/jobs/twice/pause")[0] == 409
    assert dmsrd.call("DELETE", "/jobs/twice?keep_source=1")[0] in (200, 204)
    source.sql("ALTER ROLE dmsr PASSWORD 'another'")
    try:
        dmsrd.api("POST", "/jobs/away/stop")
        dmsrd.wait_state("away", "stopped")
        assert dmsrd.call("DELETE", "/jobs/away")[0] == 202
        look_at_all(dmsrd, "away")
        assert dmsrd.call("DELETE", "/jobs/away?force=1")[0] == 200
    finally:
        source.sql("ALTER ROLE dmsr PASSWORD 'dmsr-secret'")
