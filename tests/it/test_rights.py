"""Roles that may do little: with what the manual asks for, and no more, a job does all of its work; what is missing is named with the statement that gives it."""
import itertools

import pytest

from conftest import wait_for

numbers = itertools.count(1)


@pytest.fixture
def role(any_pg):
    """Makes a role that may log in and nothing else; gone, with what it owns and was given, after the test."""
    made = []

    def make(*databases, options=""):
        name = f"least_{next(numbers)}"
        databases[0].sql(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {options}")
        made.append((name, databases))
        return name
    yield make
    for name, databases in made:
        for db in databases:
            db.sql(f"DROP OWNED BY {name} CASCADE")
        databases[0].sql(f"DROP ROLE {name}")


def as_role(db, name, **more):
    return db.connection(user=name, password=name, **more)


def warnings(dmsrd, job):
    return [e["text"] for e in dmsrd.api("GET", f"/jobs/{job}/events?limit=200")["items"] if e["kind"] == "warning"]


def test_sequences_that_may_not_be_read_are_told(any_pg, dmsrd, role):
    source, target = any_pg.database(), any_pg.database()
    who = role(source)
    source.sql(f"CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t SELECT FROM generate_series(1, 5); CREATE TABLE u (id serial PRIMARY KEY);"
               f"GRANT USAGE ON SCHEMA public TO {who}; GRANT SELECT ON t, u, u_id_seq TO {who}")
    dmsrd.job("s", as_role(source, who), [target.connection()], mode="full-load")
    dmsrd.wait_state("s", "completed")
    assert wait_for("it is told", lambda: warnings(dmsrd, "s")) == [
        "source: sequences that may not be read, which begin anew at a PostgreSQL target: public.t_id_seq; there SELECT setval(...) sets them"]


def test_triggers_of_the_target_are_told(any_pg, dmsrd):
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    target.sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE audit (what text);"
               "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v = NEW.v || '!'; INSERT INTO public.audit VALUES (TG_OP); RETURN NEW; END $$;"
               "CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()")
    for role in ("auto", "off"):
        target.sql("TRUNCATE t")
        dmsrd.job(role, source.connection(), [target.connection(session_replication_role=role)])
        dmsrd.wait_state(role, "running")
        source.sql("UPDATE t SET v = v || 'x'")
        want = source.one("SELECT v FROM t")
        if role == "auto":  # they rest, in the load and behind it
            dmsrd.wait_equal(source, target)
            assert warnings(dmsrd, role) == [] and target.one("SELECT count(*) FROM audit") == 0
        else:
            wait_for("the trigger worked", lambda: target.one("SELECT v FROM t") == want + "!")
            assert len(warnings(dmsrd, role)) == 1 and 'postgres: "public"."t" has triggers' in warnings(dmsrd, role)[0]
        dmsrd.api("POST", f"/jobs/{role}/stop")
        dmsrd.wait_state(role, "stopped")
