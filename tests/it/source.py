"""The PostgreSQL source without the engine: pg_source_dump on a real server, and what its output comes to."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from conftest import BUILD, wait_for

TOOL = BUILD / "tests" / "it" / "pg_source_dump"


class Table:
    """Rows, found again by the value of one column. left: parts of its load that are not read yet; None: it is not being loaded."""

    def __init__(self, by):
        self.by, self.rows, self.at, self.n, self.left = by, {}, {}, 0, None

    def add(self, row):
        self.n += 1
        self.rows[self.n] = row
        self.at.setdefault(row.get(self.by), set()).add(self.n)

    def take(self, known):
        """Takes out one row that agrees with the values that were sent."""
        sent = {k: v for k, v in known.items() if v != {}}
        for n in self.at.get(sent[self.by], ()) if self.by in sent else self.rows:
            row = self.rows[n]
            if all(row.get(k) == v for k, v in sent.items()):
                self.at[row.get(self.by)].discard(n)
                return self.rows.pop(n)
        raise AssertionError(f"no row like {sent}")

    def clear(self):
        self.rows, self.at = {}, {}


class Replica:
    """What a reader of the changes has: for each table its rows, by all columns as text (None: NULL). key: the key of tables where it is not id."""

    def __init__(self, key=None):
        self.tables, self.ops, self.messages, self.key = {}, {}, [], key or {}
        self.is_open = False

    def table(self, schema, name):
        if (schema, name) not in self.tables:
            self.tables[schema, name] = Table(self.key.get((schema, name), "id"))
        return self.tables[schema, name]

    def rows(self, schema, name):
        return list(self.table(schema, name).rows.values())

    def apply(self, line):
        op, schema, name, before, after = line[:5]
        self.ops[op] = self.ops.get(op, 0) + 1
        if op in "BC":
            # a transaction that was cut by a kill begins once more
            assert self.is_open or op == "B", "transactions are framed"
            self.is_open = op == "B"
            return
        if op == "m":
            self.messages.append(line[5])
        if op in "cudt":
            assert self.is_open, "a change outside of a transaction"
        if schema is None or op == "S":
            return
        table = self.table(schema, name)
        if op in "rPE":
            assert table.left is not None, f"{op} outside of a load"
        if op == "L":
            table.left = line[5]
        elif op == "P":
            assert table.left, "more parts than were told"
            table.left -= 1
        elif op == "E":
            assert not table.left, f"the end of a load that lacks {table.left} parts"
            table.left = None
        if op in ("L", "t"):
            table.clear()
        elif op in "rc":
            table.add(after)
        elif op == "d":
            table.take(before)
        elif op == "u":
            old = table.take(before or {table.by: after[table.by]})
            table.add({k: old.get(k) if v == {} else v for k, v in after.items()})

    def sorted(self, schema, name, columns):
        """A column that was added later has its default in rows that were not touched since: that of cN is N in these tests."""
        defaults = {c: c[1:] for c in columns if re.fullmatch(r"c\d+", c)}
        return sorted(json.dumps([row.get(c, defaults.get(c)) for c in columns]) for row in self.rows(schema, name))


class Dump:
    def __init__(self, db, *words, port=None, key=None, uid=None):
        self.db, self.words, self.key = db, list(words), key
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dmsr-source-", dir="/tmp"))
        self.state, self.out, self.log = self.dir / "state", self.dir / "out", self.dir / "log"
        self.port = port or db.server.port
        self.p = None

    def start(self, *words, env=None, seconds=60):
        args = [TOOL, self.state, f"out={self.out}", "host=127.0.0.1", f"port={self.port}", f"database={self.db.name}", "user=dmsr",
                "password=dmsr-secret", f"seconds={seconds}", "connect_timeout=30s", "heartbeat_interval=100ms", *self.words, *words]
        with open(self.log, "ab") as log:
            self.from_ = log.tell()
            self.p = subprocess.Popen(args, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        return self

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            f.seek(self.from_)
            return f.read()

    def wait(self, timeout=60):
        try:
            return self.p.wait(timeout)
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"still running: {self.text()[-3000:]}") from e

    def stop(self):
        if self.p and self.p.poll() is None:
            self.p.terminate()
            assert self.wait() == 0, self.text()[-3000:]
        return self

    def kill(self):
        if self.p and self.p.poll() is None:
            self.p.send_signal(signal.SIGKILL)
        self.p.wait()

    def failure(self, timeout=60):
        """Id, retriable?, message of the failure that ends it."""
        assert self.wait(timeout) == 1, self.text()[-3000:]
        m = re.search(r"^failed: ([a-z.-]+)(, retriable)?: (.*)$", self.text(), re.M)
        assert m, self.text()[-3000:]
        return m.group(1), bool(m.group(2)), m.group(3)

    def says(self, text, timeout=60):
        return wait_for(text, lambda: text in self.text() or (self.p.poll() is not None and self.fail_now()), timeout)

    def fail_now(self):
        raise AssertionError(f"ended with {self.p.returncode}: {self.text()[-3000:]}")

    def streaming(self, timeout=60):
        self.says("reading slot", timeout)
        return self

    def saved(self):
        """The state as the tool saved it last."""
        found = {"note": {}, "loaded": {}, "position": None, "done": False, "out": 0}
        for line in self.state.read_text().splitlines() if self.state.exists() else []:
            words = line.split("\t")
            if words[0] in ("note", "loaded"):
                found[words[0]][tuple(words[1:-1]) if words[0] == "loaded" else words[1]] = words[-1]
            elif words[0] == "done":
                found["done"] = True
            else:
                found[words[0]] = words[1]
        return found

    def lines(self):
        size = int(self.saved()["out"])
        data = self.out.read_bytes()[:size] if self.out.exists() else b""
        return [json.loads(line) for line in data.decode().splitlines()]

    def replica(self):
        r = Replica(self.key)
        for line in self.lines():
            r.apply(line)
        return r

    def lsn(self):
        """How far the saved position is, as (lsn, flush) numbers."""
        text = self.saved()["position"]
        if not text:
            return 0, 0
        _, _, lsn, _, flush = text.split(":")
        return number(lsn), number(flush)

    def caught_up(self, timeout=120):
        """Everything that is committed now is behind the saved position."""
        end = number(self.db.one("SELECT pg_current_wal_flush_lsn()"))
        self.db.sql("SELECT txid_current()")  # an empty commit: of a log that does not grow the server tells nothing, and by itself it writes to it every 15 s

        def there():
            if self.p.poll() is not None:
                self.fail_now()
            return max(self.lsn()) >= end
        wait_for("caught up", there, timeout)
        return self

    def differences(self, tables=None):
        found, replica = [], self.replica()
        for table in tables or [r[0] for r in self.db.sql("SELECT relname FROM pg_class WHERE relkind IN ('r','p') AND NOT relispartition"
                                                          " AND relnamespace = 'public'::regnamespace ORDER BY 1")]:
            columns = [r[0] for r in self.db.sql("SELECT attname FROM pg_attribute WHERE attrelid = format('public.%%I', %s::text)::regclass AND attnum > 0 AND NOT attisdropped"
                                                 " AND attgenerated = '' ORDER BY attnum", table)]
            texts = ", ".join(f"{quote(c)}::text" for c in columns)
            there = sorted(json.dumps(list(row)) for row in self.db.sql(f"SELECT {texts} FROM {quote(table)}"))
            here = replica.sorted("public", table, columns)
            if here != there:
                a, b = set(there), set(here)
                found.append(f"{table}: {len(there)} at the server, {len(here)} here; missing {sorted(a - b)[:3]}; too many {sorted(b - a)[:3]}")
        return found

    def same(self, tables=None):
        found = self.differences(tables)
        assert not found, (found, self.dir)

    def held(self):
        """(ticks of 10 ms, sleeps of others than the loop between two of them at most, ms of work between two at most)"""
        m = re.search(r"(\d+) ticks of 10 ms; between two at most (\d+) sleeps of others than the loop and (\d+) us of work", self.text())
        return int(m.group(1)), int(m.group(2)), int(m.group(3)) / 1000


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def number(lsn):
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)
