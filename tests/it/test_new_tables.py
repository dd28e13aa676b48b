"""Tables that come to a job that is under way: they are taken up, or left out with what helps, and the others are followed meanwhile."""
import time

import pytest

from conftest import wait_for
from proxy import Proxy
from test_jobs import shop  # noqa: F401 (a fixture)
from test_jobs_changed import NO_INDEX, events
from test_rights import as_role, role  # noqa: F401 (a fixture)


def test_new_tables_are_told_and_taken_up(shop, dmsrd):
    source, target = shop
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    source.psql("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1); CREATE TABLE bare (a int)")
    warning = wait_for("it is told", lambda: dmsrd.api("GET", "/jobs/shop/status")["warnings"])[-1]
    assert warning["at"] and "is new" in warning["message"]
    dmsrd.api("POST", "/jobs/shop/restart")
    wait_for("it is there", lambda: target.one("SELECT to_regclass('public.fresh')"))
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target, tables=["public.fresh", "public.orders"])
    said = dmsrd.api("GET", "/jobs/shop/status")["warnings"]
    assert len(said) == 1 and "public.bare is left out" in said[0]["message"]


def test_new_tables_are_taken_up_by_themselves(shop, dmsrd):
    """The others go on. One that is there for a moment only starts nothing over, and one that cannot be followed no more than once."""
    source, target = shop
    dmsrd.job("shop", source.connection(new_tables="add"), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    errors = lambda: [e for e in events(dmsrd, "shop", "error") if "it is taken up" in e]
    source.psql("CREATE TABLE moment (id int PRIMARY KEY); INSERT INTO moment VALUES (1)")
    source.psql("DROP TABLE moment; CREATE TABLE parent (v text PRIMARY KEY); CREATE TABLE fresh (id int PRIMARY KEY, v text REFERENCES parent); "
                "INSERT INTO parent VALUES ('x'), ('y'); INSERT INTO fresh SELECT i, 'x' FROM generate_series(1, 1000) i")
    wait_for("they are taken up", lambda: target.one("SELECT to_regclass('public.fresh')"))
    source.psql("UPDATE fresh SET v = 'y' WHERE id > 500; UPDATE orders SET customer_id = 1 WHERE id = 60")
    dmsrd.wait_equal(source, target, tables=["public.customers", "public.orders", "public.parent", "public.fresh"])
    assert len(errors()) == 1
    source.psql("CREATE TABLE bare (a int); INSERT INTO bare VALUES (1)")
    wait_for("it is left out", lambda: any("public.bare is left out" in w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]))
    source.psql("CREATE TABLE last (id int PRIMARY KEY); INSERT INTO last VALUES (1)")
    wait_for("it is taken up", lambda: target.one("SELECT to_regclass('public.last')"))
    dmsrd.wait_equal(source, target, tables=["public.last", "public.orders"])
    assert ["bare" in e for e in errors()] == [False, True, False] and target.one("SELECT to_regclass('public.bare')") is None


def test_new_tables_that_the_job_may_not_publish_are_told(shop, dmsrd):
    source, target = shop
    source.psql("""CREATE PUBLICATION given FOR TABLE customers, orders, keyless, "Odd ""Name\"""")
    dmsrd.job("shop", source.connection(new_tables="add", publication="given"), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    source.psql("CREATE TABLE new (id int PRIMARY KEY)")
    told = lambda table: [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if f"public.{table} is new" in w["message"]]
    assert wait_for("it is told", lambda: told("new"))[0].endswith('again: ALTER PUBLICATION "given" ADD TABLE ONLY "public"."new"')
    source.psql("CREATE TABLE newer (id int PRIMARY KEY)")
    wait_for("the next look tells of the next one", lambda: told("newer"))
    assert len(told("new")) == 1
    source.psql("UPDATE orders SET customer_id = 1 WHERE id = 60")
    dmsrd.wait_equal(source, target, tables=["public.customers", "public.orders"])
    assert not events(dmsrd, "shop", "error")


# Why a table that comes cannot be taken up: the publication that the job is given, what is done to the table, the statements that mend it.
OBSTACLES = {
    "not-published": ("TABLE t", "GRANT SELECT ON fresh TO {who}", ["ALTER PUBLICATION"]),
    "not-readable": ("ALL TABLES", "", ["GRANT USAGE", "GRANT SELECT"]),
    "neither": ("TABLE t", "", ["ALTER PUBLICATION", "GRANT USAGE", "GRANT SELECT"]),
    "row-security": ("ALL TABLES", "GRANT SELECT ON fresh TO {who}; ALTER TABLE fresh ENABLE ROW LEVEL SECURITY", ["ALTER ROLE"]),
    "not-owned": (None, "", ["ALTER TABLE", "GRANT USAGE", "GRANT SELECT"]),
    "not-owned-but-published": (None, "GRANT SELECT ON fresh TO {who}", ["ALTER PUBLICATION"]),
}


@pytest.mark.parametrize("why, new_tables", [*((w, "tell") for w in OBSTACLES), ("not-published", "add"), ("not-owned", "add")])
def test_a_new_table_that_cannot_be_taken_up_is_left_out(any_pg, dmsrd, role, why, new_tables):
    """Who makes it need not know of the job: that goes on with its others, through a run that ends by itself and a start, and says what is to be done."""
    source, target = any_pg.database(), any_pg.database()
    given, done_to_it, statements = OBSTACLES[why]
    who = role(source, options="REPLICATION")
    source.sql(f"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 50) i; GRANT SELECT ON t TO {who}")
    source.sql(f"CREATE PUBLICATION given FOR {given}" if given else f"ALTER TABLE t OWNER TO {who}; GRANT CREATE ON DATABASE {source.name} TO {who}")
    more = {"publication": "given"} if given else {}
    dmsrd.job("shop", as_role(source, who, new_tables=new_tables, **more), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    said = lambda: [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "table public.fresh is " in w["message"]]

    def follows(sql):
        wait_for("it is left out", lambda: any("public.fresh is left out: it is new, and " in w for w in said()))
        dmsrd.wait_state("shop", "running")
        source.sql(sql)
        dmsrd.wait_equal(source, target, tables=["public.t"])
    source.sql("CREATE TABLE fresh (id int PRIMARY KEY, v text); INSERT INTO fresh VALUES (1, 'a'); " + done_to_it.format(who=who))
    if given or new_tables == "tell":
        text = wait_for("it is told", said)[0]
        assert "is new, and the job's patterns mean it: " in text and text.count(". To take it up run this, then start the job again: ") == 1, text
        source.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = current_database()")
    follows("UPDATE t SET v = 'y' WHERE id < 9; INSERT INTO fresh VALUES (2, 'b')")
    dmsrd.kill()
    dmsrd.start()
    follows("DELETE FROM t WHERE id = 7; INSERT INTO fresh VALUES (3, 'c')")
    assert target.one("SELECT to_regclass('public.fresh')") is None and len(said()) == 1
    fix = said()[0].split("start the job again: ")[1].split("; or, instead of giving it another owner, let a superuser run ")
    assert len(fix) == (1 if given else 2), fix
    fix = fix[why == "not-owned-but-published"]
    assert [" ".join(s.split()[:2]) for s in fix.split("; ")] == statements, fix
    source.sql(fix)
    dmsrd.api("POST", "/jobs/shop/restart")
    wait_for("it is there", lambda: target.one("SELECT to_regclass('public.fresh')"))
    dmsrd.wait_state("shop", "running")
    source.sql("INSERT INTO fresh VALUES (4, 'd')")
    dmsrd.wait_equal(source, target)
    assert said() == [] and dmsrd.api("GET", "/jobs/shop")["error"] is None


def test_a_table_is_dropped_while_a_new_one_is_left_out(shop, dmsrd):
    """Between two looks at the tables, of which the second is of what is left: nobody goes on with what is not there."""
    source, target = shop
    source.psql("""CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION given FOR TABLE customers, orders, keyless, u, "Odd ""Name\"""")
    drops = []

    def change(data):
        if b"pg_partition_tree" in data and source.one("SELECT to_regclass('public.fresh')") and not drops:
            drops.append(source.psql("DROP TABLE u"))
        return data
    with Proxy(source.server.port, change=change) as proxy:
        dmsrd.job("shop", source.connection(port=proxy.port, publication="given"), [target.connection(name="copy")])
        dmsrd.wait_state("shop", "running")
        dmsrd.wait_equal(source, target)
        dmsrd.api("POST", "/jobs/shop/stop")
        dmsrd.wait_state("shop", "stopped")
        source.psql("CREATE TABLE fresh (id int PRIMARY KEY)")
        dmsrd.api("POST", "/jobs/shop/start")
        wait_for("it begins anew", lambda: drops and any("a table was dropped or renamed while" in e for e in events(dmsrd, "shop", "error")))
        dmsrd.wait_state("shop", "running")
        source.psql("UPDATE orders SET customer_id = 1 WHERE id = 60")
        dmsrd.wait_equal(source, target, tables=["public.customers", "public.orders"])


@pytest.mark.parametrize("failpoint", [None, "pg.load-done"])
def test_a_new_table_that_refers_to_one_that_is_left_out(shop, dmsrd, failpoint):
    """It comes without that foreign key, also behind a kill when all of its rows are there; and with it when the other one comes."""
    source, target = shop
    source.psql("""CREATE PUBLICATION given FOR TABLE customers, orders, keyless, "Odd ""Name\"""")
    dmsrd.job("shop", source.connection(publication="given"), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    source.psql("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);"
                "CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent); INSERT INTO child VALUES (1, 1); ALTER PUBLICATION given ADD TABLE child")
    dmsrd.kill()
    if failpoint:
        dmsrd.start(env={"DMSR_FAILPOINT": failpoint + ":1:kill"}, wait=False)
        wait_for("it is killed", lambda: dmsrd.process.poll() is not None)
        dmsrd.kill()
    dmsrd.start()
    keys = lambda db: db.sql("SELECT conname::text FROM pg_constraint WHERE conrelid = 'child'::regclass AND contype IN ('p', 'f') ORDER BY 1")
    wait_for("it is there", lambda: target.one("SELECT to_regclass('child')"))
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target, tables=["public.child", "public.orders"])
    wait_for("all is said to be there", lambda: target.one("SELECT load_done FROM dmsr.positions"))
    assert keys(target) == [("child_pkey",)]
    source.psql("ALTER PUBLICATION given ADD TABLE parent")
    dmsrd.api("POST", "/jobs/shop/restart")
    wait_for("it is there", lambda: target.one("SELECT to_regclass('parent')"))
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    wait_for("all is there", lambda: keys(target) == keys(source))
    assert not events(dmsrd, "shop", "error")


def test_a_new_table_that_is_not_published_where_nothing_is_loaded(any_pg, dmsrd, role):
    """Changes need no right to read."""
    source, target = any_pg.database(), any_pg.database()
    who = role(source, options="REPLICATION")
    for db in (source, target):
        db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source.sql("CREATE PUBLICATION given FOR TABLE t")
    dmsrd.job("shop", as_role(source, who, publication="given"), [target.connection(name="copy")], mode="cdc")
    dmsrd.wait_state("shop", "running")
    for db in (source, target):
        db.sql("CREATE TABLE fresh (id int PRIMARY KEY)")
    dmsrd.api("POST", "/jobs/shop/restart")
    said = wait_for("it is left out", lambda: [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "fresh is left out" in w["message"]])
    fix = said[0].split("start the job again: ")[1]
    assert fix == 'ALTER PUBLICATION "given" ADD TABLE ONLY "public"."fresh"'
    dmsrd.wait_state("shop", "running")
    source.sql(f"INSERT INTO t VALUES (1); {fix}")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/restart")
    wait_for("it was taken up", lambda: any("fresh was no part of the job at its last start" in w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]))
    dmsrd.wait_state("shop", "running")
    source.sql("INSERT INTO t VALUES (2); INSERT INTO fresh VALUES (1)")
    dmsrd.wait_equal(source, target)


def test_a_new_table_without_a_key_that_is_published_where_nothing_is_loaded(any_pg, dmsrd):
    """The stream has its changes all the same: they are passed over, at this start and at the next."""
    source, target = any_pg.database(), any_pg.database()
    for db in (source, target):
        db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source.sql("CREATE PUBLICATION given FOR ALL TABLES")
    dmsrd.job("shop", source.connection(publication="given"), [target.connection(name="copy")], mode="cdc")
    dmsrd.wait_state("shop", "running")
    source.sql("CREATE TABLE bare (v int)")
    for n in range(3):
        dmsrd.api("POST", "/jobs/shop/restart")
        wait_for("it is left out", lambda: [w for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "bare is left out" in w["message"]])
        dmsrd.wait_state("shop", "running")
        source.sql(f"INSERT INTO bare VALUES ({n}); INSERT INTO t VALUES ({n})")
        dmsrd.wait_equal(source, target, tables=["public.t"])
        time.sleep(7)  # the tables are looked at again
    assert not events(dmsrd, "shop", "error")


def test_the_only_table_is_made_anew_without_a_key(any_pg, dmsrd):
    """There is nothing else that must go on: somebody decides, and the rows of what is there then are loaded."""
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    source.sql("DROP TABLE t; CREATE TABLE t (id int); INSERT INTO t VALUES (2), (3)")
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "failed")
    assert dmsrd.api("GET", "/jobs/shop")["error"]["code"] == "source.no-key"
    source.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_equal(source, target)


def test_a_table_that_is_not_new_is_not_left_out(any_pg, dmsrd):
    """Not by another name either; and where none would be left the job says so."""
    source, target = any_pg.database(), any_pg.database()
    source.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION given FOR TABLE t, u")
    dmsrd.job("shop", source.connection(publication="given"), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    for sql, mended in (("ALTER PUBLICATION given DROP TABLE u; ALTER TABLE u RENAME TO v", "DROP TABLE v"),
                        ("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY)", "ALTER PUBLICATION given ADD TABLE t")):
        dmsrd.api("POST", "/jobs/shop/stop")
        dmsrd.wait_state("shop", "stopped")
        source.sql(sql)
        dmsrd.api("POST", "/jobs/shop/start")
        dmsrd.wait_state("shop", "failed")
        assert dmsrd.api("GET", "/jobs/shop")["error"]["code"] == "publication.incomplete"
        source.sql(mended)
        dmsrd.api("POST", "/jobs/shop/start")
        dmsrd.wait_state("shop", "running")


@pytest.mark.spread
@pytest.mark.parametrize("hold_wal", [True, False])
@pytest.mark.parametrize("failpoint", ["target.load-after-commit:1", "target.load-after-commit:2", "pg.load-done", "pipeline.stored:2", "target.load-done"])
def test_a_kill_behind_the_rows_of_a_new_table(shop, dmsrd, failpoint, hold_wal):
    """All that comes behind the rows comes, though an earlier load had its end."""
    source, target = shop
    dmsrd.job("shop", source.connection(hold_wal=hold_wal), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    source.psql("CREATE TABLE fresh (id int PRIMARY KEY, customer bigint REFERENCES customers, v text UNIQUE); CREATE INDEX fresh_v ON fresh (v, id);"
                "INSERT INTO fresh SELECT i, i, i FROM generate_series(1, 100) i; CREATE TABLE fresher (id int PRIMARY KEY, f int REFERENCES fresh)")
    dmsrd.kill()
    dmsrd.start(env={"DMSR_FAILPOINT": failpoint + ":kill" if ":" in failpoint else failpoint + ":1:kill"}, wait=False)
    wait_for("it is killed", lambda: dmsrd.process.poll() is not None)
    dmsrd.kill()
    dmsrd.start()
    dmsrd.wait_state("shop", "running")
    source.psql("INSERT INTO fresh VALUES (101, 1, 'after'); INSERT INTO fresher VALUES (1, 101)")
    dmsrd.wait_equal(source, target)
    wait_for("all is said to be there", lambda: target.one("SELECT load_done FROM dmsr.positions"))
    there = "SELECT conname::text FROM pg_constraint WHERE conrelid IN ('fresh'::regclass, 'fresher'::regclass) UNION " \
        "SELECT indexname::text FROM pg_indexes WHERE tablename LIKE 'fresh%' ORDER BY 1"
    assert target.sql(there) == source.sql(there)


def bounced(dmsrd, source, state="running"):
    """By a retry of its own, which looks at the tables again."""
    n = dmsrd.log().count("reading slot")
    source.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = current_database()")
    wait_for("it goes on, or not", lambda: dmsrd.log().count("reading slot") > n or dmsrd.state_of("shop") == "failed", 30)
    dmsrd.wait_state("shop", state)


@pytest.mark.parametrize("identity", ["FULL", "none", "USING INDEX", "a key of its own"])
def test_a_new_partition_without_the_identity_of_its_table(any_pg, dmsrd, identity):
    """It does not come from the root, and who makes a partition need not know of the job. That goes on, and says what helps, unless rows could not be found."""
    source, target = any_pg.database(), any_pg.database()
    by_index, bare, of_its_own = identity == "USING INDEX", identity in ("none", "a key of its own"), identity == "a key of its own"
    source.psql(f"CREATE TABLE t (id int {'' if bare else 'PRIMARY KEY'}, u int NOT NULL, v text) PARTITION BY RANGE (id);"
                "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE UNIQUE INDEX t_u ON t (u, id); INSERT INTO t VALUES (1, 1, 'a')")
    for table in "t", "t1":
        index = source.one(f"SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{table}'::regclass AND NOT indisprimary")
        source.psql(f"ALTER TABLE {table} REPLICA IDENTITY {f'USING INDEX {index}' if by_index else 'FULL'}")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    source.psql("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200); INSERT INTO t VALUES (101, 1, 'b'), (102, 2, 'b')")
    if of_its_own:
        source.psql("ALTER TABLE t2 ADD PRIMARY KEY (id)")
    is_refused = by_index or of_its_own
    bounced(dmsrd, source, "failed" if is_refused else "running")
    if is_refused:
        error = dmsrd.api("GET", "/jobs/shop")["error"]
        assert error["code"] == "source.no-key" and "public.t2" in error["message"], error
        fix = error["suggestion"].split(";")[0]
    else:
        if not bare:
            source.psql("UPDATE t SET v = 'c' WHERE id > 100; DELETE FROM t WHERE id = 102")
        dmsrd.wait_equal(source, target)
        said = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "partition public.t2 of table public.t" in w["message"]]
        assert said and ("refuses to update" in said[0]) == bare, said
        fix = said[0].split("To mend it: ")[1]
    source.sql(fix)
    if is_refused:
        dmsrd.api("POST", "/jobs/shop/start")
    source.psql("UPDATE t SET u = u + 10, v = 'd' WHERE id > 100; UPDATE t SET id = 103 WHERE id = 101")
    dmsrd.wait_equal(source, target)
    n = len(events(dmsrd, "shop", "warning"))
    bounced(dmsrd, source)
    assert len(events(dmsrd, "shop", "warning")) == n


@pytest.mark.parametrize("key", ["PRIMARY KEY", ""])
def test_a_leaf_alone_is_published_where_nothing_is_loaded(any_pg, dmsrd, key):
    """Its table is left out, and so is what the stream has of it, under a name of its own."""
    source, target = any_pg.database(), any_pg.database()
    for db in (source, target):
        db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source.sql("CREATE PUBLICATION given FOR TABLE t WITH (publish_via_partition_root = true)")
    dmsrd.job("shop", source.connection(publication="given"), [target.connection(name="copy")], mode="cdc")
    dmsrd.wait_state("shop", "running")
    source.psql(f"CREATE TABLE f (id int {key}, v text) PARTITION BY RANGE (id); CREATE TABLE f1 PARTITION OF f FOR VALUES FROM (0) TO (100);"
                "ALTER PUBLICATION given ADD TABLE f1")
    bounced(dmsrd, source)
    wait_for("it is left out", lambda: [w for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"] if "public.f is left out" in w["message"]])
    source.psql("INSERT INTO f VALUES (1, 'a'); INSERT INTO t VALUES (1)")
    dmsrd.wait_equal(source, target, tables=["public.t"])
    assert dmsrd.state_of("shop") == "running" and not target.one("SELECT to_regclass('f1')")


def test_a_table_that_is_made_anew_and_left_out(any_pg, dmsrd):
    """The rows that it had are nothing to count; it is so told, also when somebody asks for a load, until it can be taken up."""
    source, target = any_pg.database(), any_pg.database()
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 50) i; CREATE TABLE u (id int PRIMARY KEY);"
                "CREATE PUBLICATION given FOR TABLE t, u")
    dmsrd.job("shop", source.connection(publication="given"), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    source.psql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'new' FROM generate_series(10, 20) i; INSERT INTO u VALUES (1)")
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target, tables=["public.u"])
    state = lambda: {t["name"]: t["state"] for t in dmsrd.api("GET", "/jobs/shop/tables")["items"]}
    assert state() == {"t": "left-out", "u": "loaded"}
    n = dmsrd.log().count("reading slot")
    assert dmsrd.call("POST", "/jobs/shop/tables/public.t/reload")[0] == 202
    wait_for("it has begun anew", lambda: dmsrd.log().count("reading slot") > n)
    dmsrd.wait_state("shop", "running")
    assert state() == {"t": "left-out", "u": "loaded"} and dmsrd.api("GET", "/jobs/shop/status")["load"]["tables"] == 1
    source.psql("INSERT INTO t VALUES (99, 'x'); ALTER PUBLICATION given ADD TABLE t; INSERT INTO t VALUES (98, 'y')")
    dmsrd.api("POST", "/jobs/shop/restart")
    dmsrd.wait_equal(source, target)
    wait_for("it is loaded", lambda: state() == {"t": "loaded", "u": "loaded"})


def test_a_table_that_is_made_anew_where_nothing_is_loaded(any_pg, dmsrd):
    """What was loaded of the old one is no word for it, and nobody is told that it is loaded."""
    source, target = any_pg.database(), any_pg.database()
    source.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 50) i")
    dmsrd.job("shop", source.connection(), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    dmsrd.api("PATCH", "/jobs/shop", {"mode": "cdc"}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/stop")
    dmsrd.wait_state("shop", "stopped")
    source.psql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (100, 'missed')")
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    source.psql("INSERT INTO t VALUES (101, 'new')")
    wait_for("it is followed", lambda: target.sql("SELECT v FROM t WHERE id = 101"))
    said = [w["message"] for w in dmsrd.api("GET", "/jobs/shop/status")["warnings"]]
    assert any("table public.t is not loaded again, as the job's mode is cdc" in w for w in said), said
    assert any("is missing at the targets" in w for w in said) and not any(" is loaded again" in w for w in said), said


@pytest.mark.parametrize("hold_wal", [True, False])
def test_another_way_of_loading_behind_the_rows_of_a_new_table(shop, dmsrd, hold_wal):
    """The rows of a table went the one way, and its last word, which did not come, the other."""
    source, target = shop
    dmsrd.job("shop", source.connection(hold_wal=not hold_wal), [target.connection(name="copy")])
    dmsrd.wait_state("shop", "running")
    target.psql(NO_INDEX)
    source.psql("CREATE TABLE fresh (id int PRIMARY KEY, v text); CREATE UNIQUE INDEX fresh_v ON fresh (v); INSERT INTO fresh SELECT i, i FROM generate_series(1, 100) i")
    dmsrd.api("POST", "/jobs/shop/restart")
    dmsrd.wait_state("shop", "failed")
    assert target.one("SELECT count(*) FROM fresh") == 100
    target.psql("DROP EVENT TRIGGER no_index")
    dmsrd.api("PATCH", "/jobs/shop", {"source": source.connection(hold_wal=hold_wal)}, {"If-Match": "*"})
    dmsrd.api("POST", "/jobs/shop/start")
    dmsrd.wait_state("shop", "running")
    dmsrd.wait_equal(source, target)
    there = "SELECT indexname::text FROM pg_indexes WHERE tablename = 'fresh' ORDER BY 1"
    assert target.sql(there) == source.sql(there)
