import datetime as dt
import logging
import ssl

import pytest
from cryptography import x509
from test_tls import Session
from transport_helpers import CLIENT, DAY, NOW, ODD_NAMES, SERVER, Files

from securews.common.errors import ConfigurationError, HandshakeError
from securews.transport import admission
from securews.transport.mutual_tls import MutualTLSSocketHandler

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def connect(files):
    sessions = []

    def make(handler, cert=None, version=None, **options):
        context = options.pop("context", None) or files.client_context(version, cert)
        sessions.append(Session(handler, context, **options))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def mutual(files):
    def make(**options):
        return MutualTLSSocketHandler(*files.server(), client_ca=files.ca, **options)

    return make


def no_certificate(files):
    return None


def wrong_ca(files):
    return Files(files.directory / "other").client()


def expired(files):
    return files.client(not_after=NOW - DAY)


def not_yet_valid(files):
    return files.client(not_before=NOW + DAY)


def for_servers_only(files):
    return files.client(usages=[SERVER])


def for_any_use(files):
    return files.client(usages=None)


def good(files):
    return files.client()


@pytest.mark.promise(17)
@pytest.mark.d(53)
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (no_certificate, "showed no certificate"),
        (wrong_ca, "certificate is refused: (unable to get local issuer|self.signed)"),
        (expired, "certificate is refused: certificate has expired"),
        (not_yet_valid, "certificate is refused: certificate is not yet valid"),
        (for_servers_only, "certificate is refused: un(supported|suitable) certificate purpose"),
        (for_any_use, None),
        (good, None),
    ],
)
def test_certificates_are_judged_in_the_handshake(files, connect, made, words, version):
    handler = MutualTLSSocketHandler(*files.server(), client_ca=files.ca, minimum_version=TLS12)
    if words is None:
        info = connect(handler, made(files), version).info
        assert info.client_certificate.common_name == "pump-1"
        return
    with pytest.raises(HandshakeError, match=words):
        connect(handler, made(files), version)


@pytest.mark.promise(17)
def test_the_usage_may_be_required(files, mutual, connect):
    handler = mutual(require_client_auth_eku=True)
    connect(handler, files.client())
    connect(handler, files.client("both", usages=[CLIENT, SERVER]))
    with pytest.raises(HandshakeError, match="is not for clients"):
        connect(handler, files.client("any", usages=None))


def test_tls_1_2_is_refused_unless_asked_for(files, mutual, connect):
    with pytest.raises(HandshakeError, match="only TLS versions that are refused"):
        connect(mutual(), files.client(), TLS12)


@pytest.mark.promise(13)
@pytest.mark.promise(14)
def test_nothing_is_given_to_resume_with(files, mutual, connect):
    context = files.client_context(cert=files.client())
    handler = mutual()
    first = connect(handler, context=context)
    assert first.session is None or not first.session.has_ticket
    again = connect(handler, context=context, session=first.session)
    assert not again.info.resumed
    options = handler._contexts.latest.default
    assert options.options & ssl.OP_NO_TICKET
    assert options.num_tickets == 0


class Judge:
    """Says what it is told to say, and remembers whom it saw."""

    verdict = True

    def __init__(self):
        self.seen = []

    def __call__(self, certificate):
        self.seen.append(certificate.common_name)
        return self.verdict


@pytest.mark.promise(14)
def test_a_resumed_session_of_tls_1_2_is_judged_again(files, mutual, connect):
    judge = Judge()
    context = files.client_context(TLS12, files.client())
    handler = mutual(minimum_version=TLS12, authorize=judge)
    first = connect(handler, context=context)
    again = connect(handler, context=context, session=first.session)
    assert again.info.resumed, "Python cannot switch off session IDs"
    assert again.info.client_certificate == first.info.client_certificate
    judge.verdict = False
    with pytest.raises(HandshakeError, match="is not authorized"):
        connect(handler, context=context, session=again.session)
    assert judge.seen == ["pump-1"] * 3


def in_sixty_days(monkeypatch):
    class Later(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + 60 * DAY

    monkeypatch.setattr(admission.dt, "datetime", Later)


@pytest.mark.promise(14)
def test_a_resumed_session_ends_with_its_certificate(files, mutual, connect, monkeypatch):
    context = files.client_context(TLS12, files.client())
    handler = mutual(minimum_version=TLS12)
    first = connect(handler, context=context)
    in_sixty_days(monkeypatch)
    with pytest.raises(HandshakeError, match="expired or not yet valid"):
        connect(handler, context=context, session=first.session)


@pytest.mark.promise(14)
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=lambda version: version.name)
def test_a_removed_ca_and_a_revoked_certificate_end_with_reload(files, connect, version):
    trusted = files.directory / "trusted.pem"
    trusted.write_bytes((files.directory / "ca.pem").read_bytes())
    handler = MutualTLSSocketHandler(
        *files.server(), client_ca=trusted, minimum_version=TLS12, crl=files.crl()
    )
    context = files.client_context(version, files.client(serial=4711))
    session = connect(handler, context=context).session
    files.crl(4711)
    handler.reload()
    with pytest.raises(HandshakeError, match="certificate revoked"):
        connect(handler, context=context, session=session)
    files.crl()
    handler.reload()
    session = connect(handler, context=context).session
    other = Files(files.directory / "other")
    trusted.write_bytes((other.directory / "ca.pem").read_bytes())
    other.crl()
    (files.directory / "crl.pem").write_bytes((other.directory / "crl.pem").read_bytes())
    handler.reload()
    with pytest.raises(HandshakeError, match="certificate is refused"):
        connect(handler, context=context, session=session)


@pytest.mark.promise(19)
def test_a_revoked_certificate_is_refused_and_others_are_not(files, mutual, connect):
    handler = mutual(crl=files.crl(13))
    connect(handler, files.client("good"))
    with pytest.raises(HandshakeError, match="certificate is refused: certificate revoked"):
        connect(handler, files.client("bad", serial=13))


@pytest.mark.promise(19)
@pytest.mark.parametrize(
    ("dates", "words"),
    [({"next_update": NOW - DAY}, "is stale"), ({"last_update": NOW + DAY}, "set the clock")],
)
def test_a_crl_of_another_time_is_not_begun_with_and_keeps_the_old_one(
    files, mutual, connect, dates, words
):
    handler = mutual(crl=files.crl())
    other = files.crl(**dates)
    with pytest.raises(ConfigurationError, match=rf"the old certificate stays: .*{words}"):
        handler.reload()
    connect(handler, files.client())
    with pytest.raises(ConfigurationError, match=words):
        mutual(crl=other)


@pytest.mark.promise(19)
def test_a_crl_is_reminded_of_a_day_before(files, mutual, connect, caplog):
    handler = mutual(crl=files.crl(next_update=NOW + DAY / 2))
    for _ in range(3):
        connect(handler, files.client())
    assert caplog.text.count("becomes stale at") == 1


def test_a_certificate_may_be_left_to_the_client(files, mutual, connect):
    handler = mutual(required=False, authorize={"pump-1.example.org"})
    assert connect(handler).info.client_certificate is None
    assert connect(handler, files.client()).info.client_certificate.common_name == "pump-1"
    for refused in (wrong_ca(files), files.client("pump-2")):
        with pytest.raises(HandshakeError):
            connect(handler, refused)


@pytest.mark.promise(18)
def test_of_two_certificates_of_one_ca_the_listed_one_is_let_in(files, mutual, connect):
    handler = mutual(authorize={"pump-1.example.org"})
    connect(handler, files.client("pump-1"))
    with pytest.raises(HandshakeError, match="the client 'O=Works,CN=pump-2' is not authorized"):
        connect(handler, files.client("pump-2"))


@pytest.mark.promise(18)
def test_without_authorize_every_certificate_of_the_ca_is_let_in(files, mutual, connect):
    for name in ("pump-1", "pump-2"):
        connect(mutual(), files.client(name))


@pytest.mark.promise(18)
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=lambda version: version.name)
def test_the_refused_peer_sees_an_orderly_end_of_tls(files, mutual, version):
    from transport_helpers import DAY as _  # the helpers are importable here

    from securews.transport.tls_transform import TLSTransform

    handler = mutual(minimum_version=TLS12, authorize=lambda _: False)
    server = TLSTransform.server(handler._contexts.current())
    client = TLSTransform.client(files.client_context(version, files.client()), "localhost")
    with pytest.raises(HandshakeError, match="is not authorized"):
        for _ in range(3):
            if not client.ready:
                client.handshake(server.take_outgoing())
            server.handshake(client.take_outgoing())
    wire = server.take_outgoing()
    if not client.ready:
        client.handshake(wire)
        wire = b""
    assert client.receive(wire) == b""
    assert server.info is None


@pytest.mark.promise(18)
def test_a_judge_that_fails_refuses_and_is_logged_once(files, mutual, connect, caplog):
    def judge(_):
        raise LookupError("the database is down")

    with pytest.raises(HandshakeError, match="is not authorized"):
        connect(mutual(authorize=judge), files.client())
    assert caplog.text.count("LookupError: the database is down") == 1
    assert caplog.text.count("Traceback") == 1


@pytest.mark.promise(20)
def test_an_open_connection_is_judged_by_what_holds_now(files, mutual, connect, caplog):
    caplog.set_level(logging.INFO)
    judge = Judge()
    handler = mutual(authorize=judge, crl=files.crl())
    info = connect(handler, files.client(serial=4711)).info
    assert handler.still_admitted(info)
    judge.verdict = False
    assert not handler.still_admitted(info)
    judge.verdict = True
    files.crl(4711)
    assert handler.still_admitted(info), "the list was not read yet"
    handler.reload()
    assert not handler.still_admitted(info)
    assert [record.getMessage() for record in caplog.records] == [
        "the client 'O=Works,CN=pump-1' is not authorized",
        "the client 'O=Works,CN=pump-1' is revoked",
    ]


@pytest.mark.promise(20)
def test_an_open_connection_does_not_outlive_its_certificate(files, mutual, connect, monkeypatch):
    handler = mutual()
    info = connect(handler, files.client()).info
    assert handler.still_admitted(info)
    in_sixty_days(monkeypatch)
    assert not handler.still_admitted(info)


def test_who_showed_no_certificate_stays(files, mutual, connect):
    handler = mutual(required=False, authorize=set(), crl=files.crl())
    assert handler.still_admitted(connect(handler).info)


@pytest.mark.promise(25)
def test_a_refused_peer_is_nothing_for_the_log(files, mutual, connect, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(HandshakeError) as raised:
        connect(mutual(authorize=set()), files.client())
    assert "\n" not in str(raised.value)
    assert caplog.records == []


def test_what_a_certificate_says(files, mutual, connect):
    names = [
        x509.DNSName("pump-1.example.org"),
        x509.UniformResourceIdentifier("spiffe://works/pump-1"),
        x509.RFC822Name("pump@example.org"),
    ]
    certificate = connect(mutual(), files.client(names=names)).info.client_certificate
    assert certificate.subject == "O=Works,CN=pump-1"
    assert certificate.dns_names == ("pump-1.example.org",)
    assert certificate.uris == ("spiffe://works/pump-1",)
    assert certificate.emails == ("pump@example.org",)
    assert certificate.issuer == files.ca_certificate.subject.rfc4514_string()


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_a_certificate_whose_names_cannot_be_read_has_its_fingerprint(files, mutual, connect, kind):
    shown = files.client(raw_names=ODD_NAMES[kind])
    certificate = connect(mutual(crl=files.crl()), shown).info.client_certificate
    connect(mutual(authorize={f"sha256:{certificate.fingerprint_sha256}"}), shown)
    connect(mutual(authorize=lambda seen: seen == certificate), shown)
    with pytest.raises(HandshakeError, match="not authorized"):
        connect(mutual(authorize={"pump-1.example.org"}), shown)
    with pytest.raises(HandshakeError, match="not for clients"):
        connect(mutual(require_client_auth_eku=True), shown)


def test_all_hosts_ask_for_a_certificate(files, mutual, connect):
    handler = mutual(certificates={"a.example": files.server("a.example", file="a")})
    connect(handler, files.client(), server_name="a.example")
    with pytest.raises(HandshakeError, match="showed no certificate"):
        connect(handler, server_name="a.example")


def test_client_ca_is_a_file_of_certificates(files):
    with pytest.raises(ConfigurationError, match=r"client_ca file .* does not exist"):
        MutualTLSSocketHandler(*files.server(), client_ca=files.directory / "none.pem")


def test_an_intermediate_ca_may_be_trusted_alone(files, connect):
    middle = files.authority.create_child_ca()
    path = files.directory / "middle.pem"
    path.write_bytes(middle.cert_pem.bytes())
    handler = MutualTLSSocketHandler(*files.server(), client_ca=path)
    leaf = middle.issue_cert("pump-9.example.org")
    both = files.directory / "both.pem"
    both.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    session = connect(handler, (str(both),))
    assert session.info.client_certificate.dns_names == ("pump-9.example.org",)
    with pytest.raises(HandshakeError):
        connect(handler, files.client())
