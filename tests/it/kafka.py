"""A real Apache Kafka: one that all workers of a run share, with topics of its own prefix for each test, or a test's own that it may ill-treat.
It knows nothing of conftest.py, which makes the fixtures `kafka` and `start_kafka` of it."""
import collections
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "servers" / "kafka"
PORTS = 5  # a broker's ports, as SCRIPT's head lists them
LISTENERS = {"plain": (0, "plaintext"), "tls": (2, "ssl"), "sasl_tls": (3, "sasl_ssl"), "sasl": (4, "sasl_plaintext")}
PASSWORDS = {"dmsr": "dmsr-secret", "guest": "guest-secret"}

# key and value are text or None, headers pairs of texts
Record = collections.namedtuple("Record", "partition offset key value headers")


def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return s.connect_ex(("127.0.0.1", port)) != 0


def reserve_ports(count):
    """(first of count ports, an open file): nobody else is given them while the file is open, also not while nothing listens there.
    The kernel's own choices, for connections and for port 0, are above them all."""
    directory = pathlib.Path(tempfile.gettempdir()) / f"dmsr-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    above = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(above // 2, above - count, count):
        lock = open(directory / str(port), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if all(is_free(p) for p in range(port, port + count)):
            return port, lock
        lock.close()
    raise AssertionError(f"no {count} ports are free below {above}")


class Kafka:
    """A broker, running when this is made, unless it is not to. version, tls and settings are those of `kafka start`."""

    numbers = itertools.count(1)

    def __init__(self, directory, version=None, tls=False, settings=(), port=None, running=True, joins=None):
        """With port it is another process's broker, which runs there already. joins: the first broker of the cluster that it is one more of."""
        self.dir = pathlib.Path(directory)
        self.args = (["-v", str(version)] if version else []) + (["-t"] if tls else []) + (["-j", str(joins.dir)] if joins else []) + list(settings)
        self.ports_lock, self.pid, self.prefix = None, None, f"t{os.getpid()}-{next(self.numbers)}"
        self.port = port
        if not port:
            self.port, self.ports_lock = reserve_ports(PORTS)
            if running:
                self.start()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})

    @classmethod
    def shared(cls, directory, version=4):
        """The broker of directory and version, which the first who asks starts, with every listener."""
        directory = pathlib.Path(directory) / str(version)
        directory.mkdir(exist_ok=True)
        with open(directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = directory / "port"
            if known.exists():
                return cls(directory, port=int(known.read_text()))
            if version == 4:
                port, ports_lock = reserve_ports(PORTS)
                with ports_lock:  # not left to the broker's own start: it is the same for every broker of this run, and the next
                    subprocess.run([SCRIPT, "fetch", str(port)], check=True, capture_output=True)
            broker = cls(directory, version=version, tls=True)
            known.write_text(str(broker.port))
            return broker

    @staticmethod
    def end(directory):
        """Stops the broker of directory, if there is one, and removes all of it."""
        subprocess.run([SCRIPT, "stop", directory, "immediate"], check=True)
        shutil.rmtree(directory, ignore_errors=True)

    # What may be done to a broker of the test's own.

    def start(self):
        out = subprocess.run([SCRIPT, "start", self.dir, str(self.port), *self.args], check=False, capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        self.pid = int(out.stdout)

    def stop(self):
        subprocess.run([SCRIPT, "stop", self.dir], check=True)

    def kill(self):
        subprocess.run([SCRIPT, "stop", self.dir, "immediate"], check=True)

    def restart(self):
        self.stop()
        self.start()

    def pause(self):
        """It keeps its connections and answers nothing, until resume()."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def empty(self):
        """A new, empty broker on the same ports."""
        self.kill()
        shutil.rmtree(self.dir / "data")
        self.start()

    # What a client may do.

    def client(self, listener="plain", mechanism="PLAIN", user="dmsr", password=None):
        """librdkafka's properties for one of LISTENERS."""
        offset, protocol = LISTENERS[listener]
        properties = {"bootstrap.servers": f"127.0.0.1:{self.port + offset}", "security.protocol": protocol}
        if protocol.endswith("ssl"):
            properties["ssl.ca.location"] = str(self.dir / "ca.pem")
        if protocol.startswith("sasl"):
            properties.update({"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password or PASSWORDS[user]})
        return properties

    def partitions(self, prefix=""):
        """Of each partition its leader's port and how many replicas are in sync."""
        known = self.admin.list_topics(timeout=30)
        ports = {b.id: b.port for b in known.brokers.values()}
        return {(name, p.id): (ports.get(p.leader), len(p.isrs)) for name, t in known.topics.items() if name.startswith(prefix) for p in t.partitions.values()}

    def kcat(self, *args, text=None, **client):
        """Runs the stock client, on the listener that client() makes of the rest; returns what it prints."""
        properties = itertools.chain.from_iterable(("-X", f"{k}={v}") for k, v in self.client(**client).items())
        done = subprocess.run(["kcat", "-m", "10", *properties, *args], input=text, text=True, check=False, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def records(self, topic, uncommitted=False, **client):
        """All that the topic holds now, partition by partition in the order of offsets. Of transactions only what was committed, unless uncommitted."""
        isolation = "read_uncommitted" if uncommitted else "read_committed"
        out = self.kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J", "-X", f"isolation.level={isolation}", **client)
        found = []
        for r in map(json.loads, out.splitlines()):
            headers = r.get("headers") or []
            found.append(Record(r["partition"], r["offset"], r["key"], r["payload"], list(zip(headers[::2], headers[1::2]))))
        return sorted(found, key=lambda r: (r.partition, r.offset))

    def topics(self, prefix=""):
        """Number of partitions by name."""
        return {name: len(t.partitions) for name, t in self.admin.list_topics(timeout=30).topics.items() if name.startswith(prefix)}

    def create(self, topic, partitions=1, **config):
        """config: retention_ms=1000 is Kafka's retention.ms."""
        new = NewTopic(topic, partitions, 1, config={k.replace("_", "."): str(v) for k, v in config.items()})
        for future in self.admin.create_topics([new], operation_timeout=30).values():
            future.result()
        self.wait_topics(lambda known: known.get(topic) == partitions)

    def configure(self, topic, **config):
        """As create() has it, of a topic that is there; what is not named is as by default."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={k.replace("_", "."): str(v) for k, v in config.items()})
        for future in self.admin.alter_configs([resource]).values():
            future.result()

    def delete(self, *topics):
        for future in (self.admin.delete_topics(list(topics), operation_timeout=30) if topics else {}).values():
            future.result()
        self.wait_topics(lambda known: not set(topics) & set(known))

    def wait_topics(self, check):
        """The controller has answered; the broker that clients ask hears of it a moment later."""
        deadline = time.monotonic() + 30
        while not check(self.topics()):
            assert time.monotonic() < deadline, self.topics()
            time.sleep(0.01)

    def tool(self, name, *args):
        """One of Kafka's own tools, such as org.apache.kafka.tools.AclCommand; each takes a second of Java."""
        return subprocess.run([SCRIPT, "tool", self.dir, name, *args], check=True, capture_output=True, text=True).stdout

    def stand(self, *topics):
        """What keeps a reader of topics from what is in them, for who has waited in vain: where they end, what is committed, whose transactions are open."""
        told = [self.tool("org.apache.kafka.tools.TransactionsCommand", "list")]
        for isolation in ("read_uncommitted", "read_committed"):
            consumer = Consumer({**self.client(), "group.id": "stand", "isolation.level": isolation})
            told += [f"{t} {isolation}: {consumer.get_watermark_offsets(TopicPartition(t, 0), timeout=10)}" for t in topics]
            consumer.close()
        told += [self.tool("org.apache.kafka.tools.TransactionsCommand", "describe-producers", "--topic", t, "--partition", "0") for t in topics]
        return "\n".join(told)
