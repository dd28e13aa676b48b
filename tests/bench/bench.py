"""What the benches share: what must be installed, the table and its rows, a server made for measuring, and where results go."""
import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "it"))
try:
    from conftest import BUILD, TOP, Dmsrd, Postgres, fast_directory, wait_for  # noqa: F401: for the benches
    from kafka import Kafka
    from proxy import Proxy
except ImportError as e:
    sys.exit(f"{e.name} is missing: apt-get install python3-{e.name.replace('_', '-')}")

RESULTS = BUILD / "bench"
TICK = os.sysconf("SC_CLK_TCK")
TABLE = "CREATE TABLE events (id bigint PRIMARY KEY, customer integer NOT NULL, kind text NOT NULL, amount numeric(12,2), seen boolean, " \
        "at timestamptz NOT NULL, note text) WITH (autovacuum_enabled = off)"
# about 250 bytes in the stream
ROWS = "INSERT INTO events SELECT i, i % 100000, 'order.' || (array['placed', 'paid', 'packed', 'shipped'])[1 + i % 4], (i % 1000000) / 100.0, i % 3 = 0, " \
       "timestamptz '2026-01-01' + i * interval '1.234567 s', repeat(md5(i::text), 5) FROM generate_series({}, {}) i"
PER_TRANSACTION = 100
# Nothing that happens now and then while the clock runs: no checkpoint, no vacuum.
SETTINGS = ("max_wal_size=16GB", "checkpoint_timeout=1h", "autovacuum=off", "shared_buffers=512MB", "max_replication_slots=50")


def need(**packages):
    """Ends with the names of the packages that are missing; each is program=package."""
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: apt-get install {' '.join(sorted(set(missing)))}")


def need_server():
    if not list(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        sys.exit("missing: apt-get install postgresql")


@contextlib.contextmanager
def server():
    """A server with one empty table, and a publication `bench` of it. It ends with the bench, also when that is ended by a signal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    pg = Postgres(settings=SETTINGS)
    try:
        db = pg.database("bench")
        db.sql(TABLE)
        db.sql("CREATE PUBLICATION bench FOR TABLE events")
        yield db
    finally:
        pg.close()


@contextlib.contextmanager
def broker(*settings):
    """A Kafka of the bench's own, which Java compiles as well as it can (the tests' compiles quickly). It ends as server() does; the first seconds warm it up."""
    need(kcat="kcat", java="default-jre-headless", mvn="maven")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["DMSR_KAFKA_JAVA_OPTS"] = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=4"
    directory = tempfile.mkdtemp(prefix="dmsr-kafka-", dir=fast_directory())
    try:
        yield Kafka(directory, settings=settings)
    finally:
        Kafka.end(directory)


def insert(db, first, count):
    """Rows first.. in transactions of PER_TRANSACTION."""
    rows = ROWS.format("n", f"least(n + {PER_TRANSACTION - 1}, {first + count - 1})")
    db.sql(f"DO $$ BEGIN FOR n IN {first}..{first + count - 1} BY {PER_TRANSACTION} LOOP {rows}; COMMIT; END LOOP; END $$")


def protocol(db):
    """The options of pgoutput as the source asks for them (source_stream.c)."""
    version = db.server.version
    options = {"proto_version": "4" if version >= 16 else "3" if version >= 15 else "2" if version >= 14 else "1", "publication_names": "bench"}
    if version >= 14:
        options.update(streaming="on", messages="true")
    if version >= 16:
        options["origin"] = "any"
    return options


def fields_of(pid):
    """Of /proc/PID/stat, from the state on. OSError: it has ended."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()


def cpu(pid):
    """(user, system) seconds of all threads of a process."""
    fields = fields_of(pid)
    return int(fields[11]) / TICK, int(fields[12]) / TICK


def server_cpu(server):
    """Seconds of a server's processes, also of those that have ended meanwhile."""
    while True:
        own = fields_of(server.pid)[11:15]
        total = sum(map(int, own))
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = fields_of(path.name)
                if int(fields[1]) == server.pid:
                    total += int(fields[11]) + int(fields[12])
        if own[2:] == fields_of(server.pid)[13:15]:  # else one has ended meanwhile, and is in neither part, or in both
            return total / TICK


def pgbench(db, *args):
    program = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))[-1]
    subprocess.run([program, "-h", "127.0.0.1", "-p", str(db.server.port), "-U", "postgres", *args, db.name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def peak_kib(pid):
    return next((int(line.split()[1]) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")), 0)


def rss_kib(pid):
    return next((int(line.split()[1]) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")), 0)


class Slices:
    """What the callbacks of a dmsrd's loop took of the processor, from here on: dmsr_event_loop_cpu_seconds. What a share of them stays below is known by the buckets' bounds."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.before = self.look()[0]

    def look(self):
        text = self.daemon.call("GET", "/metrics")[2]
        counts = {float(le): float(n) for le, n in re.findall(r'^dmsr_event_loop_cpu_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M)}
        room, longest = re.search(r'^dmsr_event_loop_cpu_max_seconds\{room="([^"]*)"\} (\S+)', text, re.M).groups()
        return counts, float(longest), room

    def take(self):
        """max: since dmsrd began."""
        counts, longest, room = self.look()
        counts = {le: n - self.before.get(le, 0) for le, n in counts.items()}
        n = counts[float("inf")]
        return {"n": n, "max_ms": longest * 1000, "room": room,
                **{f"p{share}_ms": min([longest, *(le for le, below in counts.items() if below >= n * share / 100)]) * 1000 for share in (99, 99.9)}}


def print_slices(who, slices):
    print(f"{who}: 99.9 % of the loop's {slices['n']:.0f} callbacks took no more than {slices['p99.9_ms']:.3g} ms, the longest {slices['max_ms']:.1f} ms ({slices['room']})")


class Line(Proxy):
    """What is sent comes half of `delay` seconds later, in either direction; any amount is on its way meanwhile."""

    def __init__(self, port, delay):
        self.delay = delay
        super().__init__(port)

    def carry(self, a, b, is_from_server):
        under_way = queue.SimpleQueue()
        threading.Thread(target=self.arrive, args=(under_way, b), daemon=True).start()
        data = b"."
        while data:
            try:
                data = a.recv(262144)
            except OSError:
                data = b""
            under_way.put((time.monotonic() + self.delay / 2, data))

    @staticmethod
    def arrive(under_way, b):
        with contextlib.suppress(OSError):
            while True:
                at, data = under_way.get()
                time.sleep(max(0, at - time.monotonic()))
                if not data:
                    b.shutdown(socket.SHUT_RDWR)
                    break
                b.sendall(data)


class Sender:
    """The walsender of a slot: its CPU time as it was seen last."""

    def __init__(self, cursor, slot):
        self.cursor, self.slot, self.pid, self.seen = cursor, slot, None, 0.0

    def look(self):
        """Returns (sent, confirmed) as LSNs, None where there is none."""
        self.cursor.execute("SELECT s.active_pid, r.sent_lsn - '0/0', s.confirmed_flush_lsn - '0/0' FROM pg_replication_slots s "
                            "LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE slot_name = %s", (self.slot,))
        pid, sent, confirmed = self.cursor.fetchone()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self.seen = sum(cpu(pid)) if pid else self.seen
        return sent, confirmed


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def write_result(name, result):
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"({path})")
