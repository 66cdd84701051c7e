"""The command gen-dev-certs: what it prints, and with which exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import securews
from securews.cli.main import main

ROOT = Path(securews.__file__).parents[1]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current directory, a known machine and no $SECUREWS_CERTS."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECUREWS_CERTS", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "workbench")


@pytest.fixture
def gen(capsys):
    """Run the command; (exit code, lines of stdout, stderr)."""

    def run(*arguments):
        code = main(["gen-dev-certs", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


class TestWhatItSays:
    def test_what_was_made_and_when_it_expires(self, gen):
        code, out, err = gen("--client", "pump")
        assert (code, err) == (0, "")
        first, second, third = out[:3]
        assert first.startswith("made     certs/ca.pem and ca-key.pem, valid until 20")
        assert second.startswith(
            "made     certs/server.pem and server-key.pem for localhost 127.0.0.1 ::1 workbench, "
            "valid until 20"
        )
        assert third.startswith("made     certs/client-pump.pem and client-pump-key.pem")

    def test_how_to_trust_the_authority_everywhere(self, gen):
        text = "\n".join(gen()[1])
        for where in ("curl", "Python", "Node", "Firefox", "Chrome", "macOS", "Windows", "Debian"):
            assert f"\n  {where} " in text
        assert str(Path("certs/ca.pem").resolve()) in text
        assert "No trust store was touched" in text

    def test_a_path_with_a_space_can_be_pasted(self, gen):
        out = gen("--out", "my certs")[1]
        path = Path("my certs/ca.pem").resolve()
        assert f"  curl      curl --cacert '{path}' https://localhost:8443/" in out

    def test_nothing_to_do_on_the_second_run(self, gen):
        gen("--client", "pump")
        code, out, _ = gen("--client", "pump")
        assert code == 0
        assert [line.split()[0] for line in out[:3]] == ["kept"] * 3
        assert out[3] == "Nothing to do: all of them are good."

    def test_a_new_host(self, gen):
        gen()
        _, out, _ = gen("--host", "pi.local")
        assert out[0].startswith("kept ")
        assert out[1].startswith("renewed ")
        assert "workbench pi.local, valid" in out[1]
        assert out[1].endswith("(pi.local was not in it)")

    def test_under_fourteen_days_left(self, gen):
        gen("--days", "10")
        assert gen()[1][1].endswith("(9 days were left)")

    def test_a_key_that_does_not_match(self, gen):
        gen()
        Path("certs/server-key.pem").write_bytes(Path("certs/ca-key.pem").read_bytes())
        line = gen()[1][1]
        assert line.startswith("renewed ")
        assert line.endswith("(server-key.pem did not match server.pem)")

    def test_a_truncated_pem(self, gen):
        gen("--client", "pump")
        path = Path("certs/client-pump.pem")
        path.write_bytes(path.read_bytes()[:100])
        line = gen()[1][2]
        assert line.startswith("renewed ")
        assert line.endswith("(client-pump.pem was truncated or damaged)")

    def test_the_authority_key_lost(self, gen):
        gen()
        Path("certs/ca-key.pem").unlink()
        out = gen()[1]
        assert out[0].endswith("(ca-key.pem was lost, and without it nothing can be signed)")
        assert out[1].endswith("(another authority signed it)")
        assert out[2] == "The CA is new: whoever trusted the old one has to trust this one."

    def test_a_key_that_others_may_read(self, gen):
        gen()
        Path("certs/server-key.pem").chmod(0o644)
        line = gen()[1][1]
        assert line.startswith("mended ")
        assert line.endswith(
            "(server-key.pem had mode 0644 and has 0600 now; others could read it)"
        )

    def test_force(self, gen):
        gen()
        out = gen("--force")[1]
        assert [line.split()[0] for line in out[:2]] == ["kept", "renewed"]


class TestWhere:
    def test_the_folder_that_serve_looks_in(self, gen, monkeypatch):
        monkeypatch.setenv("SECUREWS_CERTS", "elsewhere")
        gen()
        assert Path("elsewhere/server.pem").exists()
        assert not Path("certs").exists()

    def test_out_goes_first(self, gen, monkeypatch):
        monkeypatch.setenv("SECUREWS_CERTS", "elsewhere")
        gen("--out", "deep/here")
        assert Path("deep/here/server.pem").exists()
        assert not Path("elsewhere").exists()


class TestWrongUse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--client", "../x"], "client name '../x'"),
            (["--host", "https://pi.local/"], "host 'https://pi.local/'"),
            (["--days", "0"], "1 to 824 days"),
            (["--days", "soon"], "invalid int value: 'soon'"),
            (["--frce"], "unrecognized arguments: --frce"),
            (["--host"], "expected one argument"),
        ],
    )
    def test_one_line_and_exit_code_2(self, gen, arguments, says):
        code, out, err = gen(*arguments)
        assert (code, out) == (2, [])
        assert err.startswith("securews: ")
        assert says in err
        assert err.count("\n") == 1
        assert not Path("certs").exists()

    def test_a_file_in_the_way_is_one_line_and_exit_code_1(self, gen):
        Path("certs").write_bytes(b"")
        assert gen() == (1, [], "securews: certs is not a directory\n")


class TestStarting:
    @pytest.mark.parametrize(
        "command",
        [[sys.executable, "-m", "securews", "gen-dev-certs"], [ROOT / "scripts" / "gen-dev-certs"]],
        ids=["module", "script"],
    )
    def test_works_from_another_directory(self, command, tmp_path):
        # fmt: off
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # fmt: on
        result = subprocess.run(
            [*command, "--client", "pump"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("made     certs/ca.pem")
        assert (tmp_path / "certs" / "client-pump-key.pem").exists()

    def test_the_script_says_what_is_missing(self, tmp_path):
        script = tmp_path / "scripts" / "gen-dev-certs"  # a checkout without .venv
        script.parent.mkdir()
        script.write_bytes((ROOT / "scripts" / "gen-dev-certs").read_bytes())
        script.chmod(0o755)
        fake = tmp_path / "bin" / "python3"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\nexit 1\n")
        fake.chmod(0o755)
        result = subprocess.run(
            [script],
            env={"PATH": f"{fake.parent}:/usr/bin:/bin"}, capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        assert result.returncode == 1
        assert result.stderr.startswith("securews: python3 is no Python 3.11+")
        assert result.stderr.count("\n") == 1
