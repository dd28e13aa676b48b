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


def as_role(db, who, **more):
    return db.connection(user=who, password=who, **more)


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


# What README and dmsr-job(5) ask for, word by word.
SOURCE = """
ALTER ROLE {who} REPLICATION;
GRANT USAGE ON SCHEMA public, "S 2" TO {who};
GRANT SELECT ON ALL TABLES IN SCHEMA public, "S 2" TO {who};
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, "S 2" TO {who};
"""
TABLES = """
CREATE SCHEMA "S 2";
CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE TABLE "S 2".u (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t int REFERENCES t, v text);
"""
ROWS = "INSERT INTO t (v) SELECT 'x' FROM generate_series(1, 100); INSERT INTO \"S 2\".u (t, v) SELECT id, 'y' FROM t;"
CHANGES = """
INSERT INTO t (v) VALUES ('new'); UPDATE t SET v = 'u' WHERE id < 5; DELETE FROM "S 2".u WHERE id = 7; UPDATE "S 2".u SET v = 'w' WHERE id = 8;
BEGIN; TRUNCATE "S 2".u; INSERT INTO "S 2".u (t, v) VALUES (1, 'again'); COMMIT;
"""
# foreign keys and triggers of the target rest
REST = "GRANT SET ON PARAMETER session_replication_role TO {who}"
TARGETS = {
    # whole schemas come
    "create": ("create", "", 'GRANT CREATE ON DATABASE "{database}" TO {who}; GRANT USAGE, CREATE ON SCHEMA public TO {who}'),
    # schemas are there
    "create-in-schemas": ("create", 'CREATE SCHEMA "S 2"', 'CREATE SCHEMA dmsr AUTHORIZATION {who}; GRANT USAGE, CREATE ON SCHEMA public, "S 2" TO {who}'),
    # tables are there
    "truncate": ("truncate", TABLES, """
        CREATE SCHEMA dmsr AUTHORIZATION {who}; GRANT USAGE ON SCHEMA public, "S 2" TO {who};
        GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public, "S 2" TO {who};
        GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public, "S 2" TO {who}; """ + REST),
}


def publish(db):
    options = "publish_via_partition_root = true" + (", publish_generated_columns = stored" if db.server.version >= 18 else "")
    db.sql(f'CREATE PUBLICATION shop FOR TABLE t, "S 2".u WITH ({options})')


def follows(dmsrd, source, target):
    dmsrd.wait_equal(source, target)
    source.psql(CHANGES)
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("how", TARGETS)
def test_what_the_manual_asks_for_is_enough(any_pg, dmsrd, role, how):
    source, target = any_pg.database(), any_pg.database()
    prepare, before, grants = TARGETS[how]
    source.sql("REVOKE CREATE ON SCHEMA public FROM public;" + TABLES + ROWS)
    publish(source)
    target.sql("REVOKE CREATE ON SCHEMA public FROM public;" + before)
    reads, writes = role(source), role(target)
    source.sql(SOURCE.format(who=reads))
    target.sql(grants.format(who=writes, database=target.name))
    spec = {"name": "s", "source": as_role(source, reads, publication="shop"), "targets": [as_role(target, writes, prepare=prepare, name="t")]}
    checks = dmsrd.api("POST", "/jobs?dry_run=1", spec)
    assert [c for c in checks["checks"] if c["level"] == "error"] == [], checks
    dmsrd.api("POST", "/jobs", spec)
    dmsrd.wait_state("s", "running")
    follows(dmsrd, source, target)
    assert target.one("SELECT nextval('t_id_seq') > 100") and warnings(dmsrd, "s") == []
    dmsrd.api("DELETE", "/jobs/s")
    wait_for("it is gone", lambda: dmsrd.call("GET", "/jobs/s")[0] == 404)
    assert source.one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0
    # who could not make the schema again keeps it
    may = target.one("SELECT has_database_privilege(%s, current_database(), 'CREATE')", writes.strip('"'))
    assert target.one("SELECT to_regnamespace('dmsr') IS NULL") == may
    assert may or target.one("SELECT count(*) FROM dmsr.positions") == 0


@pytest.mark.parametrize("how", TARGETS)
def test_a_job_says_what_it_may_not(any_pg, dmsrd, role, how):
    """Nothing is granted; what the job asks for is run until it works."""
    source, target = any_pg.database(), any_pg.database()
    prepare, before, _ = TARGETS[how]
    source.sql("REVOKE CREATE ON SCHEMA public FROM public;" + TABLES + ROWS)
    publish(source)
    target.sql("REVOKE CREATE ON SCHEMA public FROM public;" + before)
    reads, writes = role(source), role(target)
    if prepare == "truncate":
        target.sql(REST.format(who=writes))
    dmsrd.job("s", as_role(source, reads, publication="shop"), [as_role(target, writes, prepare=prepare, name="t")])
    asked = []
    for _ in range(15):
        dmsrd.wait_state("s", ("running", "failed"))
        if dmsrd.state_of("s") == "running":
            break
        error = dmsrd.api("GET", "/jobs/s")["error"]
        assert error["code"] in ("source.privilege", "target.privilege"), error
        asked.append(error["suggestion"])
        (source if error["stage"] == "source" else target).sql(error["suggestion"])
        dmsrd.api("POST", "/jobs/s/start")
    assert dmsrd.state_of("s") == "running" and len(asked) == len(set(asked)), asked
    follows(dmsrd, source, target)


def test_who_may_do_no_more_than_insert_loads(any_pg, dmsrd, role):
    """Others cannot be kept out by him while he does."""
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    who = role(target)
    target.sql(f"CREATE SCHEMA dmsr AUTHORIZATION {who}; CREATE TABLE t (a int); GRANT SELECT, INSERT ON t TO {who}")
    dmsrd.job("s", source.connection(), [as_role(target, who)], mode="full-load")
    dmsrd.wait_state("s", "completed")
    assert target.sql("SELECT a FROM t") == [(1,)]


@pytest.mark.parametrize("prepare", ("drop-and-create", "create"))
def test_an_owner_who_has_taken_rights_from_himself(any_pg, dmsrd, role, prepare):
    """Who may drop a table need not be granted anything for that; who must look at its rows before is told so."""
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    who = role(target)
    target.sql(f"GRANT CREATE ON DATABASE {target.name} TO {who}; GRANT USAGE, CREATE ON SCHEMA public TO {who}")
    dmsrd.job("s", source.connection(), [as_role(target, who, prepare=prepare, name="t")])
    dmsrd.wait_state("s", "running")
    dmsrd.api("POST", "/jobs/s/stop")
    dmsrd.wait_state("s", "stopped")
    source.sql("ALTER TABLE t ADD v text; INSERT INTO t VALUES (2, 'a')")
    dmsrd.api("DELETE", "/jobs/s/positions")
    for rights in ("ALL", "INSERT, UPDATE, DELETE, TRUNCATE"):
        target.sql(f"REVOKE {rights} ON t FROM {who}")
        dmsrd.api("POST", "/jobs/s/start")
        dmsrd.wait_state("s", "running" if prepare != "create" else "failed")
        if prepare != "create":
            break
        error = dmsrd.api("GET", "/jobs/s")["error"]
        assert error["code"] == "target.privilege" and "GRANT " in error["suggestion"], error
        target.sql(error["suggestion"])
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_state("s", "running")
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("what", ("another", "as-told"))
def test_a_publication_that_the_owner_makes_later(any_pg, dmsrd, role, what):
    """A job that could not make its own takes the one that it is given then, and leaves it alone."""
    source, target = any_pg.database(), any_pg.database()
    source.psql(TABLES + ROWS)
    who = role(source)
    source.sql(SOURCE.format(who=who))
    dry = dmsrd.api("POST", "/jobs?dry_run=1", {"name": "s", "source": as_role(source, who), "targets": [target.connection()]})
    assert [c["fix"].split(" FOR ")[0] for c in dry["checks"] if c["level"] == "error"] == ['CREATE PUBLICATION "dmsr_s"']
    dmsrd.job("s", as_role(source, who), [target.connection()])
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "source.privilege", error
    source.sql(error["suggestion"].removeprefix("let the owner of the tables run ").split(";")[0])
    name = source.one("SELECT pubname FROM pg_publication")
    if what == "another":
        source.sql(f"ALTER PUBLICATION {name} RENAME TO shop")
        name = "shop"
    else:  # what is there and not ours is taken when we are told to
        dmsrd.api("POST", "/jobs/s/start")
        dmsrd.wait_state("s", "failed")
        assert dmsrd.api("GET", "/jobs/s")["error"]["code"] == "publication.exists"
    dmsrd.api("PATCH", "/jobs/s", {"source": {"publication": name}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_state("s", "running")
    dmsrd.wait_equal(source, target)
    assert dmsrd.call("DELETE", "/jobs/s")[0] == 204
    assert source.one("SELECT pubname FROM pg_publication") == name


def test_a_publication_that_is_misspelt(any_pg, dmsrd, role):
    source, target = any_pg.database(), any_pg.database()
    source.psql(TABLES + ROWS)
    publish(source)
    who = role(source)
    source.sql(SOURCE.format(who=who))

    def dry(connection):
        found = dmsrd.api("POST", "/jobs?dry_run=1", {"name": "s", "source": connection, "targets": [target.connection()]})["checks"]
        return [(c["level"], c["fix"]) for c in found if c["id"] == "postgres.publication" and 'is "shop" meant?' in c["message"]]
    assert dry(as_role(source, who, publication="shpo")) == [("error", '"publication": "shop"')]
    assert dry(source.connection(publication="shpo")) == [("warning", '"publication": "shop"')]
    dmsrd.job("s", as_role(source, who, publication="shpo"), [target.connection()])
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "publication.missing" and error["suggestion"].startswith('if "shop" is meant, set the source\'s option publication to that'), error
    dmsrd.api("PATCH", "/jobs/s", {"source": {"publication": "nothing_like_it"}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_state("s", "failed")
    wait_for("it is not there either", lambda: "nothing_like_it" in dmsrd.api("GET", "/jobs/s")["error"]["message"])
    assert dmsrd.api("GET", "/jobs/s")["error"]["suggestion"].startswith("set the source's option publication to one that is there")
    dmsrd.api("PATCH", "/jobs/s", {"source": {"publication": "shop"}}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_state("s", "running")
    dmsrd.wait_equal(source, target)


def test_a_slot_that_is_there_is_named(any_pg, dmsrd):
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source.sql("SELECT pg_create_logical_replication_slot('somebodys', 'pgoutput')")
    dmsrd.job("s", source.connection(slot="somebodys"), [target.connection()])
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "slot.exists", error
    source.sql(error["suggestion"].split(": ")[1].split(";")[0])
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_state("s", "running")


def family(source, target, who, action):
    """A parent and its child, of which the job copies the parent alone: the child at the target is somebody's own."""
    source.sql("CREATE TABLE parent (id int PRIMARY KEY, v text); INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 100) i")
    target.sql(f"GRANT CREATE ON DATABASE {target.name} TO {who}; ALTER SCHEMA public OWNER TO {who}; CREATE TABLE parent (id int PRIMARY KEY, v text);"
               f"ALTER TABLE parent OWNER TO {who}; CREATE TABLE child (id int PRIMARY KEY, p int DEFAULT 1 CONSTRAINT \"Its parent\" REFERENCES parent {action})")


def reload(dmsrd, target):
    target.sql("INSERT INTO child SELECT i, i FROM generate_series(1, 100) i")
    dmsrd.api("POST", "/jobs/s/tables/public.parent/reload")


@pytest.mark.spread
@pytest.mark.parametrize("option", ("auto", "off"))
@pytest.mark.parametrize("action", ("ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE SET DEFAULT", "ON DELETE RESTRICT", ""))
def test_a_reload_does_not_act_on_other_tables(any_pg, dmsrd, role, action, option):
    source, target = any_pg.database(), any_pg.database()
    who = role(target)
    family(source, target, who, action)
    dmsrd.job("s", source.connection(), [as_role(target, who, name="t", session_replication_role=option)])
    dmsrd.wait_state("s", "running")
    assert [w for w in warnings(dmsrd, "s") if "foreign keys act" in w and who in w] or option == "off"
    reload(dmsrd, target)
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "target.referenced", error
    assert "Its parent" in error["message"] and "child" in error["message"] and "parent" in error["message"], error
    assert ("to auto" if option == "off" else f'TO "{who}"') in error["suggestion"], error
    assert target.one("SELECT count(*) FROM child WHERE id = p") == 100 and target.one("SELECT count(*) FROM parent") == 100
    if action != "ON DELETE CASCADE":
        return
    _, drop, add = error["suggestion"].split("ALTER TABLE ")  # as it is told
    target.sql("ALTER TABLE " + drop.split(",")[0])
    source.sql("UPDATE parent SET v = 'new'")
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_equal(source, target)
    target.sql("ALTER TABLE " + add)
    assert target.one("SELECT count(*) FROM child") == 100


def test_a_reload_where_foreign_keys_rest(any_pg, dmsrd, role):
    """Nothing is refused for what does not act: here their triggers are off at the table itself."""
    source, target = any_pg.database(), any_pg.database()
    who = role(target)
    family(source, target, who, "ON DELETE CASCADE")
    target.sql("ALTER TABLE parent DISABLE TRIGGER ALL")
    dmsrd.job("s", source.connection(), [as_role(target, who, name="t")])
    dmsrd.wait_state("s", "running")
    reload(dmsrd, target)
    source.sql("UPDATE parent SET v = 'new'")
    dmsrd.wait_equal(source, target)
    wait_for("it is loaded again", lambda: target.one("SELECT count(*) FROM dmsr.loads WHERE position IS NOT NULL AND rows = 100") == 1)
    assert target.one("SELECT count(*) FROM child") == 100
    dmsrd.wait_state("s", "running")


def test_a_reload_of_a_table_that_is_partitioned_and_referred_to(any_pg, dmsrd, role):
    source, target = any_pg.database(), any_pg.database()
    who = role(target)
    source.sql("CREATE TABLE parent (id int PRIMARY KEY, up int); INSERT INTO parent SELECT i, i FROM generate_series(1, 100) i")
    target.sql(f"GRANT CREATE ON DATABASE {target.name} TO {who}; CREATE TABLE parent (id int PRIMARY KEY, up int) PARTITION BY RANGE (id);"
               "CREATE TABLE half PARTITION OF parent FOR VALUES FROM (0) TO (50) PARTITION BY RANGE (id); CREATE TABLE quarter PARTITION OF half DEFAULT;"
               "CREATE TABLE rest PARTITION OF parent DEFAULT; ALTER TABLE parent ADD CONSTRAINT up FOREIGN KEY (up) REFERENCES parent ON DELETE CASCADE;"
               "CREATE TABLE child (p int) PARTITION BY LIST (p); CREATE TABLE child1 PARTITION OF child DEFAULT;"
               f"ALTER TABLE parent OWNER TO {who}; GRANT USAGE, CREATE ON SCHEMA public TO {who}")
    dmsrd.job("s", source.connection(), [as_role(target, who, name="t")])
    dmsrd.wait_state("s", "running")
    reload_at = target.one("SELECT max(loaded_at) FROM dmsr.loads")
    dmsrd.api("POST", "/jobs/s/tables/public.parent/reload")  # nobody but itself refers to it
    wait_for("it is loaded again", lambda: target.one("SELECT max(loaded_at) FROM dmsr.loads WHERE position IS NOT NULL") > reload_at)
    dmsrd.wait_equal(source, target)
    target.sql("ALTER TABLE child ADD CONSTRAINT theirs FOREIGN KEY (p) REFERENCES parent ON DELETE CASCADE; INSERT INTO child SELECT generate_series(1, 100)")
    dmsrd.api("POST", "/jobs/s/tables/public.parent/reload")
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "target.referenced" and "ALTER TABLE public.child DROP CONSTRAINT theirs," in error["suggestion"], error
    assert target.one("SELECT count(*) FROM child") == 100


def stopped_with_older_changes(dmsrd, source):
    """Rows of the parent went, and came again with the child's: what is loaded of the child now is newer."""
    dmsrd.api("POST", "/jobs/s/stop")
    dmsrd.wait_state("s", "stopped")
    source.sql("DELETE FROM child; DELETE FROM parent; INSERT INTO parent SELECT i, 'new' FROM generate_series(1, 50) i; INSERT INTO child SELECT i, i FROM "
               "generate_series(1, 50) i; UPDATE parent SET id = -id WHERE id = 7")
    dmsrd.api("POST", "/jobs/s/tables/public.child/reload")
    dmsrd.api("POST", "/jobs/s/start")


PARENT_AND_CHILD = ("CREATE TABLE parent (id int PRIMARY KEY, v text); INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 100) i;"
                    "CREATE TABLE child (id int PRIMARY KEY, p int CONSTRAINT \"Its parent\" REFERENCES parent {} ON UPDATE CASCADE);"
                    "INSERT INTO child SELECT i, i FROM generate_series(1, 100) i")


@pytest.mark.spread
@pytest.mark.parametrize("option", ("auto", "off"))
@pytest.mark.parametrize("action", ("ON DELETE CASCADE", "ON DELETE SET NULL", ""))
def test_a_reload_behind_older_changes_of_its_parent(any_pg, dmsrd, role, action, option):
    """They do not act on its rows, nor are they refused for them: the foreign key is made again when both fit."""
    source, target = any_pg.database(), any_pg.database()
    who = role(target)
    source.sql(PARENT_AND_CHILD.format(action))
    target.sql(f"GRANT CREATE ON DATABASE {target.name} TO {who}; ALTER SCHEMA public OWNER TO {who}")
    dmsrd.job("s", source.connection(), [as_role(target, who, name="t", session_replication_role=option)])
    dmsrd.wait_state("s", "running")
    dmsrd.wait_equal(source, target)
    stopped_with_older_changes(dmsrd, source)
    dmsrd.wait_equal(source, target)
    dmsrd.wait_state("s", "running")
    keys = "SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid = 'child'::regclass AND contype = 'f'"
    wait_for("the key is there", lambda: target.sql(keys) == source.sql(keys))


def test_a_reload_of_a_table_that_others_changes_would_act_on(any_pg, dmsrd, role):
    """A foreign key that the job has not made it does not drop either."""
    source, target = any_pg.database(), any_pg.database()
    who = role(target)
    source.sql(PARENT_AND_CHILD.format("ON DELETE CASCADE"))
    target.sql(PARENT_AND_CHILD.format("ON DELETE CASCADE") + f"; TRUNCATE parent, child; ALTER TABLE child DROP CONSTRAINT \"Its parent\";"
               f"ALTER TABLE parent OWNER TO {who}; ALTER TABLE child OWNER TO {who}; GRANT CREATE ON DATABASE {target.name} TO {who};"
               f"GRANT USAGE, CREATE ON SCHEMA public TO {who}")
    dmsrd.job("s", source.connection(), [as_role(target, who, name="t", prepare="truncate")])
    dmsrd.wait_state("s", "running")
    dmsrd.wait_equal(source, target)
    target.sql("ALTER TABLE child ADD CONSTRAINT theirs FOREIGN KEY (p) REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE")
    stopped_with_older_changes(dmsrd, source)
    dmsrd.wait_state("s", "failed")
    error = dmsrd.api("GET", "/jobs/s")["error"]
    assert error["code"] == "target.referenced" and "theirs" in error["message"] and "child" in error["message"], error
    assert target.one("SELECT count(*) FROM child") == 100
    _, drop, add = error["suggestion"].split("ALTER TABLE ")  # as it is told
    target.sql("ALTER TABLE " + drop.split(",")[0])
    dmsrd.api("POST", "/jobs/s/start")
    dmsrd.wait_equal(source, target)
    target.sql("ALTER TABLE " + add)
