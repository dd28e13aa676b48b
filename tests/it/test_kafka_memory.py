"""What a target of a job through Kafka may hold: no more than the streamer's memory, however much of the stream it has not applied."""
import contextlib
import time

import pytest

from test_kafka import caught_up, run_small


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
