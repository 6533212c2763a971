"""What is installed from the wheel, away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's files, and nothing of the checkout."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tool")
    if uv is None:
        pytest.skip("no uv to build the wheel with")
    folder = tmp_path_factory.mktemp("wheel")
    build = [uv, "build", "--wheel", "--out-dir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    if "hatchling" in done.stderr and done.returncode:
        pytest.skip("hatchling, which builds the wheel, can be installed from nowhere")
    assert not done.returncode, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def study(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    """The command of the installed package."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    environment.pop("STUDY_ROOT", None)
    command = [sys.executable, "-P", "-m", "study", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_every_recipe(installed):
    """Byte for byte; what lies in the package and is no Python is there too."""
    recipes = [file for file in sorted((ROOT / "recipes").rglob("*.toml")) if not file.stem.endswith("_best")]
    assert len(recipes) >= 60
    for file in recipes:
        shipped = installed / "study" / "shipped_recipes" / file.relative_to(ROOT / "recipes")
        assert shipped.read_bytes() == file.read_bytes()
    for name in ("report/template.html", "kernels/native/mlp.cpp"):
        assert (installed / "study" / name).exists()
    assert not (installed / "tests").exists()


def test_shipped_recipes_are_listed_and_found(installed, tmp_path):
    """By the names that the list and the documentation use."""
    done = study(installed, tmp_path, "recipes")
    assert re.search(r"^ ?digits/study\.toml", done.stdout, re.MULTILINE), done.stderr
    done = study(installed, tmp_path, "check", "digits/study.toml", "recipes/digits/study.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(installed) in done.stdout


def test_the_default_recipe_is_the_shipped_one(installed, tmp_path):
    """`study plan` is the first command of a newcomer."""
    done = study(installed, tmp_path, "plan")
    assert done.stdout.startswith("ensemble: "), done.stderr
    assert "to begin: study run recipes/digits/study.toml" in done.stderr


def test_a_recipe_here_goes_before_the_shipped_one(installed, tmp_path):
    """Who has copied a recipe to change it means the copy."""
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "study.toml").write_text("[data]\nname = 'digits'\n[optimiser]\n")
    done = study(installed, tmp_path, "check", "digits/study.toml")
    assert (done.returncode, done.stdout[:24]) == (2, "FAULT digits/study.toml:")


def test_the_winner_of_a_shipped_search_is_written_here(monkeypatch, tmp_path):
    """Not into the installation, and whole: a base there would move with it."""
    from study import recipe
    from study.recipe import load
    from study.search import winner

    monkeypatch.setattr(winner, "SHIPPED", ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    path = ROOT / "recipes" / "digits" / "search.toml"
    out = winner.place(None, path, "a search")
    assert out == Path("search_best.toml")
    text = winner.write(out, path, load(path), ["the winner"], "a search")
    assert "base =" not in text
    assert recipe.load(out).data.name == "digits"
