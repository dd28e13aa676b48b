"""What a target of a job through Kafka may hold: no more than the streamer's memory, however much of the stream it has not applied."""
import contextlib
import time

import pytest

from conftest import wait_for
from test_kafka import caught_up, rss_kib, run_small, streamer


@pytest.mark.parametrize("apply", ["strict", "parallel"])
@pytest.mark.parametrize("times", [(60, 1), (1, 60)], ids=["many", "one-big"])
def test_a_target_that_stands_still(pg, kafka, dmsrd, monkeypatch, times, apply):
    """It was given all that its own queue takes. Once it can go on it gets the rest, also in the middle of a transaction."""
    transactions, updates = times
    plain = dmsrd.job
    monkeypatch.setattr(dmsrd, "job", lambda name, source, targets, **more: plain(name, source, [{**t, "apply": apply} for t in targets], **more))
    source, target = run_small(pg, kafka, dmsrd, memory="1MiB")
    seen = []
    with contextlib.closing(target.server.connect(target.name)) as c:
        c.autocommit = False
        c.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        for n in range(transactions):
            source.psql(f"DO $$ BEGIN FOR i IN 1..{updates} LOOP UPDATE t SET v = repeat(i || '-{n} ', 200); END LOOP; END $$")
        caught_up(dmsrd, "k", source)
        for _ in range(20):
            seen.append(dmsrd.api("GET", "/jobs/k/status")["streamer"]["memory_bytes"])
            time.sleep(0.1)
        c.rollback()
    assert 1 << 20 <= max(seen) < 2 << 20, seen
    dmsrd.wait_equal(source, target)


def test_a_table_whose_key_is_made_for_long(pg, kafka, dmsrd):
    """The tables beside it go on meanwhile, and what they were given does not stay."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b (id int PRIMARY KEY, v text)")
    source.psql("INSERT INTO b SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 30000) i; ANALYZE")
    target.psql("CREATE TABLE gate (); INSERT INTO gate DEFAULT VALUES; CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS "
                "$$ BEGIN WHILE EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(.05); END LOOP; END $$")
    target.psql("CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION wait(); ALTER EVENT TRIGGER slow ENABLE ALWAYS")
    dmsrd.job("k", source.connection(load_part_bytes=0, load_connections=2), [target.connection(name="copy")], streamer=streamer(kafka, memory="1MiB"))
    seen = []

    def both_wait():
        seen.append(dmsrd.api("GET", "/jobs/k/status")["streamer"]["memory_bytes"])
        return target.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'ALTER TABLE%'") == 2
    wait_for("all rows of both are there", both_wait, 30)
    assert max(seen) < 4 << 20, seen
    target.psql("DELETE FROM gate")
    dmsrd.wait_equal(source, target, ["public.a", "public.b"])


def test_small_transactions_while_no_broker_answers(pg, start_kafka, dmsrd):
    """Each is a batch of its own, and what waits in memory is counted as what it takes, not as the few bytes that a row has."""
    kafka = start_kafka()
    source, target = run_small(pg, kafka, dmsrd, memory="8MiB")
    source.psql("CREATE PROCEDURE few(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP UPDATE t SET v = 'f' || i WHERE id = i % 50 + 1; COMMIT; "
                "END LOOP; END $$")
    before = rss_kib(dmsrd)
    kafka.pause()
    try:
        with contextlib.closing(source.server.connect(source.name)) as c:
            c.autocommit = True
            c.cursor().execute("CALL few(60000)")
        said = dmsrd.api("GET", "/jobs/k/status")["streamer"]["memory_bytes"]
        grew = (rss_kib(dmsrd) - before) << 10
    finally:
        kafka.resume()
    assert said < 9 << 20, said
    assert grew < (8 + 8) << 20, (grew, said)  # besides: the ledger, what librdkafka has beside each record, and malloc beside each piece
    dmsrd.wait_equal(source, target)
