"""A job that begins anew where others wrote since: what it loaded once is its own to take away, and nothing else is, unless it is said."""
import contextlib
import re
import threading

import pytest

from conftest import TOP, ApiError, wait_for


def begun(pg, dmsrd, apply="strict"):
    """A job that has loaded t and u, and is to begin anew."""
    source, target = pg.database(), pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (1)")
    dmsrd.job("a", source.connection(), [target.connection(name="to", apply=apply)])
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/a/stop")
    dmsrd.wait_state("a", "stopped")
    return source, target


def rows_found(dmsrd, spec):
    return [(c["level"], c["object"], c["message"], c.get("fix")) for c in dmsrd.api("POST", "/jobs/validate", spec)["checks"] if c["id"] == "postgres.target-rows"]


def spec_of(source, target, **more):
    return {"name": "a", "source": source.connection(), "targets": [target.connection(name="to", **more)]}


def ids(db, table="t"):
    return [r[0] for r in db.sql(f"SELECT id FROM {table} ORDER BY 1")]


# a load of t stands still at 10 for as long as somebody holds that lock
HOLD = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 10 THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF; RETURN NEW; END $$;
CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE hold(); ALTER TABLE t ENABLE ALWAYS TRIGGER hold
"""


def forget(target, error):
    """What the hint says of a job that writes there no more."""
    target.sql(error["suggestion"].split("any more: ")[1])


@pytest.mark.parametrize("mode", ["full-load-and-cdc", "cdc"])
def test_another_job_writes_to_the_table(any_pg, dmsrd, mode):
    source, target = begun(any_pg, dmsrd)
    other = any_pg.database()
    other.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (10)")
    dmsrd.job("b", other.connection(), [target.connection(name="to", prepare="none")], mode=mode)
    dmsrd.wait_state("b", "running")
    other.sql("INSERT INTO t VALUES (11)")
    mine, all_ = [1, 2], [1, 2, 10, 11] if mode != "cdc" else [1, 2, 11]
    wait_for("they came", lambda: ids(target) == all_)
    dmsrd.api("DELETE", "/jobs/a/positions")
    found = rows_found(dmsrd, spec_of(source, target))
    assert [f[:2] for f in found if f[0] == "error"] == [("error", "public.t")] and 'job "b"' in found[0][2], found
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "failed")
    error = dmsrd.api("GET", "/jobs/a")["error"]
    assert error["code"] == "target.table-shared" and 'job "b"' in error["message"] and ids(target) == all_, error
    # what is said removes the reason, and is said to lose that job's rows
    assert "may be lost, delete it" in error["suggestion"]
    assert dmsrd.call("DELETE", "/jobs/b")[0] == 204
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    wait_for("it is loaded", lambda: ids(target) == mine)


def test_another_job_wrote_and_a_table_is_wanted_again(pg, dmsrd):
    """The job did not begin anew: somebody wants one of its tables."""
    source, target = begun(pg, dmsrd)
    other = pg.database()
    other.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (10)")
    dmsrd.job("b", other.connection(), [target.connection(name="to", prepare="none")])
    dmsrd.wait_state("b", "running")
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    dmsrd.api("POST", "/jobs/a/tables/public.t/reload")
    dmsrd.wait_state("a", "failed")
    error = dmsrd.api("GET", "/jobs/a")["error"]
    assert error["code"] == "target.table-shared" and ids(target) == [1, 2, 10]
    # It is a job of which nobody knows any more.
    dmsrd.api("POST", "/jobs/b/stop")
    dmsrd.wait_state("b", "stopped")
    target.sql("UPDATE dmsr.positions SET job_uid = 'gone' WHERE job = 'b';"
               "UPDATE dmsr.loads l SET job_uid = 'gone' WHERE NOT EXISTS (SELECT FROM dmsr.positions p WHERE p.job_uid = l.job_uid)")
    assert dmsrd.call("DELETE", "/jobs/b")[0] == 204
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "failed")
    error = dmsrd.api("GET", "/jobs/a")["error"]
    assert error["code"] == "target.table-shared" and ids(target) == [1, 2, 10]
    forget(target, error)
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    wait_for("it is loaded", lambda: ids(target) == [1, 2])


def test_nothing_is_left_of_a_job_that_nobody_knows(pg, dmsrd):
    """By what the manual says; of the others nothing goes."""
    source, target = begun(pg, dmsrd, "parallel")
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    other = pg.database()
    other.sql("CREATE TABLE v (id int PRIMARY KEY); INSERT INTO v VALUES (1)")
    dmsrd.job("b", other.connection(), [target.connection(name="to")])
    dmsrd.wait_state("b", "running")
    dmsrd.wait_equal(other, target)
    uid = target.one("SELECT job_uid FROM dmsr.positions WHERE job = 'a' AND strpos(job_uid, '/') = 0")
    dmsrd.kill()
    page = (TOP / "man" / "dmsr-api.7").read_text().split(".It Sy target.table\\-shared")[1].split(".It ")[0]
    said = re.findall(r"^\.Dl (DELETE FROM .*)$", page, re.M)
    assert len(said) == 2
    for sql in said:
        target.sql(sql.replace("UID", uid).replace("%", "%%"))
    left = "SELECT count(*), count(*) FILTER (WHERE job_uid LIKE %s) FROM dmsr."
    for table in ("positions", "loads"):
        assert target.sql(left + table, uid + "%") == [(1, 0)], table


def test_another_job_is_loading_a_table_that_is_empty(pg, dmsrd):
    """Its rows are not seen yet; had they been there first, they would have been refused."""
    source, other, target = pg.database(), pg.database(), pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    other.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (10)")
    target.sql("CREATE TABLE t (id int PRIMARY KEY);" + HOLD)
    with contextlib.closing(target.server.connect(target.name)) as holder:
        holder.cursor().execute("SELECT pg_advisory_lock(4711)")
        dmsrd.job("b", other.connection(), [target.connection(name="to", prepare="none")])
        wait_for("it is in its load", lambda: target.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"))
        dmsrd.job("a", source.connection(), [target.connection(name="to")])
        wait_for("the other waits for it", lambda: dmsrd.state_of("a") == "running" or
                 target.one("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted"))
    dmsrd.wait_state("a", "failed")
    error = dmsrd.api("GET", "/jobs/a")["error"]
    assert error["code"] == "target.table-not-empty" and 'job "b"' in error["message"] and ids(target) == [10], error
    dmsrd.wait_state("b", "running")


def test_another_job_has_left_the_table_out(pg, dmsrd):
    """Its row in dmsr.loads is there for good, and those of its parts: what is said removes them, and of its other tables nothing."""
    source, target = begun(pg, dmsrd)
    other = pg.database()
    other.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (10); CREATE TABLE w (id int PRIMARY KEY)")
    target.sql("CREATE TABLE w (id int PRIMARY KEY)")
    dmsrd.job("b", other.connection(), [target.connection(name="to", prepare="none")])
    dmsrd.wait_state("b", "running")
    dmsrd.api("PATCH", "/jobs/b", {"tables": {"exclude": ["public.t"]}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/b/restart")
    target.sql("INSERT INTO dmsr.loads (job_uid, schema_name, table_name, position) SELECT job_uid || '/0', schema_name, table_name, l.position "
               "FROM dmsr.loads l JOIN dmsr.positions USING (job_uid) WHERE job = 'b'")
    dmsrd.api("DELETE", "/jobs/a/positions")
    for _ in range(2):
        dmsrd.api("POST", "/jobs/a/start")
        dmsrd.wait_state("a", "failed")
        error = dmsrd.api("GET", "/jobs/a")["error"]
        assert error["code"] == "target.table-shared" and ids(target) == [1, 2, 10], error
    forget(target, error)
    left = target.sql("SELECT split_part(job_uid, '/', 2), table_name FROM dmsr.loads WHERE table_name IN ('t', 'w') AND split_part(job_uid, '/', 1) = "
                      "(SELECT job_uid FROM dmsr.positions WHERE job = 'b') ORDER BY 1")
    assert left == [("", "w"), ("0", "w")]
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    wait_for("it is loaded", lambda: ids(target) == [1, 2])
    other.sql("INSERT INTO w VALUES (1)")
    wait_for("the other goes on", lambda: ids(target, "w") == [1])


@pytest.mark.parametrize("how", ["truncate", "truncate-empty", "delete", "drop"])
def test_another_job_is_loading_the_table(pg, dmsrd, how):
    """Nobody sees its rows until they are all there: then they are not taken away."""
    source, target = begun(pg, dmsrd)
    other = pg.database()
    other.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (10)")
    target.sql(HOLD)
    mine = [1, 2]
    if how == "truncate-empty":
        target.sql("DELETE FROM t")
        mine = []
    elif how == "delete":
        target.sql("CREATE TABLE r (id int REFERENCES t)")
    elif how == "drop":
        source.sql("ALTER TABLE t ADD v int")
    dmsrd.api("DELETE", "/jobs/a/positions")
    with contextlib.closing(target.server.connect(target.name)) as holder:
        holder.cursor().execute("SELECT pg_advisory_lock(4711)")
        dmsrd.job("b", other.connection(), [target.connection(name="to", prepare="none")])
        wait_for("it is in its load", lambda: target.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"))
        dmsrd.api("POST", "/jobs/a/start")
        wait_for("the other waits for it", lambda: target.one("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted"))
    dmsrd.wait_state("a", "failed")
    error = dmsrd.api("GET", "/jobs/a")["error"]
    assert error["code"] == "target.table-shared" and 'job "b"' in error["message"] and ids(target) == mine + [10], error
    dmsrd.wait_state("b", "running")


def test_an_application_wrote_to_the_table(pg, dmsrd):
    """Nobody knows which rows are whose: they go, as the job was told to load the table anew, and that is said before and while it is done."""
    source, target = begun(pg, dmsrd)
    assert rows_found(dmsrd, spec_of(source, target)) == []
    target.sql("INSERT INTO t VALUES (50); DELETE FROM u")
    dmsrd.api("DELETE", "/jobs/a/positions")
    for more in ({}, {"prepare": "truncate"}, {"prepare": "drop-and-create"}):
        found = rows_found(dmsrd, spec_of(source, target, **more))
        assert [f[:2] for f in found] == [("warning", "public.t")] and "others" in found[0][2], found
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    said = [line for line in dmsrd.log().splitlines() if "are removed" in line]
    assert len(said) == 1 and r'\"public\".\"t\"' in said[0], said


@pytest.mark.parametrize("apply", ["strict", "parallel"])
def test_a_table_is_taken_up_again_late(pg, dmsrd, apply):
    """It was left out when the job began anew: what it has by now is not the job's any more."""
    source, target = begun(pg, dmsrd, apply)
    dmsrd.api("DELETE", "/jobs/a/positions")
    dmsrd.api("PATCH", "/jobs/a", {"tables": {"exclude": ["public.u"]}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    source.sql("INSERT INTO t VALUES (3)")
    dmsrd.wait_equal(source, target)
    target.sql("INSERT INTO u VALUES (50)")
    dmsrd.api("POST", "/jobs/a/stop")
    dmsrd.wait_state("a", "stopped")
    found = rows_found(dmsrd, spec_of(source, target, apply=apply))
    assert [f[:2] for f in found] == [("error", "public.u")] and "not this job's" in found[0][2], found
    dmsrd.api("PATCH", "/jobs/a", {"tables": {"exclude": []}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "failed")
    assert dmsrd.api("GET", "/jobs/a")["error"]["code"] == "target.table-not-empty" and ids(target, "u") == [1, 50]
    assert target.one("SELECT count(*) FROM dmsr.loads WHERE rows < 0") == 0
    target.sql("TRUNCATE u")
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)


def test_a_load_that_is_cut_short_still_knows_its_tables(pg, dmsrd):
    """A kill in the middle of the load that begins anew: the tables that it did not reach are emptied by the next, as those that it did."""
    source, target = begun(pg, dmsrd)
    source.sql("INSERT INTO t VALUES (3); INSERT INTO u VALUES (2)")
    dmsrd.api("DELETE", "/jobs/a/positions")
    dmsrd.kill()
    dmsrd.start(env={"DMSR_FAILPOINT": "target.load-after-commit:1:kill"})
    dmsrd.api("POST", "/jobs/a/start")
    assert dmsrd.process.wait(60)
    assert target.one("SELECT count(*) FROM dmsr.loads WHERE rows = -3") == 1
    dmsrd.start()
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    assert target.one("SELECT count(*) FROM dmsr.loads WHERE rows = -3") == 0


def test_a_table_that_is_followed_from_then_on_is_not_forgotten(pg, dmsrd):
    """The job does not load any more: when it does again, what it has written there in between is not taken away; and what the columns were is known."""
    source, target = begun(pg, dmsrd)
    dmsrd.api("DELETE", "/jobs/a/positions")
    dmsrd.api("PATCH", "/jobs/a", {"mode": "cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "running")
    source.sql("INSERT INTO t VALUES (3)")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/a/stop")
    dmsrd.wait_state("a", "stopped")
    source.sql("ALTER TABLE t ADD v int DEFAULT 7; ALTER TABLE t ALTER v DROP DEFAULT; INSERT INTO t VALUES (4)")
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_equal(source, target)
    assert target.sql("SELECT table_name, rows, shape IS NOT NULL FROM dmsr.loads") == [("t", 0, True)]
    dmsrd.api("POST", "/jobs/a/stop")
    dmsrd.wait_state("a", "stopped")
    dmsrd.api("PATCH", "/jobs/a", {"mode": "full-load-and-cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/a/start")
    dmsrd.wait_state("a", "failed")
    assert dmsrd.api("GET", "/jobs/a")["error"]["code"] == "target.table-not-empty" and len(ids(target)) == 4


def test_the_state_is_lost(pg, dmsrd):
    """Without a backup the jobs are made anew, as the hint has it: the targets have the rows of the old ones."""
    source, target = begun(pg, dmsrd)
    source.sql("INSERT INTO t VALUES (3); DELETE FROM u")
    dmsrd.stop()
    with open(dmsrd.state / "state.db", "r+b") as f:
        f.write(b"garbage")
    dmsrd.start(wait=False)
    assert dmsrd.process.wait(20) != 0
    line = next(line for line in dmsrd.log().splitlines() if "is damaged" in line)
    for part in ("move it away, start dmsrd and make the jobs anew", r'\"prepare\": \"truncate\"', "drop the slots"):
        assert part in line, line
    dmsrd.state.rename(dmsrd.dir / "away")
    dmsrd.start()
    old = source.one("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    dmsrd.job("a", source.connection(), [target.connection(name="to", prepare="truncate")])
    dmsrd.wait_state("a", "running")
    dmsrd.wait_equal(source, target)
    assert old.startswith("dmsr_a_")
    source.sql(f"SELECT pg_drop_replication_slot('{old}')")
    source.sql("INSERT INTO t VALUES (4)")
    dmsrd.wait_equal(source, target)


def test_the_schema_goes_though_somebody_looks_into_it(any_pg, dmsrd):
    """As a backup does, for a moment, when the last job is deleted."""
    source, target = begun(any_pg, dmsrd)
    answers = []
    with contextlib.closing(target.server.connect(target.name)) as other:
        other.autocommit = False
        other.cursor().execute("LOCK TABLE dmsr.loads IN ACCESS SHARE MODE")
        deleting = threading.Thread(target=lambda: answers.append(dmsrd.call("DELETE", "/jobs/a")[0]))
        deleting.start()
        wait_for("it was in the way", lambda: target.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%DROP SCHEMA dmsr;%' "
                                                         "AND state = 'idle in transaction (aborted)'"), step=0.01)
        other.rollback()
        deleting.join()
    assert answers == [204] and target.one("SELECT to_regnamespace('dmsr')") is None
    assert source.one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0


# ---- as the hints say ----

def refused(dmsrd, *call):
    with pytest.raises(ApiError) as e:
        dmsrd.api(*call)
    return e.value.body["suggestion"]


def test_a_load_that_is_completed_begins_anew_as_the_hints_say(any_pg, dmsrd):
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i")
    dmsrd.job("l", source.connection(), [target.connection()], mode="full-load")
    for call in (("POST", "/jobs/l/start"), ("POST", "/jobs/l/tables/public.t/reload")):
        dmsrd.wait_state("l", "completed")
        hint = refused(dmsrd, *call)
        source.sql("DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = v || 'b'")
        dmsrd.follow(hint, "l")
        dmsrd.wait_equal(source, target)
    dmsrd.wait_state("l", "completed")


def test_tables_that_one_name_means_begin_anew_as_the_hint_says(any_pg, dmsrd):
    source, target = any_pg.database(), any_pg.database()
    source.sql('''CREATE SCHEMA "a"; CREATE SCHEMA "a.b"; CREATE TABLE "a"."b.c" (id int PRIMARY KEY); CREATE TABLE "a.b"."c" (id int PRIMARY KEY);
               INSERT INTO "a"."b.c" VALUES (1); INSERT INTO "a.b"."c" VALUES (2)''')
    dmsrd.job("l", source.connection(), [target.connection()])
    dmsrd.wait_state("l", "running")
    wait_for("both are loaded", lambda: all(t["state"] == "loaded" for t in dmsrd.api("GET", "/jobs/l/tables")["items"]))
    hint = refused(dmsrd, "POST", "/jobs/l/tables/a.b.c/reload")
    dmsrd.follow(hint, "l")
    dmsrd.wait_state("l", "running")
    dmsrd.wait_equal(source, target)
    assert target.one('SELECT count(*) FROM "a"."b.c"') == 1


@pytest.mark.spread
@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("how", ["older", "another"])
def test_a_target_that_is_behind_is_loaded_anew_as_the_hint_says(any_pg, dmsrd, how, apply):
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i; CREATE TABLE u (id int PRIMARY KEY)")
    dmsrd.job("b", source.connection(), [target.connection(apply=apply, name="to")])
    dmsrd.wait_state("b", "running")
    dmsrd.wait_equal(source, target)
    source.sql("INSERT INTO t VALUES (101, 'b'); INSERT INTO u VALUES (1)")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/b/stop")
    dmsrd.wait_state("b", "stopped")
    if how == "older":
        target.sql("UPDATE dmsr.positions SET position = 'none'")
    else:
        target.sql("DROP SCHEMA dmsr CASCADE")
    dmsrd.api("POST", "/jobs/b/start")
    dmsrd.wait_state("b", "failed")
    error = dmsrd.api("GET", "/jobs/b")["error"]
    assert error["code"] == "target.behind", error
    if how == "another":
        assert "unless prepare is truncate" in error["suggestion"]
        dmsrd.api("PATCH", "/jobs/b", {"targets": [target.connection(apply=apply, name="to", prepare="truncate")]}, {"If-Match": "*"})
    source.sql("DELETE FROM t WHERE id = 5")
    dmsrd.follow(error["suggestion"], "b")
    dmsrd.wait_state("b", "running")
    dmsrd.wait_equal(source, target)
    source.sql("INSERT INTO t VALUES (102, 'c'); DELETE FROM u")
    dmsrd.wait_equal(source, target)


def test_changes_reach_a_table_that_was_loaded_before_the_job_began_anew(any_pg, dmsrd):
    """Whatever is remembered of rows that were loaded once, a job that does not load any more passes over nothing."""
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    dmsrd.job("c", source.connection(), [target.connection()])
    dmsrd.wait_state("c", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/c/stop")
    dmsrd.wait_state("c", "stopped")
    dmsrd.api("DELETE", "/jobs/c/positions")
    dmsrd.api("PATCH", "/jobs/c", {"mode": "cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/c/start")
    dmsrd.wait_state("c", "running")
    source.sql("INSERT INTO t VALUES (2)")
    dmsrd.wait_equal(source, target)


def test_prepare_none_says_what_is_in_the_way_of_a_load_that_begins_anew(any_pg, dmsrd):
    source, target = any_pg.database(), any_pg.database()
    for db in (source, target):
        db.sql("CREATE TABLE t (id int)")
    source.sql("INSERT INTO t VALUES (1)")
    dmsrd.job("n", source.connection(), [target.connection(prepare="none")], mode="full-load")
    dmsrd.wait_state("n", "completed")
    dmsrd.follow(refused(dmsrd, "POST", "/jobs/n/start"), "n")
    dmsrd.wait_state("n", "failed")
    error = dmsrd.api("GET", "/jobs/n")["error"]
    assert error["code"] == "target.table-loaded" and "remove the rows that were loaded" in error["suggestion"], error
    target.sql("DELETE FROM t; DELETE FROM dmsr.loads WHERE table_name = 't'")
    dmsrd.api("POST", "/jobs/n/start")
    dmsrd.wait_state("n", "completed")
    assert target.one("SELECT count(*) FROM t") == 1
