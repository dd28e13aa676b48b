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
