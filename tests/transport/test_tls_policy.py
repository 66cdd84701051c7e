import ssl
import warnings

import pytest

from securews.common.errors import ConfigurationError
from securews.transport import tls_policy
from securews.transport.tls_policy import (
    CIPHERS,
    GROUPS,
    check_client_context,
    check_minimum_version,
    check_server_context,
    client_context,
    server_context,
    try_handshake,
)

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
TLS13_SUITES = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}


@pytest.mark.promise(10)
@pytest.mark.parametrize("make", [lambda: server_context(TLS12), client_context])
def test_the_suites_are_exactly_these(make):
    names = [suite["name"] for suite in make().get_ciphers()]
    assert set(names) == {*CIPHERS, *TLS13_SUITES}
    assert [name for name in names if name in CIPHERS] == list(CIPHERS)


@pytest.mark.promise(12)
@pytest.mark.parametrize("make", [lambda: server_context(TLS12), client_context])
def test_the_options_are_set_in_words(make):
    options = make().options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION
    assert not options & ssl.OP_IGNORE_UNEXPECTED_EOF


@pytest.mark.promise(10)
def test_the_client_chooses_the_suite():
    assert not server_context(TLS12).options & ssl.OP_CIPHER_SERVER_PREFERENCE


@pytest.mark.promise(10)
@pytest.mark.parametrize("suite", [CIPHERS[0], CIPHERS[2], CIPHERS[4]])
def test_the_suite_that_the_client_likes_best_is_used(shared_files, suite):
    from transport_helpers import join, server_transform

    from securews.transport.tls_transform import TLSTransform

    context = server_context(TLS12)
    context.load_cert_chain(*shared_files.server())
    liking = shared_files.client_context(TLS12)
    liking.set_ciphers(":".join([suite, *(other for other in CIPHERS if other != suite)]))
    client, server = TLSTransform.client(liking, "localhost"), server_transform(context)
    join(client, server)
    assert server.info.cipher == suite


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "version",
    [
        ssl.TLSVersion.SSLv3,
        ssl.TLSVersion.TLSv1,
        ssl.TLSVersion.TLSv1_1,
        ssl.TLSVersion.MINIMUM_SUPPORTED,
        ssl.TLSVersion.MAXIMUM_SUPPORTED,
        "1.2",
        None,
    ],
)
def test_older_versions_cannot_be_asked_for(version):
    with pytest.raises(ConfigurationError, match="minimum_version is"):
        check_minimum_version(version)


@pytest.mark.promise(9)
def test_new_contexts_begin_with_the_version_that_was_asked_for():
    for version in (TLS12, TLS13):
        check_minimum_version(version)
        assert server_context(version).minimum_version is version


class Fake:
    """A context of Python 3.15, with an OpenSSL that knows some groups."""

    def __init__(self, known):
        self.known = known
        self.groups = None

    def set_groups(self, names):
        if not set(names.split(":")) <= set(self.known):
            raise ssl.SSLError("unknown group")
        self.groups = names.split(":")


@pytest.mark.promise(11)
def test_groups_are_set_where_they_can_be():
    newest, older = Fake(GROUPS), Fake(GROUPS[1:])
    tls_policy.set_groups(newest)
    tls_policy.set_groups(older)
    assert newest.groups == list(GROUPS)
    assert older.groups == list(GROUPS[1:])


def good_server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS12
    return context


def test_a_good_context_of_the_user_passes():
    check_server_context(good_server_context(), TLS12)
    check_client_context(ssl.create_default_context())


def old(version):
    """Assigning one of these warns by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server, client = good_server_context(), ssl.create_default_context()
        server.minimum_version = client.minimum_version = version
    return server, client


@pytest.mark.promise(9)
def test_a_users_context_with_old_versions_is_refused():
    for end, check in zip(
        old(ssl.TLSVersion.TLSv1_1),
        (lambda server: check_server_context(server, TLS12), check_client_context),
        strict=True,
    ):
        with pytest.raises(ConfigurationError, match="minimum_version = "):
            check(end)


@pytest.mark.promise(9)
def test_what_the_system_leaves_open_is_refused_on_a_server_and_left_to_it_on_a_client():
    server, client = old(ssl.TLSVersion.MINIMUM_SUPPORTED)
    with pytest.raises(ConfigurationError, match="minimum_version = "):
        check_server_context(server, TLS12)
    check_client_context(client)


def test_a_users_context_keeps_to_the_minimum_that_was_asked_for():
    with pytest.raises(ConfigurationError, match="TLSv1_3"):
        check_server_context(good_server_context(), TLS13)


def test_the_wrong_end_is_told():
    with pytest.raises(ConfigurationError, match="is a client's"):
        check_server_context(ssl.create_default_context(), TLS12)
    with pytest.raises(ConfigurationError, match="is a server's"):
        check_client_context(good_server_context())


@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL])
def test_a_client_that_does_not_verify_is_refused(mode):
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ConfigurationError, match="does not verify the server"):
        check_client_context(context)
    context.verify_mode = mode
    with pytest.raises(ConfigurationError, match="does not verify the server"):
        check_client_context(context)


def test_our_client_verifies_names_in_the_sans_only():
    context = client_context()
    check_client_context(context)
    assert not context.hostname_checks_common_name


def test_a_trial_handshake_finds_a_missing_certificate():
    with pytest.raises(ConfigurationError, match="is a certificate loaded"):
        try_handshake(server_context(TLS12))


@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_trial_handshake_passes_what_works(shared_files, mode, version):
    context = server_context(TLS12)
    context.maximum_version = version
    context.verify_mode = mode
    context.load_verify_locations(shared_files.ca)
    context.load_cert_chain(*shared_files.server())
    try_handshake(context)
