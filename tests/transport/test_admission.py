import datetime as dt
import hashlib

import pytest

from securews.common.errors import ConfigurationError, HandshakeError
from securews.transport.admission import Admission, allow_list
from securews.transport.tls_info import ClientCertificate, TLSInfo

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)  # the tests before this one may take an hour
DER = b"the certificate"
FINGERPRINT = hashlib.sha256(DER).hexdigest()


def certificate(**changes):
    facts = {
        "subject": "CN=pump-1",
        "common_name": "pump-1",
        "dns_names": ("pump-1.example.org",),
        "uris": ("spiffe://works/pump-1",),
        "emails": ("pump@example.org",),
        "issuer": "CN=ca",
        "serial_number": 1,
        "not_before": NOW - DAY,
        "not_after": NOW + DAY,
        "fingerprint_sha256": FINGERPRINT,
        "der": DER,
    }
    return ClientCertificate(**{**facts, **changes})


def info(shown):
    return TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", None, None, False, shown)


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    "member",
    [
        "pump-1.example.org",
        "spiffe://works/pump-1",
        "pump@example.org",
        f"sha256:{FINGERPRINT}",
        f"SHA256:{FINGERPRINT.upper()}",
        "sha256:" + ":".join(FINGERPRINT[i : i + 2] for i in range(0, 64, 2)),
    ],
)
def test_exact_names_and_fingerprints_are_let_in(member):
    assert allow_list({member})(certificate())
    assert allow_list(["another.example.org", member])(certificate())


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    "member", ["pump-1", "example.org", "*.example.org", "ump-1.example.org", "sha256:" + "0" * 64]
)
def test_other_names_are_not_and_neither_is_the_common_name(member):
    assert not allow_list({member})(certificate())


def test_an_empty_list_lets_nobody_in():
    assert not allow_list(())(certificate())


def test_a_list_does_not_change_with_the_callers():
    members = {"pump-1.example.org"}
    listed = allow_list(members)
    members.clear()
    assert listed(certificate())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ("pump-1.example.org", "takes a set of names"),
        ({5}, "names as str"),
        ({""}, "names as str"),
        ({"CN=pump-1"}, "use a SAN"),
        ({"sha256:abc"}, "64 hex digits"),
    ],
)
def test_a_member_that_could_never_match_is_refused(members, words):
    with pytest.raises(ConfigurationError, match=words):
        allow_list(members)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (certificate(not_after=NOW - DAY), "expired"),
        (certificate(not_before=NOW + DAY), "not yet valid"),
    ],
)
def test_dates_are_judged(shown, words):
    with pytest.raises(HandshakeError, match=words):
        Admission().judge(info(shown))


@pytest.mark.promise(19)
def test_a_list_that_became_stale_lets_nobody_in():
    class Stale:
        until = NOW - DAY

    with pytest.raises(HandshakeError, match="CRL is stale"):
        Admission(crl=Stale()).judge(info(certificate()))


@pytest.mark.parametrize("usage", [None, False])
def test_the_usage_is_judged_where_that_was_asked_for(usage):
    shown = certificate(client_auth=usage)
    Admission().judge(info(shown))
    with pytest.raises(HandshakeError, match="not for clients"):
        Admission(require_client_auth_eku=True).judge(info(shown))


@pytest.mark.promise(18)
@pytest.mark.parametrize("verdict", [None, 1, "yes", object()])
def test_a_verdict_that_is_no_bool_refuses_and_says_so(verdict, caplog):
    with pytest.raises(HandshakeError, match="not authorized"):
        Admission(lambda _: verdict).judge(info(certificate()))
    assert "return True or False" in caplog.text


def test_without_a_certificate_there_is_nothing_to_judge():
    Admission(lambda _: False, require_client_auth_eku=True).judge(info(None))


def test_a_subject_cannot_write_into_the_log():
    with pytest.raises(HandshakeError) as raised:
        Admission(lambda _: False).judge(info(certificate(subject="CN=a\nERROR forged")))
    assert "\n" not in str(raised.value)
