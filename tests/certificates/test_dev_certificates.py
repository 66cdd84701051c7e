"""Development certificates: what is made, what is kept, what is renewed, and who accepts them."""

import contextlib
import datetime as dt
import os
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

import securews
from securews.certificates import dev_certificates, issuing, pair_files
from securews.certificates.dev_certificates import Action, ensure_certificates
from securews.certificates.pair_files import PairFiles
from securews.common.errors import ConfigurationError


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "certs"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """The machine's name, which must not decide what these tests see."""
    monkeypatch.setattr("socket.gethostname", lambda: "Workbench.local")


def actions(report):
    return {entry.certificate.stem: entry.action for entry in report.entries}


def entry_of(report, stem):
    (entry,) = [entry for entry in report.entries if entry.certificate.stem == stem]
    return entry


def ensure_after_chmod(directory, stem, mode):
    """Change the mode of a key. Returns the key's path, what it was, and what was done about it."""
    ensure_certificates(directory, clients=["pump"])
    key = directory / f"{stem}-key.pem"
    before = key.read_bytes()
    key.chmod(mode)
    return key, before, ensure_certificates(directory)


def contents(directory):
    """Every file with its bytes, mode and inode: a file that was replaced differs in the last."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_ino)
        for path in directory.iterdir()
    }


def certificate_in(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def handshake(directory, *, server_name="localhost", client=None, server="server", trust="ca"):
    """A TLS handshake in memory, both sides strict; the client's certificate as the server saw it."""
    client_context = ssl.create_default_context(cafile=directory / f"{trust}.pem")
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(directory / f"{server}.pem", directory / f"{server}-key.pem")
    if client is not None:
        client_context.load_cert_chain(directory / f"{client}.pem", directory / f"{client}-key.pem")
        server_context.load_verify_locations(directory / "ca.pem")
        server_context.verify_mode = ssl.CERT_REQUIRED
        server_context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client_context.wrap_bio(down, up, server_hostname=server_name)
    far = server_context.wrap_bio(up, down, server_side=True)
    waiting = [near, far]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return far.getpeercert()
    raise AssertionError("the handshake does not end")


def openssl_verify(directory, stem, *arguments):
    # fmt: off
    return subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", directory / "ca.pem", *arguments,
         directory / f"{stem}.pem"],
        capture_output=True, text=True, check=False,
    )
    # fmt: on


class TestFirstRun:
    def test_makes_an_authority_a_server_and_the_clients(self, directory):
        report = ensure_certificates(directory, clients=["pump-1", "ann@example.test"])
        assert {path.name for path in directory.glob("*")} == {
            "ca.pem",
            "ca-key.pem",
            "server.pem",
            "server-key.pem",
            "client-pump-1.pem",
            "client-pump-1-key.pem",
            "client-ann@example.test.pem",
            "client-ann@example.test-key.pem",
            ".gen-dev-certs.lock",
        }
        assert set(actions(report).values()) == {Action.MADE}
        assert report.changed
        assert report.new_authority
        assert report.ca_file == directory / "ca.pem"

    def test_names_localhost_this_machine_and_each_host(self, directory):
        report = ensure_certificates(directory, ["PI.local.", "192.168.1.5", "[2001:DB8::5]"])
        names = (
            "localhost",
            "127.0.0.1",
            "::1",
            "workbench.local",
            "pi.local",
            "192.168.1.5",
            "2001:db8::5",
        )
        assert entry_of(report, "server").names == names
        assert issuing.certificate_names(certificate_in(directory / "server.pem")) == names

    def test_a_machine_without_a_usable_name_gets_a_certificate_too(self, directory, monkeypatch):
        monkeypatch.setattr("socket.gethostname", lambda: "my computer!")
        report = ensure_certificates(directory)
        assert entry_of(report, "server").names == ("localhost", "127.0.0.1", "::1")

    def test_the_certificates_live_ninety_days_and_the_authority_ten_years(self, directory):
        report = ensure_certificates(directory, clients=["pump"])
        now = dt.datetime.now(dt.UTC)
        lives = {
            entry.certificate.stem: (entry.expires - now + dt.timedelta(minutes=5)).days
            for entry in report.entries
        }
        assert lives == {"ca": 3650, "server": 90, "client-pump": 90}

    def test_days_are_the_life_of_what_is_made(self, directory):
        report = ensure_certificates(directory, days=7)
        left = entry_of(report, "server").expires - dt.datetime.now(dt.UTC)
        assert dt.timedelta(days=6, hours=23) < left <= dt.timedelta(days=7)

    def test_no_certificate_outlives_its_authority(self, directory):
        directory.mkdir()
        authority = issuing.new_authority("here", days=30)
        PairFiles(directory, "ca").write(authority)
        report = ensure_certificates(directory)
        assert entry_of(report, "server").expires == authority.certificate.not_valid_after_utc
        assert not ensure_certificates(directory).changed

    def test_the_key_is_ecdsa_p256_and_serves_one_purpose(self, directory):
        ensure_certificates(directory, clients=["pump"])
        for stem, usage in (
            ("server", ExtendedKeyUsageOID.SERVER_AUTH),
            ("client-pump", ExtendedKeyUsageOID.CLIENT_AUTH),
        ):
            certificate = certificate_in(directory / f"{stem}.pem")
            key = load_pem_private_key((directory / f"{stem}-key.pem").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            assert isinstance(key.curve, ec.SECP256R1)
            assert key.public_key() == certificate.public_key()
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
            assert list(usages.value) == [usage]
            usages = certificate.extensions.get_extension_for_class(x509.KeyUsage)
            assert usages.critical
            assert usages.value.digital_signature
            assert not usages.value.key_encipherment
            assert not usages.value.key_cert_sign

    def test_two_authorities_have_two_names(self):
        first, second = (issuing.new_authority("here") for _ in range(2))
        assert first.certificate.subject != second.certificate.subject


class TestWhoAcceptsThem:
    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "pi.local", "10.0.0.7"])
    def test_strict_python_does_under_every_name(self, directory, name):
        ensure_certificates(directory, ["pi.local", "10.0.0.7"])
        handshake(directory, server_name=name)

    def test_strict_python_does_not_under_another_name(self, directory):
        ensure_certificates(directory)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(directory, server_name="pi.local")

    def test_a_client_is_known_by_its_alternative_name(self, directory):
        ensure_certificates(directory, clients=["pump-1", "ann@example.test"])
        seen = handshake(directory, client="client-pump-1")
        assert seen["subjectAltName"] == (("DNS", "pump-1"),)
        seen = handshake(directory, client="client-ann@example.test")
        assert seen["subjectAltName"] == (("email", "ann@example.test"),)

    def test_a_client_certificate_serves_no_server(self, directory):
        ensure_certificates(directory, clients=["localhost"])
        with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
            handshake(directory, server="client-localhost")

    def test_a_server_certificate_serves_no_client(self, directory):
        ensure_certificates(directory)
        with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
            handshake(directory, client="server")

    @pytest.mark.parametrize(
        ("stem", "purpose", "accepted"),
        [
            ("ca", "any", True),
            ("server", "sslserver", True),
            ("server", "sslclient", False),
            ("client-pump", "sslclient", True),
            ("client-pump", "sslserver", False),
        ],
    )
    def test_strict_openssl_does_for_the_one_purpose(self, directory, stem, purpose, accepted):
        ensure_certificates(directory, clients=["pump"])
        result = openssl_verify(directory, stem, "-purpose", purpose)
        assert (result.returncode == 0) is accepted, result.stderr
        if not accepted:
            assert "unsuitable certificate purpose" in result.stderr

    def test_strict_openssl_does_for_host_and_address(self, directory):
        ensure_certificates(directory, ["pi.local"])
        for flags in (("-verify_hostname", "pi.local"), ("-verify_ip", "::1")):
            result = openssl_verify(directory, "server", "-purpose", "sslserver", *flags)
            assert result.returncode == 0, result.stderr


class TestSecondRun:
    def test_changes_nothing_that_is_good(self, directory):
        ensure_certificates(directory, ["pi.local"], ["pump"])
        before = contents(directory)
        report = ensure_certificates(directory, ["pi.local"], ["pump"])
        assert contents(directory) == before
        assert not report.changed
        assert set(actions(report).values()) == {Action.KEPT}
        assert all(entry.reason == "" for entry in report.entries)

    def test_keeps_the_hosts_and_clients_that_are_not_named_again(self, directory):
        ensure_certificates(directory, ["pi.local"], ["pump"])
        report = ensure_certificates(directory)
        assert not report.changed
        assert list(actions(report)) == ["ca", "server", "client-pump"]
        assert "pi.local" in entry_of(report, "server").names

    def test_makes_a_new_client_and_leaves_the_others(self, directory):
        ensure_certificates(directory, clients=["pump"])
        report = ensure_certificates(directory, clients=["valve"])
        assert actions(report) == {
            "ca": Action.KEPT,
            "server": Action.KEPT,
            "client-pump": Action.KEPT,
            "client-valve": Action.MADE,
        }

    def test_a_new_host_renews_the_server_and_keeps_its_names(self, directory):
        ensure_certificates(directory, ["pi.local"], ["pump"])
        report = ensure_certificates(directory, ["10.0.0.7"])
        assert actions(report) == {
            "ca": Action.KEPT,
            "server": Action.RENEWED,
            "client-pump": Action.KEPT,
        }
        entry = entry_of(report, "server")
        assert entry.reason == "10.0.0.7 was not in it"
        assert {"pi.local", "10.0.0.7"} < set(entry.names)
        handshake(directory, server_name="10.0.0.7")

    def test_force_renews_all_but_the_authority(self, directory):
        ensure_certificates(directory, clients=["pump"])
        report = ensure_certificates(directory, force=True)
        assert actions(report) == {
            "ca": Action.KEPT,
            "server": Action.RENEWED,
            "client-pump": Action.RENEWED,
        }
        assert not report.new_authority

    def test_under_fourteen_days_left_is_renewed(self, directory):
        ensure_certificates(directory, clients=["pump"], days=13)
        report = ensure_certificates(directory)
        assert actions(report) == {
            "ca": Action.KEPT,
            "server": Action.RENEWED,
            "client-pump": Action.RENEWED,
        }
        assert entry_of(report, "server").reason == "12 days were left"

    def test_fourteen_days_left_are_enough(self, directory):
        ensure_certificates(directory, days=15)
        assert not ensure_certificates(directory).changed

    def test_short_lives_are_not_renewed_at_every_run(self, directory):
        ensure_certificates(directory, days=7)
        assert not ensure_certificates(directory, days=7).changed

    def test_an_expired_certificate_is_renewed(self, directory):
        ensure_certificates(directory)
        authority = PairFiles(directory, "ca").read()
        hosts = ("localhost", "127.0.0.1", "::1", "workbench.local")
        PairFiles(directory, "server").write(issuing.issue_server(authority, hosts, days=0))
        assert entry_of(ensure_certificates(directory), "server").reason.startswith("it expired")

    def test_an_old_authority_is_renewed_with_all_that_it_signed(self, directory):
        ensure_certificates(directory, clients=["pump"])
        PairFiles(directory, "ca").write(issuing.new_authority("here", days=13))
        report = ensure_certificates(directory)
        assert set(actions(report).values()) == {Action.RENEWED}
        assert report.new_authority
        handshake(directory, client="client-pump")


class TestDamage:
    def test_a_key_that_does_not_match_renews_the_pair(self, directory):
        ensure_certificates(directory, ["pi.local"], ["pump"])
        (directory / "server-key.pem").write_bytes((directory / "client-pump-key.pem").read_bytes())
        report = ensure_certificates(directory)
        entry = entry_of(report, "server")
        assert entry.action is Action.RENEWED
        assert entry.reason == "server-key.pem did not match server.pem"
        assert "pi.local" in entry.names
        assert actions(report)["client-pump"] is Action.KEPT
        handshake(directory)

    @pytest.mark.parametrize("name", ["server.pem", "server-key.pem"])
    @pytest.mark.parametrize("kept", [0, 20, 150])
    def test_a_truncated_pem_renews_the_pair(self, directory, name, kept):
        ensure_certificates(directory)
        path = directory / name
        path.write_bytes(path.read_bytes()[:kept])
        entry = entry_of(ensure_certificates(directory), "server")
        assert entry.action is Action.RENEWED
        assert entry.reason.startswith(f"{name} was truncated or damaged")
        handshake(directory)

    def test_a_certificate_that_cannot_be_read_has_forgotten_its_hosts_and_says_so(self, directory):
        ensure_certificates(directory, ["pi.local"])
        (directory / "server.pem").write_bytes(b"")
        entry = entry_of(ensure_certificates(directory), "server")
        assert "give --host again" in entry.reason

    @pytest.mark.parametrize("name", ["client-pump.pem", "client-pump-key.pem"])
    def test_a_lost_half_renews_the_pair_without_being_asked(self, directory, name):
        ensure_certificates(directory, clients=["pump"])
        (directory / name).unlink()
        entry = entry_of(ensure_certificates(directory), "client-pump")
        assert (entry.action, entry.reason) == (Action.RENEWED, f"{name} was missing")
        handshake(directory, client="client-pump")

    def test_a_lost_authority_key_renews_everything(self, directory):
        ensure_certificates(directory, ["pi.local"], ["pump"])
        old = (directory / "ca.pem").read_bytes()
        (directory / "ca-key.pem").unlink()
        report = ensure_certificates(directory)
        assert set(actions(report).values()) == {Action.RENEWED}
        assert report.new_authority
        assert "ca-key.pem was lost" in report.entries[0].reason
        assert entry_of(report, "server").reason == "another authority signed it"
        assert (directory / "ca.pem").read_bytes() != old
        handshake(directory, server_name="pi.local", client="client-pump")

    @pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem"])
    def test_a_damaged_authority_renews_everything(self, directory, name):
        ensure_certificates(directory)
        (directory / name).write_bytes(b"-----BEGIN")
        report = ensure_certificates(directory)
        assert set(actions(report).values()) == {Action.RENEWED}
        assert report.entries[0].reason == f"{name} was truncated or damaged"
        handshake(directory)

    def test_a_leaf_in_the_place_of_the_authority_is_replaced(self, directory):
        ensure_certificates(directory)
        PairFiles(directory, "ca").write(PairFiles(directory, "server").read())
        report = ensure_certificates(directory)
        assert report.entries[0].reason == "it was no certificate authority"
        handshake(directory)

    def test_a_certificate_for_the_other_usage_is_renewed(self, directory):
        ensure_certificates(directory, clients=["pump"])
        PairFiles(directory, "server").write(PairFiles(directory, "client-pump").read())
        entry = entry_of(ensure_certificates(directory), "server")
        assert entry.reason == "it was for another usage"
        handshake(directory)

    @pytest.mark.parametrize("stem", ["ca", "server", "client-pump"])
    @pytest.mark.parametrize("mode", [0o644, 0o604])
    def test_a_key_that_others_may_read_is_closed_and_kept(self, directory, stem, mode):
        key, before, report = ensure_after_chmod(directory, stem, mode)
        entry = entry_of(report, stem)
        assert entry.action is Action.MENDED
        assert f"had mode {mode:04o} and has 0600 now" in entry.reason
        assert mode_of(key) == 0o600
        assert key.read_bytes() == before
        assert report.changed
        assert not report.new_authority

    @pytest.mark.parametrize("mode", [0o620, 0o602])
    @pytest.mark.parametrize("stem", ["ca", "server", "client-pump"])
    def test_a_key_that_others_may_change_is_renewed(self, directory, stem, mode):
        key, before, report = ensure_after_chmod(directory, stem, mode)
        entry = entry_of(report, stem)
        assert entry.action is Action.RENEWED
        assert entry.reason == f"{key.name} had mode {mode:04o}, and others could change it"
        assert key.read_bytes() != before
        assert mode_of(key) == 0o600
        assert report.new_authority == (stem == "ca")

    def test_a_key_that_a_group_may_read_is_left_alone(self, directory):
        ensure_certificates(directory)
        (directory / "server-key.pem").chmod(0o640)
        assert not ensure_certificates(directory).changed
        assert mode_of(directory / "server-key.pem") == 0o640


class TestWhatIsNotOurs:
    @pytest.mark.parametrize("stem", ["ca", "server", "client-pump"])
    def test_a_certificate_of_somebody_else_is_never_replaced(self, directory, stem):
        ensure_certificates(directory, clients=["pump"])
        foreign = trustme.CA().issue_cert("localhost")
        foreign.cert_chain_pems[0].write_to_path(directory / f"{stem}.pem")
        foreign.private_key_pem.write_to_path(directory / f"{stem}-key.pem")
        before = contents(directory)
        with pytest.raises(ConfigurationError, match="was not made by gen-dev-certs"):
            ensure_certificates(directory, clients=["pump"], force=True)
        assert contents(directory) == before

    def test_clients_of_somebody_else_are_passed_over(self, directory):
        ensure_certificates(directory)
        foreign = trustme.CA().issue_cert("pump")
        foreign.cert_chain_pems[0].write_to_path(directory / "client-pump.pem")
        (directory / "client-.pem").write_bytes(b"no name")
        report = ensure_certificates(directory, force=True)
        assert list(actions(report)) == ["ca", "server"]

    def test_an_encrypted_key_is_an_error_with_both_ways_out(self, directory):
        ensure_certificates(directory)
        path = directory / "ca-key.pem"
        key = load_pem_private_key(path.read_bytes(), None)
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
        )
        with pytest.raises(ConfigurationError, match=r"is encrypted .* take the password off"):
            ensure_certificates(directory)


@pytest.fixture
def belongs_to_another(monkeypatch):
    """Have the system say that a file, a directory or a link is another user's."""
    foreign = set()

    def watched(real):
        def status_of(*arguments, **options):
            status = real(*arguments, **options)
            if (status.st_dev, status.st_ino) not in foreign:
                return status
            return os.stat_result([*status[:4], 4711, *status[5:]])

        return status_of

    for name in ("stat", "fstat", "lstat"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))

    def belongs(path):
        status = path.lstat()
        foreign.add((status.st_dev, status.st_ino))

    return belongs


class TestWhatIsAnotherUsers:
    """What is adopted is trusted: whose it is decides that."""

    @pytest.mark.parametrize(
        "name", ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "client-pump-key.pem"]
    )
    def test_a_file_is_not_adopted(self, directory, belongs_to_another, name):
        ensure_certificates(directory, clients=["pump"])
        before = contents(directory)
        belongs_to_another(directory / name)
        words = (
            rf"{name} belongs to another user \(uid 4711\), who can change it, and is not used: "
            r"delete it, or choose another directory \(--out\)$"
        )
        with pytest.raises(ConfigurationError, match=words):
            ensure_certificates(directory, clients=["pump"], force=True)
        assert contents(directory) == before

    def test_root_adopts_what_is_roots_alone(self, directory, belongs_to_another, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        directory.mkdir()
        belongs_to_another(directory)
        with pytest.raises(ConfigurationError, match=r"certs belongs to another user \(uid 4711\)"):
            ensure_certificates(directory)

    @pytest.mark.parametrize("whose", ["the link", "its target"])
    def test_a_link_is_as_good_as_its_target_and_who_made_it(
        self, directory, tmp_path, belongs_to_another, whose
    ):
        ensure_certificates(directory)
        key, elsewhere = directory / "ca-key.pem", tmp_path / "elsewhere.pem"
        key.rename(elsewhere)
        key.symlink_to(elsewhere)
        assert not ensure_certificates(directory).changed
        belongs_to_another(key if whose == "the link" else elsewhere)
        with pytest.raises(ConfigurationError, match=r"ca-key\.pem belongs to another user"):
            ensure_certificates(directory)

    @pytest.mark.parametrize("whose", ["the link", "its target"])
    def test_a_directory_is_not_written_in(self, directory, tmp_path, belongs_to_another, whose):
        directory.mkdir()
        link = tmp_path / "link"
        link.symlink_to(directory)
        belongs_to_another(link if whose == "the link" else directory)
        words = (
            r"link belongs to another user .* run this as that user, or choose another directory"
        )
        with pytest.raises(ConfigurationError, match=words):
            ensure_certificates(link)
        assert not list(directory.iterdir())


class TestFiles:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_modes_do_not_depend_on_the_umask(self, directory, umask):
        old = os.umask(umask)
        try:
            ensure_certificates(directory, clients=["pump"])
        finally:
            os.umask(old)
        assert mode_of(directory) == 0o700
        modes = {path.name: mode_of(path) for path in directory.iterdir()}
        assert modes == {
            "ca.pem": 0o644,
            "ca-key.pem": 0o600,
            "server.pem": 0o644,
            "server-key.pem": 0o600,
            "client-pump.pem": 0o644,
            "client-pump-key.pem": 0o600,
            ".gen-dev-certs.lock": 0o600,
        }

    def test_a_key_is_never_open_to_others_not_even_for_a_moment(self, directory, monkeypatch):
        made = {}
        real_open = os.open

        def watched_open(path, flags, mode=0o777, **options):
            descriptor = real_open(path, flags, mode, **options)
            if flags & os.O_CREAT:
                made[Path(path).name] = (
                    stat.S_IMODE(os.fstat(descriptor).st_mode),
                    bool(flags & os.O_EXCL),
                )
            return descriptor

        monkeypatch.setattr(os, "open", watched_open)
        old = os.umask(0)
        try:
            ensure_certificates(directory)
        finally:
            os.umask(old)
        keys = {name: facts for name, facts in made.items() if "-key" in name}
        assert set(keys) == {".ca-key.pem.tmp", ".server-key.pem.tmp"}
        assert set(keys.values()) == {(0o600, True)}

    def test_an_existing_directory_keeps_its_mode(self, directory):
        directory.mkdir()
        directory.chmod(0o755)
        ensure_certificates(directory)
        assert mode_of(directory) == 0o755

    @pytest.mark.parametrize("mode", [0o777, 0o702, 0o770])
    def test_a_directory_that_others_may_write_in_is_refused(self, directory, mode):
        directory.mkdir()
        directory.chmod(mode)
        with pytest.raises(
            ConfigurationError, match=r"others may write in .*: chmod go-w "
        ) as said:
            ensure_certificates(directory)
        assert not list(directory.iterdir())
        subprocess.run(f"chmod {str(said.value).partition('chmod ')[2]}", shell=True, check=True)
        ensure_certificates(directory)

    def test_a_directory_in_which_nobody_can_touch_files_of_others_is_taken(self, directory):
        directory.mkdir()
        directory.chmod(0o1777)
        ensure_certificates(directory)

    def test_a_file_in_the_place_of_the_directory_is_one_clear_line(self, directory):
        directory.write_bytes(b"")
        with pytest.raises(ConfigurationError, match="is not a directory"):
            ensure_certificates(directory)

    def test_an_error_of_the_system_names_the_file(self, directory):
        ensure_certificates(directory)
        (directory / "server.pem").unlink()
        (directory / "server.pem").mkdir()
        with pytest.raises(ConfigurationError, match=r"server\.pem: Is a directory"):
            ensure_certificates(directory)

    def test_a_write_that_fails_leaves_the_old_files_and_no_other(self, directory, monkeypatch):
        ensure_certificates(directory)
        before = contents(directory)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="No space left"):
            ensure_certificates(directory, force=True)
        assert contents(directory) == before

    def test_leftovers_of_a_killed_run_are_cleared(self, directory):
        ensure_certificates(directory)
        leftover = directory / ".server-key.pem.tmp"
        leftover.write_bytes(b"half a key")
        ensure_certificates(directory, force=True)
        assert not leftover.exists()
        handshake(directory)

    def test_a_run_that_died_between_key_and_certificate_is_mended_by_the_next(
        self, directory, monkeypatch
    ):
        ensure_certificates(directory)
        write = pair_files._write_atomically

        def dies(path, data, mode):
            if path.name == "server.pem":
                raise KeyboardInterrupt
            write(path, data, mode)

        with monkeypatch.context() as patch:
            patch.setattr(pair_files, "_write_atomically", dies)
            with pytest.raises(KeyboardInterrupt):
                ensure_certificates(directory, force=True)
        entry = entry_of(ensure_certificates(directory), "server")
        assert entry.reason == "server-key.pem did not match server.pem"
        handshake(directory)


class TestTwoAtOnce:
    def test_threads_take_turns(self, directory):
        together = threading.Barrier(4)
        reports = []

        def run():
            together.wait(10)
            reports.append(ensure_certificates(directory, clients=["pump"]))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(report.changed for report in reports) == [False, False, False, True]
        handshake(directory, client="client-pump")

    def test_processes_take_turns(self, directory):
        # Each renews everything: whoever came between another's key and certificate would show.
        program = (
            "import sys\n"
            "from securews.certificates.dev_certificates import ensure_certificates\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "for _ in range(5):\n"
            "    ensure_certificates(sys.argv[1], clients=['pump'], force=True)\n"
        )
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", program, directory],
                        cwd=Path(securews.__file__).parents[1],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                for _ in range(3)
            ]
            for process in processes:
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in processes:
                process.communicate(timeout=30)
                assert process.returncode == 0
        assert {path.suffix for path in directory.iterdir()} <= {".pem", ".lock"}
        handshake(directory, client="client-pump")


class TestWrongArguments:
    @pytest.mark.parametrize(
        "host",
        ["", "http://pi.local", "pi.local:8443", "a b", "-a", "1.2.3.400", "bücher.example",
         "*.test", "a..b", "a" * 64, ".".join(["abcdefgh"] * 30), "fe80::1%eth0", "0.0.0.0", "::"],
    )  # fmt: skip
    def test_a_host_that_is_none_is_refused(self, directory, host):
        with pytest.raises(ConfigurationError, match="host"):
            ensure_certificates(directory, [host])
        assert not directory.exists()

    @pytest.mark.parametrize(
        "name",
        ["", "a/b", "../a", ".hidden", "a b", "a\n", "a\0", "-", "a@b@c", "@", "ä", "a" * 65,
         "pump-key", "CON:"],
    )  # fmt: skip
    def test_a_client_name_that_is_no_file_name_is_refused(self, directory, name):
        with pytest.raises(ConfigurationError, match="client name"):
            ensure_certificates(directory, clients=[name])
        assert not directory.exists()

    @pytest.mark.parametrize("days", [0, -1, 825])
    def test_days_out_of_range_are_refused(self, directory, days):
        with pytest.raises(ConfigurationError, match="1 to 824 days"):
            ensure_certificates(directory, days=days)
        assert not directory.exists()

    @pytest.mark.parametrize("host", ["*.lab.example", "my_service", "xn--bcher-kva.example"])
    def test_wildcards_and_container_names_are_hosts(self, host):
        assert dev_certificates.checked_host(host) == host
