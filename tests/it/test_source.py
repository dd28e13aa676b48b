"""The PostgreSQL source on real servers: what it loads and streams is what the server has, whoever dies and whenever; and what it cannot mend it says."""
import contextlib
import random
import re
import threading
import time

import psycopg2
import pytest

import zoo
from conftest import Postgres, wait_for
from source import Dump, number

SMALL = ("logical_decoding_work_mem=64kB", "wal_sender_timeout=3s", "max_wal_size=200MB")


@pytest.fixture(params=[None, 18], ids=["debian", "18"])
def server(request, servers):
    return servers(version=request.param, settings=SMALL)


@pytest.fixture()
def db(server):
    return server.database()


@pytest.fixture()
def dump(request, db):
    made = []

    def make(*words, **more):
        made.append(Dump(db, *words, **more))
        return made[-1]
    yield make
    for d in made:
        d.kill()
    with contextlib.suppress(psycopg2.Error):
        for (slot,) in db.sql("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"):
            wait_for("slot is free", lambda slot=slot: drop_slot(db, slot))


def drop_slot(db, slot):
    db.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", slot)
    return True


SLOT = "dmsr_dump_12345678"
TABLES = """
    CREATE TABLE a (id serial PRIMARY KEY, v text, n numeric, t timestamptz DEFAULT now(), b bytea, big text);
    CREATE TABLE "Odd ""name" (id int PRIMARY KEY, "Col umn" text, g int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE k (a int, b text); ALTER TABLE k REPLICA IDENTITY FULL;
    CREATE TABLE u (a int NOT NULL UNIQUE, v text); ALTER TABLE u REPLICA IDENTITY USING INDEX u_a_key;
    CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (500); CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (500) TO (100000);
    INSERT INTO a (v, n, b, big) SELECT 'v' || i, i / 7.0, '\\x00ff'::bytea, repeat(md5(i::text), 200) FROM generate_series(1, 200) i;
    INSERT INTO "Odd ""name" VALUES (1, E'tab\\there'), (2, E'new\\nline'), (3, E'back\\\\slash'), (4, NULL), (5, '');
    INSERT INTO k SELECT i, 'k' FROM generate_series(1, 50) i; INSERT INTO u SELECT i, 'u' FROM generate_series(1, 50) i;
    INSERT INTO p SELECT i * 10, 'p' FROM generate_series(1, 100) i;
"""
KEYS = {("public", "u"): "a", ("public", "k"): "a"}


class Work(threading.Thread):
    """Transactions of all sorts until told to stop; every commit is one that must arrive."""

    def __init__(self, db, seed=1, ddl=False, pause=0.002):
        super().__init__(daemon=True)
        self.db, self.rnd, self.ddl, self.pause, self.is_over, self.error, self.n = db, random.Random(seed), ddl, pause, threading.Event(), None, 0
        self.columns = 0

    def statement(self):
        r, i = self.rnd, self.rnd.randrange
        return r.choice([
            f"INSERT INTO a (v, n) VALUES ('new {i(1000)}', {i(1000)})",
            f"UPDATE a SET v = 'u{i(1000)}' WHERE id = {i(200) + 1}",
            f"UPDATE a SET big = repeat('{i(10)}', 9000) WHERE id = {i(200) + 1}",
            f"UPDATE a SET id = -id WHERE id = {i(200) + 1}",
            f"DELETE FROM a WHERE id = {i(300) + 200}",
            f"INSERT INTO k VALUES ({i(50)}, NULL)",
            f"UPDATE k SET b = 'x{i(9)}' WHERE a = {i(50)}",
            f"DELETE FROM k WHERE a = {i(50)}",
            f"UPDATE u SET a = a + 1000, v = 'm' WHERE a = {i(50)}",
            f"INSERT INTO p VALUES ({i(1000)}, 'n') ON CONFLICT DO NOTHING",
            f"UPDATE p SET id = id + {i(3) * 500} WHERE id = {i(100) * 10} AND id < 90000",
            f"UPDATE p SET v = 'w{i(99)}' WHERE id = {i(100) * 10}",
            "TRUNCATE k" if i(20) == 0 else "DELETE FROM p WHERE id % 97 = 3",
        ])

    def transaction(self, cur):
        kind = self.rnd.randrange(20)
        cur.execute("BEGIN")
        for _ in range(self.rnd.randrange(1, 6)):
            cur.execute(self.statement())
        if kind == 0:      # one that is sent before it commits, with parts that are rolled back
            cur.execute("UPDATE a SET v = md5(random()::text) || repeat('y', 800)")
            cur.execute("SAVEPOINT s; INSERT INTO k SELECT 999, repeat('gone', 100) FROM generate_series(1, 300); ROLLBACK TO s")
            cur.execute("UPDATE u SET v = repeat('z', 500)")
        elif kind == 1:
            cur.execute("SAVEPOINT s"), cur.execute(self.statement()), cur.execute("RELEASE s")
        elif kind == 2 and self.ddl and self.columns < 20:
            self.columns += 1
            cur.execute(f"ALTER TABLE a ADD COLUMN c{self.columns} int DEFAULT {self.columns}")
            cur.execute(f"INSERT INTO a (v, c{self.columns}) VALUES ('ddl', 77)")
        if kind == 3:
            cur.execute(f"PREPARE TRANSACTION 'w{self.n}'")
            cur.execute(f"COMMIT PREPARED 'w{self.n}'")
        else:
            cur.execute("ROLLBACK" if kind == 4 else "COMMIT")

    def run(self):
        try:
            with contextlib.closing(self.db.server.connect(self.db.name)) as c:
                cur = c.cursor()
                while not self.is_over.wait(self.pause):
                    try:
                        self.transaction(cur)
                    except psycopg2.errors.UniqueViolation:
                        cur.execute("ROLLBACK")
                    self.n += 1
        except Exception as e:  # told by stop
            self.error = e

    def stop(self):
        self.is_over.set()
        self.join(30)
        assert not self.error, self.error
        return self.n


@pytest.mark.parametrize("seed", range(3))
def test_load_and_stream_are_exact_under_writes(db, dump, seed):
    db.sql(TABLES)
    work = Work(db, seed=seed, ddl=True)
    work.start()
    d = dump("table=public.*", "batch_bytes=16KiB", "spool_memory=64KiB", key=KEYS).start()
    d.streaming()
    time.sleep(2)
    assert work.stop() > 100
    d.caught_up().stop()
    d.same()
    ops = d.replica().ops
    assert ops["F"] == 1 and ops["L"] == ops["E"] == 5 and all(ops.get(o) for o in "BCcudS"), ops
    assert d.saved()["done"]


@pytest.mark.spread
@pytest.mark.parametrize("mode", ["full-load", "full-load-and-cdc"])
@pytest.mark.parametrize("what", ["ALTER TABLE u ALTER v TYPE varchar(99)", "ALTER TABLE u ADD w int DEFAULT random() * 100", "VACUUM FULL u", "TRUNCATE u",
                                  "TRUNCATE u; INSERT INTO u VALUES (1, 'one')", "DROP TABLE u", "ALTER TABLE u DROP v", "ALTER TABLE p DETACH PARTITION p_1",
                                  "TRUNCATE p_2", "ALTER TABLE k RENAME TO kk"])
def test_a_table_that_is_rewritten_between_its_snapshot_and_its_load(db, dump, mode, what):
    """Such a table looks empty, or is not to be read at all, in a snapshot that is older; the biggest one is read first, and slowly."""
    db.sql(TABLES)
    d = dump("table=public.*", f"mode={mode}", "slow_ms=30", "batch_bytes=16KiB", "load_connections=1", key=KEYS).start()
    d.says("tables to load")
    for t in ("a", "k", "u", "p"):
        d.says(f"to load public.{t}: ")  # progress is a part of the whole, not of what was begun
    db.sql(what)
    assert "table public.a read" not in d.text()
    if mode == "full-load":
        assert d.wait() == 0
    else:
        d.streaming().caught_up().stop()
    d.same([t for t in ("a", "k", "u", "p", 'Odd "name') if db.one("SELECT to_regclass(format('public.%%I', %s::text)) IS NOT NULL", t)])


def test_a_table_that_somebody_holds_is_told(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with contextlib.closing(db.server.connect(db.name)) as c:
        c.cursor().execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        for d in [dump("table=public.*", f"mode={mode}").start() for mode in ("full-load", "full-load-and-cdc")]:
            assert d.failure()[:2] == ("source.locked", True)


def test_full_load_alone_finishes_and_makes_nothing(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", "mode=full-load").start()
    assert d.wait() == 0
    assert "finished" in d.text()
    d.same()
    assert db.one("SELECT count(*) FROM pg_publication") == 0
    assert db.one(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}'") == 0


def test_changes_alone_begin_where_the_slot_does(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    d = dump("table=public.*", "mode=cdc").start().streaming()
    db.sql("INSERT INTO t VALUES (2)")
    d.caught_up().stop()
    assert d.replica().sorted("public", "t", ["id"]) == ['["2"]']


def test_binary_is_as_exact_as_text(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", "binary=true", key=KEYS).start().streaming()
    if db.server.version >= 14:
        asked = "SELECT query FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database() AND query LIKE 'START_REPLICATION%'"
        wait_for("it is binary", lambda: any("binary 'true'" in query for query, in db.sql(asked)))
    db.sql("UPDATE a SET n = -n, v = 'bin'; DELETE FROM k WHERE a = 3; UPDATE u SET v = NULL")
    d.caught_up().stop()
    d.same()


@pytest.mark.parametrize("binary", ["false", "true"])
@pytest.mark.parametrize("identity", ["default", "full"])
def test_every_type_comes_back_from_json(db, dump, server, identity, binary):
    """Loaded and streamed, through codec json and back: the texts are the server's own."""
    version = server.version
    db.psql(zoo.create(version) + zoo.insert(version, 1, "load"))
    tables = [zoo.table_of(i) for i, _ in enumerate(zoo.values(version))]
    if identity == "full":
        db.psql("".join(f"ALTER TABLE {t} REPLICA IDENTITY FULL;\n" for t in tables))
    d = dump("table=public.*", "json=1", f"binary={binary}").start().streaming()
    db.psql(zoo.insert(version, 1001, "stream") + zoo.rotate(version, 1) + zoo.touch(version, 1) + zoo.rotate(version, 1001) + zoo.delete_some(version, 1001))
    db.psql("".join(f"UPDATE {t} SET id = -id WHERE id = 1;" for t in tables))
    d.caught_up().stop()
    replica = d.replica()
    for table, t in zip(tables, zoo.values(version)):
        # as the type prints it: a cast to text is another thing for some
        there = db.sql(f"SELECT id::text, CASE WHEN num_nulls(v) = 0 THEN format('%s', v) END, note FROM {table} z ORDER BY z.id")
        here = sorted(((r["id"], r["v"], r["note"]) for r in replica.rows("public", table)), key=lambda r: int(r[0]))
        assert here == [tuple(r) for r in there], t
    assert all(replica.ops.get(op) for op in "rcud"), replica.ops


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(db, dump, seed):
    """kill -9, twelve times, through load and stream; never anything lost, nothing twice beyond the saved position."""
    rnd = random.Random(seed)
    db.sql(TABLES)
    work = Work(db, seed=seed, ddl=True, pause=0.005)
    work.start()
    d = dump("table=public.*", "batch_bytes=16KiB", "spool_memory=64KiB", "slow_ms=5", key=KEYS)
    for _ in range(12):
        d.start()
        time.sleep(rnd.choice([0.05, 0.1, 0.2, 0.3, 0.8]) * (0.5 + rnd.random()))
        if d.p.poll() is not None:
            # the sessions of the one that was killed may live a little longer
            assert d.failure()[0] in ("slot.in-use", "source.exists") and d.failure()[1]
        d.kill()
        time.sleep(0.1)
    work.stop()
    wait_for("the slot is free", lambda: not db.one(f"SELECT bool_or(active) FROM pg_replication_slots WHERE slot_name = '{SLOT}'"))
    d.words.remove("slow_ms=5")
    d.start().streaming().caught_up().stop()
    d.same()
    assert d.saved()["done"]


POINTS = ["pg.publication-changed", "pg.slot-intent", "pg.slot-created", "pg.slot-noted", "pg.snapshot-imported", "pg.table-begun", "pg.table-begun:3",
          "pg.table-copied", "pg.table-copied:4", "pg.load-done", "pg.stream-started", "pg.batch", "pg.batch:4", "pg.status:2", "dump.written:3", "dump.saved:2",
          "dump.written:12", "dump.saved:12"]


@pytest.mark.spread
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point(db, dump, point):
    db.sql(TABLES)
    work = Work(db, ddl=True)
    work.start()
    d = dump("table=public.*", "batch_bytes=16KiB", key=KEYS).start(env={"DMSR_FAILPOINT": point + ":kill"})
    assert d.wait() == -9, d.text()
    wait_for("the slot is free", lambda: not db.one(f"SELECT bool_or(active) FROM pg_replication_slots WHERE slot_name LIKE '{SLOT}%'"))
    d.start().streaming()
    time.sleep(0.3)
    work.stop()
    d.caught_up().stop()
    d.same()


def test_the_server_dies_and_comes_back(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming()
    for how in ("fast", "immediate"):
        db.sql("UPDATE a SET v = v || 'x'")
        db.server.restart(how)
        assert d.failure()[:2] == ("source.unreachable", True)
        db.sql("DELETE FROM a WHERE id % 7 = 1")
        d.start().streaming()
    d.caught_up().stop()
    d.same()


def test_a_walsender_that_is_ended_is_a_reason_to_try_again(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming()
    db.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", SLOT)
    assert d.failure()[:2] == ("source.unreachable", True)
    db.sql("UPDATE a SET v = 'after'")
    d.start().streaming().caught_up().stop()
    d.same()


def test_the_watching_connection_may_die(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.*").start().streaming()
    db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dmsr:dump:source' AND backend_type = 'client backend'")
    d.says("the connection that watches the slot is lost")
    db.sql("CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE t ADD m mood DEFAULT 'ok'; INSERT INTO t VALUES (2)")
    d.caught_up().stop()
    d.same()


# ---- what cannot be mended --------------------------------------------------------------------------------------------

def free(db):
    wait_for("the slot is free", lambda: not db.one("SELECT bool_or(active) FROM pg_replication_slots WHERE database = current_database()"))


@pytest.fixture()
def stopped(db, dump):
    """A job that was stopped in its stream, with rows written since."""
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming()
    db.sql("UPDATE a SET v = 'first'")
    d.caught_up().stop()
    db.sql("UPDATE a SET v = 'second'")
    free(db)
    return d


def test_slot_dropped(db, stopped):
    drop_slot(db, SLOT)
    assert stopped.start().failure()[:2] == ("slot.lost", False)


def test_slot_made_anew_by_somebody(db, stopped):
    drop_slot(db, SLOT)
    db.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", SLOT)
    assert stopped.start().failure()[:2] == ("position.behind-slot", False)
    drop_slot(db, SLOT)
    db.sql("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", SLOT)
    assert stopped.start().failure()[:2] == ("slot.lost", False)


def test_slot_moved_by_somebody(db, stopped):
    db.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", SLOT)
    assert stopped.start().failure()[:2] == ("position.behind-slot", False)


def test_slot_in_use(db, stopped, dump):
    stopped.start().streaming()
    other = dump("table=public.*", key=KEYS)
    other.state.write_bytes(stopped.state.read_bytes())
    assert other.start().failure()[:2] == ("slot.in-use", True)
    stopped.caught_up().stop()
    stopped.same()


@pytest.mark.parametrize("server", [18], ids=["18"], indirect=True)
def test_the_slot_is_kept_in_step_on_standbys(db, dump):
    """Where the server can: from 17 on."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    dump("table=public.*").start().streaming().stop()
    assert db.one("SELECT failover FROM pg_replication_slots WHERE slot_name = %s", SLOT)


def test_slot_of_somebody_else(db, dump):
    db.sql(TABLES)
    db.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", SLOT)
    assert dump("table=public.*").start().failure()[:2] == ("slot.exists", False)


def test_publication_dropped_or_made_anew(db, stopped):
    name = db.one("SELECT pubname FROM pg_publication")
    db.sql(f"DROP PUBLICATION {name}")
    assert stopped.start().failure()[:2] == ("publication.lost", False)
    db.sql(f"CREATE PUBLICATION {name} FOR ALL TABLES WITH (publish_via_partition_root = true)")
    assert stopped.start().failure()[:2] == ("publication.lost", False)


def test_publication_that_is_not_ours(db, dump):
    db.sql(TABLES)
    db.sql(f"CREATE PUBLICATION {SLOT} FOR TABLE a")
    assert dump("table=public.a").start().failure()[:2] == ("publication.exists", False)
    assert dump("table=public.*", f"publication={SLOT}").start().failure()[:2] == ("publication.incomplete", False)
    d = dump("table=public.a", f"publication={SLOT}").start().streaming().stop()
    d.same(["a"])


def test_a_publication_that_is_named_and_is_not_there_is_made_and_told(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.t", "publication=stock").start().streaming().stop()
    assert 'warning: there was no publication "stock"' in d.text() and "is meant" not in d.text()
    free(db)
    d.start().streaming().stop()
    assert "there was no publication" not in d.text(), "but once"
    db.sql("ALTER PUBLICATION stock RENAME TO shop")
    assert 'If "shop" is meant' in dump("table=public.t", "publication=shopp", "slot=other").start().streaming().stop().text()


def test_tables_without_identity_are_refused(db, dump):
    db.sql("CREATE TABLE t (a int); CREATE TABLE n (id int PRIMARY KEY); ALTER TABLE n REPLICA IDENTITY NOTHING")
    id_, retry, text = dump("table=public.*").start().failure()
    assert (id_, retry) == ("source.no-key", False) and "public.n" in text and "public.t" in text
    d = dump("table=public.*", "keyless_tables=allow").start().streaming()
    db.sql("INSERT INTO t VALUES (1), (1); INSERT INTO n VALUES (2)")
    d.caught_up().stop()
    d.same()


def test_no_such_table(db, dump):
    assert dump("table=public.nothing").start().failure()[:2] == ("source.no-tables", False)
    assert dump("table=public.nothing", "mode=full-load").start().failure()[:2] == ("source.no-tables", False)


@pytest.fixture()
def alone():
    """A server that a test may ruin."""
    made = []

    def make(**more):
        made.append(Postgres(**more))
        return made[-1]
    yield make
    for s in made:
        s.close()


def test_wal_level(alone):
    db = alone(settings=("wal_level=replica",)).database()
    db.sql(TABLES)
    d = Dump(db, "table=public.*").start()
    assert d.failure()[:2] == ("source.wal-level", False)
    d = Dump(db, "table=public.*", "mode=full-load").start()
    assert d.wait() == 0
    d.same()


def test_wal_removed(alone):
    s = alone(settings=("max_slot_wal_keep_size=16MB", "min_wal_size=32MB", "max_wal_size=32MB", "wal_keep_size=0"))
    db = s.database()
    db.sql(TABLES)
    d = Dump(db, "table=public.*", key=KEYS).start().streaming().stop()
    for _ in range(6):
        db.sql("INSERT INTO a (big) SELECT repeat(md5(random()::text), 300) FROM generate_series(1, 2000)")
        db.sql("SELECT pg_switch_wal(); CHECKPOINT")
    wait_for("lost", lambda: db.one(f"SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{SLOT}'"))
    assert d.start().failure()[:2] == ("slot.lost", False)


def test_another_server(alone, server, db, dump):
    db.sql(TABLES)
    d = dump("table=public.*").start().streaming().stop()
    other = alone()
    with contextlib.closing(other.connect("postgres")) as c:
        c.cursor().execute(f"CREATE DATABASE {db.name}")
    d.port = other.port
    assert d.start().failure()[:2] == ("server.changed", False)


@pytest.mark.parametrize("then", ["full-load", "full-load-and-cdc"])
def test_another_server_than_that_of_a_load_alone(alone, server, db, dump, then):
    db.sql(TABLES)
    d = dump("table=public.*").start("mode=full-load")
    assert d.wait() == 0
    other = alone()
    with contextlib.closing(other.connect("postgres")) as c:
        c.cursor().execute(f"CREATE DATABASE {db.name}")
    d.port = other.port
    assert d.start(f"mode={then}").failure()[:2] == ("server.changed", False)


@pytest.mark.parametrize("follow", [False, True])
def test_timeline_switched(alone, follow):
    """A promotion: recovery of the same data ends on a timeline of its own."""
    s = alone()
    db = s.database()
    db.sql(TABLES)
    d = Dump(db, "table=public.*", f"follow_failover={str(follow).lower()}", key=KEYS).start().streaming()
    db.sql("UPDATE a SET v = 'before'")
    d.caught_up().stop()
    s.stop()
    signal = s.dir / "data" / "recovery.signal"
    signal.touch()
    s.args += ["restore_command=false"]
    s.start()
    wait_for("promoted", lambda: not db.one("SELECT pg_is_in_recovery()"))
    assert db.one("SELECT timeline_id FROM pg_control_checkpoint()") == 2
    if not follow:
        assert d.start().failure()[:2] == ("server.timeline", False)
        return
    db.sql("UPDATE a SET v = 'after'")
    for _ in range(2):
        d.start().streaming().caught_up().stop()
        d.same()


# ---- what the server does -----------------------------------------------------------------------------------------------

def confirmed(db):
    return number(db.one("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", SLOT))


def test_the_slot_moves_when_only_others_write(db, server, dump):
    """In another database; and in this one, in tables that are not the job's."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
    dump("table=public.t").start().streaming()
    there = server.database()
    there.sql("CREATE TABLE x (v text)")
    for where, table in ((there, "x (v)"), (db, "other (id)")):
        where.sql(f"INSERT INTO {table} SELECT i FROM generate_series(1, 1000) i")
        end = number(db.one("SELECT pg_current_wal_flush_lsn()::text"))
        wait_for("the slot moves", lambda end=end: confirmed(db) >= end, 20)


def test_paused_for_longer_than_the_servers_patience(db, dump):
    """wal_sender_timeout is 3 s here."""
    db.sql(TABLES)
    d = dump("table=public.*", "mode=cdc", "pause_ms=8000", key=KEYS).start().streaming()
    begun = time.monotonic()
    for _ in range(5):
        db.sql("INSERT INTO a (big) SELECT repeat(md5(i::text), 500) FROM generate_series(1, 100) i")
    d.caught_up()
    assert time.monotonic() - begun > 7
    d.stop()
    assert len(d.replica().rows("public", "a")) == 500


def test_a_host_that_is_always_full(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", "batch_bytes=16KiB", "slow_ms=2", key=KEYS).start().streaming()
    db.sql("UPDATE a SET v = v || 'x', big = md5(v)")
    d.caught_up().stop()
    d.same()


def test_a_transaction_bigger_than_memory_goes_to_disk(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    d = dump("table=public.*", "spool_memory=64KiB", "stats=1").start().streaming()
    with contextlib.closing(db.server.connect(db.name)) as c:
        cur = c.cursor()
        cur.execute("BEGIN; INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 20000) i")
        cur.execute("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET v = 'u' WHERE id % 3 = 0")
        d.says("spool 7", 20)
        db.sql("INSERT INTO t VALUES (-1, 'meanwhile')")
        wait_for("the other one", lambda: len(d.replica().rows("public", "t")) == 1)
        cur.execute("COMMIT")
    d.caught_up().stop()
    _, slept, work_ms = d.held()
    assert slept < 10 and work_ms < 50, (slept, work_ms)
    d.same()


def test_a_limit_on_that_disk(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    d = dump("table=public.*", "spool_memory=64KiB", "spool_disk_max=1MiB").start().streaming()
    db.sql("INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 20000) i")
    assert d.failure()[0] == "source.spool"


def test_schema_changes_between_and_inside_transactions(db, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 1, 'x')")
    d = dump("table=public.*").start().streaming()
    db.sql("""
        BEGIN; INSERT INTO t VALUES (2, 2, 'y'); ALTER TABLE t ADD COLUMN c int DEFAULT 9; INSERT INTO t VALUES (3, 3, 'z', 3);
        ALTER TABLE t DROP COLUMN a; INSERT INTO t VALUES (4, 'w', 4); UPDATE t SET b = 'u' WHERE id = 2; COMMIT""")
    db.sql("ALTER TABLE t RENAME COLUMN b TO bb; UPDATE t SET bb = 'renamed' WHERE id = 4")
    db.sql("ALTER TABLE t ALTER COLUMN c TYPE text USING 'c' || c; INSERT INTO t VALUES (5, 'q', 'txt')")
    db.sql("CREATE TYPE mood AS ENUM ('ok', 'bad'); ALTER TABLE t ADD COLUMN m mood; UPDATE t SET m = 'bad' WHERE id = 5")
    db.sql("BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN never int; INSERT INTO t (id, never) VALUES (6, 6); ROLLBACK TO s;"
           "INSERT INTO t (id, bb) VALUES (7, 'after'); COMMIT")
    d.caught_up().stop()
    lines = d.lines()
    rows = {line[4]["id"]: line[4] for line in lines if line[0] == "c"}
    assert rows["2"] == {"id": "2", "a": "2", "b": "y"}
    assert rows["3"] == {"id": "3", "a": "3", "b": "z", "c": "3"}
    assert rows["4"] == {"id": "4", "b": "w", "c": "4"}
    assert rows["5"] == {"id": "5", "bb": "q", "c": "txt"}
    assert "6" not in rows and set(rows["7"]) == {"id", "bb", "c", "m"}
    assert [line[4] for line in lines if line[0] == "u"][-1]["m"] == "bad"


def test_altered_while_nobody_read(db, dump):
    """The catalog is newer than the log that is read; each row has the shape that was in force at its place."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int)")
    d = dump("table=public.*").start().streaming().caught_up().stop()
    db.sql("INSERT INTO t VALUES (1, 1)")
    db.sql("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN b text; INSERT INTO t VALUES (2, 'b')")
    d.start().streaming().caught_up().stop()
    assert [line[4] for line in d.lines() if line[0] == "c"] == [{"id": "1", "a": "1"}, {"id": "2", "b": "b"}]
    free(db)
    db.sql("ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (3, 'c')")
    d.start().streaming().caught_up().stop()
    d.same()


def test_partitions_toast_and_old_rows(db, dump):
    db.sql(TABLES)
    db.sql("CREATE TABLE tf (id int PRIMARY KEY, v text, big text); ALTER TABLE tf REPLICA IDENTITY FULL;"
           "ALTER TABLE tf ALTER big SET STORAGE EXTERNAL; INSERT INTO tf VALUES (1, 'v', repeat('b', 10000))")
    d = dump("table=public.*", key=KEYS).start().streaming()
    db.sql("UPDATE a SET v = 'toast kept' WHERE id = 1; UPDATE tf SET v = 'w'; UPDATE p SET id = 777 WHERE id = 10; DELETE FROM k WHERE a = 7;"
           "UPDATE u SET a = 5000 WHERE a = 1; UPDATE a SET id = 12345 WHERE id = 2")
    d.caught_up().stop()
    d.same()
    by = {(line[0], line[2]): line for line in d.lines()}
    first = next(line for line in d.lines() if line[0] == "u" and line[2] == "a")
    assert first[3] is None and first[4]["v"] == "toast kept"
    assert len(by["u", "tf"][4]["big"]) == 10000 and by["u", "tf"][3]["v"] == "v"
    assert by["d", "p"][3] == {"id": "10", "v": {}} and by["c", "p"][4] == {"id": "777", "v": "p"}, "a row that moves to another partition"
    assert by["u", "u"][3] == {"a": "1", "v": {}} and by["d", "k"][3] == {"a": "7", "b": "k"}
    assert ("c", "p_1") not in by and ("c", "p_2") not in by


def test_truncate_and_messages(db, dump):
    db.sql("CREATE TABLE t (id serial PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY REFERENCES t); INSERT INTO t DEFAULT VALUES")
    d = dump("table=public.*").start().streaming()
    db.sql("TRUNCATE t RESTART IDENTITY CASCADE")
    db.sql("BEGIN; SELECT pg_logical_emit_message(true, 'app', 'inside'); INSERT INTO t DEFAULT VALUES; COMMIT")
    db.sql("SELECT pg_logical_emit_message(false, 'app', 'outside')")
    db.sql("INSERT INTO t DEFAULT VALUES")
    d.caught_up().stop()
    d.same()
    flags = [line[5] for line in d.lines() if line[0] == "t"]
    assert len(flags) == 2 and sorted(f & 6 for f in flags) == [6, 6] and sum(bool(f & 8) for f in flags) == 1
    assert d.replica().messages == ["inside", "outside"]


def test_origin(db, server, dump):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    d = dump("table=public.*", "origin=none").start()
    if server.version < 16:
        assert d.failure()[:2] == ("source.origin", False)
        return
    d.streaming()
    name = f"there_{db.name}"
    db.sql(f"SELECT pg_replication_origin_create('{name}')")
    with contextlib.closing(server.connect(db.name)) as c:  # nothing but its end takes that from a session
        c.cursor().execute(f"SELECT pg_replication_origin_session_setup('{name}'); INSERT INTO t VALUES (1)")
    db.sql("INSERT INTO t VALUES (2)")
    d.caught_up().stop()
    assert d.replica().sorted("public", "t", ["id"]) == ['["2"]']


def test_a_table_that_was_unpublished_for_a_while_is_loaded_again(db, dump):
    """Dropped and made anew, or taken out and put back by hand: changes were missed. Killed at every point of that, too."""
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming().caught_up().stop()
    db.sql("DROP TABLE u; CREATE TABLE u (a int NOT NULL UNIQUE, v text); ALTER TABLE u REPLICA IDENTITY USING INDEX u_a_key; INSERT INTO u VALUES (1, 'anew');"
           f"ALTER PUBLICATION {SLOT} DROP TABLE a; UPDATE a SET v = 'missed'; UPDATE k SET b = 'seen'")
    for point in ("pg.publication-changed", "pg.snapshot-imported", "pg.table-copied"):
        free(db)
        assert d.start(env={"DMSR_FAILPOINT": point + ":kill"}).wait() == -9
    free(db)
    d.start().streaming().caught_up().stop()
    d.same()
    loads = [line[2] for line in d.lines() if line[0] == "L"]
    assert loads.count("a") >= 2 and loads.count("u") >= 2 and loads.count("k") == 1
    free(db)
    n = len(loads)
    d.start().streaming().stop()
    assert len([1 for line in d.lines() if line[0] == "L"]) == n, "but once"


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_a_publication_of_all_tables(db, dump, down):
    """Somebody's own: tables that come, go, and are made anew under their name are published at once; each is loaded at the next start, none is half there."""
    db.sql(TABLES)
    db.sql("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)")
    d = dump("table=public.*", "publication=everything", key=KEYS).start().streaming().caught_up()
    if down:
        d.stop()
        free(db)
    db.sql("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1); INSERT INTO u VALUES (900, 'old')")
    db.sql("DROP TABLE u; CREATE TABLE u (a int NOT NULL UNIQUE, v text); ALTER TABLE u REPLICA IDENTITY USING INDEX u_a_key; INSERT INTO u VALUES (1, 'anew')")
    db.sql("INSERT INTO k VALUES (800, 'last'); DROP TABLE k; UPDATE a SET v = 'seen'")
    if not down:
        d.caught_up()
        d.same(["a", "p", 'Odd "name'])
        d.stop()
        free(db)
    db.sql("INSERT INTO fresh VALUES (2)")
    d.start(env={"DMSR_FAILPOINT": "pg.table-copied:kill"})
    assert d.wait() == -9
    free(db)
    for _ in range(2):
        d.start().streaming()
        db.sql("INSERT INTO fresh SELECT max(id) + 1 FROM fresh; INSERT INTO u SELECT max(a) + 1, 'more' FROM u")
        d.caught_up().stop()
        d.same(["a", "u", "p", "fresh", 'Odd "name'])
        free(db)
    if down:
        assert {"a": "800", "b": "last"} in d.replica().rows("public", "k"), "the last changes of a table that is gone"


def test_a_new_table_is_taken_up_at_the_next_start(db, dump):
    db.sql(TABLES)
    d = dump("table=public.*", key=KEYS).start().streaming()
    db.sql("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1)")
    d.caught_up().stop()
    db.sql("INSERT INTO fresh VALUES (2)")
    work = Work(db)
    work.start()
    free(db)
    d.start().streaming()
    db.sql("INSERT INTO fresh VALUES (3)")
    work.stop()
    d.caught_up().stop()
    d.same()
