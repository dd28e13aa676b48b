"""apply: parallel. Whatever is killed, cut or refused: in the end the target is the source, row by row, and the target's own constraints hold."""
import pathlib
import random
import subprocess
import threading
import time

import psycopg2
import pytest
from feed import Feed, Script, c, column, d, u
from test_target_lanes import run_beside

pytestmark = pytest.mark.spread

TABLES = """
CREATE TABLE orders (id integer PRIMARY KEY, note text, n integer NOT NULL DEFAULT 0);
CREATE TABLE lines (id serial PRIMARY KEY, order_id integer REFERENCES orders DEFERRABLE INITIALLY DEFERRED, v text);
CREATE TABLE nodes (id integer PRIMARY KEY, parent integer REFERENCES nodes);
CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE, n integer NOT NULL DEFAULT 0);
CREATE TABLE members (id serial PRIMARY KEY, email text REFERENCES users (email) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE whole (id integer PRIMARY KEY, code integer UNIQUE, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE swaps (id serial PRIMARY KEY, x integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE amounts (id numeric PRIMARY KEY, c char(4) UNIQUE, body text);
CREATE TABLE floats (id float8 PRIMARY KEY, v integer);
CREATE TABLE counters (id integer PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE history (at bigserial, what text); ALTER TABLE history REPLICA IDENTITY FULL;
CREATE TABLE keyless (a integer, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO counters SELECT i, 0 FROM generate_series(0, 20) i;
INSERT INTO swaps (x) SELECT i FROM generate_series(1, 40) i;
INSERT INTO amounts SELECT i + 0.50, i, repeat(md5(i::text), 200) FROM generate_series(1, 40) i;
INSERT INTO orders SELECT i FROM generate_series(1, 20) i;
INSERT INTO nodes VALUES (0, NULL);
INSERT INTO floats SELECT i / 4.0 FROM generate_series(1, 20) i;
"""


class Writers:
    """Some sessions that write at once until stopped; what their server refuses they give up."""

    def __init__(self, server, database, sessions=3, seed=1, pause=0.001):
        self.server, self.database, self.pause = server, database, pause
        self.stopping = threading.Event()
        self.errors, self.transactions = [], 0
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed * 100 + i),), daemon=True) for i in range(sessions)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def statement(r):
        n, m = r.randrange(1, 60), r.randrange(1, 60)
        return r.choice([
            f"INSERT INTO orders VALUES ({n}, 'made') ON CONFLICT DO NOTHING",
            f"UPDATE orders SET n = n + 1 WHERE id = {n}",
            f"DELETE FROM orders o WHERE id = {n} AND NOT EXISTS (SELECT FROM lines WHERE order_id = o.id)",
            f"UPDATE orders SET id = id + 100 WHERE id = {n} AND NOT EXISTS (SELECT FROM orders WHERE id = {n + 100})",
            f"INSERT INTO lines (order_id, v) VALUES ({n}, 'deferred'); INSERT INTO orders VALUES ({n}, 'late') ON CONFLICT DO NOTHING",
            f"INSERT INTO lines (order_id) SELECT id FROM orders WHERE id = {n}",
            f"UPDATE lines SET order_id = {n} WHERE order_id = {m} AND EXISTS (SELECT FROM orders WHERE id = {n})",
            f"DELETE FROM lines WHERE order_id = {n}",
            f"INSERT INTO nodes VALUES ({n}, {m // 4}) ON CONFLICT DO NOTHING",
            f"DELETE FROM nodes a WHERE id = {n} AND NOT EXISTS (SELECT FROM nodes b WHERE b.parent = a.id)",
            f"INSERT INTO users (email) VALUES ('e{n}') ON CONFLICT DO NOTHING",
            f"UPDATE users SET email = 'e{n}' WHERE email = 'e{m}'",
            f"UPDATE users SET n = n + 1 WHERE email = 'e{n}'",
            f"DELETE FROM users WHERE email = 'e{n}'",
            f"INSERT INTO members (email) SELECT email FROM users WHERE email = 'e{n}'",
            f"DELETE FROM members WHERE email = 'e{n}'",
            f"INSERT INTO whole VALUES ({n}, {m}, 'v') ON CONFLICT DO NOTHING",
            f"UPDATE whole SET code = {m} WHERE id = {n}",
            f"DELETE FROM whole WHERE code = {m}",
            f"UPDATE swaps a SET x = b.x FROM swaps b WHERE (a.x = {n} AND b.x = {m}) OR (a.x = {m} AND b.x = {n})",
            f"UPDATE amounts SET c = '{m}' WHERE id = {n}.500",
            f"UPDATE amounts SET id = id + 100 WHERE id = {n}.50",
            f"DELETE FROM amounts WHERE c = '{n}'; INSERT INTO amounts VALUES ({n}.5, '{n}') ON CONFLICT DO NOTHING",
            f"UPDATE floats SET v = {m} WHERE id = {n / 4}",
            f"UPDATE counters SET n = n + 1 WHERE id = {n % 21}",
            f"UPDATE counters SET n = n + 1 WHERE id = {m % 21}",
            f"INSERT INTO history (what) SELECT 'h{n}' FROM generate_series(1, {m % 5})",
            f"INSERT INTO keyless VALUES ({n % 7}, 'k{m % 3}')",
            f"DELETE FROM keyless WHERE a = {n % 7} AND b = 'k{m % 3}'",
        ])

    def run(self, r):
        try:
            connection = self.server.connect(self.database.name)
            connection.autocommit = False
            cursor = connection.cursor()
            while not self.stopping.is_set():
                try:
                    for _ in range(r.choice([1, 1, 1, 2, 5])):
                        cursor.execute(self.statement(r))
                    connection.commit()
                    self.transactions += 1
                except (psycopg2.IntegrityError, psycopg2.extensions.TransactionRollbackError):
                    connection.rollback()
                time.sleep(self.pause)
            connection.close()
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.errors, self.errors


@pytest.fixture
def pair(any_pg):
    source, target = any_pg.database("par"), any_pg.database("par_copy")
    source.psql(TABLES)
    return any_pg, source, target


def job(daemon, source, target, **options):
    daemon.start()
    daemon.job("par", source.connection(), [target.connection(name="copy", apply="parallel", **options)])
    daemon.wait_state("par", "running")


def lanes(target):
    """The sessions of the job at the target."""
    return target.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dmsr:%'")


# With commit_rows 1 a lane commits each transaction by itself: all that is not kept apart shows. With the foreign keys on, what comes too early is refused.
@pytest.mark.parametrize("options", [{}, {"commit_rows": 1, "apply_connections": 8}, {"session_replication_role": "off", "commit_rows": 20, "commit_interval": "5ms"}],
                         ids=["usual", "tiny", "constraints"])
def test_all_at_once(pair, daemon, options):
    server, source, target = pair
    job(daemon, source, target, **options)
    writers = Writers(server, source, seed=len(options))
    try:
        for _ in range(3):
            time.sleep(1.2)
            source.psql("TRUNCATE history; ALTER TABLE counters ADD COLUMN IF NOT EXISTS more integer DEFAULT 3")
    finally:
        writers.stop()
    daemon.wait_equal(source, target)
    assert len(lanes(target)) == options.get("apply_connections", 4) + 1
    assert writers.transactions > 200
    # Nothing was refused, so that nothing had to be done in order after all.
    assert "what was spread is done in order" not in daemon.log()


def test_killed_at_random(pair, daemon):
    server, source, target = pair
    job(daemon, source, target, commit_rows=30, apply_connections=3)
    rng, writers = random.Random(4), Writers(server, source, seed=9)
    try:
        for _ in range(20):
            time.sleep(rng.choice([0.05, 0.2, 0.4, 0.7]))
            daemon.kill()
            daemon.start()
    finally:
        writers.stop()
    daemon.wait_state("par", "running")
    daemon.wait_equal(source, target)
    counts = target.one("SELECT count(*) FROM dmsr.positions")
    assert counts == 1 + 4, "rows of former starts are left"


def test_a_connection_is_cut(pair, daemon):
    """In the middle of a COMMIT, perhaps: whether it came through stands in the lane's own row."""
    server, source, target = pair
    job(daemon, source, target, commit_rows=10)
    rng, writers = random.Random(5), Writers(server, source, seed=10)
    cut = 0
    try:
        for _ in range(15):
            time.sleep(rng.choice([0.1, 0.3, 0.6]))
            pids = [pid for pid, in lanes(target)]
            if pids:
                cut += target.one(f"SELECT pg_terminate_backend({rng.choice(pids)})")
    finally:
        writers.stop()
    daemon.wait_state("par", "running")
    daemon.wait_equal(source, target)
    assert cut >= 3


def test_from_parallel_to_strict_and_back(pair, daemon):
    """What lanes had beyond the position is passed over by who comes next, whoever that is."""
    server, source, target = pair
    job(daemon, source, target, commit_rows=10)
    writers = Writers(server, source, seed=11)
    try:
        for options in ({"apply": "strict"}, {"apply_connections": 2}, {"apply_connections": 7}, {"apply": "strict"}, {}):
            time.sleep(0.7)
            daemon.kill()
            daemon.start()
            daemon.api("POST", "/jobs/par/stop")
            daemon.wait_state("par", "stopped")
            spec = {"targets": [target.connection(name="copy", **{"apply": "parallel", "commit_rows": 10, **options})]}
            daemon.call("PATCH", "/jobs/par", spec, {"Content-Type": "application/merge-patch+json"})
            daemon.api("POST", "/jobs/par/start")
            daemon.wait_state("par", "running")
    finally:
        writers.stop()
    daemon.wait_equal(source, target)


def test_pgbench(pg, daemon):
    source, target = pg.database("bench"), pg.database("bench_copy")
    pgbench = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))[-1]
    at = ["-h", "127.0.0.1", "-p", str(pg.port), "-U", "postgres", source.name]
    subprocess.run([pgbench, "-i", "-q", "-s", "4", "--foreign-keys", *at], check=True, capture_output=True)
    source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
    job(daemon, source, target)
    for mode in ([], ["-N"]):
        with subprocess.Popen([pgbench, "-n", "-c", "4", "-T", "5", *mode, *at], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
            for _ in range(4):
                time.sleep(1)
                daemon.kill()
                daemon.start()
            assert bench.wait() == 0
    daemon.wait_state("par", "running")
    daemon.wait_equal(source, target)
    assert source.one("SELECT sum(abalance) FROM pgbench_accounts") == target.one("SELECT sum(delta) FROM pgbench_history")


def test_killed_while_it_loads(pair, daemon):
    server, source, target = pair
    source.psql("".join(f"CREATE TABLE l{i} (id integer PRIMARY KEY, v text); INSERT INTO l{i} SELECT g, repeat('v', 100) FROM generate_series(1, 20000) g;" for i in range(4)))
    daemon.start()
    daemon.job("par", source.connection(), [target.connection(name="copy", apply="parallel")])
    writers = Writers(server, source, seed=12)
    try:
        for delay in (0.2, 0.4, 0.3, 0.5):
            time.sleep(delay)
            daemon.kill()
            daemon.start()
        daemon.wait_state("par", "running", 120)
        time.sleep(0.5)
    finally:
        writers.stop()
    daemon.wait_equal(source, target)


# ---- rows that are refused ----

REFUSING = "CREATE TABLE a (id int PRIMARY KEY, v int, w text CHECK (w <> 'bad')); CREATE TABLE log (n int)"


def refused_stream(seed, transactions=300):
    """Batches of many transactions, some with a row that the target refuses or does not have."""
    r, script = random.Random(seed), Script()
    script.rel("a", "a", [column("id", "int4", key=1), column("v", "int4"), column("w")]).rel("log", "log", [column("n", "int4")], key="none")
    script.tx(500, c("a", "0", "0", "first"), c("log", "0")).wait()
    live, lsn = set(), 1000
    for n in range(1, transactions):
        lsn += r.randrange(2, 90)
        changes = [c("log", str(n))]
        if r.random() < 0.04:
            changes.append(c("a", str(10000 + n), str(n), "bad"))
        elif r.random() < 0.03:
            changes.append(u("a", [str(20000 + n), str(n), "gone"]))
        elif live and r.random() < 0.3:
            changes.append(u("a", [str(r.choice(sorted(live))), str(n), f"w{n}"]))
        elif live and r.random() < 0.2:
            key = r.choice(sorted(live))
            live.remove(key)
            changes.append(d("a", str(key), {}, {}))
        else:
            live.add(n)
            changes.append(c("a", str(n), str(n), f"w{n}"))
        script.tx(lsn, *changes, emit=False)
        if n % 25 == 0:
            script.add({"emit": {"end": [lsn, -1, lsn + 1]}})
    return script.add({"emit": {"end": [lsn, -1, lsn + 1]}}).wait()


def outcome(pg, script, **options):
    db = pg.database("refuse")
    db.sql(REFUSING)
    said = Feed(db, on_constraint_error="dead-letter", on_missing_row="dead-letter", **options).ok(script)
    dead = sorted(line.split(" ", 2)[2] for line in said.all("dead"))
    return db.sql("SELECT * FROM a ORDER BY id"), db.sql("SELECT n FROM log ORDER BY n"), len(dead), said.counts("public.a")


@pytest.mark.parametrize("seed", range(3))
def test_what_is_refused_ends_as_in_strict_order(pg, seed):
    script = refused_stream(seed)
    strict = outcome(pg, script, apply="strict")
    assert strict[2] > 5
    assert outcome(pg, script, apply="parallel", commit_rows=40) == strict


def test_an_index_that_came_later(pg):
    """Rules are of the catalog as it was. An index that the target alone has is not in them: what it refuses is done in order, and then fits."""
    db = pg.database("late")
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v int)")
    script = Script().rel("a", "a", [column("id", "int4", key=1), column("v", "int4")])
    script.tx(500, c("a", "0", "0")).wait().sleep(3000)
    lsn = 1000
    for n in range(1, 60):  # one value goes from row to row
        script.tx(lsn, c("a", str(n), "7"), emit=False).tx(lsn + 5, d("a", str(n), {}), emit=False)
        lsn += 10
    script.add({"emit": {"end": [lsn, -1, lsn + 1]}}).wait()

    def make():
        return db.one("SELECT count(*) FROM a") and (db.sql("CREATE UNIQUE INDEX ON a (v)") or True)
    said, made = run_beside(Feed(db, apply="parallel", commit_rows=1), script, make)
    assert made and said.status == 0 and not said.failed, said
    assert "since one connection could not" in said.err, said
    assert db.sql("SELECT * FROM a") == [(0, 0)]


@pytest.mark.parametrize("why", ["a lane had them", "the rows are newer"])
def test_what_is_passed_over_holds_nobody_up(pg, why):
    """Each of these transactions is a batch of its own, of a table that the first connection learns nothing of from them. Nothing but a position is to be written
    then: what comes behind does not wait until one that moved alone may be."""
    db = pg.database("passed")
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text)")
    feed = Feed(db, apply="parallel", commit_interval=60000, prepare="none")
    rel = [column("id", "int4", key=1), column("v")]
    before = Script().rel("a", "a", rel).tx(500, c("a", "0", "first")).wait()
    feed.ok(before.load("a", "1\tloaded\n", lsn=1500).done() if why == "the rows are newer" else before)
    if why == "a lane had them":
        db.sql("INSERT INTO dmsr.positions (job_uid, job, position) SELECT job_uid || '/9/1', job, position || ' +1f4' || repeat(' +a', 19) "
               "FROM dmsr.positions WHERE job_uid = %s", feed.options["uid"])
    script, had = Script().rel("a", "a", rel), db.sql("SELECT * FROM a ORDER BY id")
    for n in range(1, 21):
        script.tx(990 + 10 * n, c("a", str(n), "had"))
    said = feed.ok(script.tx(2000, c("a", "99", "new")).wait())
    assert said.applied == 21
    assert db.sql("SELECT * FROM a ORDER BY id") == [*had, (99, "new")]


def test_a_refusal_in_the_middle_of_a_batch(pg):
    """More transactions than are placed at once: what a connection refuses is done in order, then the rest of the batch is spread as before."""
    script = Script().rel("a", "a", [column("id", "int4", key=1), column("v", "int4"), column("w")])
    script.tx(500, c("a", "0", "0", "first")).wait()
    for n in range(1, 40001):
        script.tx(1000 + 10 * n, c("a", str(n), str(n), "bad" if n % 9000 == 50 else "good"), emit=False)
    script.add({"emit": {"end": [401000, -1, 401001]}}).wait()
    db = pg.database("middle")
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v int, w text CHECK (w <> 'bad'))")
    said = Feed(db, on_constraint_error="dead-letter", apply="parallel").ok(script, timeout=120)
    assert len(said.all("dead")) == 5 and db.one("SELECT count(*) FROM a") == 39996
    assert said.counts("public.a")["c"] == 39996


def test_what_is_read_is_told_of_each(pg):
    """Of what moved the position alone, too, when what comes behind it is read at once: here rows of a load whose begin is not there, which are passed over."""
    db = pg.database("told")
    script = Script().rel("a", "a", [column("id", "int4", key=1), column("v")]).load("a", "1\tx\n").done()
    for lsn in (400, 410, 420):
        script.add({"heartbeat": True}, {"emit": {"end": [lsn, -1, lsn]}}).rows("a", "2\ty\n", lsn=lsn).add({"wait": "applied"})
    said = Feed(db, apply="parallel").ok(script)
    assert said.applied == 8 and db.sql("SELECT * FROM a") == [(1, "x")]
