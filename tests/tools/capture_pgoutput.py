#!/usr/bin/env python3
"""Captures what real servers send, as inputs of tests/fuzz/fuzz_pgoutput (and of tests that replay streams).

usage: capture_pgoutput.py OUTDIR [VERSION...]         versions as tests/servers/postgres has them; none: Debian's

For each scenario a server of its own database is asked by pg_logical_slot_get_binary_changes. A file is one byte of wishes (see fuzz_pgoutput.c), then
records: u32 length of the rest, u64 lsn, message; big-endian."""
import contextlib
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile

import psycopg2

TOP = pathlib.Path(__file__).resolve().parents[2]
SCENARIOS = {
    "rows": """
        INSERT INTO t VALUES (1, 'one'), (2, NULL), (3, ''); UPDATE t SET v = 'two' WHERE id = 2; UPDATE t SET id = 30 WHERE id = 3; DELETE FROM t WHERE id = 1;
        INSERT INTO f VALUES (1, 'x'), (2, NULL); UPDATE f SET b = NULL WHERE a = 1; DELETE FROM f; INSERT INTO i VALUES (7, 'i'); UPDATE i SET a = 8""",
    "toast": """
        INSERT INTO big VALUES (1, 'v', repeat('0123456789', 300)); UPDATE big SET v = 'w'; ALTER TABLE big REPLICA IDENTITY FULL; UPDATE big SET v = 'x'""",
    "ddl": """
        BEGIN; INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD c int DEFAULT 3; INSERT INTO t VALUES (2, 'b', 4); ALTER TABLE t DROP v;
        INSERT INTO t VALUES (3, 5); COMMIT; CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE t ADD m mood; UPDATE t SET m = 'ok'; ALTER TABLE t RENAME TO t2;
        INSERT INTO t2 VALUES (9, 9, 'ok')""",
    "parts": "INSERT INTO p VALUES (1, 'a'), (11, 'b'); UPDATE p SET id = 12 WHERE id = 1; TRUNCATE p; TRUNCATE p_1",
    "truncate": "TRUNCATE t, f; TRUNCATE t RESTART IDENTITY CASCADE",
    "messages": """
        SELECT pg_logical_emit_message(false, 'app', 'outside'); BEGIN; SELECT pg_logical_emit_message(true, 'app', 'inside'); INSERT INTO t VALUES (1, 'm'); COMMIT;
        SELECT pg_logical_emit_message(true, '', '')""",
    "types": """
        INSERT INTO z VALUES (1, 1.5, 'NaN', '2024-02-29 12:34:56.789', 'infinity', '1 year 2 days', '\\x00ff', '{"a": [1, null]}', '{1,NULL,3}', '[1,5)', '10.0.0.0/8',
        'f47ac10b-58cc-4372-a567-0e02b2c3d479', B'101', true, '(1,2)', ROW(1, 'x'))""",
    "origin": """
        SELECT pg_replication_origin_create('far'); SELECT pg_replication_origin_session_setup('far'); INSERT INTO t VALUES (1, 'from far');
        SELECT pg_replication_origin_session_reset(); INSERT INTO t VALUES (2, 'from here')""",
    "streamed": """
        BEGIN; INSERT INTO t SELECT i, 'x' FROM generate_series(1, 350) i; SAVEPOINT s; INSERT INTO f SELECT i, 'gone' FROM generate_series(1, 350) i; ROLLBACK TO s;
        ALTER TABLE t ADD c int; INSERT INTO t SELECT i, 'y', i FROM generate_series(1001, 1200) i; COMMIT; INSERT INTO f VALUES (1, 'after')""",
    "rolled-back": "BEGIN; INSERT INTO t SELECT i, 'x' FROM generate_series(1, 400) i; ROLLBACK; INSERT INTO f VALUES (1, 'after')",
}
TABLES = """
    CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE f (a int, b text); ALTER TABLE f REPLICA IDENTITY FULL;
    CREATE TABLE i (a int NOT NULL UNIQUE, b text); ALTER TABLE i REPLICA IDENTITY USING INDEX i_a_key;
    CREATE TABLE big (id int PRIMARY KEY, v text, b text); ALTER TABLE big ALTER b SET STORAGE EXTERNAL;
    CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20); CREATE TYPE pair AS (a int, b text);
    CREATE TABLE z (id int PRIMARY KEY, n numeric(10, 2), d float8, ts timestamptz, dt date, iv interval, b bytea, j jsonb, a int[], r int4range, c cidr, u uuid,
        bi bit(3), bo bool, po point, co pair);
    CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true);
"""
BINARY = {"types", "rows"}


def connect(directory, port, database):
    c = psycopg2.connect(host=directory, port=port, user="postgres", dbname=database)
    c.autocommit = True
    return c


def capture(directory, port, version, name, binary, out):
    database = (name + ("_b" if binary else "")).replace("-", "_")
    with contextlib.closing(connect(directory, port, "postgres")) as c:
        c.cursor().execute(f"CREATE DATABASE {database}")
    c = connect(directory, port, database)
    cur = c.cursor()
    cur.execute(TABLES)
    cur.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (database,))
    subprocess.run(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-h", directory, "-p", str(port), "-U", "postgres", "-d", database], input=SCENARIOS[name],
                   text=True, check=True, stdout=subprocess.DEVNULL)
    proto = 4 if version >= 16 else 3 if version >= 15 else 2 if version >= 14 else 1
    options = ["proto_version", str(proto), "publication_names", "p"]
    if version >= 14:
        options += ["messages", "true", "streaming", "on", "binary", "true" if binary else "false"]
    cur.execute(f"SELECT lsn::text, data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, {', '.join(['%s'] * len(options))})", [database, *options])
    wishes = proto - 1
    if name in ("streamed", "ddl"):
        wishes |= 4 | 8 | 16 | 64
    data = bytes([wishes])
    for lsn, message in cur.fetchall():
        high, low = lsn.split("/")
        message = bytes(message)
        data += struct.pack(">IQ", len(message) + 8, int(high, 16) << 32 | int(low, 16)) + message
    path = pathlib.Path(out) / f"{name}{'-binary' if binary else ''}-{version}"
    path.write_bytes(data)
    print(f"{path}: {len(data)} bytes")
    cur.execute("SELECT pg_drop_replication_slot(%s)", (database,))
    c.close()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    pathlib.Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for version in sys.argv[2:] or [None]:
        with tempfile.TemporaryDirectory(prefix="dmsr-cap-", dir="/tmp") as directory, socket.socket() as s:
            pathlib.Path(directory).chmod(0o755)
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
            s.close()
            server = TOP / "tests" / "servers" / "postgres"
            subprocess.run([server, "start", directory, str(port), *(["-v", version] if version else []), "logical_decoding_work_mem=64kB"], check=True,
                           stdout=subprocess.DEVNULL)
            try:
                with contextlib.closing(connect(directory, port, "postgres")) as c:
                    number = c.server_version // 10000
                for name in SCENARIOS:
                    if number >= 14 or name not in ("messages",):
                        capture(directory, port, number, name, False, sys.argv[1])
                    if name in BINARY and number >= 14:
                        capture(directory, port, number, name, True, sys.argv[1])
            finally:
                subprocess.run([server, "stop", directory, "immediate"], check=True)


main()
