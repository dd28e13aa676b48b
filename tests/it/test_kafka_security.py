"""Who may write to a broker: certificates, passwords and rights, each of which is told by its own code."""
import json
import pathlib

import pytest

from conftest import wait_for
from test_kafka import SMALL, streamer

SASL = {"security": "sasl_ssl", "sasl_mechanism": "PLAIN", "user": "dmsr", "password": "dmsr-secret"}


def at(kafka, listener, **more):
    properties = kafka.client(listener=listener)
    ca = {"ssl_ca": properties["ssl.ca.location"]} if "ssl.ca.location" in properties else {}
    return {**streamer(kafka), "bootstrap_servers": properties["bootstrap.servers"], **ca, **more}


def no_secret(daemon, *secrets):
    shown = daemon.log() + json.dumps([daemon.api("GET", p) for p in ("/jobs/k", "/jobs/k/status", "/jobs/k/events?limit=200", "/jobs")])
    for secret in secrets:
        assert secret not in shown


@pytest.mark.parametrize("how", ["tls", "plain"])
def test_tls_and_sasl(pg, kafka, dmsrd, how):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    there = at(kafka, "tls", security="ssl") if how == "tls" else at(kafka, "sasl_tls", **SASL)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=there)
    dmsrd.wait_state("k", "running")
    source.psql("UPDATE t SET v = 'x' WHERE id = 1")
    dmsrd.wait_equal(source, target)
    no_secret(dmsrd, "dmsr-secret")


@pytest.mark.parametrize("security,mechanism", [("sasl_ssl", "SCRAM-SHA-512"), ("sasl_plaintext", "SCRAM-SHA-256")])
def test_scram(pg, start_kafka, dmsrd, security, mechanism):
    """Version 3, since librdkafka before 2.6.1 repeats its nonce, which 4 refuses. Killed and started again it lets clients in by and by: that is no wrong password."""
    kafka = start_kafka(version=3, tls=True)
    there = at(kafka, "sasl_tls" if security == "sasl_ssl" else "sasl", **{**SASL, "security": security, "sasl_mechanism": mechanism})
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=there)
    dmsrd.wait_state("k", "running")
    kafka.kill()
    source.psql("UPDATE t SET v = 'without'")
    kafka.start()
    dmsrd.wait_equal(source, target)
    assert dmsrd.state_of("k") == "running"
    no_secret(dmsrd, "dmsr-secret")


def test_who_may_not_is_told_so(pg, kafka, dmsrd, tmp_path):
    source, target = pg.database("k"), pg.database("k_copy")
    source.psql(SMALL)
    other_ca = tmp_path / "other.pem"
    other_ca.write_text(pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    for how, code in ((at(kafka, "sasl_tls", **{**SASL, "password": "not-the-one"}), "kafka.auth"),
                      (at(kafka, "sasl_tls", **SASL, ssl_ca=str(other_ca)), "kafka.tls"),
                      (at(kafka, "tls", security="ssl", ssl_ca=str(other_ca)), "kafka.tls"),
                      (at(kafka, "sasl_tls", **{**SASL, "user": "guest", "password": "guest-secret"}), "kafka.denied"),
                      (at(kafka, "sasl_tls", **{**SASL, "user": "guest", "password": "guest-secret"}, create_topics=False, prefix=f"{kafka.prefix}-there"), "kafka.denied")):
        if "there" in how["prefix"]:
            for name in ("__stream", "__schemas", "public.t"):
                kafka.create(f"{how['prefix']}.{name}")
        dmsrd.job("k", source.connection(), [target.connection(name="copy")], streamer=how)
        error = dmsrd.wait_state("k", "failed")["error"]
        assert error["code"] == code, error
        no_secret(dmsrd, "not-the-one", "guest-secret", "dmsr-secret")
        dmsrd.api("DELETE", "/jobs/k")
        wait_for("the job is gone", lambda: dmsrd.call("GET", "/jobs/k")[0] == 404)
