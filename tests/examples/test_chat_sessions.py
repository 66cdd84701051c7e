import stat

import pytest
from cryptography.fernet import Fernet
from support import Clock

import securews
from examples.chat.sessions import COOKIE, COOKIE_AGE, LOGIN_AGE, TOKEN_AGE, Sessions
from examples.chat.users import Users

START = 1_800_000_000


@pytest.fixture
def clock():
    return Clock(START)


@pytest.fixture
def users(tmp_path):
    users = Users(tmp_path / "users.json")
    users.set_password("alice", "correct horse")
    return users


@pytest.fixture
def sessions(tmp_path, users, clock):
    return Sessions(tmp_path / "session-key", users, clock=clock)


def test_a_cookie_says_who_it_is_and_shows_nothing(sessions):
    sealed = sessions.seal(sessions.begin("alice"), "cookie")
    assert sessions.check(sealed, "cookie").name == "alice"
    assert "alice" not in sealed


def test_nobody_logs_in_who_is_no_user(sessions):
    with pytest.raises(ValueError, match="there is no user 'bob'"):
        sessions.begin("bob")


@pytest.mark.parametrize("sealed", ["", "x", "gAAAA", "é", "\ud800", "A" * 5000])
def test_nonsense_is_no_session(sessions, sealed):
    assert sessions.check(sealed, "cookie") is None


def test_a_changed_cookie_is_no_session(sessions):
    sealed = sessions.seal(sessions.begin("alice"), "cookie")
    for at in (0, 10, len(sealed) // 2, len(sealed) - 10):
        changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
        assert sessions.check(changed, "cookie") is None


def test_a_cookie_of_another_key_is_no_session(sessions, users, tmp_path, clock):
    other = Sessions(tmp_path / "other-key", users, clock=clock)
    assert sessions.check(other.seal(other.begin("alice"), "cookie"), "cookie") is None


def test_a_cookie_is_no_token_and_a_token_no_cookie(sessions):
    session = sessions.begin("alice")
    assert sessions.check(sessions.seal(session, "cookie"), "token") is None
    assert sessions.check(sessions.seal(session, "token"), "cookie") is None
    assert sessions.check(sessions.seal(session, "token"), "token") == session


@pytest.mark.parametrize(("purpose", "age"), [("cookie", COOKIE_AGE), ("token", TOKEN_AGE)])
def test_it_lasts_its_time_and_no_longer(sessions, clock, purpose, age):
    sealed = sessions.seal(sessions.begin("alice"), purpose)
    clock.now += age
    assert sessions.check(sealed, purpose) is not None
    clock.now += 1
    assert sessions.check(sealed, purpose) is None


def test_renewing_goes_on_until_the_login_is_too_old(sessions, clock):
    session = sessions.begin("alice")
    while clock.now - START + COOKIE_AGE <= LOGIN_AGE:
        sealed = sessions.seal(session, "cookie")
        clock.now += COOKIE_AGE
        session = sessions.check(sealed, "cookie")
        assert session is not None
    assert session.since == START
    sealed = sessions.seal(session, "cookie")
    clock.now = START + LOGIN_AGE + 1
    assert sessions.check(sealed, "cookie") is None


@pytest.mark.promise(20)
def test_logging_out_ends_every_cookie_and_token(sessions, users):
    session = sessions.begin("alice")
    sealed = [sessions.seal(session, "cookie"), sessions.seal(session, "token")]
    users.end_sessions("alice")
    assert sessions.check(sealed[0], "cookie") is None
    assert sessions.check(sealed[1], "token") is None
    assert not sessions.stands(session)


def test_a_cookie_renewed_while_its_user_logs_out_does_not_come_back_to_life(sessions, users):
    session = sessions.begin("alice")  # a page has checked this one
    users.end_sessions("alice")
    renewed = sessions.seal(session, "cookie")
    assert sessions.check(renewed, "cookie") is None


def test_a_session_outlives_the_server(sessions, users, tmp_path, clock):
    sealed = sessions.seal(sessions.begin("alice"), "cookie")
    after = Sessions(tmp_path / "session-key", Users(tmp_path / "users.json"), clock=clock)
    assert after.check(sealed, "cookie").name == "alice"


@pytest.mark.promise(36)
def test_the_cookie_is_bound_to_this_host_and_hidden_from_scripts(sessions):
    headers = securews.Headers()
    sessions.set_cookie(headers, sessions.begin("alice"))
    name, _, rest = headers["Set-Cookie"].partition("=")
    assert name == COOKIE == "__Host-chat"
    assert rest.split("; ")[1:] == [
        "Path=/",
        f"Max-Age={COOKIE_AGE}",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
    ]


def test_the_key_is_private_and_made_once(sessions, tmp_path, users):
    path = tmp_path / "session-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    Sessions(path, users)
    assert path.read_bytes() == before


def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path, users):
    path = tmp_path / "session-key"
    path.write_bytes(Fernet.generate_key())
    path.chmod(0o644)
    with pytest.raises(securews.ConfigurationError, match=f"chmod 600 {path}"):
        Sessions(path, users)


def test_a_file_that_holds_no_key_is_refused_in_one_line(tmp_path, users):
    path = tmp_path / "session-key"
    path.touch(mode=0o600)
    with pytest.raises(securews.ConfigurationError, match="does not hold a key; remove it"):
        Sessions(path, users)
