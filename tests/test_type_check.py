"""The ratchet of type errors: counts per package may fall, never rise."""

import json

import pytest
import type_check


@pytest.fixture
def ratchet(tmp_path, monkeypatch):
    """A function that checks these errors (package -> count) against allowed ones: (exit code, the file afterwards)."""

    def run(errors: dict[str, int], allowed: dict[str, int], *, lower: bool = False) -> tuple[int, dict[str, int]]:
        file = tmp_path / "scripts" / "type_errors.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(allowed))
        at = {"start": {"line": 4}}
        listed = [
            {"file": str(tmp_path / "study" / name), "range": at, "message": "no such\n  attribute", "rule": "a rule"}
            for name, count in errors.items()
            for _ in range(count)
        ]
        monkeypatch.setattr(type_check, "ROOT", tmp_path)
        monkeypatch.setattr(type_check, "ALLOWED", file)
        monkeypatch.setattr(type_check, "diagnostics", lambda: listed)
        code = type_check.main(lower)
        return code, json.loads(file.read_text())

    return run


def test_as_many_as_allowed_pass(ratchet):
    """Old errors do not stop new work."""
    assert ratchet({"figures/style.py": 2}, {"figures": 2}) == (0, {"figures": 2})


@pytest.mark.parametrize("lower", [False, True])
def test_one_more_fails_and_is_shown(ratchet, capsys, lower):
    """With file, line, message; --ratchet never raises a count."""
    assert ratchet({"figures/style.py": 3, "runs/x.py": 1}, {"figures": 2, "runs": 2}, lower=lower)[0] == 1
    out = capsys.readouterr().out
    assert "study/figures/style.py:5: no such attribute (a rule)" in out
    assert "study/figures: 3 type errors, 2 are allowed" in out
    assert json.loads(type_check.ALLOWED.read_text())["figures"] == 2


def test_a_new_package_begins_without_errors(ratchet):
    """What is not in the file has none."""
    assert ratchet({"errors.py": 1}, {})[0] == 1


def test_fewer_are_written_down_when_asked(ratchet, capsys):
    """Without --ratchet the check passes and says how."""
    assert ratchet({"figures/style.py": 1}, {"figures": 2, "runs": 1}) == (0, {"figures": 2, "runs": 1})
    assert "scripts/check --ratchet" in capsys.readouterr().out
    assert ratchet({"figures/style.py": 1}, {"figures": 2, "runs": 1}, lower=True) == (0, {"figures": 1})


def test_public_packages_are_allowed_no_error():
    """Whoever imports them checks own code against their types."""
    allowed = json.loads(type_check.ALLOWED.read_text(encoding="utf-8"))
    assert not set(allowed) & set(type_check.PUBLIC)
