"""The plugin's one-shot questions, put to real servers: what a preflight finds, that its fixes mend it, and what is dropped with a job."""
import contextlib
import json
import os
import subprocess

import psycopg2
import pytest
from psycopg2.extras import PhysicalReplicationConnection

from conftest import BUILD, Database, Postgres, wait_for
from proxy import Proxy
from source import Dump

TOOL = BUILD / "tests" / "it" / "pg_probe"
UID = "01aaaaaaaaaaaaaaaa12345678"
NAME = "dmsr_probe_12345678"


def ask(db, role, verb, *words, user="dmsr", password="dmsr-secret", port=None):
    args = ["host=127.0.0.1", f"port={port or db.server.port}", f"database={db.name}", f"user={user}", f"password={password}", "connect_timeout=5s"]
    out = subprocess.run([TOOL, role, verb, *args, *words], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def check(db, role, *words, **more):
    answer = ask(db, role, "check", *words, **more)
    assert "error" not in answer, answer
    return answer["checks"]


def bad(checks, level="error"):
    return sorted({c["id"] for c in checks if c["level"] == level})


def only(checks, id_, **fields):
    found = [c for c in checks if c["id"] == id_ and all(c[k] == v for k, v in fields.items())]
    assert len(found) == 1, (id_, found, checks)
    return found[0]


@pytest.fixture
def server(any_pg):
    with any_pg.session("postgres") as c, c.cursor() as cur:
        cur.execute("SELECT FROM pg_roles WHERE rolname = 'weak'")
        if not cur.rowcount:
            cur.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
    return any_pg


@pytest.fixture
def poor(servers):
    """A server on which nothing can be followed."""
    return servers(settings=("wal_level=replica", "max_replication_slots=0", "max_wal_senders=2", "max_slot_wal_keep_size=64MB"))


def test_a_good_source_has_no_errors(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    checks = check(db, "source", "table=public.*")
    assert bad(checks) == [] and bad(checks, "warning") == [], checks
    assert {c["id"] for c in checks} >= {"postgres.connection", "postgres.version", "postgres.wal-level", "postgres.slots-free", "postgres.senders-free",
                                        "postgres.replication-right", "postgres.tables", "postgres.select-right", "postgres.publication",
                                        "postgres.replica-identity", "postgres.slot-exists", "postgres.max-slot-wal-keep-size"}
    assert db.one("SELECT count(*) FROM pg_publication") == 0
    assert db.one(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{NAME}'") == 0


def test_a_poor_source_is_told_what_to_set(poor):
    db = poor.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    checks = check(db, "source")
    assert bad(checks) == ["postgres.slots-free", "postgres.wal-level"]
    assert bad(checks, "warning") == ["postgres.max-slot-wal-keep-size"]
    assert only(checks, "postgres.wal-level")["fix"].startswith("ALTER SYSTEM SET wal_level = 'logical'")
    assert bad(check(db, "source", "mode=full-load")) == []


def test_a_standby(poor):
    """Of a full load alone it may be the source."""
    db = poor.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    poor.stop()
    signal, owner = poor.dir / "data" / "standby.signal", (poor.dir / "data").stat()
    signal.touch()
    os.chown(signal, owner.st_uid, owner.st_gid)
    poor.args = [a for a in poor.args if not a.startswith(("wal_level", "max_replication_slots"))]
    poor.start()
    try:
        assert "postgres.standby" in bad(check(db, "source")) and "postgres.standby" in bad(check(db, "target"))
        assert bad(check(db, "source", "mode=full-load")) == []
        assert Dump(db, "table=public.*").start().failure()[:2] == ("source.standby", False)
        assert Dump(db, "table=public.*", "mode=full-load").start().wait() == 0
    finally:
        poor.stop()
        signal.unlink()
        poor.start()


def test_sessions_that_are_read_only_by_a_setting(server):
    """That makes no standby of a primary: what is on is named, and what mends it. A target writes all the same, as it does while it runs."""
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); " + MEMORY + f"INSERT INTO dmsr.positions VALUES ('{UID}', 'probe')")
    db.sql(f"ALTER ROLE dmsr IN DATABASE {db.name} SET default_transaction_read_only = on")
    checks = check(db, "source", "table=public.*")
    found = only(checks, "postgres.read-only")
    assert bad(checks) == ["postgres.read-only"] and "default_transaction_read_only is on" in found["message"]
    assert bad(check(db, "source", "table=public.*", "mode=full-load")) == bad(check(db, "target", "table=public.*")) == []
    refused = Dump(db, "table=public.*").start().failure()
    assert refused[:2] == ("source.read-only", False) and found["fix"] in refused[2] and "standby" not in refused[2], refused
    assert ask(db, "target", "drop") == {"left": []}
    db.sql(found["fix"])
    assert bad(check(db, "source", "table=public.*")) == []


def test_a_server_that_is_too_old(server):
    """One of today that says it is PostgreSQL 11."""
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with Proxy(server.port, lie=(f"server_version\0{server.version}.".encode(), b"server_version\x0011.")) as proxy:
        found = only(check(db, "source", port=proxy.port), "postgres.version")
        assert found["level"] == "error" and "PostgreSQL 11" in found["message"]
        assert Dump(db, "table=public.*", port=proxy.port).start().failure()[:2] == ("source.version", False)


def test_encodings_that_do_not_hold_everything(server):
    db = server.database()
    for encoding, levels in (("SQL_ASCII", {"source": "warning", "target": "warning"}), ("LATIN1", {"target": "warning"}), ("UTF8", {})):
        db.sql(f"CREATE DATABASE {db.name}_{encoding} ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        odd = Database(server, f"{db.name}_{encoding.lower()}")
        server.made.append(odd.name)
        for role in ("source", "target"):
            assert [c["level"] for c in check(odd, role) if c["id"] == "postgres.encoding"] == ([levels[role]] if role in levels else [])


def test_what_is_too_little_or_too_short(server):
    """Connections of the role, how long a slot may be idle; and a slot's name that the server would refuse."""
    db = server.database()
    db.sql("ALTER ROLE weak CONNECTION LIMIT 2")
    limit = only(check(db, "source", "table=public.*", user="weak", password="weak"), "postgres.connection-limit")
    assert limit["level"] == "error" and "2 connections" in limit["message"]
    db.sql("ALTER ROLE weak CONNECTION LIMIT 3")
    assert "postgres.connection-limit" not in bad(check(db, "source", user="weak", password="weak"))
    db.sql("ALTER ROLE weak CONNECTION LIMIT -1")
    assert only(check(db, "source", "slot=No Slot"), "postgres.slot-name")["level"] == "error"
    assert "postgres.idle-slot-timeout" not in bad(check(db, "source"), "warning")
    if server.version >= 18:
        db.sql("ALTER SYSTEM SET idle_replication_slot_timeout = '90min'")
        db.sql("SELECT pg_reload_conf()")
        idle = wait_for("the warning", lambda: [c for c in check(db, "source") if c["id"] == "postgres.idle-slot-timeout"])[0]
        assert idle["level"] == "warning" and "5400 s" in idle["message"]
        for statement in idle["fix"].split("; "):
            db.sql(statement)
        wait_for("it is mended", lambda: "postgres.idle-slot-timeout" not in bad(check(db, "source"), "warning"))


def test_a_replication_connection_may_be_free_later(poor):
    db = poor.database()
    with contextlib.ExitStack() as taken:
        for _ in range(2):
            c = psycopg2.connect(host="127.0.0.1", port=poor.port, user="postgres", connection_factory=PhysicalReplicationConnection)
            taken.callback(c.close)
        found = only(check(db, "source"), "postgres.senders-free", level="error")
        assert found["retriable"] and "max_wal_senders" in found["message"], found
    wait_for("it is free", lambda: "postgres.senders-free" not in bad(check(db, "source")))


def test_every_fix_of_a_weak_role_mends_what_it_names(server):
    db = server.database()
    db.sql("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); CREATE TABLE s.p (id int PRIMARY KEY);"
           "ALTER TABLE s.p ENABLE ROW LEVEL SECURITY")
    weak = dict(user="weak", password="weak")
    checks = check(db, "source", "table=s.*", **weak)
    assert bad(checks) == ["postgres.publication", "postgres.replication-right", "postgres.select-right"]
    assert only(checks, "postgres.replication-right")["retriable"] is False
    seen = set()
    for _ in range(6):
        fixes = [c["fix"] for c in checks if c["level"] == "error"]
        seen |= set(bad(checks))
        if not fixes:
            break
        for fix in fixes:
            db.sql(fix)
        checks = check(db, "source", "table=s.*", f"publication={NAME}", **weak)
    assert bad(checks) == [], checks
    assert seen == {"postgres.publication", "postgres.replication-right", "postgres.select-right", "postgres.row-security"}
    db.sql("ALTER ROLE weak NOREPLICATION NOBYPASSRLS")


def test_sequences_that_may_not_be_read(server):
    db = server.database()
    db.sql('''CREATE SCHEMA s; CREATE SCHEMA hidden; CREATE SEQUENCE hidden.q; CREATE TABLE s.a (id serial PRIMARY KEY, "N o" bigint GENERATED ALWAYS AS IDENTITY);
              CREATE TABLE s.b (id int PRIMARY KEY DEFAULT nextval('hidden.q'));
              GRANT USAGE ON SCHEMA s TO weak; GRANT SELECT ON s.a, s.b TO weak; GRANT SELECT ON SEQUENCE hidden.q TO weak''')
    words = ("source", "table=s.*", "mode=full-load")
    found = {c["object"]: c for c in check(db, *words, user="weak", password="weak") if c["id"] == "postgres.sequence-right"}
    assert set(found) == {"s.a_id_seq", "s.a_N o_seq", "hidden.q"} and {c["level"] for c in found.values()} == {"warning"}
    for c in found.values():
        db.sql(c["fix"])
    assert "postgres.sequence-right" not in bad(check(db, *words, user="weak", password="weak"), "warning")
    assert bad(check(db, "source", "table=s.*"), "warning") == []


def test_replica_identities_and_their_fixes(server):
    db = server.database()
    db.sql("""
        CREATE TABLE good (id int PRIMARY KEY);
        CREATE TABLE keyless (a int, b text);
        CREATE TABLE uniq (a int NOT NULL UNIQUE, b text);
        CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
        CREATE TABLE full_ (a int); ALTER TABLE full_ REPLICA IDENTITY FULL;
        CREATE TABLE deferred (id int, PRIMARY KEY (id) DEFERRABLE);
        CREATE TABLE lost (a int NOT NULL); CREATE UNIQUE INDEX lost_a ON lost (a);
        ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_a; DROP INDEX lost_a;
        CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); ALTER TABLE parts_2 REPLICA IDENTITY FULL;
        CREATE TABLE heap (id int) PARTITION BY RANGE (id); ALTER TABLE heap REPLICA IDENTITY FULL;
        CREATE TABLE heap_1 PARTITION OF heap FOR VALUES FROM (0) TO (10);
    """)
    checks = check(db, "source", "table=public.*")
    found = {c["object"]: c["fix"] for c in checks if c["id"] == "postgres.replica-identity" and c["level"] == "error"}
    assert found == {
        "public.keyless": 'ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL',
        "public.uniq": 'ALTER TABLE "public"."uniq" REPLICA IDENTITY USING INDEX "uniq_a_key"',
        "public.nothing": 'ALTER TABLE "public"."nothing" REPLICA IDENTITY DEFAULT',
        "public.deferred": 'ALTER TABLE "public"."deferred" REPLICA IDENTITY FULL',
        "public.lost": 'ALTER TABLE "public"."lost" REPLICA IDENTITY FULL',
        "public.parts_2": 'ALTER TABLE "public"."parts_2" REPLICA IDENTITY DEFAULT',
        "public.heap_1": 'ALTER TABLE "public"."heap_1" REPLICA IDENTITY FULL',
    }
    # A statement at the source is one way; who may not change it has others.
    said = {c["message"].partition("its rows: ")[2] for c in checks if c["object"] == "public.keyless" and c["level"] == "error"}
    assert said == {"give it a replica identity, or exclude it from the job's tables, or set the source's keyless_tables to allow"}
    assert "keyless_tables" not in json.dumps(check(db, "source", "table=public.*", "keyless_tables=allow"))
    for fix in found.values():
        db.sql(fix)
    checks = check(db, "source", "table=public.*")
    assert bad(checks) == []
    assert bad(checks, "warning") == ["postgres.keyless"]
    # What the server itself says: every row can be updated and deleted once it is published.
    db.sql("INSERT INTO keyless VALUES (1); INSERT INTO uniq VALUES (1); INSERT INTO nothing VALUES (1); INSERT INTO deferred VALUES (1);"
           "INSERT INTO lost VALUES (1); INSERT INTO parts VALUES (1), (11); INSERT INTO heap VALUES (1); CREATE PUBLICATION all_ FOR ALL TABLES")
    for table in ("keyless", "uniq", "nothing", "deferred", "lost", "parts", "heap"):
        db.sql(f"DELETE FROM {table}")


def test_foreign_keys_that_lead_out_of_the_job(server):
    db = server.database()
    db.sql("""CREATE SCHEMA s; CREATE TABLE s.away (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES a, c int REFERENCES s.away);
              CREATE TABLE parts (id int PRIMARY KEY, a int REFERENCES a, c int CONSTRAINT "to C" REFERENCES s.away) PARTITION BY RANGE (id);
              CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)""")
    words, id_ = ("source", "table=public.*"), "postgres.foreign-keys"
    found = {c["object"]: c for c in check(db, *words) if c["id"] == id_}
    assert set(found) == {"public.a", "public.parts"} and {(c["level"], c["fix"]) for c in found.values()} == {("warning", None)}
    assert "a_c_fkey of public.a refers to s.away" in found["public.a"]["message"] and "to C of public.parts refers to s.away" in found["public.parts"]["message"]
    assert id_ not in {c["id"] for c in check(db, *words, "table=s.*")}
    assert id_ not in {c["id"] for c in check(db, *words, "mode=cdc")}


def test_generated_columns_in_a_replica_identity(server):
    db = server.database()
    db.sql('''CREATE TABLE g (a int, k int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY); CREATE TABLE good (a int PRIMARY KEY, k int GENERATED ALWAYS AS (a) STORED);
              CREATE TABLE u (a int NOT NULL, k int GENERATED ALWAYS AS (a * 2) STORED NOT NULL); CREATE UNIQUE INDEX u_k ON u (k);
              ALTER TABLE u REPLICA IDENTITY USING INDEX u_k; CREATE UNIQUE INDEX u_a ON u (a)''')
    words, new = ("source", "table=public.*"), server.version >= 18
    if new:
        db.sql("CREATE TABLE v (a int, k int GENERATED ALWAYS AS (a * 2)); ALTER TABLE v REPLICA IDENTITY FULL")
    found = {c["object"]: c["fix"] for c in check(db, *words) if c["id"] == "postgres.replica-identity" and c["level"] == "error"}
    # Nobody but its owner can mend v: it needs a key, or no such column.
    assert found == ({"public.v": None} if new else {"public.g": 'ALTER TABLE "public"."g" REPLICA IDENTITY FULL',
                                                     "public.u": 'ALTER TABLE "public"."u" REPLICA IDENTITY USING INDEX "u_a"'})
    for fix in filter(None, found.values()):
        db.sql(fix)
    if new:
        db.sql("DROP TABLE v; CREATE PUBLICATION p FOR TABLE g, good, u")
        c = only(check(db, *words, "publication=p"), "postgres.publication", level="error")
        db.sql(c["fix"])
        assert bad(check(db, *words, "publication=p")) == []
        db.sql("INSERT INTO g VALUES (1); INSERT INTO good VALUES (1); INSERT INTO u VALUES (1); UPDATE g SET a = 2; UPDATE good SET a = 2; UPDATE u SET a = 2")
    assert bad(check(db, *words)) == []


def test_a_given_publication_is_looked_through(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY, v int); CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')")
    checks = check(db, "source", "publication=p", "table=public.*")
    assert bad(checks) == ["postgres.publication", "postgres.publication-tables"]
    for c in checks:
        if c["level"] == "error":
            db.sql(c["fix"])
    assert bad(check(db, "source", "publication=p", "table=public.*")) == []
    db.sql("ALTER PUBLICATION p SET TABLE t, u WHERE (v > 1)")
    assert only(check(db, "source", "publication=p", "table=public.*"), "postgres.publication-tables", level="error")["object"] == "public.u"


def test_a_slot_of_that_name_is_seen(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    db.sql("SELECT pg_create_logical_replication_slot('mine', 'test_decoding')")
    c = only(check(db, "source", "slot=mine"), "postgres.slot-exists")
    assert c["level"] == "error" and c["fix"].startswith("/* this destroys the place in the log of whoever reads this slot")
    db.sql(c["fix"])
    db.sql("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')")
    assert only(check(db, "source", "slot=mine", *notes(db, slot="mine")), "postgres.slot-exists")["level"] == "ok"
    c = only(check(db, "source", "slot=mine"), "postgres.slot-exists")
    assert c["level"] == "error"
    db.sql(c["fix"])
    assert only(check(db, "source", "slot=mine"), "postgres.slot-exists")["level"] == "ok"


def test_odd_tables_are_told(server):
    db = server.database()
    db.sql('CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE TABLE "T" (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)')
    checks = check(db, "source", "table=public.*", "table=public.typo")
    assert bad(checks, "warning") == ["postgres.names-clash", "postgres.tables", "postgres.unlogged"]
    assert only(checks, "postgres.tables", level="warning")["object"] == "public.typo"
    assert bad(check(db, "source", "table=none.*")) == ["postgres.tables"]
    assert only(check(db, "source", "table=none.*"), "postgres.tables", level="error")["object"] == "tables"


def test_the_name_without_the_uid_is_somebody_elses(server):
    """A job that is still to be made gets a publication of its own, with a name that nobody else has."""
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION dmsr_probe FOR TABLE other")
    words = ("source", "uid=", "table=public.t")
    c = only(check(db, *words), "postgres.publication")
    assert c["level"] == "ok" and "dmsr_probe_ and 8 characters" in c["message"] and not bad(check(db, *words))
    db.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak; ALTER ROLE weak REPLICATION")
    weak = {"user": "weak", "password": "weak"}
    c = only(check(db, *words, **weak), "postgres.publication", level="error")
    assert "may not make the job's own" in c["message"] and "name it in the option publication" in c["message"]
    db.sql("DROP PUBLICATION dmsr_probe")
    db.sql(c["fix"])
    assert only(check(db, *words, **weak), "postgres.publication", level="error"), "it is not named"
    assert not bad(check(db, *words, "publication=dmsr_probe", **weak))


def test_the_name_that_was_meant(server):
    """Also when nothing is left to do; and of what shall be left out."""
    db = server.database()
    db.sql("CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY); CREATE SCHEMA shop; CREATE TABLE shop.secrets (id int PRIMARY KEY)")
    meant = {"table=public.custmers": "was public.customers meant?", "table=pulbic.orders": "was public.orders meant?", "table=shop.*": None,
             "exclude=shop.secrtes": "tables.exclude has shop.secrtes, and there is no such table now: was shop.secrets meant?", "exclude=shop.old_*": None}
    found = [c for c in check(db, "source", *meant) if c["id"] == "postgres.tables" and c["level"] == "warning"]
    assert len(found) == 3 and all(any(text in c["message"] and c["object"] == word.split("=")[1] for c in found) for word, text in meant.items() if text), found
    found = check(db, "source", "table=public.custmers")
    assert only(found, "postgres.tables", level="error") and "was public.customers meant" in only(found, "postgres.tables", level="warning")["message"]
    for mode in "full-load", "full-load-and-cdc":
        d = Dump(db, "table=public.custmers", "exclude=shop.secrtes", f"mode={mode}").start()
        d.wait()
        assert "was public.customers meant" in d.text() and "was shop.secrets meant" in d.text() and "source.no-tables" in d.text(), d.text()


ODD = {"public.typo": "means no table that there is now: is it misspelt?", "public.u": "means no table that is read: public.u is UNLOGGED: ALTER TABLE ... SET LOGGED",
       "public.p_*": "means no table that is read: public.p_1 is a partition of public.p, with which its rows come: name that", "public.v": "public.v is a view"}


def test_patterns_without_a_table_are_told_with_the_reason(server):
    """Those whose tables are left out on purpose are no mistake. Preflight and the job itself say the same."""
    db = server.database()
    db.sql("""CREATE TABLE t (id int PRIMARY KEY); CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE VIEW v AS SELECT 1 AS one; CREATE TABLE old_1 (id int PRIMARY KEY);
              CREATE UNLOGGED TABLE old_2 (id int); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9)""")
    words = ["table=public.t", "table=public.old_*", "exclude=public.old_1", *(f"table={pattern}" for pattern in ODD)]
    found = {c["object"]: c["message"] for c in check(db, "source", *words) if c["id"] == "postgres.tables" and c["level"] == "warning"}
    assert set(found) == set(ODD) and all(ODD[pattern] in found[pattern] for pattern in ODD), found
    for mode in "full-load", "full-load-and-cdc":
        d = Dump(db, *words, f"mode={mode}").start()
        wait_for("it is loaded", lambda d=d: "finished" in d.text() or "reading slot" in d.text())
        d.p.terminate()
        d.wait()
        told = [line for line in d.text().splitlines() if "the pattern" in line]
        assert len(told) == len(ODD) and all(any(text in line for line in told) for text in ODD.values()), told


def test_unlogged_partitions_are_told(server):
    """By their root's name; a load alone has their rows."""
    db = server.database()
    db.sql("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9)")
    c = only(check(db, "source", "table=public.p"), "postgres.unlogged")
    assert (c["level"], c["object"], c["fix"]) == ("warning", "public.p_1", 'ALTER TABLE "public"."p_1" SET LOGGED')
    assert "a partition of public.p" in c["message"]
    assert not [c for c in check(db, "source", "table=public.p", "mode=full-load") if c["id"] == "postgres.unlogged"]
    db.sql(c["fix"])
    assert bad(check(db, "source", "table=public.p"), "warning") == []


def test_partitions_that_are_tables_of_their_own_are_told(server):
    """As all are of PostgreSQL 12."""
    db = server.database()
    db.sql("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9);"
           " CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (19); CREATE TABLE t (id int PRIMARY KEY)")
    db.sql("CREATE PUBLICATION leaves FOR TABLE p, t")
    c = only(check(db, "source", "table=public.*", "publication=leaves"), "postgres.partitions")
    assert c["level"] == "warning" and "2 of the job's tables are partitions" in c["message"] and "public.p_1" in c["message"]
    assert "postgres.partitions" not in bad(check(db, "source", "table=public.t", "publication=leaves"), "warning")
    made = check(db, "source", "table=public.*", "publication=leaves", *notes(db, slot="mine", publication="given leaves"))
    assert not only(made, "postgres.partitions").get("fix")
    db.sql(c["fix"])
    assert "postgres.partitions" not in bad(check(db, "source", "table=public.*", "publication=leaves"), "warning")


def test_prepared_transactions_are_told(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", dbname=db.name)) as c:
        c.cursor().execute("INSERT INTO t VALUES (1)")
        c.cursor().execute("PREPARE TRANSACTION 'it''s old'")
    c = only(check(db, "source"), "postgres.long-transaction")
    assert c["fix"].split(" */ ") == ["/* this destroys all that was prepared, which COMMIT PREPARED keeps", "ROLLBACK PREPARED 'it''s old'"]
    db.sql(c["fix"])
    assert bad(check(db, "source"), "warning") == []


def test_a_question_that_cannot_be_put_names_the_server(server):
    db = server.database()
    (c,) = check(db, "source", password="wrong")
    assert (c["id"], c["level"], c["object"], c["retriable"]) == ("source.auth", "error", f"127.0.0.1:{server.port}/{db.name}", False)
    assert "wrong" not in json.dumps(c)
    (c,) = check(db, "target", port=1)
    assert (c["id"], c["level"], c["object"], c["retriable"]) == ("target.unreachable", "error", f"127.0.0.1:1/{db.name}", True)
    assert [c["id"] for c in check(db, "source", "mode=none")] == ["postgres.connection", "postgres.version", "postgres.clock"]


MEMORY = "CREATE SCHEMA dmsr; CREATE TABLE dmsr.positions (job_uid text, job text, position text DEFAULT 'none', load_done boolean, updated_at timestamptz DEFAULT now());" \
         "CREATE TABLE dmsr.loads (job_uid text, schema_name text, table_name text, position text, rows bigint DEFAULT 0);"


def test_rows_go_in_one_statement(server):
    db = server.database()
    db.sql('''CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a); CREATE TABLE "empty" (id int REFERENCES b);
              CREATE TABLE lone (id int); CREATE TABLE ours (id int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO lone VALUES (1);
              INSERT INTO ours VALUES (1)''')
    db.sql(MEMORY + f"INSERT INTO dmsr.positions VALUES ('{UID}', 'probe'), ('other', 'shop'); INSERT INTO dmsr.loads VALUES ('{UID}', 'public', 'ours', 'pg:1'),"
           "('other', 'public', 'b', 'pg:1')")
    words = ("target", "table=public.*", "exclude=public.others")
    found = {c["object"]: c for c in check(db, *words) if c["id"] == "postgres.target-rows"}
    assert set(found) == {"public.a", "public.b", "public.lone"} and {c["level"] for c in found.values()} == {"warning"}
    # Rows that another job may go on writing are nothing to empty, nor is what they refer to.
    assert 'of job "shop"' in found["public.b"]["message"] and "use another database, or delete that job first" in found["public.b"]["message"]
    assert "not this job's" in found["public.a"]["message"] and "public.b, which is not to be emptied, refers to" in found["public.a"]["message"]
    assert {c["fix"] for c in found.values()} == {None}
    for prepare in ("truncate", "drop-and-create", "none"):
        c = next(c for c in check(db, *words, "prepare=" + prepare) if c["object"] == "public.b" and c["id"] == "postgres.target-rows")
        assert ("use another database, or delete that job first" in c["message"]) == (prepare != "none") and c["fix"] is None
    db.sql("DELETE FROM dmsr.loads WHERE job_uid = 'other'; INSERT INTO dmsr.loads VALUES ('other', 'public', 'theirs', 'pg:1');"
           "CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1)")
    # Of another's table that refers to them nothing is said that would empty it.
    db.sql("CREATE TABLE others (id int REFERENCES a)")
    c = [c for c in check(db, *words) if c["id"] == "postgres.target-rows" and c["object"] != "public.theirs"]
    assert {x["fix"] for x in c} == {None} and "public.others, which is not to be emptied, refers to" in c[0]["message"]
    db.sql("DROP TABLE others")
    found = {c["object"]: c for c in check(db, *words) if c["id"] == "postgres.target-rows"}
    assert found.pop("public.theirs")["fix"] is None and set(found) == {"public.a", "public.b", "public.lone"}
    destroys, sql = found["public.a"]["fix"].split(" */ ")
    assert {c["fix"] for c in found.values()} == {found["public.a"]["fix"]} and destroys == "/* this destroys every row that these tables of the target have"
    assert sql == 'TRUNCATE "public"."a", "public"."b", "public"."empty", "public"."lone"'
    db.sql(found["public.a"]["fix"])
    assert [c["object"] for c in check(db, *words) if c["id"] == "postgres.target-rows"] == ["public.theirs"]
    assert db.one("SELECT count(*) FROM ours") == db.one("SELECT count(*) FROM theirs") == 1


def test_target_rights_and_rows(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE e (id int PRIMARY KEY)")
    assert bad(check(db, "target", "table=public.t")) == ["postgres.target-rows"]
    assert bad(check(db, "target", "table=public.*"), "warning") == ["postgres.target-rows"]
    assert bad(check(db, "target", "table=public.t", "prepare=truncate"), "warning") == ["postgres.target-rows"]
    assert bad(check(db, "target", "table=public.e")) == []
    db.sql(MEMORY + f"INSERT INTO dmsr.positions VALUES ('{UID}', 'probe'); INSERT INTO dmsr.loads VALUES ('{UID}', 'public', 't', 'pg:1')")
    assert bad(check(db, "target", "table=public.t")) == []
    weak = dict(user="weak", password="weak")
    checks = check(db, "target", "table=public.e", "table=other.*", "session_replication_role=on", **weak)
    errors = {"postgres.create-right", "postgres.positions", "postgres.session-replication-role", "postgres.write-right"}
    assert set(bad(checks)) == errors
    for c in checks:
        if c["level"] == "error":
            db.sql(c["fix"])
    assert bad(check(db, "target", "table=public.e", "table=other.*", "session_replication_role=on", **weak)) == []
    db.sql("ALTER ROLE weak NOSUPERUSER")


def test_a_load_of_another_job_that_is_under_way_is_seen(server):
    """Its rows are not, and nobody waits for its locks."""
    db = server.database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    with contextlib.closing(server.connect(db.name, application_name="dmsr:first:copy")) as c:
        c.cursor().execute("BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE; INSERT INTO t VALUES (1); LOCK TABLE u")
        checks = [c for c in check(db, "target", "table=public.t", "table=public.u") if c["id"] == "postgres.target-rows"]
        assert [(c["object"], c["level"]) for c in checks] == [("public.t", "error"), ("public.u", "error")]
        assert all('has rows of job "first", which may go on writing there' in c["message"] for c in checks)
        c.cursor().execute("ROLLBACK")
    assert bad(check(db, "target", "table=public.t", "table=public.u")) == []


def test_triggers_of_the_target_that_would_work(server):
    db = server.database()
    db.sql('''CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE quiet (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
              CREATE TRIGGER "a B" BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); CREATE TRIGGER c AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f();
              CREATE TRIGGER always AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t ENABLE ALWAYS TRIGGER always;
              CREATE TRIGGER off AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER off;
              CREATE TRIGGER repl AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t ENABLE REPLICA TRIGGER repl;
              CREATE RULE r AS ON DELETE TO t DO ALSO SELECT 1; CREATE TABLE r (t int REFERENCES t)''')
    words, id_ = ("target", "table=public.*"), "postgres.target-triggers"
    c = only(check(db, *words), id_)
    assert c["object"] == "public.t" and c["level"] == "warning" and c["message"].startswith("trigger always, trigger repl of public.t")
    c = only(check(db, *words, "session_replication_role=off"), id_)
    assert c["message"].startswith("rule r, trigger a B, trigger always, trigger c of public.t")
    assert id_ not in bad(check(db, *words, "prepare=drop-and-create", "session_replication_role=off"), "warning")
    db.sql(c["fix"])
    assert id_ not in bad(check(db, *words, "session_replication_role=off"), "warning")


def test_discover(server):
    db = server.database()
    db.sql("CREATE TABLE t (id int, v text, PRIMARY KEY (id)); CREATE TABLE u (a int)")
    assert ask(db, "source", "discover", "table=public.t")["relations"] == [{"schema": "public", "name": "t", "columns": 2, "keys": 1}]
    assert [r["name"] for r in ask(db, "target", "discover")["relations"]] == ["t", "u"]


def system(db):
    return db.one("SELECT system_identifier FROM pg_control_system()")


def notes(db, slot=NAME, publication="own " + NAME):
    return [f"note.slot=made {slot} 0/1 {system(db)} 1", f"note.publication={publication}"]


def make(db):
    db.sql(f"CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION {NAME} FOR TABLE t")
    db.sql(f"SELECT pg_create_logical_replication_slot('{NAME}', 'pgoutput')")


def what_is_there(db):
    return (db.one("SELECT count(*) FROM pg_publication"), db.one(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{NAME}'"))


def test_drop_takes_what_the_job_made_and_may_be_asked_twice(server):
    db = server.database()
    make(db)
    assert ask(db, "source", "drop") == {"left": []}
    assert what_is_there(db) == (1, 1)
    for _ in range(2):
        assert ask(db, "source", "drop", *notes(db)) == {"left": []}
        assert what_is_there(db) == (0, 0)
    db.sql(f"CREATE PUBLICATION {NAME} FOR TABLE t")
    assert ask(db, "source", "drop", *notes(db, publication="given " + NAME)) == {"left": []}
    assert what_is_there(db) == (1, 0)


def test_drop_does_not_touch_another_server(server):
    db = server.database()
    make(db)
    answer = ask(db, "source", "drop", f"note.slot=made {NAME} 0/1 42 1", f"note.publication=own {NAME}")
    assert answer["error"]["id"] == "server.changed" and len(answer["left"]) == 2
    assert what_is_there(db) == (1, 1)
    for statement in answer["left"]:
        db.sql(statement)
    assert what_is_there(db) == (0, 0)


def test_drop_says_what_it_left(server):
    db = server.database()
    make(db)
    db.sql("ALTER ROLE weak NOREPLICATION")
    answer = ask(db, "source", "drop", *notes(db), user="weak", password="weak")
    assert answer["error"]["id"] == "source.privilege" and not answer["error"]["retriable"]
    assert what_is_there(db) == (1, 1)
    for statement in answer["left"]:
        db.sql(statement)
    assert what_is_there(db) == (0, 0)
    port, server.port = server.port, 1
    answer = ask(db, "source", "drop", f"note.slot=made {NAME} 0/1 42 1")
    server.port = port
    assert answer["error"]["retriable"] and answer["left"] == [f"SELECT pg_catalog.pg_drop_replication_slot('{NAME}')"]


def test_look_tells_what_is_kept_and_that_it_is_lost(server):
    db = server.database()
    assert ask(db, "source", "look") == {"kept": {}}
    make(db)
    kept = ask(db, "source", "look", *notes(db))["kept"]
    assert kept["slot"] == NAME and not kept["lost"] and kept["status"] == "reserved"
    db.sql("INSERT INTO t SELECT generate_series(1, 20000)")
    later = ask(db, "source", "look", *notes(db))["kept"]
    assert later["retained"] > kept["retained"] + 1000000 and later["lag"] > kept["lag"] + 1000000
    assert ask(db, "source", "look", f"note.slot=made {NAME} 0/1 42 1")["error"]["id"] == "server.changed"
    db.sql(f"SELECT pg_drop_replication_slot('{NAME}')")
    kept = ask(db, "source", "look", *notes(db))["kept"]
    assert kept["lost"] and kept["status"] == "missing" and kept["retained"] == -1
    assert not ask(db, "source", "look", f"note.slot=creating {NAME}")["kept"]["lost"]
    assert ask(db, "source", "look", *notes(db), password="wrong")["error"]["id"] == "source.auth"


def test_look_judges_a_position(server):
    db = server.database()
    make(db)
    confirmed = db.one(f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'")

    def refused(server_id, lsn):
        return ask(db, "source", "look", f"at=pg:{server_id}:{lsn}:*:{lsn}", *notes(db)).get("error", {}).get("id")
    assert refused(system(db), confirmed) is None
    assert refused(42, confirmed) == "server.changed"
    assert refused(system(db), "0/10") == "position.behind-slot"
    assert refused(system(db), "FFFF/0") == "position.ahead"
    assert ask(db, "source", "look", f"at=pg:{system(db)}:{confirmed}:*:{confirmed}")["error"]["id"] == "position.behind-slot"
    db.sql(f"SELECT pg_drop_replication_slot('{NAME}')")
    assert refused(system(db), confirmed) == "slot.lost"


def reader(db, name):
    p = subprocess.Popen(["pg_recvlogical", "-h", "127.0.0.1", "-p", str(db.server.port), "-U", "postgres", "-d", f"dbname={db.name} application_name={name}",
                          "--slot", NAME, "--start", "-n", "-o", "proto_version=1", "-o", f"publication_names={NAME}", "-f", "/dev/null"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the slot is read", lambda: db.one(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'"))
    return p


@pytest.mark.parametrize("whose", ["ours", "another"])
def test_drop_ends_its_own_reader_and_no_other(server, whose):
    db = server.database()
    make(db)
    p = reader(db, "dmsr:probe:source" if whose == "ours" else "psql")
    try:
        answer = ask(db, "source", "drop", *notes(db))
        if whose == "ours":
            assert answer == {"left": []}
            assert what_is_there(db) == (0, 0)
        else:
            assert answer["error"]["id"] == "slot.in-use" and answer["error"]["retriable"] and len(answer["left"]) == 2
            assert what_is_there(db) == (1, 1)
    finally:
        p.kill()
        p.wait()
    if whose == "another":
        wait_for("dropped", lambda: ask(db, "source", "drop", *notes(db)) == {"left": []})


def test_target_drop_takes_the_jobs_rows_alone(server):
    db = server.database()
    assert ask(db, "target", "drop") == {"left": []}
    db.sql("CREATE SCHEMA dmsr; CREATE TABLE dmsr.positions (job_uid text); CREATE TABLE dmsr.loads (job_uid text);"
           f"INSERT INTO dmsr.positions VALUES ('{UID}'), ('other'); INSERT INTO dmsr.loads VALUES ('{UID}'), ('other')")
    answer = ask(db, "target", "drop", user="weak", password="weak")
    assert answer["error"]["id"] == "target.privilege" and len(answer["left"]) == 2
    assert ask(db, "target", "drop") == {"left": []}
    assert db.sql("SELECT * FROM dmsr.positions UNION ALL SELECT * FROM dmsr.loads") == [("other",), ("other",)]


def test_closing_at_any_moment_leaves_nothing_behind(server):
    db = server.database()
    make(db)
    answered = cancelled = 0
    for us in [0, 500, 1000, 2000, 4000, 8000, 12000, 16000, 20000, 30000, 40000, 60000, 100000, 3000000]:
        for words in (("source", "check"), ("target", "check"), ("source", "discover")):
            answer = ask(db, *words, f"cancel_us={us}")
            cancelled += "cancelled" in answer
            answered += "cancelled" not in answer
    assert answered >= 3 and cancelled >= 3
    wait_for("no session is left", lambda: db.one("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'dmsr:%'"))
    ask(db, "source", "drop", *notes(db))
