"""Recipes that nobody should train: each is refused in a second, in one line, whatever a file or a shell can hold."""

import os
import time

import pytest

import study.models.build
import study.search.run  # noqa: F401  imports take longer than checks
from study.errors import RecipeError, StudyError
from study.recipe import load
from study.recipe.bounds import bounded
from study.recipe.load import recipe_files
from study.workflows import preflight

DEEP = "[" * 3000
BAD = [
    "train.epochs=1180591620717411303424",
    "train.epochs=1000000000",
    "train.epochs=1e9",
    "train.epochs=-1",
    "train.steps=1000000000000",
    "train.steps=1e12",
    "train.batch_size=1099511627776",
    "train.input_noise=1e300",
    "train.input_noise=nan",
    "train.adversarial=inf",
    "train.pad=1000",
    "subset.members=1000000000",
    "subset.members=1000000000000000000000",
    "subset.ratios=[0.1, 0.1]",
    "subset.ratios=[nan]",
    f"subset.ratios={list(range(20_000))}",
    "runtime.stack=1099511627776",
    "runtime.threads=1000000",
    "runtime.shard=0",
    "runtime.device=cuda:99999999999999999999",
    "runtime.device=cuda:\n0",
    "optimizer.lr=1e300",
    "optimizer.lr=-0.1",
    "optimizer.weight_decay=1e300",
    "optimizer.eps=0",
    f"seed={'9' * 5000}",
    "seed=9223372036854775808",
    "schedule={name='step', milestones=[1000000000000]}",
    "schedule={name='step', milestones=[nan]}",
    f"schedule={{name='step', milestones={list(range(1, 20_000))}}}",
    f"model.settings.widths={[8] * 3000}",
    f"model.settings.widths={DEEP}",
    f"model.settings.widths={DEEP}{']' * 3000}",
    "model.settings.depth=1180591620717411303424",
    f"model.name={'x' * 20_000}",
    "model.name=a\x1b[2Jb",
    f"{'model.' * 3000}name=mlp",
    "model={name='mlp', settings={a={b={c=1}}}}",
    f"data.label={'x' * 300}",
    "data.label=  ",
    "data.label=a\x1bb",
    'data.label="a\\nb"',
    "data.label='a\u202eb'",
    "data.root=~nosuchuser/images",
    f"data.root=/{'x' * 300}",
    f"data.root={'/x' * 3000}",
    "data.root=a\x00b",
    "data.train=a\x07b",
    "data.size=1099511627776",
    "data.limit=1000000000000",
    f"data.classes={['c'] * 20_000}",
    f"noise={{labels='human', file='{'x' * 300}.npz', column='a'}}",
    f"why={'x' * 20_000}",
    "why=\x1b]0;title\x07",
    "single.repeats=1000",
    "single.evaluate_every=1000000000000",
    "single.train.epochs=1000000000000",
    "single.train={epochs={a=1}}",
    "proxies={cbtl={x=1180591620717411303424}}",
    f"signals={{a={{b='{'x' * 20_000}'}}}}",
    "search.trials=1000000000000",
    "search.keep=0",
    "search.members=1000000",
    "search.warmup=1000000000000",
    f"search.rounds={[{}] * 30}".replace(": ", "="),
    "search.space={'optimizer.lr'={low=0.1, high=inf}}",
    "search.space={'optimizer.lr'={low=nan, high=1.0}}",
    "search.space={'optimizer.lr'={low=0.1, high=1.0, step=0}}",
    "search={sampler='grid', space={'optimizer.lr'={low=0.1, high=1.0, step=1e-12}}}",
    "search={sampler='grid', space={'model.settings.a'={low=0, high=999}, 'model.settings.b'={low=0, high=999}}}",
    "search.space={" + ", ".join(f"a{index}={{choices=[1, 2]}}" for index in range(200)) + "}",
    "search.space={'optimizer.lr'={choices=[[[[[[[[[[[1]]]]]]]]]]]}}",
]


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("[data]\nname = 'digits'\n")
    return file


def refused(function, *arguments) -> str:
    """The message, which came within a second and has one line without control characters."""
    start = time.process_time()
    with pytest.raises(StudyError) as caught:
        function(*arguments)
    assert time.process_time() - start < 1.0
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("override", BAD, ids=lambda text: text[:40].encode("unicode_escape").decode())
def test_a_value_out_of_bounds_is_refused_in_a_second(recipe, override):
    """Before this a thousand members of a thousand times the size began to train, and others ended in a traceback."""

    def check() -> None:
        ((_, fault),) = preflight.check_all([recipe], [override])
        if fault:
            raise RecipeError(fault)

    refused(check)


@pytest.mark.parametrize(
    "content",
    [
        b"base = 'a\\u0000b'",
        b"base = '/dev/zero'",
        b"base = '.'",
        b"base = '" + b"x" * 5000 + b"'",
        b"base = 'fifo'",
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 100_000,
        b"a." * 100_000 + b"b = 1",
        b"#" * 2_000_000,
        b"\xff\xfe",
        b"[data]\nname = 'digits'\n[data]",
        b"[data]\nname = 2024-01-31",
    ],
    ids=lambda content: content[:24].decode("ascii", "replace"),
)
def test_a_file_out_of_bounds_is_refused_in_a_second(tmp_path, content):
    """Also what has no end: a device, a FIFO."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "recipe.toml").write_bytes(content)
    refused(load, tmp_path / "recipe.toml")


@pytest.mark.parametrize("name", ["/dev/zero", "fifo", "x" * 5000, "a\x00b", "."])
def test_a_path_to_no_regular_file_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    refused(load, tmp_path / name)


def test_folders_within_folders_have_an_end(tmp_path):
    """A tree of 3,000 folders, or links that lead back to it."""
    inside = tmp_path / "/".join("abcdefghijklmnopqrstuvwxyz")
    inside.mkdir(parents=True)
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert "more than 20 deep" in refused(recipe_files, [tmp_path])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.root=2024", "2024"),
        ("data.label=2024-01-31", "2024-01-31"),
        ("data.root='007'", "007"),
        ("why=1e3", "1e3"),
    ],
)
def test_a_number_or_a_date_can_be_text_on_the_command_line(recipe, override, value):
    """Folders are called so, and a shell eats the quotes."""
    name = override.partition("=")[0].split(".")
    section = load(recipe, [override])
    for part in name:
        section = getattr(section, part)
    assert section == value


def test_text_of_all_scripts_is_text():
    bounded("größer, 猫, ‎עברית, नमस्ते, 👩‍👧")
