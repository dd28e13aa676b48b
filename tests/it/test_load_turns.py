"""A big table that is loaded again, or added, while the changes of the others flow on: its parts take turns with the stream, in it (streamer embedded) or past
it (kafka, load direct)."""
import contextlib
import re
import threading
import time

import psycopg2
import psycopg2.extras
import pytest

import writers
from conftest import wait_for
from proxy import Proxy
from test_kafka import streamer

pytestmark = pytest.mark.spread

PARTS = {"load_part_bytes": "64KiB", "load_connections": 2, "batch_bytes": "16KiB"}
N = 20000
TABLES = f"""
CREATE TABLE big (id integer PRIMARY KEY, v text, k integer NOT NULL, g integer GENERATED ALWAYS AS (k + 1) STORED, body text);
CREATE TABLE p (a integer, id bigint, v text, PRIMARY KEY (id, a)) PARTITION BY RANGE (a);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (6000);
CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (6000) TO (MAXVALUE);
CREATE TABLE pulse (id integer PRIMARY KEY, n integer);
INSERT INTO big (id, v, k) SELECT i, md5(i::text) || repeat('.', 60), 0 FROM generate_series(1, {N}) i ORDER BY md5(i::text);
UPDATE big SET body = (SELECT string_agg(md5(id::text || j), '') FROM generate_series(1, 100) j) WHERE id % 100 = 0;
INSERT INTO p SELECT i, i, repeat('p', 90) FROM generate_series(1, 12000) i;
INSERT INTO pulse VALUES (1, 0);
ANALYZE
"""


@pytest.fixture
def pair(any_pg):
    source, target = any_pg.database("turns"), any_pg.database("turns_copy")
    source.psql(TABLES)
    return any_pg, source, target


WAYS = {"embedded": None, "direct": {"codec": "native"}, "direct both": {"layout": "both"}, "direct exact": {"exactly_once": True}}


@pytest.fixture
def way(request):
    """The job's streamer, of those through which no rows need go."""
    if WAYS[request.param] is None:
        return {}
    return {"streamer": streamer(request.getfixturevalue("kafka"), load="direct", **WAYS[request.param])}


all_ways = pytest.mark.parametrize("way", WAYS, indirect=True)
both_ways = pytest.mark.parametrize("way", ["embedded", "direct"], indirect=True)


class Writers(writers.Writers):
    """Two sessions that write to big, p and pulse, until stopped."""

    def statement(self, r, who):
        n = r.randrange(1, N // 2) * 2 + who  # each its own rows: no deadlocks
        new = r.randrange(N, 10 ** 6) * 2 + who
        return r.choice([
            f"INSERT INTO big (id, v, k) VALUES ({new}, 'new', {n}) ON CONFLICT DO NOTHING",
            f"UPDATE big SET k = k + 1 WHERE id % 2 = {who} AND id BETWEEN {n} AND {n + 60}",
            f"UPDATE big SET v = 'v' || {new} WHERE id = {n}",
            f"WITH x AS (DELETE FROM big WHERE id = {n} RETURNING v, k) INSERT INTO big (id, v, k) SELECT {new}, v, k FROM x ON CONFLICT DO NOTHING",
            f"UPDATE big SET id = {new} WHERE id = {n} AND body IS NULL AND NOT EXISTS (SELECT FROM big WHERE id = {new})",
            f"UPDATE big SET id = {n + 2} WHERE id = {n} AND body IS NULL AND NOT EXISTS (SELECT FROM big WHERE id = {n + 2})",
            f"UPDATE big SET body = repeat(md5('{n}'), 200) WHERE id = {n}",
            f"DELETE FROM big WHERE id BETWEEN {n} AND {n + 3} AND id % 2 = {who}",
            f"UPDATE p SET v = 'q{n}' WHERE id = {n}",
            f"UPDATE p SET a = {r.randrange(12000)} WHERE id = {n}",
            f"UPDATE p SET id = {new} WHERE id = {n} AND NOT EXISTS (SELECT FROM p WHERE id = {new})",
            f"DELETE FROM p WHERE id = {n}",
            f"INSERT INTO p VALUES ({n % 12000}, {new}, 'new') ON CONFLICT DO NOTHING",
        ])

    def last(self, who):
        return "UPDATE pulse SET n = n + 1" if who else ""


def begin(daemon, source, target, tables=("public.*",), env=None, way=None, **more):
    daemon.start(env=env)
    daemon.job("j", source.connection(**PARTS), [target.connection(name="copy", **more)], tables={"include": list(tables)}, **(way or {}))
    daemon.wait_state("j", "running")


def load_again(daemon, table):
    daemon.api("POST", f"/jobs/j/tables/public.{table}/reload")


def turns_of(daemon, table):
    return len(re.findall(rf"table public.{table} takes turns with the stream", daemon.log()))


def amid_turns(server, daemon, sql="", way=None):
    """A job of big and pulse that has loaded both, and begun to load big again."""
    source, target = server.database("turns"), server.database("turns_copy")
    source.psql(TABLES + sql)
    begin(daemon, source, target, tables=["public.big", "public.pulse"], way=way)
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    return source, target


@all_ways
@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_the_others_are_followed_meanwhile(pair, daemon, apply, way):
    server, source, target = pair
    begin(daemon, source, target, apply=apply, way=way)
    sessions = Writers(server, source)
    pulses = set()
    try:
        before = target.one("SELECT txid_current()")
        load_again(daemon, "big")
        wait_for("turns", lambda: turns_of(daemon, "big"), 30)
        fresh = f"SELECT (SELECT count(*) FROM big WHERE xmin::text::bigint >= {before}), (SELECT n FROM pulse)"
        deadline = time.monotonic() + 60
        while "table public.big read" not in daemon.log().split("takes turns")[-1] and time.monotonic() < deadline:
            rows, n = target.sql(fresh)[0]
            if rows < N * .8:
                pulses.add(n)
        time.sleep(.5)
    finally:
        sessions.stop()
    daemon.wait_equal(source, target)
    assert turns_of(daemon, "big") == 1
    assert len(pulses) >= 5, pulses
    assert daemon.api("GET", "/jobs/j/status")["error"] is None


KILLS = ["pg.turn:3", "pg.turn:20", "pg.part-copied:7", "target.load-part:4", "target.load-part-merged:9", "target.load-making", "target.load-made",
         "target.load-before-commit", "target.load-after-commit", "target.load-done", "pg.load-done", "pipeline.applied:60", "pipeline.stored:9"]


@both_ways
@pytest.mark.parametrize("failpoint", KILLS)
def test_killed_in_a_turn(pair, daemon, failpoint, way):
    """It begins anew, and nothing is lost; both tables take turns, one behind the other."""
    server, source, target = pair
    begin(daemon, source, target, way=way)
    sessions = Writers(server, source)
    try:
        daemon.stop()
        daemon.start(env={"DMSR_FAILPOINT": failpoint})
        daemon.wait_state("j", "running")
        load_again(daemon, "big")
        load_again(daemon, "p")
        wait_for(f"killed at {failpoint}", lambda: daemon.process.poll() is not None, 60)
        time.sleep(.3)
        daemon.start()
        daemon.wait_state("j", "running", 60)
        time.sleep(1)
    finally:
        sessions.stop()
    daemon.wait_equal(source, target)
    assert turns_of(daemon, "big") or turns_of(daemon, "p")
    assert target.one("SELECT count(*) FROM dmsr.loads WHERE job_uid LIKE '%%/%%' AND split_part(job_uid, '/', 2) <> '0'") == 0


def through(daemon, source, target, table="big"):
    """Loaded again under writes, to the end."""
    sessions = Writers(source.server, source)
    try:
        load_again(daemon, table)
        wait_for(f"{table} to be read again", lambda: daemon.log().count(f"table public.{table} read:") >= 2, 60)
        time.sleep(.3)
    finally:
        sessions.stop()
    daemon.wait_equal(source, target)


def test_a_transaction_that_is_open_is_not_waited_for(pair, daemon):
    """Not by the table's parts, though it has written to the table, and not by the stream."""
    server, source, target = pair
    begin(daemon, source, target)
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    c = server.connect(source.name)
    c.autocommit = False
    with c.cursor() as cur:
        cur.execute("UPDATE big SET v = 'long' WHERE id % 7 = 0; DELETE FROM big WHERE id % 11 = 0; UPDATE big SET id = -id WHERE id % 13 = 0 AND body IS NULL")
        wait_for("big to be read", lambda: daemon.log().count("table public.big read:") >= 2, 60)
        source.psql("UPDATE pulse SET n = 77")
        wait_for("the pulse", lambda: target.one("SELECT n FROM pulse") == 77)
    c.commit()
    c.close()
    daemon.wait_equal(source, target)


def test_what_went_out_and_is_not_seen_yet_is_waited_for(pg, daemon):
    """With synchronous standbys a commit is in the log, and comes by the stream, before anybody at the server sees it: a part that is read meanwhile has the
    row as it was before."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    target.psql(f"ALTER DATABASE {target.name} SET synchronous_commit = local")  # it is the same server
    begin(daemon, source, target, tables=["public.big", "public.pulse"])
    waiting = threading.Thread(target=lambda: source.psql("SET synchronous_commit = on; UPDATE big SET v = 'not seen' WHERE id > 100"), daemon=True)
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    source.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()")
    try:
        time.sleep(.2)
        waiting.start()
        wait_for("it comes by the stream", lambda: target.one("SELECT count(*) FROM big WHERE v = 'not seen'"))
        assert source.one("SET synchronous_commit = local; SELECT count(*) FROM big WHERE v = 'not seen'") == 0
        there = target.one("SELECT count(*) FROM big")
        time.sleep(1)
        assert target.one("SELECT count(*) FROM big") == there < N
    finally:
        source.psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")
        waiting.join(20)
    daemon.wait_equal(source, target, ["public.big"])


CHANGES = {
    "truncated": "TRUNCATE big; INSERT INTO big (id, v, k) SELECT i, 'again ' || i, 1 FROM generate_series(1, 5000) i",
    "emptied": "DELETE FROM big",
    "rewritten": "ALTER TABLE big ALTER v TYPE varchar(200) USING v || '!'",
    "wider": "ALTER TABLE big ADD extra text DEFAULT 'x'; UPDATE big SET extra = 'y' WHERE id % 7 = 0",
    "made anew": "BEGIN;DROP TABLE big;CREATE TABLE big (id integer PRIMARY KEY, v text, k integer NOT NULL, g integer GENERATED ALWAYS AS (k + 1) STORED, body text);INSERT INTO big (id, v, k) SELECT i, 'new', 1 FROM generate_series(1, 300) i;COMMIT",
    "packed": "VACUUM FULL big",
    "moved": "UPDATE big SET id = id + 1000000",
    "moved around": "UPDATE big SET id = -id WHERE id <= 10000; UPDATE big SET id = id - 10000 WHERE id > 10000; UPDATE big SET id = 10000 - id WHERE id < 0",
    "long values": "UPDATE big SET body = repeat(md5(id::text), 300) WHERE id % 3 = 0; UPDATE big SET k = k + 1 WHERE id % 2 = 0; UPDATE big SET id = -id WHERE id % 3 = 0",
    "identity": "ALTER TABLE big REPLICA IDENTITY FULL; UPDATE big SET id = -id WHERE id < 300; ALTER TABLE big REPLICA IDENTITY DEFAULT; UPDATE big SET k = 5 WHERE id < 0",
}


@both_ways
@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_to_it_meanwhile(pg, daemon, change, way):
    source, target = amid_turns(pg, daemon, way=way)
    for statement in CHANGES[change].split("; "):
        source.psql(statement)
        time.sleep(.15)
    source.psql("UPDATE pulse SET n = n + 1")
    daemon.wait_state("j", "running", 60)
    daemon.wait_equal(source, target, ["public.big", "public.pulse"])
    source.psql("INSERT INTO big (id, k) VALUES (-500000, 5); UPDATE pulse SET n = n + 1")
    daemon.wait_equal(source, target, ["public.big", "public.pulse"])


@contextlib.contextmanager
def often(database, *statements, every=.15):
    """One after the other, with a number each, until it is left. Says how many."""
    stopping, done, errors = threading.Event(), [], []

    def run():
        try:
            with contextlib.closing(database.server.connect(database.name)) as c:
                while not stopping.wait(every):
                    c.cursor().execute(statements[len(done) % len(statements)].format(n=len(done)))
                    done.append(1)
        except psycopg2.Error as e:
            errors.append(e)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join(30)
    assert not errors, errors


HARMLESS = {
    "packed": ["VACUUM FULL big", "UPDATE big SET k = {n} WHERE id % 50 = 0"],
    "truncated": ["TRUNCATE big; INSERT INTO big (id, v, k) SELECT i, md5(i::text), {n} FROM generate_series(1, 500) i"],
    "other settings": ["ALTER TABLE big ALTER v SET STATISTICS {n}", "ALTER TABLE big ALTER v SET DEFAULT '{n}'", "ALTER TABLE big ALTER v SET NOT NULL",
                       "ALTER TABLE big ALTER v DROP NOT NULL"],
    "more partitions": ["CREATE TABLE p_n{n} PARTITION OF p FOR VALUES FROM (-{n}00 - 100) TO (-{n}00)",
                        "INSERT INTO p SELECT -{n}00 + i, 100000 + {n}00 + i, 'new' FROM generate_series(1, 99) i"],
}


@pytest.mark.parametrize("change", HARMLESS)
def test_what_does_not_matter(pair, daemon, change):
    """However often it happens: the load goes on."""
    _, source, target = pair
    table = "p" if change == "more partitions" else "big"
    begin(daemon, source, target)
    load_again(daemon, table)
    wait_for("turns", lambda: turns_of(daemon, table))
    with often(source, *HARMLESS[change]) as done:
        wait_for(f"{table} to be read", lambda: daemon.log().count(f"table public.{table} read:") >= 2, 60)
    daemon.wait_equal(source, target)
    assert turns_of(daemon, table) == 1 and "begins anew" not in daemon.log()
    assert done
    source.psql("UPDATE big SET k = 77 WHERE id % 3 = 0; UPDATE p SET v = 'end' WHERE id % 3 = 0")
    daemon.wait_equal(source, target)


def test_what_matters_and_comes_again_and_again(pg, daemon):
    """The load begins anew, and anew, and then it is one that ends; the next takes turns again."""
    source, target = amid_turns(pg, daemon)
    with often(source, "ALTER TABLE big ADD extra{n} integer"):
        wait_for("big to be read", lambda: daemon.log().count("table public.big read:") >= 2, 60)
    daemon.wait_state("j", "running")
    source.psql("UPDATE big SET k = k + 1")
    daemon.wait_equal(source, target, ["public.big"])
    assert turns_of(daemon, "big") == 2 and daemon.log().count("its load in turns was begun 2 times") == 1
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big") == 3)
    wait_for("big to be read", lambda: daemon.log().count("table public.big read:") >= 3, 60)
    daemon.wait_equal(source, target, ["public.big"])


def test_it_is_found_under_another_name(pg, daemon):
    """Which its mark does not tell."""
    source, target = amid_turns(pg, daemon)
    source.psql("BEGIN; ALTER TABLE big RENAME TO x; CREATE TABLE big (LIKE x INCLUDING ALL); INSERT INTO big (id, v, k) SELECT id, v, k FROM x WHERE id < 9000; COMMIT")
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target, ["public.big"])


OTHERS = {
    "unique at the source": ("CREATE UNIQUE INDEX big_v ON big (v, id)", ""),
    "unique at the target": ("", "CREATE UNIQUE INDEX big_v ON big (v, id)"),
    "referred to": ("CREATE TABLE child (id integer PRIMARY KEY, big integer REFERENCES big ON DELETE CASCADE ON UPDATE CASCADE); INSERT INTO child SELECT i, i FROM generate_series(1, 50) i", ""),
    "whole rows as its identity": ("ALTER TABLE big REPLICA IDENTITY FULL", ""),
    "without a key": ("ALTER TABLE big DROP CONSTRAINT big_pkey; ALTER TABLE big REPLICA IDENTITY FULL", ""),
    "no temporary tables": ("", "REVOKE TEMPORARY ON DATABASE {target} FROM PUBLIC"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_table_that_cannot_is_loaded_at_once(pg, daemon, other):
    """In one snapshot, and the stream waits."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES + ";" + OTHERS[other][0])
    options = {}
    if other == "no temporary tables":
        target.psql(f"CREATE ROLE poor LOGIN PASSWORD 'poor'; GRANT CREATE ON DATABASE {target.name} TO poor; GRANT CREATE ON SCHEMA public TO poor")
        options = {"user": "poor", "password": "poor"}
    daemon.start()
    daemon.job("j", source.connection(**PARTS), [target.connection(name="copy", **options)])
    daemon.wait_state("j", "running")
    if OTHERS[other][1]:
        target.psql(OTHERS[other][1].format(target=target.name))
    through(daemon, source, target)
    if other in ("unique at the target", "referred to", "no temporary tables"):
        assert "changes cannot come between the parts of" in daemon.log()
    else:
        assert not turns_of(daemon, "big") and "target.load-lost" not in daemon.log()
    assert ("REPLICA IDENTITY FULL" in daemon.log()) == (other == "whole rows as its identity")
    assert daemon.state_of("j") == "running"


@both_ways
def test_a_table_that_is_added(pg, daemon, way):
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    begin(daemon, source, target, tables=["public.pulse", "public.p"], way=way)
    daemon.api("PATCH", "/jobs/j", {"tables": {"include": ["public.*"]}}, {"If-Match": "*"})
    wait_for("turns", lambda: turns_of(daemon, "big"))
    sessions = Writers(pg, source)
    try:
        wait_for("big to be read", lambda: "table public.big read:" in daemon.log(), 60)
    finally:
        sessions.stop()
    daemon.wait_equal(source, target)
    wait_for("its key", lambda: target.one("SELECT count(*) FROM pg_index WHERE indrelid = 'big'::regclass AND indisprimary") == 1)


@all_ways
def test_it_is_stopped_meanwhile(pg, daemon, way):
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    begin(daemon, source, target, way=way)
    sessions = Writers(pg, source)
    try:
        load_again(daemon, "big")
        for n, act in enumerate(("stop", "kill", "pause", "restart")):
            wait_for("turns", lambda n=n - (act == "restart"): turns_of(daemon, "big") > n)
            time.sleep(.1)
            if act == "kill":
                daemon.kill()
                daemon.start()
            else:
                daemon.api("POST", f"/jobs/j/{act}")
            if act in ("stop", "pause"):
                daemon.wait_state("j", {"stop": "stopped", "pause": "paused"}[act])
                daemon.api("POST", "/jobs/j/" + {"stop": "start", "pause": "resume"}[act])
            daemon.wait_state("j", "running")
        wait_for("big to be read", lambda: "table public.big read:" in daemon.log().split("takes turns")[-1], 60)
    finally:
        sessions.stop()
    daemon.wait_equal(source, target)


@both_ways
@pytest.mark.parametrize("second", ["postgres", "file"])
def test_two_targets(pg, daemon, tmp_path, second, way):
    """All of them have to be able to."""
    source, target, other = pg.database("turns"), pg.database("turns_copy"), pg.database("turns_other")
    source.psql(TABLES)
    also = other.connection(name="other") if second == "postgres" else {"connector": "file", "name": "other", "path": str(tmp_path / "out")}
    daemon.start()
    daemon.job("j", source.connection(**PARTS), [target.connection(name="copy"), also], **way)
    daemon.wait_state("j", "running")
    through(daemon, source, target)
    assert bool(turns_of(daemon, "big")) == (second == "postgres")
    if second == "postgres":
        daemon.wait_equal(source, other)


def test_prepare_none(pg, daemon):
    """Rows that were there cannot be told from those of a part: it does not take turns."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    target.psql(TABLES + "; TRUNCATE big, p, pulse")
    begin(daemon, source, target, tables=["public.pulse", "public.p"], prepare="none")
    daemon.api("PATCH", "/jobs/j", {"tables": {"include": ["public.*"]}}, {"If-Match": "*"})
    wait_for("big to be read", lambda: "table public.big read:" in daemon.log(), 60)
    daemon.wait_equal(source, target)
    assert not turns_of(daemon, "big")


def test_an_identity_beside_the_key(pg, daemon):
    """Its values may be inserted, and not updated."""
    source, target = amid_turns(pg, daemon, "; ALTER TABLE big ALTER k ADD GENERATED ALWAYS AS IDENTITY (START 100000)")
    source.psql("UPDATE big SET v = 'x' WHERE id % 3 = 0; INSERT INTO big (id, v) SELECT i, 'new' FROM generate_series(30001, 30500) i; UPDATE pulse SET n = 5")
    wait_for("big to be read", lambda: daemon.log().count("table public.big read:") >= 2, 60)
    daemon.wait_equal(source, target, ["public.big", "public.pulse"])


class Standby:
    """A synchronous standby that has all at once, and says so a moment later: until then commits are in the log, and nobody sees them."""

    def __init__(self, server, late):
        self.server, self.late, self.stopping = server, late, threading.Event()
        self.c = psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres", application_name="late",
                                  connection_factory=psycopg2.extras.PhysicalReplicationConnection)
        self.cur = self.c.cursor()
        with contextlib.closing(server.connect("postgres")) as c:
            with c.cursor() as cur:
                cur.execute("SELECT pg_current_wal_flush_lsn()")
                self.cur.start_replication(start_lsn=cur.fetchone()[0])
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        has = []
        while not self.stopping.is_set():
            message = self.cur.read_message()
            if message:
                has.append((time.monotonic() + self.late, message.data_start + len(message.payload)))
                continue
            ripe = [lsn for at, lsn in has if at <= time.monotonic()]
            has = has[len(ripe):]
            if ripe:
                self.cur.send_feedback(write_lsn=ripe[-1], flush_lsn=ripe[-1], force=True)
            time.sleep(.002)

    def __enter__(self):
        self.server_says("ALTER SYSTEM SET synchronous_standby_names = 'late'")
        return self

    def __exit__(self, *_):
        self.server_says("ALTER SYSTEM RESET synchronous_standby_names")
        self.stopping.set()
        self.thread.join(10)
        self.c.close()

    def server_says(self, text):
        with contextlib.closing(self.server.connect("postgres")) as c, c.cursor() as cur:
            cur.execute("SET synchronous_commit = local")
            cur.execute(text)
            cur.execute("SELECT pg_reload_conf()")


def test_there_is_always_one_that_is_not_seen(pg, daemon):
    """The stream rests until it is."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    for database, how in (source, "on"), (target, "local"):  # it is the same server
        database.psql(f"ALTER DATABASE {database.name} SET synchronous_commit = {how}")
    begin(daemon, source, target, tables=["public.big", "public.pulse"])
    with Standby(pg, .1), contextlib.ExitStack() as stack:
        for i in range(8):
            stack.enter_context(often(source, "INSERT INTO pulse VALUES (2 + {n} * 8 + %d, 0)" % i, every=.001))
        load_again(daemon, "big")
        wait_for("big to be read", lambda: daemon.log().count("table public.big read:") >= 2, 100)
    assert turns_of(daemon, "big") == 1
    daemon.wait_equal(source, target, ["public.big", "public.pulse"])


@contextlib.contextmanager
def locked(database, table, mode="SHARE"):
    """In that mode the transaction has no number, and nobody who makes a slot waits for it."""
    with contextlib.closing(database.server.connect(database.name)) as c:
        c.autocommit = False
        c.cursor().execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield
        c.rollback()


def test_rows_that_are_refused(pg, daemon):
    """By the target, when those of a part are put in the place of others."""
    source, target = amid_turns(pg, daemon)
    target.psql("ALTER TABLE big ADD CONSTRAINT small CHECK (id < 100) NOT VALID")
    error = daemon.wait_state("j", "failed")["error"]
    assert error["code"] == "target.constraint" and "loading" in error["message"], error


def test_a_new_table_waits_for_its_end(pg, daemon):
    """To start the job over would begin the load anew, as often as a table comes."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    daemon.start()
    daemon.job("j", source.connection(**PARTS, new_tables="add"), [target.connection(name="copy")])
    daemon.wait_state("j", "running")
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    looks = set()

    def is_looked_at_thrice():
        looks.update(source.sql("SELECT query_start FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%%rn.nspname%%ORDER BY%%' "
                                "AND pid <> pg_backend_pid()"))
        return len(looks) >= 3 or "is new" in daemon.log()
    with locked(source, "big", "ACCESS EXCLUSIVE"):
        source.psql("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh SELECT generate_series(1, 100)")
        wait_for("the tables were looked at", is_looked_at_thrice, 60)
    wait_for("it is taken up", lambda: target.one("SELECT to_regclass('public.fresh')"), 60)
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target)
    assert turns_of(daemon, "big") == 1
    log = daemon.log()
    assert log.rindex("table public.big read:") < log.index("table public.fresh is new")


@both_ways
def test_it_is_paused_amid_a_part(pg, daemon, way):
    """Whose end does not come while it is paused."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES)
    with Proxy(pg.port) as line:
        daemon.start()
        daemon.job("j", source.connection(**{**PARTS, "load_part_bytes": "1MiB", "port": line.port}), [target.connection(name="copy")],
                   tables={"include": ["public.big", "public.pulse"]}, **way)
        daemon.wait_state("j", "running")
        load_again(daemon, "big")
        wait_for("turns", lambda: turns_of(daemon, "big"))
        line.every, line.piece = .05, 2048
        was = rows_read(daemon)
        wait_for("a part is being read", lambda: rows_read(daemon) > was)
        daemon.api("POST", "/jobs/j/pause")
        daemon.wait_state("j", "paused")
        line.every, line.piece = 0, None
        source.psql("UPDATE big SET v = 'x' WHERE id % 3 = 0; DELETE FROM big WHERE id % 5 = 0")
        daemon.api("POST", "/jobs/j/resume")
        daemon.wait_state("j", "running")
        daemon.wait_equal(source, target, ["public.big", "public.pulse"])
    assert turns_of(daemon, "big") == 1


def rows_read(daemon):
    return next(t for t in daemon.api("GET", "/jobs/j/tables")["items"] if t["name"] == "big")["load"]["rows_read"]


def test_many_transactions_go_by(pg, daemon):
    """While a load goes beside the stream that is held up: no more of their numbers are kept than are not seen yet."""
    source, target = pg.database("turns"), pg.database("turns_copy")
    source.psql(TABLES + """; CREATE TABLE u (id integer PRIMARY KEY, v text UNIQUE); INSERT INTO u SELECT i, repeat(i::text, 10) FROM generate_series(1, 15000) i;
        CREATE PROCEDURE many(n integer) LANGUAGE plpgsql AS $$BEGIN FOR i IN 1..n LOOP UPDATE pulse SET n = pulse.n + 1; COMMIT; END LOOP; END$$; ANALYZE u""")
    daemon.options += ["-o", "log.level=debug"]
    daemon.start()
    daemon.job("j", source.connection(**PARTS), [target.connection(name="copy")])
    daemon.wait_state("j", "running")
    daemon.api("POST", "/jobs/j/stop")
    daemon.wait_state("j", "stopped")
    load_again(daemon, "big")
    load_again(daemon, "u")
    with locked(target, "u"):
        daemon.api("POST", "/jobs/j/start")
        wait_for("u is read", lambda: daemon.log().count("table public.u is read in") == 2)
        def asked():
            return [int(n) for n in re.findall(r"transactions that went out (\d+) are not seen", daemon.log())]

        def is_asked_thrice():  # how many went out by the time of an answer depends on the machine
            source.sql("CALL many(10000)")
            return len(asked()) >= 3
        wait_for("it is asked which are seen", is_asked_thrice, 180, 0.1)
    daemon.wait_state("j", "running")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    daemon.wait_equal(source, target)
    assert max(asked()) < 8192, asked()


@all_ways
def test_a_slow_target_beside_a_fast_one(pg, daemon, way):
    """What waits for the one goes to the log, or stands in the topic, and no part comes before it has all of that: rows would wait in memory, and the source, and
    the other, with them; or pass it."""
    source, target, slow = pg.database("turns"), pg.database("turns_copy"), pg.database("turns_slow")
    source.psql(TABLES + "; CREATE TABLE filler (id serial PRIMARY KEY, v text)")
    daemon.start()
    small = way.get("streamer", {"type": "embedded"}) | {"memory": "1MiB"}
    daemon.job("j", source.connection(**PARTS), [target.connection(name="copy"), slow.connection(name="slow")], streamer=small)
    daemon.wait_state("j", "running")
    load_again(daemon, "big")
    wait_for("turns", lambda: turns_of(daemon, "big"))
    with locked(slow, "pulse"):
        for n in range(1, 9):
            source.psql(f"UPDATE pulse SET n = {n}; INSERT INTO filler (v) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 1000) i; UPDATE pulse SET n = {n}00")
            wait_for(f"the fast one has pulse {n}", lambda n=n: target.one("SELECT n FROM pulse") == n * 100)
        assert slow.one("SELECT n FROM pulse") == 0
    daemon.wait_equal(source, target)
    daemon.wait_equal(source, slow)
    assert turns_of(daemon, "big") == 1


def test_another_round(pair, daemon):
    """Of a table that is loaded beside it: what takes turns is left alone, and not read twice."""
    _, source, target = pair
    source.psql("CREATE TABLE u (id integer PRIMARY KEY, v text UNIQUE); INSERT INTO u SELECT i, repeat(i::text, 10) FROM generate_series(1, 15000) i; ANALYZE u")
    daemon.start()
    daemon.job("j", source.connection(**{**PARTS, "load_connections": 1}), [target.connection(name="copy")], streamer={"type": "embedded", "memory": "128KiB"})
    daemon.wait_state("j", "running")
    daemon.api("POST", "/jobs/j/stop")
    daemon.wait_state("j", "stopped")
    load_again(daemon, "big")
    load_again(daemon, "u")
    waiting = threading.Thread(target=lambda: source.psql("TRUNCATE u; INSERT INTO u SELECT i, 'new' || i FROM generate_series(1, 500) i"), daemon=True)
    with locked(target, "u"):
        daemon.api("POST", "/jobs/j/start")
        wait_for("u is read", lambda: daemon.log().count("table public.u is read in") == 2)
        waiting.start()
        wait_for("a TRUNCATE waits, or is over", lambda: not waiting.is_alive() or source.one(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'TRUNCATE%'"))
    waiting.join(30)
    wait_for("it is read in another round", lambda: "read in another snapshot" in daemon.log(), 60)
    source.psql("UPDATE big SET v = 'meanwhile' WHERE id % 3 = 0")
    daemon.wait_state("j", "running")
    daemon.wait_equal(source, target)
    log = daemon.log()
    assert log.index("table public.big takes turns") < log.index("read in another snapshot")
    assert log.count("table public.big is read in") == 2 and log.count("table public.u is read in") == 2 and turns_of(daemon, "big") == 1
