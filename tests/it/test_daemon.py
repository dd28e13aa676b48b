"""dmsrd as a program: options and exit codes."""
import subprocess

from conftest import BUILD


def run(*args):
    return subprocess.run([BUILD / "dmsrd", *args], capture_output=True, text=True, timeout=20, check=False)


def test_version_and_help():
    version = run("--version")
    assert version.returncode == 0 and version.stdout.startswith("dmsrd ")
    usage = run("--help")
    assert usage.returncode == 0 and "--version" in usage.stdout


def test_unknown_option_is_usage():
    r = run("--no-such-option")
    assert r.returncode == 2 and "no-such-option" in r.stderr
