"""PostgreSQL into files: whoever reads the directory has every row, once, in order, with the values that the server has, whenever dmsrd was killed."""
import base64
import collections
import csv
import io
import json
import pathlib
import random
import re
import signal
import time

import pytest

from conftest import TOP, wait_for
from test_kill import TABLES, Load

FAILPOINTS = sorted({name for path in (TOP / "src/connectors/file").glob("*.c") for name in re.findall(r'failpoint\("([a-z0-9.-]+)"\)', path.read_text())})


def target(path, **more):
    return {"connector": "file", "name": "lake", "path": str(path), "roll_interval": "200ms", **more}


def records(path, table):
    """All records of a table's files, in the order of their names."""
    for file in sorted((path / table).glob("*.ndjson")):
        with open(file, "rb") as f:
            for line in f:
                assert line.endswith(b"\n"), f"{file}: a line is cut off"
                yield json.loads(line)


def replay(path, table, key):
    """The table as its files tell it: rows by key (key None: a multiset of rows)."""
    rows, last = {} if key else collections.Counter(), (0, -1)
    for r in records(path, table):
        source, before, after = r["source"], r["before"], r["after"]
        if source["snapshot"] == "true":
            if last < (source["lsn"], 0):  # a load is all there is
                rows.clear()
            assert last <= (source["lsn"], 0), f"{table}: a row of the load behind changes"
            last = (source["lsn"], 0)
        else:
            # one change may be two records: a delete and a create, when its key changed
            at = (source["lsn"], source["event"])
            assert last < at or (last == at and r["op"] == "c"), f"{table}: {at} behind {last}: twice, or out of order"
            last = at
        if r["op"] == "t":
            rows.clear()
        elif not key:
            if before:
                assert rows[json.dumps(before)] > 0, f"{table}: {before} was not there"
                rows[json.dumps(before)] -= 1
            if after:
                rows[json.dumps(after)] += 1
        elif r["op"] == "d":
            assert before[key] in rows, f"{table}: {before} was not there"
            del rows[before[key]]
        elif r["op"] == "u":
            rows[after[key]].update(after)
        else:
            assert r["op"] in "cr" and after[key] not in rows, f"{table}: {after[key]} was there"
            rows[after[key]] = after
    return rows if key else +rows


def rows_of(database, table, columns, key):
    """The same from the server."""
    found = [dict(zip(columns, row)) for row in database.sql(f"SELECT {', '.join(columns)} FROM {table}")]
    return {row[key]: row for row in found} if key else collections.Counter(json.dumps(row) for row in found)


WHAT = {"public.t": (["id", "v", "n"], "id"), "public.counters": (["id", "n"], "id"), "public.keyless": (["a", "b"], None),
        "public.big": (["id", "n", "body"], "id"), "public.u": (["id", "pair", "x"], "id")}


def wait_same(daemon, database, path, timeout=30):
    """The source must be quiet."""
    want = {table: rows_of(database, table, columns, key) for table, (columns, key) in WHAT.items()}
    seen = {}

    def same():
        for table, (_, key) in WHAT.items():
            got = replay(path, table, key)
            if got != want[table]:
                seen["what"] = f"{table}: {len(got)} rows against {len(want[table])}"
                return False
        return True
    try:
        wait_for("the files tell what the source has", same, timeout, 0.3)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{seen}\n{daemon.log()[-3000:]}") from None


@pytest.mark.parametrize("name,nth", [(name, nth) for name in FAILPOINTS for nth in ((1, 4) if "rename" in name else (2,))])
def test_killed_at_each_failpoint(pg, daemon, tmp_path, name, nth):
    source, path = pg.database("fpf"), tmp_path / "lake"
    source.psql(TABLES)
    daemon.start(env={"DMSR_FAILPOINT": f"{name}:{nth}:kill"})
    load = None
    try:
        daemon.job("lake", source.connection(), [target(path)])
        load = Load(pg, source, seed=nth)
        wait_for("it is killed", lambda: daemon.process.poll() == -signal.SIGKILL, 120)
        daemon.start()
        daemon.wait_state("lake", "running")
        time.sleep(0.3)
    finally:
        if load:
            load.stop()
    wait_same(daemon, source, path)


def test_killed_at_random(pg, daemon, tmp_path):
    rng, path = random.Random(4), tmp_path / "lake"
    source = pg.database("randf")
    source.psql(TABLES)
    daemon.start()
    daemon.job("lake", source.connection(), [target(path, roll_bytes="16KiB")])
    load = Load(pg, source, seed=9)
    try:
        for _ in range(15):
            time.sleep(rng.choice([0.1, 0.3, 0.6, 1.0]))
            daemon.kill()
            daemon.start()
    finally:
        load.stop()
    daemon.wait_state("lake", "running")
    wait_same(daemon, source, path)
    assert load.transactions > 50


def captured(daemon, table):
    return next(t["captured"] for t in daemon.api("GET", "/jobs/lake/tables")["items"] if t["name"] == table)


def test_stop_and_start(pg, daemon, tmp_path):
    """A stop publishes what is whole, and does not wait for the interval."""
    source, path = pg.database("stopf"), tmp_path / "lake"
    source.psql(TABLES)
    daemon.start()
    daemon.job("lake", source.connection(), [target(path, roll_interval="1h")])
    daemon.wait_state("lake", "running")
    for n in range(3):
        source.psql("UPDATE counters SET n = n + 1")
        wait_for("it is read", lambda n=n: captured(daemon, "counters")["update"] == (n + 1) * source.one("SELECT count(*) FROM counters"))
        daemon.api("POST", "/jobs/lake/stop")
        daemon.wait_state("lake", "stopped")
        assert "could be finished in time" not in daemon.log()
        assert {r["n"] for r in replay(path, "public.counters", "id").values()} == {n + 1}
        daemon.api("POST", "/jobs/lake/start")
        daemon.wait_state("lake", "running")
    wait_same(daemon, source, path)


# type, values: what JSON has for them goes back into the type and must be what the server has
ZOO = {
    "boolean": ["t", "f"], "smallint": ["-32768"], "bigint": ["9223372036854775807", "-9223372036854775808"],
    "real": ["1e-05", "3.4028235e+38", "NaN", "-Infinity"], "double precision": ["5e-324", "1.7976931348623157e+308", "Infinity", "-0"],
    "numeric": ["0", "1.10", "NaN", "-123456789012345678901234567890.12345678900"], "numeric(12,2)": ["1.50"],
    "text": ["", "a\"b\\c/d\t\n\r\x01\x7f", "\u00e4\u20ac\U0001F418", "NULL"], "character(5)": ["ab"], "bytea": ["\\x", "\\x00ff10"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"], "json": ["{\"a\" : [1, \"\\u00e4\\n\"]}"], "jsonb": ["{\"a\": [1, 2.50, null]}"],
    "date": ["2026-01-31", "0044-03-15 BC", "infinity", "5874897-12-31"], "time": ["00:00:00", "24:00:00", "10:00:00.123456"],
    "timetz": ["10:00:00+02", "00:00:00-15:59:59"], "timestamp": ["2026-01-31 10:00:00.1", "4713-11-24 00:00:00 BC", "-infinity", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2026-01-31 10:00:00.123456+05:30", "infinity"], "interval": ["1 year -2 mons 3 days -04:05:06.789", "0", "-178000000 years"],
    "bit(4)": ["0101"], "varbit": ["", "100000001"], "inet": ["192.168.0.1/24", "::1"], "macaddr": ["08:00:2b:01:02:03"], "point": ["(1,-2.5)"],
    "box": ["(1,1),(0,0)"], "tsvector": ["'a':1 'b''c':2"], "int4range": ["[1,5)", "empty"], "money": ["$1,234.56"], "pg_lsn": ["16/B374D848"],
    "integer[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={1,2}"], "text[]": ["{a,\"b c\",\"NULL\",NULL,\"\",\"q\\\"\\\\\",\"{}\"}"], "bytea[]": ["{\"\\\\x0001\"}"],
    "numeric[]": ["{1.50,NaN}"], "timestamp[]": ["{\"2026-01-31 10:00:00\",infinity}"], "box[]": ["{(1,1),(0,0);(2,2),(3,3)}"], "jsonb[]": ["{\"{\\\"a\\\": 1}\"}"],
}


def bounded(value, element):
    """A JSON array as PostgreSQL writes one."""
    if isinstance(value, dict):
        return value["bounds"] + "=" + bounded(value["values"], element)
    if isinstance(value, list):
        return "{" + (";" if element == "box" else ",").join(bounded(v, element) for v in value) + "}"
    if value is None:
        return "NULL"
    if isinstance(value, bool) or not isinstance(value, str):
        return json.dumps(value)
    text = as_text(value, element)
    return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\""


def as_text(value, kind):
    """What JSON has, as an input of the type."""
    if kind.endswith("[]"):
        return bounded(value, kind[:-2])
    if kind == "bytea":
        return "\\x" + base64.b64decode(value).hex()
    if isinstance(value, str):
        found = re.match(r"([+-])(\d{4,})(-\d\d-\d\d.*)", value)
        if kind in ("date", "timestamp", "timestamptz") and found:
            sign, year, rest = found.groups()
            return f"{1 + int(year):04d}{rest} BC" if sign == "-" else year + rest
        if kind in ("date", "timestamp") and value.startswith("0000"):
            return "0001" + value[4:] + " BC"
        return value
    return value if isinstance(value, str) else json.dumps(value)


def test_types_go_back(pg, daemon, tmp_path):
    source, path = pg.database("zoof"), tmp_path / "lake"
    cases = [(kind, value) for kind, values in ZOO.items() for value in values]
    tables = {kind: f"z{i}" for i, kind in enumerate(ZOO)}
    for kind, table in tables.items():
        source.sql(f"CREATE TABLE {table} (id integer PRIMARY KEY, v {kind})")
    for i, (kind, value) in enumerate(cases):
        source.sql(f"INSERT INTO {tables[kind]} VALUES (%s, %s::text::{kind})", i, value)
    daemon.start()
    daemon.job("lake", source.connection(), [target(path)])
    daemon.wait_state("lake", "running")
    for i, (kind, value) in enumerate(cases):
        source.sql(f"INSERT INTO {tables[kind]} VALUES (%s, %s::text::{kind})", 10000 + i, value)
    wait_for("all are there", lambda: all(len(replay(path, f"public.{t}", "id")) == 2 * len(ZOO[k]) for k, t in tables.items()))
    for kind, table in tables.items():
        for key, row in replay(path, f"public.{table}", "id").items():
            same, is_, was = source.sql(f"SELECT v::text = %s::text::{kind}::text, %s::text::{kind}::text, v::text FROM {table} WHERE id = %s",
                                        as_text(row["v"], kind), as_text(row["v"], kind), key)[0]
            assert same, f"{kind}: the server has {was}, JSON {row['v']!r}, which is {is_}"


@pytest.mark.parametrize("how", ["reload", "positions"])
def test_loaded_again_and_empty(pg, daemon, tmp_path, how):
    """Who replays the files does not keep what was there before."""
    source, path = pg.database("emptyf"), tmp_path / "lake"
    source.psql("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1), (2); CREATE TABLE none (id integer PRIMARY KEY)")
    daemon.start()
    daemon.job("lake", source.connection(), [target(path)])
    daemon.wait_state("lake", "running")
    wait_for("it is loaded", lambda: set(replay(path, "public.t", "id")) == {1, 2} and not replay(path, "public.none", "id"))
    daemon.api("POST", "/jobs/lake/stop")
    daemon.wait_state("lake", "stopped")
    source.psql("DELETE FROM t")
    if how == "reload":
        daemon.api("POST", "/jobs/lake/tables/public.t/reload")
    else:
        daemon.api("DELETE", "/jobs/lake/positions")
    daemon.api("POST", "/jobs/lake/start")
    daemon.wait_state("lake", "running")
    source.psql("INSERT INTO t VALUES (3)")
    wait_for("the files say what is there", lambda: set(replay(path, "public.t", "id")) == {3})


def test_csv(pg, daemon, tmp_path):
    source, path = pg.database("csvf"), tmp_path / "lake"
    source.psql("CREATE TABLE c (id integer PRIMARY KEY, a text, b text); INSERT INTO c VALUES (1, '', NULL), (2, E'x,\"y\\n', 'z')")
    daemon.start()
    daemon.job("lake", source.connection(), [target(path, format="csv")])
    daemon.wait_state("lake", "running")
    source.psql("UPDATE c SET b = 'q' WHERE id = 1; DELETE FROM c WHERE id = 2; INSERT INTO c VALUES (3, 'n', 'm'); TRUNCATE c")

    def lines():
        found = []
        for file in sorted((path / "public.c").glob("*.csv")):
            rows = list(csv.reader(open(file, newline="", encoding="utf-8")))
            assert rows[0] == ["op", "id", "a", "b"]
            found += rows[1:]
        return found
    wait_for("all lines", lambda: len(lines()) == 6)
    assert sorted(lines()[:2]) == [["I", "1", "", ""], ["I", "2", "x,\"y\n", "z"]]
    assert lines()[2:] == [["U", "1", "", "q"], ["D", "2", "", ""], ["I", "3", "n", "m"], ["T", "", "", ""]]
    # COPY takes them back, and tells the empty string from NULL
    text = b"".join(f.read_bytes() for f in sorted(pathlib.Path(path / "public.c").glob("*load*.csv")))
    source.psql("CREATE TABLE back (op text, id integer, a text, b text)")
    with source.server.connect(source.name) as c:
        c.cursor().copy_expert("COPY back FROM STDIN (FORMAT csv, HEADER)", io.BytesIO(text))
    assert source.sql("SELECT id, a, b FROM back ORDER BY 1") == [(1, "", None), (2, "x,\"y\n", "z")]


def test_a_job_that_goes_takes_its_journal_alone(pg, daemon, tmp_path):
    daemon.start()
    source, path = pg.database("files"), tmp_path / "lake"
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    other = path / ".dmsr" / "somebody"
    other.mkdir(parents=True)
    daemon.job("s", source.connection(), [target(path)])
    daemon.wait_state("s", "running")
    wait_for("the load is there", lambda: len(list(records(path, "public.t"))) == 2)
    # All anew: what the target remembers goes too, so it is loaded again.
    daemon.api("POST", "/jobs/s/stop")
    daemon.wait_state("s", "stopped")
    daemon.api("DELETE", "/jobs/s/positions")
    assert list((path / ".dmsr").iterdir()) == [other]
    daemon.api("POST", "/jobs/s/start")
    wait_for("it is loaded again", lambda: len(list(records(path, "public.t"))) == 4)
    files = sorted(path.glob("public.t/*"))
    other.rmdir()
    daemon.api("DELETE", "/jobs/s")
    wait_for("it is gone", lambda: daemon.call("GET", "/jobs/s")[0] == 404)
    assert not (path / ".dmsr").exists() and sorted(path.glob("public.t/*")) == files
