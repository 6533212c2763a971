"""Changed code never meets old results: versions of the project's own code, hashes of everybody else's."""

import functools
import json
import sys
import textwrap
from pathlib import Path

import pytest
from torch import nn
from toys import toy_recipe

from study import plugins
from study.code_hash import code_hash
from study.models import build
from study.models.registry import NETWORKS
from study.models.spec import network_spec
from study.proxies import PROXIES
from study.recipe import Model
from study.signals import SOURCES, conditions

FILE = Path(__file__).parent / "code_hashes.json"
COMMAND = "python tests/test_code_hashes.py"


def current() -> dict[str, dict[str, str]]:
    """{kind: {name: "version:hash"}} of the project's own networks, proxies and signal sources."""
    build.names()
    entries = {
        "networks": {name: (each.version, each.build) for name, each in NETWORKS.items() if each.project},
        "proxies": {name: (each.version, each.function) for name, each in PROXIES.items()},
        "signals": {name: (each.version, each.function) for name, each in SOURCES.items()},
    }
    package = {"networks": "study.models", "proxies": "study.proxies", "signals": "study.signals"}
    return {
        kind: {
            name: f"{version}:{code_hash(code, package[kind])}"
            for name, (version, code) in sorted(of_kind.items())
            if code.__module__.split(".")[0] == "study"
        }
        for kind, of_kind in entries.items()
    }


def test_a_change_of_code_has_a_new_version():
    """Finished runs are found again by name and version alone."""
    committed, now = json.loads(FILE.read_text()), current()
    assert sum(map(len, now.values())) > 50
    changed = [
        f"{kind}/{name}"
        for kind in now
        for name in sorted({*now[kind], *committed[kind]})
        if now[kind].get(name) != committed[kind].get(name)
    ]
    assert not changed, (
        f"the code of {', '.join(changed)} changed. If other numbers come out, raise its `version` where it is "
        f"registered. Then, or if the results are the same, run `{COMMAND}` and commit {FILE.name}"
    )


def define(text: str, name: str = "code") -> object:
    """What a module of this text defines under a name."""
    file = Path(define.folder) / f"module_{define.count}.py"
    define.count += 1
    file.write_text(textwrap.dedent(text))
    plugins._load_file(file)
    return getattr(sys.modules[plugins.module_name(file)], name)


@pytest.fixture(autouse=True)
def folder(tmp_path):
    define.folder, define.count = tmp_path, getattr(define, "count", 0)
    yield
    for file in [file for file in plugins._files if file.startswith(str(tmp_path))]:
        del plugins._files[file]


PLAIN = """
RATE = 3

def helper(x):
    return x * RATE

def code(x):
    return helper(x) + 1
"""


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (PLAIN, True),
        (PLAIN.replace("def helper(x):", 'def helper(x: int) -> int:\n    """Say what."""'), True),
        (PLAIN.replace("x * RATE", "(x\n        * RATE)  # three times"), True),
        (PLAIN.replace("+ 1", "+ 2"), False),
        (PLAIN.replace("x * RATE", "x / RATE"), False),
        (PLAIN.replace("RATE = 3", "RATE = 4"), False),
        (PLAIN.replace("def code(x)", "def code(x=1)"), False),
        (PLAIN + "\nunused = 3\n", True),
    ],
    ids=["equal", "docstring, annotations", "formatting", "body", "helper", "constant", "default", "unused"],
)
def test_the_hash_is_of_what_the_code_does(text, same):
    """Not of how it is written; of what it names, too."""
    assert (code_hash(define(text)) == code_hash(define(PLAIN))) is same


NET = """
from torch import nn

class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 4)

class Net(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.layer, self.head = Layer(36), nn.Linear(4, n_classes)
    def forward(self, images):
        return self.head(self.layer.linear(images.flatten(1)))

def code(n_classes):
    return Net(n_classes)

short = lambda n_classes: Net(n_classes)
"""


@pytest.mark.parametrize("name", ["code", "Net", "short"])
def test_a_builder_covers_the_classes_that_it_builds(name):
    """A function of two lines says little about a network."""
    one, same, other = (
        define(text, name) for text in (NET, NET, NET.replace("Linear(width, 4)", "Linear(width, 4, False)"))
    )
    assert code_hash(one) == code_hash(same)
    assert code_hash(one) != code_hash(other)


def test_code_without_source_is_hashed_by_its_instructions():
    """Typed at a prompt."""

    def run(text):
        space = {"__name__": "prompt"}
        exec(text, space)
        return space["code"]

    assert code_hash(run(NET)) == code_hash(run("\n\n" + NET))
    assert code_hash(run(PLAIN)) != code_hash(run(PLAIN.replace("+ 1", "+ 2")))
    assert code_hash(run(NET.replace("def code", "def other").replace("Net(nn", "code(nn"))) != ""


def test_arguments_of_a_partial_count():
    """functools.partial(Net, width=64) is another network than width=32."""
    net = define(NET, "Net")
    assert code_hash(functools.partial(net, n_classes=3)) != code_hash(functools.partial(net, n_classes=4))


def test_captured_values_count():
    """A function made by a function."""

    def outer(width):
        def inner(image_shape, n_classes):
            return nn.Linear(width, n_classes)

        return inner

    assert code_hash(outer(3)) != code_hash(outer(4))


def test_digests_of_own_networks_know_the_name_alone():
    """Version 1 has the digest that it had before there were versions, so finished runs are found again."""
    assert build.identity(Model(name="resnet8").spec()) == {"name": "resnet8", "settings": {}}
    assert build.identity(Model(name="resnet18").spec()) == {"name": "resnet18", "settings": {}}
    assert toy_recipe().digest() == toy_recipe(model={"settings": {"widths": [16, 8], "init": "torch"}}).digest()
    assert toy_recipe().digest() != toy_recipe(model={"settings": {"widths": [16, 8], "init": "glorot"}}).digest()
    assert build.identity(network_spec(nn.Flatten))["code"]


def test_a_new_version_is_another_digest(monkeypatch):
    """What came out before is not what comes out now."""
    before = toy_recipe().digest()
    monkeypatch.setitem(NETWORKS, "mlp", NETWORKS["mlp"].__class__(**{**vars(NETWORKS["mlp"]), "version": 2}))
    assert toy_recipe().digest() != before


PLUGIN = """
import numpy as np
from study.models.registry import register_model
from study.proxies.registry import Signal, proxy
from study.signals.registry import source
from torch import nn

@proxy(family="density", easy="high", unit="1", label="toy", source="a test")
def toy_proxy(toy_signal):
    \"\"\"Twice the signal.\"\"\"
    return 2.0 * toy_signal

@source(when="last", signals={"toy_signal": Signal(("n",), "mean of the pixels")})
def toy_source(checkpoint):
    return checkpoint.dataset.images.mean(axis=(1, 2, 3))

@register_model("linear", source="a test")
def toy_network(image_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, num_classes))
"""


@pytest.fixture
def registered():
    from study.proxies import SIGNALS

    registries = (NETWORKS, PROXIES, SOURCES, SIGNALS)
    before = [dict(each) for each in registries]

    def load(text):
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)
        define(text, "np")

    yield load
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


def test_a_plugins_code_is_in_digests_and_conditions(registered):
    """A changed network, proxy or source under the same name is computed again."""
    digests, codes = [], []
    for text in (
        PLUGIN,
        PLUGIN.replace("2.0 *", "3.0 *"),
        PLUGIN.replace("mean(ax", "max(ax"),
        PLUGIN.replace("36", "6 * 6"),
    ):
        registered(text)
        recipe = toy_recipe(model={"name": "toy_network", "settings": {}})
        digests.append(recipe.digest())
        codes.append(conditions(PROXIES["toy_proxy"], recipe, 120)["code"])
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert set(codes[0]) == {"proxy", "toy_source"}
    assert codes[0] == codes[3]
    assert codes[1]["proxy"] != codes[0]["proxy"]
    assert codes[2]["toy_source"] != codes[0]["toy_source"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1) + "\n")
