"""What every integration test stands on: real PostgreSQL servers, a dmsrd of the test's own, its API, and the comparison of two databases."""
import collections
import contextlib
import functools
import itertools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zlib

import psycopg2
import psycopg2.extensions
import pytest
from kafka import Kafka

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DMSR_BUILD", TOP / "build" / "gcc"))
SERVERS = TOP / "tests" / "servers"
PSQL = str(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"))[-1])  # what Debian has in the path is a script, which takes longer than psql
PASSWORD = "dmsr-secret"


SHARE, SHARES = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), 16
given_ports = collections.deque(maxlen=200)


def free_port():
    """It is bound some time later: those who run beside us have other shares, so that nobody is given it meanwhile."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port // 2 % SHARES == SHARE % SHARES and port not in given_ports:
            given_ports.append(port)
            return port


def wait_for(what, check, timeout=30.0, step=0.05):
    """Calls check until it gives something true, and returns that; the last exception or value is in the failure's text."""
    deadline, seen = time.monotonic() + timeout, None
    while True:
        try:
            seen = check()
            if seen:
                return seen
        except (OSError, psycopg2.Error, KeyError) as e:
            seen = repr(e)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s; last seen: {seen}")
        time.sleep(step)


def fast_directory():
    """Memory, where there is enough of it: the servers of the tests write much, and nothing of it is to last."""
    shm = pathlib.Path("/dev/shm")
    return shm if shm.is_dir() and shutil.disk_usage(shm).free > 6 << 30 else pathlib.Path("/tmp")


class Postgres:
    """One server; databases are made by the tests, each with a name of its own."""

    numbers = itertools.count(1)
    running = []

    def __init__(self, version=None, tls=False, settings=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dmsr-pg-", dir=fast_directory()))
        self.dir.chmod(0o755)
        self.port = free_port()
        self.args = (["-v", str(version)] if version else []) + (["-t"] if tls else []) + list(settings)
        self.pid = None
        self.made = []
        self.idle = collections.defaultdict(list)
        self.start()
        self.running.append(self)
        with self.connect("postgres") as c:
            c.cursor().execute(f"CREATE ROLE dmsr LOGIN SUPERUSER PASSWORD '{PASSWORD}'; ALTER ROLE postgres SET jit = off")
            self.version = c.server_version // 10000

    def start(self):
        out = subprocess.run([SERVERS / "postgres", "start", self.dir, str(self.port), *self.args], check=True, capture_output=True, text=True)
        self.pid = int(out.stdout)

    def stop(self, how="fast"):
        subprocess.run([SERVERS / "postgres", "stop", self.dir, how], check=True)

    def restart(self, how="fast"):
        self.stop(how)
        self.start()

    def connect(self, database, **more):
        c = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname=database, **more)
        c.autocommit = True
        return c

    @contextlib.contextmanager
    def session(self, database):
        """A connection that is like a new one, and kept for the next who asks: to make one costs a server twenty times what most statements do.
        Nothing that DISCARD ALL knows of lasts, and no session is kept in which something failed."""
        c = self.kept(database) or self.connect(database)
        try:
            yield c
            if c.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                with contextlib.suppress(psycopg2.Error):
                    c.cursor().execute("DISCARD ALL")
                    self.idle[database].append(c)
                    c = None
        finally:
            if c:
                c.close()

    def kept(self, database):
        """Of those that are kept one that the server has not ended."""
        with contextlib.suppress(IndexError):
            while True:
                c = self.idle[database].pop()
                if not select.select([c], [], [], 0)[0]:
                    return c
                c.close()
        return None

    def disconnect(self, database):
        """For what a server does only to a database that nobody is connected to."""
        for c in self.idle.pop(database, ()):
            c.close()

    def database(self, prefix="db"):
        name = f"{prefix}_{next(self.numbers)}"
        with self.session("postgres") as c:
            c.cursor().execute(f'CREATE DATABASE "{name}"')
        self.made.append(name)
        return Database(self, name)

    def sweep(self, names):
        """A slot that nobody reads holds back all WAL that is written after it, and the files are in memory; so are those of each database, some 8 MB."""
        with self.session("postgres") as c:
            cur = c.cursor()
            for name in names:
                self.disconnect(name)
                cur.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active_pid IS NOT NULL", (name,))
                cur.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s AND active_pid IS NULL", (name,))
                cur.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self):
        self.running.remove(self)
        for name in list(self.idle):
            self.disconnect(name)
        self.stop("immediate")
        shutil.rmtree(self.dir, ignore_errors=True)


class Database:
    def __init__(self, server, name):
        self.server, self.name = server, name

    def sql(self, text, *args):
        """Runs text (several statements may be in it); returns the last one's rows, or None."""
        with self.server.session(self.name) as c, c.cursor() as cur:
            cur.execute(text, args or None)
            return cur.fetchall() if cur.description else None

    def one(self, text, *args):
        return self.sql(text, *args)[0][0]

    def connection(self, **more):
        return {"connector": "postgres", "host": "127.0.0.1", "port": self.server.port, "database": self.name, "user": "dmsr", "password": PASSWORD, **more}

    def psql(self, text):
        done = subprocess.run([PSQL, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres", "-d", self.name],
                              input=text, text=True, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def tables(self):
        return [r[0] for r in self.sql("SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                                       "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'dmsr') "
                                       "AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1")]

    def rows(self, table):
        """Every row as the server's own text, sorted, duplicates kept."""
        return [r[0] for r in self.sql(f'SELECT t::text FROM {table} t ORDER BY t::text COLLATE "C"')]

    def digest(self, table):
        """Row count and an order-free checksum of every row's text, for tables too big to carry."""
        return self.sql(f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} t")[0]


def is_equal(source, target, tables, known):
    """known: digests of the source's tables, as they were read a moment ago; what is missing is added."""
    if not known:
        known.update({table: None for table in tables or source.tables()})
    for table, digest in known.items():
        known[table] = digest or source.digest(table)
        if known[table] != target.digest(table):
            return False
    return True


def differences(source, target, tables=None, limit=5):
    """What is in one database and not in the other, table by table, both directions; empty when they are equal."""
    found = []
    for table in tables or source.tables():
        if source.digest(table) == target.digest(table):
            continue
        a, b = source.rows(table), target.rows(table)
        only_a, only_b = list(a), []
        left = {}
        for row in a:
            left[row] = left.get(row, 0) + 1
        for row in b:
            if left.get(row, 0):
                left[row] -= 1
            else:
                only_b.append(row)
        only_a = [row for row, n in left.items() for _ in range(n)]
        if only_a or only_b:
            found.append(f"{table}: {len(a)} rows against {len(b)}; only at the source {len(only_a)}: {only_a[:limit]}; only at the target {len(only_b)}: {only_b[:limit]}")
    return found


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {json.dumps(body)[:2000]}")
        self.status, self.body = status, body


class Dmsrd:
    """The daemon under test, with a state directory and a port of its own."""

    def __init__(self, directory, env=None, options=()):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.state = self.dir / "state"
        self.port = free_port()
        self.env = dict(env or {})
        self.options = list(options)
        self.log_path = self.dir / "dmsrd.log"
        self.process = None
        self.config = self.dir / "dmsrd.json"
        self.config.write_text(json.dumps({"state_dir": str(self.state), "jobs_dir": str(self.dir / "jobs.d"),
                                           "http": {"listen": f"127.0.0.1:{self.port}", "socket": ""}}))
        # a retry that waits a minute would only make the tests slow
        self.options += ["-o", "jobs.retry_initial=200ms", "-o", "jobs.retry_max=1s"]

    def command(self):
        return [str(BUILD / "dmsrd"), "--config", str(self.config), *self.options]

    def start(self, env=None, wait=True):
        assert self.process is None or self.process.poll() is not None
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DMSR_"))}
        environment.update(self.env)
        environment.update(env or {})
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment, stdin=subprocess.DEVNULL)
        if wait:
            wait_for("dmsrd serves /readyz", self.is_ready, 20)
        return self

    def is_ready(self):
        assert self.process.poll() is None, f"dmsrd ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        return self.call("GET", "/readyz")[0] == 200

    def kill(self, sig=signal.SIGKILL, timeout=30):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(timeout)
        return self.process.returncode if self.process else None

    def stop(self):
        return self.kill(signal.SIGTERM)

    def kill_again_and_again(self, r, failpoints, delays):
        """At each of failpoints, or after a while, in a start of its own; then in three starts without any, behind one of delays, in seconds."""
        for failpoint in failpoints:
            self.start(env={"DMSR_FAILPOINT": failpoint})
            deadline = time.monotonic() + 4
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            self.kill()
            time.sleep(r.choice([0, 0.2]))
        for _ in range(3):
            self.start()
            time.sleep(r.choice(delays))
            self.kill()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        raise AssertionError("no VmHWM")

    def call(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, parsed body)"""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers=dict(headers or {}))
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not request.has_header("Content-type"):
                request.add_header("Content-Type", "application/json")
        try:
            reply = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as e:
            reply = e
        with reply:
            raw = reply.read()
            kind = reply.headers.get("Content-Type", "")
            return reply.status, reply.headers, json.loads(raw) if "json" in kind and raw else raw.decode(errors="replace")

    def api(self, method, path, body=None, headers=None):
        status, _, parsed = self.call(method, path, body, headers)
        if status >= 400:
            raise ApiError(status, parsed)
        return parsed

    def job(self, name, source, targets, mode="full-load-and-cdc", **more):
        spec = {"name": name, "mode": mode, "source": source, "targets": targets, **more}
        return self.api("POST", "/jobs", spec)

    def state_of(self, name):
        return self.api("GET", f"/jobs/{name}")["state"]

    def wait_state(self, name, states, timeout=60):
        states = (states,) if isinstance(states, str) else states

        def there():
            job = self.api("GET", f"/jobs/{name}")
            if job["state"] == "failed" and "failed" not in states:
                raise AssertionError(f"job {name} failed: {json.dumps(job.get('error'))}\n{self.log()[-3000:]}")
            return job["state"] in states and job
        try:
            return wait_for(f"job {name} is {states}", there, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{json.dumps(self.api('GET', f'/jobs/{name}/status'), indent=1)}\n{self.log()[-3000:]}") from None

    def wait_equal(self, source, target, tables=None, timeout=60):
        """Until the target has exactly the source's rows. The source must be quiet."""
        began, step, known, read = time.monotonic(), 0.05, {}, 0
        while True:
            now = time.monotonic()
            is_late = now > began + timeout
            if now > read + 2:  # it is quiet, but a commit may be seen late
                known, read = {}, now
            try:  # row by row only when it is to be told: what is asked again and again is not to keep the servers busy
                found = differences(source, target, tables) if is_late else not is_equal(source, target, tables, known)
            except psycopg2.Error as e:  # a table that is not there yet
                found = [str(e)]
            if not found:
                return
            if is_late:
                raise AssertionError("\n".join(found) + "\n" + self.log()[-4000:])
            time.sleep(step)
            step = min(step * 1.5, 0.4)

    def begin_anew(self, name, source, target):
        """What the hint says of a job whose stream or position is lost."""
        self.follow(f"stop the job, DELETE /jobs/{name}/positions, start it", name)
        self.wait_state(name, "running")
        self.wait_equal(source, target)

    def follow(self, hint, name):
        """Does what a hint says, and nothing else."""
        word = re.compile(rf"(stop|start) (?:the job|it)\b|POST /jobs/{name}/(stop|start)|DELETE /jobs/{name}/(positions)")
        steps = [next(filter(None, m.groups())) for m in word.finditer(hint)]
        assert steps in (["stop", "positions", "start"], ["positions", "start"]), hint
        if "stop" in steps:
            self.api("POST", f"/jobs/{name}/stop")
            self.wait_state(name, ("stopped", "completed", "failed"))  # one that has ended is at rest
        self.api("DELETE", f"/jobs/{name}/positions")
        self.api("POST", f"/jobs/{name}/start")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # pylint: disable=unused-argument
    outcome = yield
    item.has_failed = getattr(item, "has_failed", False) or outcome.get_result().failed


@pytest.fixture(autouse=True)
def swept(request):
    """What a test made in memory that others use, too, does not weigh on them. Set up before any other fixture of the test, so it goes last."""
    before = {id(s): len(s.made) for s in Postgres.running}
    yield
    if not request.node.has_failed and "tmp_path" in request.node.funcargs:
        shutil.rmtree(request.node.funcargs["tmp_path"], ignore_errors=True)
    for s in Postgres.running:
        with contextlib.suppress(psycopg2.Error):  # the test's own server may be down, as the test left it
            s.sweep(s.made[before.get(id(s), 0):])


@pytest.fixture(scope="session")
def servers():
    """servers(version=, tls=, settings=): one of each kind, which all tests of this worker share that do it no harm."""
    with contextlib.ExitStack() as stack:
        @functools.lru_cache(maxsize=None)
        def server(**how):
            return stack.enter_context(contextlib.closing(Postgres(**how)))
        yield server


@pytest.fixture
def pg(servers):
    """Debian's own server: the oldest that a user of this system has."""
    return servers()


@pytest.fixture
def pg18(servers):
    return servers(version=18)


@pytest.fixture(params=["debian", "18"])
def any_pg(request):
    """A test that takes this runs on both servers."""
    return request.getfixturevalue("pg" if request.param == "debian" else "pg18")


def is_left_out(item):
    """A test, or a file, that is marked `spread` runs half of its variants, the black squares of the board that parameters make: each on one server, for what
    is varied is DMSR's own, or SQL that no version has otherwise. Of three parameters any two values still meet. What else is collected does not matter."""
    if not item.get_closest_marker("spread"):
        return False
    params = item.callspec.params if hasattr(item, "callspec") else {}
    marks = [m.args[:2] for m in item.iter_markers("parametrize")]
    servers = [name for name in ("any_pg", "server") if name in params]
    if not servers and len(marks) < 3:
        return False
    which = zlib.crc32(item.originalname.encode()) + sum(str(params[name]) == "18" for name in servers)
    for names, values in marks:
        names = names.replace(" ", "").split(",")
        which += [[v] if len(names) == 1 else list(v) for v in values].index([params[name] for name in names])
    return which % 2 == 1


def pytest_collection_modifyitems(config, items):
    gone = [] if os.environ.get("DMSR_TEST_ALL") else list(filter(is_left_out, items))
    config.hook.pytest_deselected(items=gone)
    items[:] = itertools.filterfalse(set(gone).__contains__, items)
    if hasattr(config, "workerinput"):  # dealt out in lots of up to a hundred neighbours: files would make some of them last far longer than others
        items.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))


def pytest_configure(config):
    """Before the workers are there: they share a broker in this directory, which this process, that outlives them, takes away."""
    config.addinivalue_line("markers", "spread: half of the variants")
    if not hasattr(config, "workerinput"):
        os.environ["DMSR_TEST_KAFKA"] = tempfile.mkdtemp(prefix="dmsr-kafka-", dir=fast_directory())


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        directory = pathlib.Path(os.environ["DMSR_TEST_KAFKA"])
        for broker in directory.iterdir():
            Kafka.end(broker)
        directory.rmdir()


@contextlib.contextmanager
def shared_kafka(**how):
    broker = Kafka.shared(os.environ["DMSR_TEST_KAFKA"], **how)
    yield broker
    broker.delete(*broker.topics(broker.prefix))


@pytest.fixture
def kafka():
    """The shared broker, with TLS and SASL. The test's topics begin with kafka.prefix, and go with it."""
    with shared_kafka() as broker:
        yield broker


@pytest.fixture
def kafka3():
    """The same of version 3."""
    with shared_kafka(version=3) as broker:
        yield broker


@pytest.fixture
def start_kafka():
    """Starts brokers of the test's own: start_kafka(version=, tls=, settings=, running=)."""
    with contextlib.ExitStack() as stack:
        def start(**how):
            directory = tempfile.mkdtemp(prefix="dmsr-kafka-", dir=fast_directory())
            stack.callback(Kafka.end, directory)
            return Kafka(directory, **how)
        yield start


@pytest.fixture(name="daemon")
def daemon_to_start(tmp_path):
    """Like dmsrd, but not started."""
    d = Dmsrd(tmp_path / "dmsrd")
    yield d
    d.kill()


@pytest.fixture
def dmsrd(tmp_path):
    daemon = Dmsrd(tmp_path / "dmsrd").start()
    yield daemon
    daemon.kill()
    report = [line for line in daemon.log().splitlines() if "Sanitizer" in line or "runtime error" in line]
    assert not report, "\n".join(report)
