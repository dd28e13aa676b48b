"""Scripts for tests/fake/feed: a job's stream, written by hand, given to the PostgreSQL target on a real server."""
import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess

from conftest import BUILD, PASSWORD

OIDS = {"bool": (16, "boolean"), "int2": (21, "smallint"), "int4": (23, "integer"), "int8": (20, "bigint"), "text": (25, "text"), "numeric": (1700, "numeric"),
        "float8": (701, "double precision"), "json": (114, "json"), "jsonb": (3802, "jsonb"), "bytea": (17, "bytea"), "date": (1082, "date"),
        "timestamptz": (1184, "timestamp with time zone"), "int4[]": (1007, "integer[]"), "text[]": (1009, "text[]"), "box": (603, "box"), "point": (600, "point"),
        "xml": (142, "xml"), "varchar": (1043, "character varying"), "uuid": (2950, "uuid"), "bit": (1560, '"bit"'), "bpchar": (1042, "bpchar")}
UNCHANGED = {}
EVERYWHERE = json.loads(os.environ.get("DMSR_TEST_TARGET", "{}"))  # options of every target: {"apply": "parallel"} has all tests run so


def column(name, type="text", key=0, **more):
    """type: one of OIDS, or the target's own spelling of a type that is not built in."""
    oid, native = OIDS.get(type, (90000 + len(type), type))
    return {"name": name, "oid": oid, "native": native, "typmod": -1, "key": key, "nullable": not key, **more}


class Script:
    """Lines of a script. Relations are declared once, under a name of the script's own."""

    def __init__(self):
        self.lines = []
        self.lsn = 0

    def add(self, *lines):
        self.lines += lines
        return self

    def rel(self, rel, table, columns, key="primary", schema="public", ddl=(), id=0):
        return self.add({"rel": rel, "schema": schema, "name": table, "id": id or 16384 + len(table), "key": key, "columns": columns, "ddl": list(ddl)})

    def catalog(self, database, *tables):
        """Relations as a real source tells them; each is known as schema.name."""
        options = database.connection()
        options.pop("connector")
        return self.add({"catalog": options, "tables": list(tables)})

    def copy(self, database, rel, what=None, lsn=100, form="text"):
        """A load of what a table, or a query in parentheses, holds."""
        out = io.BytesIO()
        with contextlib.closing(database.server.connect(database.name)) as connection:
            connection.cursor().copy_expert(f"COPY {what or rel} TO STDOUT (FORMAT {form})", out)
            data = out.getvalue()
        n = data.count(b"\n")
        if form == "binary":
            data, n = data[19:-2], 1
        rows = [{"rows": rel, **({"text": data.decode()} if form == "text" else {"hex": data.hex()}), "n": n}] if data else []
        return self.add({"load": rel, "lsn": lsn}, *rows, {"end": rel}, self.emit_load(lsn))

    def load(self, rel, text, lsn=100):
        return self.add({"load": rel, "lsn": lsn}, {"rows": rel, "text": text, "n": text.count("\n")}, {"end": rel}, self.emit_load(lsn))

    @staticmethod
    def emit_load(lsn=100, part=0):
        return {"emit": {"end": [lsn, 0, 0], "part": part}}

    def begin(self, rel, lsn=100, parts=0, since=0, moves=False):
        """A load in batches of its own: begin, rows, end_part, end. since: it goes on; moves: rows may have moved from part to part."""
        return self.add({"load": rel, "lsn": lsn, "parts": parts, "since": since, "moves": moves}, self.emit_load(lsn))

    def rows(self, rel, text, lsn=100, part=0):
        return self.add({"rows": rel, "lsn": lsn, "text": text, "n": text.count("\n")}, self.emit_load(lsn, part))

    def end_part(self, rel, part, lsn=100):
        return self.add({"part": rel, "lsn": lsn}, self.emit_load(lsn, part))

    def end(self, rel, lsn=100, since=0):
        return self.add({"end": rel, "lsn": lsn, "since": since}, self.emit_load(lsn))

    def sleep(self, ms):
        return self.add({"sleep": ms})

    def done(self):
        return self.add({"done": True}, self.emit_load(), {"wait": "applied"})

    def tx(self, lsn, *changes, emit=True):
        """A transaction as a batch of its own; emit=False leaves it to be handed over with the next."""
        self.add({"begin": lsn, "us": lsn * 1000}, *changes, {"commit": True})
        return self.add({"emit": {"end": [lsn, -1, lsn + 1]}}) if emit else self

    def part(self, lsn, *changes, first=False, events=0):
        """One of the batches of a big transaction."""
        return self.add({"begin": lsn} if first else {"again": lsn}, *changes, {"emit": {"end": [lsn, events, 0], "more": True}})

    def wait(self):
        return self.add({"flush": True}, {"wait": "applied"})

    def let_go(self):
        return self.add({"let_go": True}, {"wait": "consumed"})


def c(rel, *after):
    return {"c": rel, "after": list(after)}


def u(rel, after, before=None):
    return {"u": rel, "after": list(after), **({"before": list(before)} if before else {})}


def d(rel, *before):
    return {"d": rel, "before": list(before)}


def schema(rel, old):
    return {"schema": rel, "old": old}


class Said:
    def __init__(self, out, err, status):
        self.lines, self.err, self.status = out.splitlines(), err, status

    def all(self, word):
        return [line for line in self.lines if line.split()[0] == word]

    @property
    def failed(self):
        return next((line for line in self.lines if line.startswith("failed ")), None)

    @property
    def failed_id(self):
        return self.failed and self.failed.split()[1]

    @property
    def applied(self):
        return max([int(line.split()[1]) for line in self.all("applied")], default=0)

    def counts(self, table):
        """Summed over everything that was told of the table."""
        total = {}
        for line in self.all("counts"):
            if line.split()[1] == table:
                for name, n in re.findall(r"(\w+)=(\d+)", line):
                    total[name] = total.get(name, 0) + int(n)
        return {name: n for name, n in total.items() if n}

    def __repr__(self):
        return "\n".join(self.lines[-40:]) + "\n" + self.err[-3000:]


class Feed:
    """A job that writes into a database: each run is one life of the target."""

    def __init__(self, database, uid="01hzfeedfeedfeedfeedfeedfe", **options):
        self.database = database
        self.options = {**database.connection(), "uid": uid, "job": "feed", "commit_interval": 20, **EVERYWHERE, **options}
        self.options.pop("connector")

    def start(self, script, failpoint=None, **options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DMSR_"))}
        environment["DMSR_LOG"] = os.environ.get("DMSR_LOG", "info")
        if failpoint:
            environment["DMSR_FAILPOINT"] = failpoint
        process = subprocess.Popen([BUILD / "tests" / "fake" / "feed", json.dumps({**self.options, **options})], env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.script = "".join(json.dumps(line) + "\n" for line in script.lines)
        return process

    @staticmethod
    def end(process, timeout=60):
        try:
            out, err = process.communicate(process.script, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"feed hangs:\n{Said(out, err, -9)}") from None
        assert "Sanitizer" not in err and "runtime error" not in err and "Assertion" not in err, err[-5000:]
        return Said(out, err, process.returncode)

    def run(self, script, failpoint=None, timeout=60, **options):
        return self.end(self.start(script, failpoint, **options), timeout)

    def ok(self, script, **options):
        said = self.run(script, **options)
        assert said.status == 0, (said.status, said)
        return said

    def killed(self, script, failpoint):
        """Runs until the failpoint kills it. False: it came to its end before."""
        said = self.run(script, failpoint)
        assert said.status in (0, -signal.SIGKILL), said
        return said.status != 0

    def killed_after(self, script, seconds):
        process = self.start(script)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(process.script)
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds * random.random())
        process.kill()
        status = process.wait()
        process.stdout.close()
        process.stderr.close()
        return status == -signal.SIGKILL


__all__ = ["Feed", "Script", "Said", "column", "c", "u", "d", "schema", "UNCHANGED", "PASSWORD"]
