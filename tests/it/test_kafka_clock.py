"""The streamer kafka where the clocks of dmsrd and of the brokers differ by days, in both directions (one that is wrong is preloaded)."""
import time

import pytest
from confluent_kafka import Producer

from conftest import BUILD, Dmsrd, wait_for
from test_kafka import SMALL, check_topics, caught_up, error_code, streamer
from test_kafka_source import ALL, read

DAY = 86400
OFTEN = ["log.retention.check.interval.ms=300", "log.initial.task.delay.ms=300", "log.segment.delete.delay.ms=100"]


def set_clock(daemon, days):
    daemon.stop()
    daemon.start(env={"LD_PRELOAD": BUILD / "tests" / "fake" / ".libs" / "clock.so", "FAKE_CLOCK": str(days * DAY)})


def wait_for_the_cleaner(kafka):
    """Until it has thrown away a record that is too old, and has looked once more at all topics since."""
    for n in range(2):
        topic = f"{kafka.prefix}-old-{n}"
        kafka.create(topic, retention_ms=DAY * 1000, message_timestamp_type="CreateTime")
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        producer.produce(topic, "old", timestamp=int((time.time() - 2 * DAY) * 1000))
        producer.flush(30)
        wait_for("the broker has thrown away what is too old", lambda topic=topic: kafka.records(topic) == [], 30)


@pytest.mark.parametrize("days", [-40, 40])
def test_records_are_as_old_as_the_broker_says(pg, start_kafka, dmsrd, days):
    """By dmsrd's clock they would be thrown away before anybody has read them, or not be taken."""
    kafka = start_kafka(settings=OFTEN)
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    set_clock(dmsrd, days)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, layout="both", retention="24h"))
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)
    source.psql("UPDATE t SET v = 'changed' WHERE id <= 100; DELETE FROM t WHERE id > 400")
    caught_up(dmsrd, "k", source)
    wait_for_the_cleaner(kafka)
    check_topics(kafka, source, {"t": ["id"]})
    source.psql("UPDATE t SET v = 'again' WHERE id <= 50")
    dmsrd.wait_equal(source, target)
    check_topics(kafka, source, {"t": ["id"]})


def test_a_topic_that_does_not_take_our_time(pg, start_kafka, dmsrd):
    """Somebody else has made it so: it is said, and goes on when it is mended."""
    kafka = start_kafka()
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    for name in ("__stream", "__schemas"):
        kafka.create(f"{kafka.prefix}.{name}", message_timestamp_after_max_ms=3600000)
    set_clock(dmsrd, 2)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=streamer(kafka, create_topics=False))
    wait_for("it says so", lambda: error_code(dmsrd) == "kafka.clock", 60)
    error = dmsrd.api("GET", "/jobs/k")["error"]
    assert error["retriable"] and kafka.prefix in error["message"] and "message.timestamp.type" in error["suggestion"], error
    for name in ("__stream", "__schemas"):
        kafka.configure(f"{kafka.prefix}.{name}", message_timestamp_type="LogAppendTime")
    dmsrd.wait_state("k", "running")
    dmsrd.wait_equal(source, target)


@pytest.mark.parametrize("layout", ["native", "both"])
def test_a_job_that_begins_anew_behind_a_clock_that_was_ahead(pg, kafka, daemon, tmp_path, layout):
    """Its notes are gone, and by the clock its runs are older than those that stand in the stream: who reads it passes over nothing all the same."""
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    set_clock(daemon, 1)
    daemon.job("k", source.connection(), [], streamer=streamer(kafka, **ALL[layout]))
    daemon.wait_state("k", "running")
    reader = Dmsrd(tmp_path / "r").start()
    try:
        read(reader, kafka, target, layout=layout)
        reader.wait_equal(source, target)
        daemon.api("POST", "/jobs/k/stop")
        daemon.wait_state("k", "stopped")
        daemon.stop()
        daemon.start()
        daemon.api("DELETE", "/jobs/k/positions")
        source.psql("UPDATE t SET v = 'between' WHERE id < 100; DELETE FROM t WHERE id > 450")
        daemon.api("POST", "/jobs/k/start")
        daemon.wait_state("k", "running")
        source.psql("UPDATE t SET v = 'after' WHERE id % 2 = 0; INSERT INTO t VALUES (1000, 'n')")
        caught_up(daemon, "k", source)
        reader.wait_equal(source, target)
    finally:
        reader.kill()
