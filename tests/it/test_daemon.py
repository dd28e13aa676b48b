"""dmsrd as a program: options, exit codes, signals, and what it tells the service manager."""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import BUILD, TOP, Dmsrd, free_port, wait_for


def run(*args, env=None, timeout=20, stdout=subprocess.PIPE):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DMSR_")}
    environment.update(env or {})
    return subprocess.run([BUILD / "dmsrd", *map(str, args)], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=timeout, check=False, env=environment)


@pytest.fixture
def config(tmp_path):
    """A function that writes a configuration and gives its path."""
    def write(value):
        path = tmp_path / "dmsrd.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path
    return write


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.messages = []

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.messages += self.socket.recv(4096).decode().splitlines()
        return self.messages

    def count(self, message):
        return self.read().count(message)


@pytest.fixture
def manager(tmp_path):
    m = Manager(tmp_path)
    yield m
    m.socket.close()


# ---- options ----

def test_version_and_help():
    version = run("--version")
    assert version.returncode == 0 and version.stdout.startswith("dmsrd ")
    usage = run("--help")
    assert usage.returncode == 0 and "--check-config" in usage.stdout and not usage.stderr


@pytest.mark.parametrize("args", [["--no-such-option"], ["stray"], ["-o"], ["--config"]])
def test_wrong_usage(args):
    r = run(*args)
    assert r.returncode == 2 and "\nusage:" in r.stderr  # and before it, why


def test_check_config_good(config):
    path = config({"http": {"listen": "[::1]:8443"}})
    r = run("--check-config", "--config", path)
    assert (r.returncode, r.stdout, r.stderr) == (0, f"{path}: read\nthe configuration is good\n", "")


def test_check_config_says_which_file_was_looked_for(tmp_path):
    r = run("-t")
    path, said = r.stdout.splitlines()[0].split(": ", 1)
    assert path.endswith("/dmsrd.json") and (r.returncode, r.stderr) == (0, "")
    assert said.startswith("read" if os.path.exists(path) else "there is no such file: defaults are in force")
    # one that is named must be there
    r = run("-t", "-c", tmp_path / "gone.json")
    assert r.returncode == 2 and r.stdout == "" and f"{tmp_path}/gone.json" in r.stderr


def test_check_config_tells_all_that_is_wrong(config):
    path = config('{\n "htp": 1,\n "drain_timeout": "5w",\n "log": { "level": 3 }\n}')
    r = run("-t", "-c", path, "-o", "http.listen=0.0.0.0:80", env={"DMSR_JOBS__RETRY_MAX": "x"})
    assert r.returncode == 2
    lines = r.stderr.splitlines()
    assert len(lines) == 5
    assert f"{path}:2:" in lines[0] and '"http"' in lines[0]
    assert f"{path}:3:" in lines[1]
    assert f"{path}:4:" in lines[2]
    assert "DMSR_JOBS__RETRY_MAX" in lines[3]
    assert "-o http.listen" in lines[4] and "http.tokens" in lines[4]
    assert "drain_timeout" in lines[1] and "log.level" in lines[2]
    # a value that a file has is found there; what follows from a value that is wrong itself is not told
    r = run("-t", "-c", config('{\n "http": {\n  "listen": "0.0.0.0:80",\n  "tokens": {"a": "secret"}, "tls_cert": "/c", "tls_key": 1 } }'))
    assert [line.split(": ")[1] for line in r.stderr.splitlines()] == [f"{path}:4", f"{path}:4"]
    path.write_text('{\n "http": {\n  "listen": "0.0.0.0:80" } }')
    r = run("-t", "-c", path)
    assert f"{path}:3: http.listen" in r.stderr and r.returncode == 2
    r = run("-t", "-c", config({}), "-o", "http.listen=0.0.0.0:80")
    assert r.returncode == 2 and "-o http.listen" in r.stderr and "http.tokens" in r.stderr


def test_check_config_knows_the_rooms_of_the_log(config):
    r = run("-t", "-c", config({}), "-o", "log.levels.htp=debug")
    assert r.returncode == 2 and 'there is no room "htp": is "http" meant?' in r.stderr
    r = run("-t", "-c", config({"log": {"levels": {"//": "of this house, and a plugin's", "http": "debug", "null": "debug"}}}))
    assert (r.returncode, r.stderr) == (0, "")


def test_check_config_knows_what_a_streamer_may_be(config):
    wrong = config({"jobs": {"streamer": {"type": "kafka", "bootstrap_servers": "b:9092", "layot": "both", "password": {"$secret": "gone"}}}})
    r = run("-t", "-c", wrong)
    assert r.returncode == 2 and "/jobs/streamer/layot" in r.stderr
    # all that is wrong, whoever knows it
    r = run("-t", "-c", wrong, "-o", "drain_timeout=5w", "-o", "log.levels.htp=debug")
    told = r.stderr.splitlines()
    assert [[mark for mark in ("-o drain_timeout", "/log/levels/htp", "/jobs/streamer/layot", "/jobs/streamer/password") if mark in line] for line in told] == \
        [["-o drain_timeout"], ["/log/levels/htp"], ["/jobs/streamer/layot"], ["/jobs/streamer/password"]], told
    r = run("-c", wrong, "-o", "http.listen=", "-o", "http.socket=")
    assert r.returncode == 2 and "/jobs/streamer/layot" in r.stderr
    r = run("-t", "-c", wrong, env={"DMSR_JOBS__STREAMER": '{"layout": "both"}'})
    assert r.returncode == 2  # variables add, they take nothing away


@pytest.mark.parametrize("path", ["etc/dmsrd.json", "contrib/k8s/base/dmsrd.json"])
def test_shipped_configurations_are_good(path):
    r = run("--check-config", "--config", TOP / path)
    assert (r.returncode, r.stderr) == (0, "")


def uncommented(line):
    """The line of the sample with the // of its keys taken away; those with a blank behind it are prose."""
    return re.sub(r'"//(?=[^\s"]+":)', '"', line)


def test_each_line_of_the_sample_can_be_uncommented(tmp_path):
    lines = (TOP / "etc/dmsrd.json").read_text().splitlines(keepends=True)
    path = tmp_path / "dmsrd.json"
    tried = [n for n, line in enumerate(lines) if uncommented(line) != line]
    for n in tried:
        path.write_text("".join([*lines[:n], uncommented(lines[n]), *lines[n + 1:]]))
        r = run("--check-config", "--config", path)
        assert (r.returncode, r.stderr) == (0, ""), lines[n]
    path.write_text("".join(uncommented(line) for line in lines))
    r = run("--check-config", "--config", path)
    assert (r.returncode, r.stderr) == (0, "")
    # What they show is the default where there is one, but for directories, which are a package's; else the sample says that it is an example.
    shown = json.loads(run("--print-config", "--config", path).stdout)
    path.write_text("{}")
    defaults = json.loads(run("--print-config", "--config", path).stdout)
    assert set(shown) == set(defaults) and all(v["origin"] != "default" for v in shown.values())
    without = {name for name, v in defaults.items() if not v["value"] and v["value"] is not False}
    named = json.loads((TOP / "etc/dmsrd.json").read_text())["// examples"]
    assert set(re.findall(r"[a-z]+(?:[._][a-z]+)*", named.partition(":")[2])) == without
    assert {n: v["value"] for n, v in shown.items() if n not in without and not n.endswith("_dir")} ==         {n: v["value"] for n, v in defaults.items() if n not in without and not n.endswith("_dir")}


def test_shipped_job_is_good(daemon):
    daemon.options += ["-o", 'secrets={"shop": {"env": "SHOP"}, "dw": {"env": "DW"}}']
    daemon.start(env={"SHOP": "x", "DW": "y"})
    job = json.loads((TOP / "etc/jobs.d/shop.json.example").read_text())
    # there are no such servers; the specification itself has no finding
    for side in [job["source"], *job["targets"]]:
        side.update(host="127.0.0.1", port=free_port())
    reply = daemon.api("POST", "/jobs/validate", job)
    assert reply["errors"] == []
    reply = daemon.api("POST", "/jobs/validate", {**job, "sorce": 1})
    assert [(e["code"], e["pointer"], e["suggestion"]) for e in reply["errors"]] == [("unknown-key", "/sorce", "source")]


def test_print_config_says_where_each_value_is_from_and_hides_secrets(config):
    digits = "0123456789abcdef" * 4
    path = config({"http": {"tokens": {"a": {"sha256": digits}}}, "secrets": {"x": {"env": "X"}}, "jobs": {
        "retry_max": "3m", "streamer": {"type": "kafka", "bootstrap_servers": "b:9092", "user": "u", "password": "hidden-one"}}})
    (path.parent / "conf.d").mkdir()
    (path.parent / "conf.d/10.json").write_text('{"log": {"level": "warn"}}')
    r = run("--print-config", "-c", path, "-o", "http.timeout=7s", env={"DMSR_DRAIN_TIMEOUT": "9s"})
    assert r.returncode == 0 and digits not in r.stdout and "hidden-one" not in r.stdout
    seen = json.loads(r.stdout)
    assert seen["http.tokens"] == {"value": {"a": {"sha256": "***"}}, "origin": str(path)}
    assert seen["secrets"]["value"] == {"x": {"env": "X"}}
    assert seen["jobs.streamer"]["value"] == {"type": "kafka", "bootstrap_servers": "b:9092", "user": "u", "password": "***"}
    assert seen["jobs.retry_max"] == {"value": "3m", "origin": str(path)}
    assert seen["log.level"] == {"value": "warn", "origin": str(path.parent / "conf.d/10.json")}
    assert seen["drain_timeout"] == {"value": "9s", "origin": "environment DMSR_DRAIN_TIMEOUT"}
    assert seen["http.timeout"] == {"value": "7s", "origin": "-o http.timeout"}
    assert seen["http.body_max"] == {"value": "1MiB", "origin": "default"}


@pytest.mark.parametrize("action", ["--help", "--version", "--dump-schema", "--print-config"])
def test_what_cannot_be_written_is_no_success(config, action):
    with open("/dev/full", "wb") as full:
        assert run("-c", config({}), action, stdout=full).returncode == 1


def test_schema_is_one(config):
    schema = json.loads(run("--dump-schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    listen = schema["properties"]["http"]["properties"]["listen"]
    assert listen["type"] == "string" and listen["default"] == "127.0.0.1:8080"
    # every path of --print-config is in it
    for path in json.loads(run("--print-config", "-c", config({})).stdout):
        at = schema
        for part in path.split("."):
            at = at["properties"][part]


# ---- environment ----

def test_port_taken(daemon):
    with socket.socket() as s:
        s.bind(("127.0.0.1", daemon.port))
        s.listen()
        daemon.start(wait=False)
        assert daemon.process.wait(20) == 3
    assert "http.port-taken" in daemon.log()


def test_a_state_directory_that_cannot_be_made(tmp_path):
    """As of a disk that is not mounted: what is above it is there, and is not."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    said = run("-o", f"state_dir={tmp_path}/link/dmsr", "-o", "http.socket=", "-o", f"http.listen=127.0.0.1:{free_port()}")
    assert said.returncode == 3 and "state.io" in said.stderr and f"cannot make {tmp_path}/link" in said.stderr, said


def test_state_directory_of_another_daemon(dmsrd, tmp_path):
    second = Dmsrd(tmp_path / "second", options=["-o", f"state_dir={dmsrd.state}"])
    second.start(wait=False)
    assert second.process.wait(20) == 3
    assert "state.locked" in second.log() and str(dmsrd.process.pid) in second.log()
    assert dmsrd.is_ready()


def test_a_state_that_is_damaged(daemon):
    daemon.state.mkdir(0o700)
    (daemon.state / "state.db").write_bytes(b"no database " * 1000)
    daemon.start(wait=False)
    assert daemon.process.wait(20) == 1
    assert "state.corrupt" in daemon.log() and f"{daemon.state}/state.db" in daemon.log()


def test_wrong_configuration_does_not_start(daemon):
    daemon.config.write_text("{")
    daemon.start(wait=False)
    assert daemon.process.wait(20) == 2
    assert f"{daemon.config}:1" in daemon.log()
    assert not daemon.state.exists()


# ---- signals ----

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_ends_when_asked(daemon, sig):
    daemon.start()
    assert daemon.kill(sig) == 0
    # and leaves nothing behind that hinders the next
    daemon.start()
    assert daemon.kill(sig) == 0


def test_second_signal_ends_at_once(daemon):
    daemon.start()
    # both are waiting when it wakes
    for sig in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        daemon.process.send_signal(sig)
    assert daemon.process.wait(20) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    # which is as if it had crashed: the next one starts
    daemon.start()
    assert daemon.kill(signal.SIGTERM) == 0


def test_broken_pipes_are_survived(daemon):
    daemon.start()
    daemon.process.send_signal(signal.SIGPIPE)
    time.sleep(0.1)
    assert daemon.is_ready()


def test_reload(daemon):
    daemon.options += ["-o", "http.allowed_hosts=[]"]
    daemon.start()
    value = json.loads(daemon.config.read_text())
    assert "level=debug" not in daemon.log()
    value["log"] = {"level": "debug"}
    value["http"]["listen"] = f"127.0.0.1:{free_port()}"
    daemon.config.write_text(json.dumps(value))
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("reloaded", lambda: "msg=reloaded" in daemon.log() or 'msg="reloaded"' in daemon.log(), 10)
    # the old address is still the one
    assert "http.listen has changed" in daemon.log()
    assert daemon.is_ready()
    wait_for("the new level is in force", lambda: daemon.api("GET", "/loggers") and "level=debug" in daemon.log(), 10)
    assert daemon.api("GET", "/loggers")


def test_reload_of_a_wrong_configuration_changes_nothing(daemon):
    daemon.start()
    good = daemon.config.read_text()
    daemon.config.write_text(good.replace('"http"', '"htp"'))
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("refused", lambda: "not reloaded" in daemon.log(), 10)
    assert f"{daemon.config}:1" in daemon.log() and "htp" in daemon.log()
    assert daemon.is_ready()
    daemon.config.write_text(good)
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("reloaded", lambda: "msg=reloaded" in daemon.log() or 'msg="reloaded"' in daemon.log(), 10)
    value = json.loads(good)
    value["jobs"] = {"streamer": {"type": "kafak"}}
    daemon.config.write_text(json.dumps(value))
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("refused", lambda: "/jobs/streamer/type" in daemon.log(), 10)
    assert daemon.kill(signal.SIGTERM) == 0


# ---- the service manager ----

def has_systemd():
    return "HAVE_SYSTEMD 1" in (BUILD / "config.h").read_text()


@pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")
def test_tells_the_service_manager(daemon, manager):
    daemon.start(env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"})
    wait_for("READY=1", lambda: manager.count("READY=1") == 1, 10)
    assert any(m.startswith("STATUS=0 jobs") for m in manager.read())
    before = manager.count("WATCHDOG=1")
    time.sleep(1.05)
    assert 6 <= manager.count("WATCHDOG=1") - before <= 14
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("READY=1 again", lambda: manager.count("READY=1") == 2, 10)
    at = manager.read()
    assert at.index("RELOADING=1") < len(at) - 1 - at[::-1].index("READY=1")
    assert any(m.startswith("MONOTONIC_USEC=") for m in at)
    assert daemon.kill(signal.SIGTERM) == 0
    assert manager.count("STOPPING=1") == 1 and manager.count("EXTEND_TIMEOUT_USEC=10000000") >= 1


@pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")
def test_not_ready_when_it_cannot_start(daemon, manager):
    with socket.socket() as s:
        s.bind(("127.0.0.1", daemon.port))
        s.listen()
        daemon.start(env={"NOTIFY_SOCKET": str(manager.path)}, wait=False)
        assert daemon.process.wait(20) == 3
    assert manager.count("READY=1") == 0


# ---- what others may see ----

def test_memory_is_not_for_others(daemon):
    daemon.start()
    limits = pathlib.Path(f"/proc/{daemon.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    sanitized = b"__asan_init" in (BUILD / "dmsrd").read_bytes() or b"__tsan_init" in (BUILD / "dmsrd").read_bytes()
    assert sanitized or core.split()[4] == "0"
    assert daemon.state.stat().st_mode & 0o777 == 0o700


# ---- where others come by ----

def test_off_loopback_with_tls_and_a_token(daemon, tmp_path):
    """And each line of its log is JSON, if wanted."""
    cert, key, token = tmp_path / "cert.pem", tmp_path / "key.pem", "a-token-of-thirty-two-characters"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout", key,
                    "-out", cert, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    value = json.loads(daemon.config.read_text())
    value["http"] = {"listen": f"0.0.0.0:{daemon.port}", "socket": str(daemon.dir / "api.sock"), "tls_cert": str(cert), "tls_key": str(key),
                     "tokens": {"ops": {"env": "OPS"}}}
    daemon.config.write_text(json.dumps({**value, "log": {"format": "json", "level": "debug"}}))
    daemon.start(env={"OPS": token}, wait=False)

    def curl(path, *args):
        said = subprocess.run(["curl", "-s", "-m", "10", "-w", "\n%{http_code}", *args, path], capture_output=True, text=True, check=False).stdout
        body, _, status = said.rpartition("\n")
        return int(status), json.loads(body) if body else None
    there, over_tls = f"https://localhost:{daemon.port}", ["--cacert", str(cert)]
    wait_for("it is ready", lambda: curl(f"{there}/readyz", *over_tls)[0] == 200, 20)
    for bearer in ([], ["-H", "Authorization: Bearer wrong"]):
        status, problem = curl(f"{there}/jobs", *over_tls, *bearer)
        assert status == 401 and problem["status"] == 401 and problem["code"], problem
    assert curl(f"{there}/jobs", *over_tls, "-H", f"Authorization: Bearer {token}") == (200, curl("http://localhost/jobs", "--unix-socket", value["http"]["socket"])[1])
    assert curl(f"{there}/jobs")[0] == 0 and curl(f"http://localhost:{daemon.port}/jobs", "-H", f"Authorization: Bearer {token}")[0] != 200
    assert daemon.kill(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert any(line["msg"] == "drained" for line in lines) and token not in daemon.log()
