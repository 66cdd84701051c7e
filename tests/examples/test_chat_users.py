import json
import stat
import sys
import threading
import time

import pytest

import securews
from examples.chat import passwords
from examples.chat.private_files import create_private, read_private, write_private
from examples.chat.users import Users

GOOD = "correct horse"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "users.json"


def test_a_user_logs_in_with_the_right_password_and_no_other(path):
    users = Users(path)
    users.set_password("alice", GOOD)
    assert users.check_password("alice", GOOD) == "alice"
    assert users.check_password("alice", GOOD + " ") is None
    assert users.check_password("bob", GOOD) is None
    assert users.check_password("", "") is None


def test_names_have_no_case_and_no_room_for_lookalikes(path):
    users = Users(path)
    assert users.set_password(" Alice ", GOOD) == "alice"
    assert users.check_password("ALICE", GOOD) == "alice"
    for name in ("", "-alice", "al ice", "\N{CYRILLIC SMALL LETTER A}lice", "a" * 33, "<b>"):
        with pytest.raises(ValueError, match="a name is 1 to 32"):
            users.set_password(name, GOOD)


def test_a_password_has_a_sensible_length(path):
    users = Users(path)
    for password in ("", "short one", "x" * 257):
        with pytest.raises(ValueError, match="10 to 256 characters"):
            users.set_password("alice", password)
    users.set_password("alice", "x" * 256)
    assert users.check_password("alice", "x" * 257) is None


def test_the_same_password_typed_on_another_system_fits(path):
    users = Users(path)
    users.set_password("alice", "cafe\N{COMBINING ACUTE ACCENT} au lait")
    assert users.check_password("alice", "caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait")


def test_half_a_surrogate_pair_is_a_wrong_password_and_no_error(path):
    users = Users(path)
    users.set_password("alice", GOOD)
    assert users.check_password("alice", "\ud800" + GOOD) is None


def test_the_file_is_private_and_holds_no_password(path):
    Users(path).set_password("alice", GOOD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert GOOD not in path.read_text()


def test_equal_passwords_have_different_hashes(path):
    users = Users(path)
    users.set_password("alice", GOOD)
    users.set_password("bob", GOOD)
    kept = json.loads(path.read_text())
    assert kept["alice"]["password"]["hash"] != kept["bob"]["password"]["hash"]


def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(path):
    Users(path).set_password("alice", GOOD)
    path.chmod(0o640)
    with pytest.raises(securews.ConfigurationError, match=f"chmod 600 {path}"):
        Users(path).check_password("alice", GOOD)


def test_a_file_that_is_no_json_is_refused_in_one_line(path):
    path.parent.mkdir()
    write_private(path, b"{oops")
    with pytest.raises(securews.ConfigurationError, match="is not a file of users"):
        Users(path).names()


def test_a_running_server_sees_users_that_another_process_adds(path):
    server, command_line = Users(path), Users(path)
    assert server.check_password("alice", GOOD) is None
    command_line.set_password("alice", GOOD)
    assert server.check_password("alice", GOOD) == "alice"
    command_line.set_password("alice", "another one")
    assert server.check_password("alice", GOOD) is None


def test_a_new_password_and_a_log_out_each_begin_a_new_generation(path):
    users = Users(path)
    assert users.generation("alice") is None
    generations = []
    users.set_password("alice", GOOD)
    generations.append(users.generation("alice"))
    users.end_sessions("alice")
    generations.append(users.generation("alice"))
    users.set_password("alice", GOOD)
    generations.append(users.generation("alice"))
    assert len(set(generations)) == 3
    assert users.check_password("alice", GOOD) == "alice"


def test_ending_the_sessions_of_nobody_adds_nobody(path):
    users = Users(path)
    users.end_sessions("ghost")
    assert users.names() == []


def test_many_writers_lose_no_user(path):
    names = [f"user-{number}" for number in range(8)]
    threads = [
        threading.Thread(target=Users(path).set_password, args=(name, GOOD)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Users(path).names() == names


CHEAP = {
    "argon2id": {"memory": 64, "passes": 1, "lanes": 1},
    "scrypt": {"n": 16, "r": 8, "p": 1},
}


def set_hashed_by(users, name, function, monkeypatch):
    if function == "argon2id" and not passwords._HAVE_ARGON2ID:
        pytest.skip("this build of cryptography has no Argon2id")
    monkeypatch.setattr(passwords, "_PREFERRED", (function, CHEAP[function]))
    users.set_password(name, GOOD)


@pytest.mark.promise(37)
def test_whoever_is_asked_for_each_function_in_the_file_is_gone_through(path, monkeypatch):
    """Else the time that an answer takes tells who exists, or whose hash is an old one."""
    users = Users(path)
    for name, function in (("alice", "argon2id"), ("bob", "scrypt"), ("carol", "scrypt")):
        set_hashed_by(users, name, function, monkeypatch)
    hashed = []

    def counted(password, kept):
        hashed.append(passwords.cost_of(kept))
        return passwords.password_fits(password, kept)

    monkeypatch.setattr("examples.chat.users.password_fits", counted)
    for name, password in (
        ("alice", "wrong wrong"),
        ("bob", "wrong wrong"),
        ("nobody", GOOD),
        ("alice", "x" * 999),
        ("alice", GOOD),
        ("carol", GOOD),
    ):
        hashed.clear()
        right = password == GOOD and name != "nobody"
        assert users.check_password(name, password) == (name if right else None)
        assert sorted(str(cost[0]) for cost in hashed) == ["argon2id", "scrypt"], name


def test_the_password_of_another_user_is_none(path):
    users = Users(path)
    users.set_password("alice", GOOD)
    users.set_password("bob", "another one")
    assert users.check_password("alice", "another one") is None
    assert users.check_password("bob", GOOD) is None


def test_a_hash_that_cannot_be_checked_here_keeps_nobody_else_out(path, monkeypatch):
    users = Users(path)
    set_hashed_by(users, "alice", "argon2id", monkeypatch)
    set_hashed_by(users, "bob", "scrypt", monkeypatch)
    monkeypatch.setattr(passwords, "_HAVE_ARGON2ID", False)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.argon2", None)
    assert users.check_password("bob", GOOD) == "bob"
    assert users.check_password("nobody", GOOD) is None
    with pytest.raises(ImportError):
        users.check_password("alice", GOOD)


@pytest.mark.parametrize(
    ("version", "function"),
    [("43.0.3", "scrypt"), ("49.0.0", "scrypt"), ("50.0.0", "argon2id"), ("51.1", "argon2id")],
)
def test_argon2id_is_for_a_cryptography_that_gives_the_gil_up(monkeypatch, version, function):
    monkeypatch.setattr(passwords, "_HAVE_ARGON2ID", True)
    assert passwords._preferred(version)[0] == function


def test_without_argon2id_it_is_scrypt_whatever_the_version(monkeypatch):
    monkeypatch.setattr(passwords, "_HAVE_ARGON2ID", False)
    assert passwords._preferred("50.0.0")[0] == "scrypt"


@pytest.mark.parametrize("preferred", [passwords._PREFERRED, ("scrypt", passwords._SCRYPT_COSTS)])
def test_other_threads_run_while_a_password_is_hashed(monkeypatch, preferred):
    monkeypatch.setattr(passwords, "_PREFERRED", preferred)
    thread = threading.Thread(target=passwords.hash_password, args=(GOOD,))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 10  # two or three, were the GIL kept


KEPT = [
    {
        "function": "argon2id",
        "costs": CHEAP["argon2id"],
        "salt": "G/QylgI1fMjQUJ6lhVeO/g==",
        "hash": "g0R8e/ykZ0AwO2uirFM/k4zi+2D7RNbkm/8IkxDY2fc=",
    },
    {
        "function": "scrypt",
        "costs": CHEAP["scrypt"],
        "salt": "wKDL6K/m5/Qh6ghAbNH1FQ==",
        "hash": "UnKBPiFtBnXSBi4BC5wlcqe0KNEhFsTQUdz85WpR5ts=",
    },
]


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept["function"])
def test_hashes_that_were_kept_by_an_older_version_fit(kept):
    if not passwords.can_check(kept):
        pytest.skip("this build of cryptography has no Argon2id")
    assert passwords.password_fits("caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait", kept)
    assert not passwords.password_fits("wrong wrong", kept)


def test_an_unknown_hash_function_is_an_error_and_no_wrong_password():
    kept = passwords.hash_password(GOOD)
    kept["function"] = "md5"
    with pytest.raises(ValueError, match="unknown password hash function 'md5'"):
        passwords.password_fits(GOOD, kept)


def test_a_private_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "secret"
    assert read_private(path) is None
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path) == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_who_creates_a_private_file_second_leaves_the_first_alone(tmp_path):
    path = tmp_path / "secret"
    create_private(path, b"one")
    create_private(path, b"two")
    assert read_private(path) == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
