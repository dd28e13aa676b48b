"""That what the tests of Kafka stand on is a real broker: what is written is there, who may not is refused, and what is done to it has its effect."""
import pytest
from confluent_kafka import KafkaException, Producer, libversion

LISTENERS = ["plain", "tls", "sasl_tls", "sasl"]
LOOK = ["-L", "-m", "3"]


def produce(kafka, topic, text, *args, **client):
    kafka.kcat("-P", "-t", topic, "-K", "\t", *args, text=text, **client)


@pytest.mark.parametrize("listener", LISTENERS)
def test_what_is_written_is_read(kafka, listener):
    topic = f"{kafka.prefix}.a"
    kafka.create(topic, partitions=2)
    assert kafka.topics(kafka.prefix) == {topic: 2}
    assert kafka.records(topic) == []
    produce(kafka, topic, 'k\t{"a": "ä"}\nk\t\n', "-p", "1", "-Z", "-H", "pos=0/1", listener=listener)
    produce(kafka, topic, "other\tx\n", "-p", "0", listener=listener)
    assert kafka.records(topic, listener=listener) == [(0, 0, "other", "x", []), (1, 0, "k", '{"a": "ä"}', [("pos", "0/1")]), (1, 1, "k", None, [("pos", "0/1")])]


def test_topics_are_made_as_told(kafka):
    kafka.create(f"{kafka.prefix}.a", retention_ms=3600000)
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        kafka.create(f"{kafka.prefix}.a")
    assert "retention.ms=3600000" in kafka.tool("kafka.admin.ConfigCommand", "--describe", "--topic", f"{kafka.prefix}.a")
    kafka.delete(f"{kafka.prefix}.a")
    assert kafka.topics(kafka.prefix) == {}


def test_topics_are_not_made_by_being_asked_for(kafka):
    with pytest.raises(AssertionError, match="Unknown topic|timed out"):
        produce(kafka, f"{kafka.prefix}.none", "k\tv\n", "-X", "message.timeout.ms=3000")
    assert kafka.topics(kafka.prefix) == {}


def test_who_may_not_is_refused(kafka):
    topic = f"{kafka.prefix}.a"
    kafka.create(topic)
    with pytest.raises(AssertionError, match="invalid credentials|Authentication failed"):
        kafka.kcat(*LOOK, listener="sasl_tls", password="wrong")
    with pytest.raises(AssertionError, match="Topic authorization failed"):
        produce(kafka, topic, "k\tv\n", listener="sasl_tls", user="guest")
    assert kafka.records(topic) == []


def test_transactions(kafka):
    topic = f"{kafka.prefix}.a"
    kafka.create(topic)
    producer = Producer({**kafka.client(), "transactional.id": kafka.prefix})
    producer.init_transactions(30)
    for value, end in (("kept", producer.commit_transaction), ("undone", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value, "k")
        producer.flush(30)
        end(30)
    assert [r.value for r in kafka.records(topic)] == ["kept"]
    assert [r.value for r in kafka.records(topic, uncommitted=True)] == ["kept", "undone"]


def test_scram(kafka, request):
    """librdkafka before 2.6.1 repeats its nonce, which Kafka 4 refuses; Kafka 3 does not look."""
    how = [{"listener": "sasl_tls", "mechanism": m} for m in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
    if libversion()[1] < 0x02060100:
        with pytest.raises(AssertionError, match="invalid credentials"):
            kafka.kcat(*LOOK, **how[0])
        kafka = request.getfixturevalue("kafka3")
    topic = f"{kafka.prefix}.a"
    kafka.create(topic)
    for mechanism in how:
        produce(kafka, topic, "k\tv\n", **mechanism)
    assert [r.value for r in kafka.records(topic, **how[1])] == ["v", "v"]
    with pytest.raises(AssertionError, match="invalid credentials"):
        kafka.kcat(*LOOK, password="wrong", **how[1])


def test_a_broker_of_ones_own(start_kafka):
    kafka = start_kafka(settings=["message.max.bytes=2000"])
    kafka.create("a")
    produce(kafka, "a", "k\t1\n")
    with pytest.raises(AssertionError, match="too large"):
        produce(kafka, "a", f"k\t{'x' * 3000}\n")

    kafka.kill()
    with pytest.raises(AssertionError, match="Local:"):
        kafka.kcat(*LOOK)
    kafka.start()
    assert [r.value for r in kafka.records("a")] == ["1"]

    kafka.pause()
    with pytest.raises(AssertionError, match="Local:"):
        kafka.kcat(*LOOK)
    kafka.resume()
    produce(kafka, "a", "k\t2\n")
    kafka.restart()
    assert [r.value for r in kafka.records("a")] == ["1", "2"]

    kafka.empty()
    assert kafka.topics() == {}
