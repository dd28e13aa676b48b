"""A run that reads the stream before anything is loaded (ends_first in dmsr.h), since what the streamer has may end inside of a transaction: what it leaves out, how
it ends, and what is noted of it."""
import re

import pytest

from conftest import wait_for
from proxy import Proxy
from test_source import db, dump, free, server  # noqa: F401 (fixtures)
from test_source_changed import again, loads
from test_source_load import PARTS


def test_a_load_that_is_told_of_behind_a_run_that_read_the_stream_first(db, dump):
    """The streamer had it when the job was killed, and its target tells of it later: changes behind it were left out, so it does not count."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'); CREATE PUBLICATION given FOR ALL TABLES")
    d = dump("table=public.*", "publication=given").start().streaming().caught_up()
    d.kill()
    free(db)
    saved = d.state.read_text().splitlines(keepends=True)
    d.state.write_text("".join(line for line in saved if not line.startswith("loaded\t")))
    db.sql("UPDATE a SET v = 'left out'")
    assert "tables that are left are loaded now" in again(d.start("ends_first=1"))
    with d.state.open("a") as f:
        f.writelines(line for line in saved if line.startswith("loaded\t"))
    d.start("ends_first=1").streaming().caught_up()
    d.same()
    assert loads(d) == ["a", "a"]


def test_a_run_that_reads_the_stream_first_ends_at_once(db, dump):
    """Also where nothing of what it reads is the job's; but not while it is paused, for that may be on its way to a stop."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION given FOR ALL TABLES")
    d = dump("table=public.a", "table=public.c", "publication=given", "ends_first=1").start().streaming().caught_up()
    d.kill()
    free(db)
    db.sql("CREATE TABLE c (id int PRIMARY KEY, v text)")
    db.sql("INSERT INTO other VALUES (1)")
    d.start("heartbeat_interval=60s", "pause_ms=1200", "stats=1")
    assert d.failure(20)[:2] == ("source.changed", True)
    assert "\nresumed\nfailed: source.changed" in re.sub("(?m)^ts=.*\n", "", d.text())
    assert "\nreading the stream before the load paused lag" in d.text()


@pytest.mark.parametrize("then", ["full-load", "cdc"])
def test_what_a_run_that_reads_the_stream_first_left_out_is_not_forgotten(db, dump, then):
    """Its tables are not loaded by the next run where the mode has changed: one that loads takes up what was to be loaded again, one that does not tells."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, '1'); CREATE TABLE b (id int PRIMARY KEY); CREATE PUBLICATION given FOR ALL TABLES")
    d = dump("table=public.*", "publication=given").start().streaming().caught_up()
    d.kill()
    free(db)
    db.sql("ALTER TABLE a ALTER v TYPE integer USING v::integer + 1; INSERT INTO a VALUES (2, 7)")
    assert "tables that are left are loaded now" in again(d.start("ends_first=1", *(["mode=full-load"] if then == "full-load" else [])))
    if then == "full-load":
        assert d.start("mode=full-load", "ends_first=1").wait() == 0
        assert "public.a is loaded again" in d.text()
        d.same()
        assert d.start("mode=full-load").wait() == 0  # the server may have written nothing since the run that left them out
        assert "loaded again" not in d.text()
        free(db)
        d.start("mode=cdc").streaming().caught_up()
        assert "not loaded again" not in d.text() and "were not, may be missing" not in d.text()
    else:
        d.start("mode=cdc").says("of tables that were to be loaded, and were not, may be missing at the targets")
        assert "public.a" in d.text() and "public.b" not in d.text()
        d.stop()
        free(db)
        d.start().streaming().caught_up().stop()
        d.same()
        free(db)
        db.sql("CREATE TABLE c (id int PRIMARY KEY)")  # nobody has left out anything of it
        d.start("mode=cdc").streaming().caught_up()
        assert "were not, may be missing" not in d.text()


def test_a_run_that_ends_with_a_transaction_leaves_none_to_be_read_first(db, dump):
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'); CREATE PUBLICATION given FOR ALL TABLES")
    d = dump("table=public.*", "publication=given", "ends_first=1").start().streaming()
    db.sql("UPDATE a SET v = 'seen'")
    d.caught_up().stop()
    free(db)
    db.sql("UPDATE a SET v = 'later'; CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'c')")
    d.start().streaming().caught_up()
    d.same()
    assert "is read before anything is loaded" not in d.text()


def test_a_run_that_ends_before_it_has_read_what_one_before_it_had_says_nothing_of_that(db, dump):
    """What that one gave the streamer may still end inside of a transaction."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a'); CREATE PUBLICATION given FOR ALL TABLES")
    d = dump("table=public.*", "publication=given").start().streaming().caught_up()
    d.kill()
    free(db)
    db.sql("UPDATE a SET v = 'unread'")
    with Proxy(db.server.port) as proxy:
        def stick(data):
            if b"START_REPLICATION" in data:
                proxy.is_stuck.set()
            return data
        proxy.change, d.port = stick, proxy.port
        d.start()
        wait_for("nothing of the stream comes", proxy.is_stuck.is_set)
        d.stop()
    d.port = db.server.port
    free(db)
    db.sql("CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'c')")
    assert "tables that are left are loaded now" in again(d.start("ends_first=1"))
    d.start("ends_first=1").streaming().caught_up()
    d.same()


def test_what_was_read_from_a_server_behind_is_not_read_again_by_the_same_run(db, dump):
    """A standby need not be where the stream was read to. Another of its snapshots may have no more, and each would have all be read again."""
    db.sql("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i;"
           "CREATE TABLE b (id int PRIMARY KEY); CREATE PUBLICATION given FOR ALL TABLES; ANALYZE")
    d = dump("table=public.*", "publication=given", *PARTS, "load_connections=1").start().streaming().caught_up()
    d.kill()
    free(db)
    d.state.write_text(re.sub(r'("public"\."[ab]" \d+) [0-9A-F]+/[0-9A-F]+', r"\1 FF/0", d.state.read_text()))
    d.start("mode=full-load", "slow_ms=50")
    d.says("is read in")
    db.sql("TRUNCATE b; INSERT INTO b VALUES (1)")
    assert d.wait() == 0 and "read in another snapshot" in d.text(), d.text()
    assert [d.text().count(f"public.{t} is loaded again: changes of it were missed") for t in "ab"] == [1, 1]
    d.same()
