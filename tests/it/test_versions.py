"""The versions of PostgreSQL that no other test runs on, each by one whole path: load, changes, a kill -9 in the midst of both, every type, partitions."""
import contextlib

import psycopg2
import pytest

import zoo
from conftest import Postgres, wait_for

# 15 is Debian's, or what takes its place, and 18 is the newest: all else runs on these two.
VERSIONS = [12, 13, 14, 16, 17]

TABLES = """
CREATE TABLE t (id bigserial PRIMARY KEY, v text, n integer NOT NULL DEFAULT 0);
CREATE TABLE keyless (a integer, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE emptied (id integer PRIMARY KEY);
CREATE TABLE p (id integer, k integer, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p_2 PARTITION OF p FOR VALUES IN (2);
INSERT INTO t (v) SELECT repeat('row', i % 50) FROM generate_series(1, 20000) i;
INSERT INTO keyless SELECT i % 7, 'k' || i % 3 FROM generate_series(1, 50) i;
INSERT INTO emptied SELECT generate_series(1, 100);
INSERT INTO p SELECT i, 1 + i % 2, 'load' FROM generate_series(1, 1000) i;
"""
# The last is more than the server keeps in memory of a transaction: from 14 on it is sent while it runs, and its savepoint is taken back then.
CHANGES = """
INSERT INTO t (v) SELECT 'new' FROM generate_series(1, 100);
UPDATE t SET v = 'changed', n = n + 1 WHERE id % 97 = 0;
UPDATE t SET id = id + 1000000 WHERE id % 211 = 0 AND id < 1000000;
DELETE FROM t WHERE id % 101 = 0;
UPDATE keyless SET b = b || 'x' WHERE a = 3; DELETE FROM keyless WHERE a = 4; INSERT INTO keyless VALUES (3, 'k'), (NULL, NULL);
TRUNCATE emptied; INSERT INTO emptied VALUES (7);
UPDATE p SET k = 3 - k, v = 'moved' WHERE id % 10 = 0; DELETE FROM p WHERE id % 33 = 0; INSERT INTO p SELECT max(id) + 1, 2, 'new' FROM p;
BEGIN; UPDATE t SET n = n + 1; SAVEPOINT s; INSERT INTO t (v) SELECT 'never' FROM generate_series(1, 3000); ROLLBACK TO s; UPDATE p SET v = 'last'; COMMIT;
"""


@pytest.fixture(params=VERSIONS)
def server(request):
    s = Postgres(version=request.param, settings=["autovacuum=off", *(["logical_decoding_work_mem=64kB"] if request.param >= 13 else [])])
    yield s
    s.close()


def wide(version):
    """Every type in one table, a column each; row n has the nth value of each, or NULL."""
    values = zoo.values(version)
    columns = "".join(f", c{i} {t}" for i, t in enumerate(values))
    rows = max(map(len, values.values()))
    row = [", ".join(f"({v[n]})::{t}" if n < len(v) else "NULL" for t, v in values.items()) for n in range(rows)]
    return zoo.TYPES + f"CREATE TABLE zoo (id serial PRIMARY KEY, note text{columns});" + "".join(f"INSERT INTO zoo VALUES (DEFAULT, 'load', {r});" for r in row)


def again(version):
    """All rows of wide() once more, and updates that send every value, and none."""
    columns = ", ".join(f"c{i}" for i, _ in enumerate(zoo.values(version)))
    olds = columns.replace("c", "o.c")
    return f"""INSERT INTO zoo (note, {columns}) SELECT 'stream', {columns} FROM zoo ORDER BY id;
        UPDATE zoo z SET ({columns}) = ({olds}) FROM zoo o WHERE o.id = z.id % (SELECT count(*) FROM zoo) + 1; UPDATE zoo SET note = 'touched' WHERE id % 2 = 0;"""


def test_a_whole_path(server, dmsrd):
    source, target = server.database("old"), server.database("copy")
    assert server.version == int(server.args[1])
    source.psql(wide(server.version) + TABLES)
    dmsrd.job("path", source.connection(), [target.connection(name="copy")])
    source.psql(CHANGES)
    with contextlib.closing(server.connect(target.name)) as c:
        def loading():
            with c.cursor() as cur:
                cur.execute("SELECT count(*) FROM dmsr.loads")
                return cur.fetchone()[0] or dmsrd.state_of("path") == "running"
        wait_for("the load has begun", loading)
    dmsrd.kill()
    source.psql(CHANGES)
    dmsrd.start().wait_state("path", "running")
    source.psql(CHANGES + again(server.version))
    dmsrd.kill()
    dmsrd.start()
    source.psql(CHANGES)
    tables = source.tables() if server.version > 12 else [t for t in source.tables() if t != "public.p"] + ["p_1", "p_2"]  # 12 publishes partitions alone
    dmsrd.wait_equal(source, target, tables)
