"""Placement by a probe: what is tried, what wins, what is kept, and when nothing is tried at all."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, fit, jobs, members, plain_loop
from torch.func import functional_call, vjp, vmap
from toys import blobs, toy_recipe

from study.errors import RecipeError
from study.recipe import Runtime
from study.runs.jobs import runtime_of, template_of
from study.training import autotune
from study.training.autotune import Rate, TimedWay, cache_file, fastest, name
from study.training.device_data import Examples
from study.training.learners import new_learner
from study.training.placement import Placement, find_devices, place
from study.training.results import Hooks

LONG = 10**15
DATA = blobs(shape=(3, 6, 6))


def place_network(recipe, dataset, seen, **how):
    """The placement of a recipe's members."""
    how = {"snapshots": recipe.subset.depth} | how
    return autotune.place_network(template_of(recipe), dataset, runtime_of(recipe), seen, **how)


def measured_rate(recipe, dataset, placement):
    """The rate of a recipe's network."""
    return autotune.measured_rate(template_of(recipe), dataset, placement)


def convolutional(**runtime):
    """A small network with BatchNorm, everything left open but what is given."""
    table = {"device": "cpu", "precision": "auto"} | runtime
    return toy_recipe(model={"name": "tiny_batchnorm", "settings": {}}, runtime=table)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Two cores, a cache folder of its own, products that gain from bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_rates", {})
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr("study.training.placement.probe", lambda device: ("highest", "bfloat16"))


@pytest.fixture
def tried(monkeypatch):
    """The ways that were measured, in order; `seconds` says how long an example takes in each, 1 unless set."""
    asked, seconds = [], {}

    def measure(template, dataset, placements):
        asked.extend(map(name, placements))
        return {name(way): seconds.get(name(way), Rate(1.0, 0.3)) for way in placements}

    monkeypatch.setattr(autotune, "_measure", measure)
    asked_and = type("Tried", (), {"asked": asked, "seconds": seconds})
    return asked_and


@pytest.fixture
def gpus(monkeypatch):
    """As if there were so many GPUs, none of which is used."""

    def have(count: int) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "GPU")
        monkeypatch.setattr(autotune, "free", lambda device: None)

    return have


@pytest.mark.parametrize(
    ("count", "name", "expected"),
    [
        (0, "auto", ("cpu",)),
        (2, "cpu", ("cpu",)),
        (1, "auto", ("cuda",)),
        (1, "cuda", ("cuda",)),
        (3, "auto", ("cuda:0", "cuda:1", "cuda:2")),
        (2, "cuda", ("cuda:0", "cuda:1")),
        (2, "cuda:1", ("cuda:1",)),
    ],
)
def test_all_gpus_are_taken_unless_one_is_named(count, name, expected, gpus):
    """An explicit number stays one device."""
    gpus(count)
    assert find_devices(name) == expected


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_gpu_that_is_not_there_is_told_in_one_line(count, name, gpus):
    """With how many there are."""
    gpus(count)
    with pytest.raises(RecipeError, match=rf"{name} is not here \({count} CUDA devices\); --set runtime.device=cpu"):
        find_devices(name)


def test_several_gpus_share_the_cores_and_are_in_the_tags(gpus):
    """Each process draws with its part of them; who reads the run sees how many there were."""
    gpus(2)
    found = place(Runtime(), stackable=True)
    assert (found.device, found.devices, found.machine) == ("cuda:0", ("cuda:0", "cuda:1"), 2)
    assert found.tags()["study.side_by_side"] == "1 threads x 2 cores, stacks of 128, on each of 2 devices"
    assert [(own.device, own.devices, own.machine, own.stack) for own in found.split()] == [
        ("cuda:0", (), 1, 128),
        ("cuda:1", (), 1, 128),
    ]


def test_one_gpu_is_not_split(gpus):
    """Nor is a CPU: there is one process, as ever."""
    gpus(1)
    for found in (place(Runtime(), stackable=True), place(Runtime(device="cpu", kernel="torch"), stackable=True)):
        assert found.devices == ()
        assert found.split() == [found]
        assert "devices" not in found.tags()["study.side_by_side"]


@pytest.mark.parametrize("way", ["alone", "trials", "depth"])
def test_what_is_no_ensemble_of_plain_members_takes_one_gpu(way, gpus, tried):
    """A single run has one network; trials and prediction depths go on in the process that asks for them."""
    gpus(2)
    recipe = convolutional(device="auto")
    if way == "depth":
        recipe = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"depth": True})})
    found = place_network(recipe, DATA, LONG, **({} if way == "depth" else {way: True}))
    assert (found.device, found.devices, found.threads, found.cores) == ("cuda:0", (), 1, 2)
    assert tried.asked == []


@pytest.mark.parametrize(
    ("seconds", "expected", "count"),
    [
        ([1.0, 0.6, 0.4, 0.3], 8, 4),  # ever more pay
        ([1.0, 0.6, 0.58, 0.1], 2, 3),  # four gain 3 %: not worth their memory, and nobody tries eight
        ([1.0, 1.1, 0.1, 0.1], 1, 2),  # a wide network fills the device
        ([1.0, 0.6, None, 0.1], 2, 3),  # four do not fit
        ([None, 0.1, 0.1, 0.1], 1, 1),  # not even one does; the training will say so
    ],
)
def test_a_gpu_takes_as_many_networks_as_are_faster_side_by_side(seconds, expected, count, gpus, tried):
    """Each with a thread and a stream."""
    gpus(1)
    for threads, each in zip((1, 2, 4, 8), seconds, strict=True):
        way = f"bfloat16, channels_last, {threads} x {max(1, 2 // threads)} cores"
        tried.seconds[way] = each and Rate(each, 0.1)
    found = place_network(convolutional(device="auto"), DATA, LONG)
    assert (found.threads, len(tried.asked)) == (expected, count)
    assert place_network(convolutional(device="auto"), DATA, LONG) == found
    assert len(tried.asked) == count


@pytest.mark.parametrize("what", ["threads", "tags", "a short training"])
def test_a_gpu_is_not_probed_for_what_is_known(what, gpus, tried):
    """What the recipe asks for, what the resumed run had, what is over before the probe."""
    gpus(1)
    was = Placement("cuda", "float32", "highest", 4, 1, 1, 2).tags() if what == "tags" else None
    recipe = convolutional(device="auto", threads=4 if what == "threads" else 0)
    found = place_network(recipe, DATA, 10_000 if what == "a short training" else LONG, like=was)
    assert found.threads == (1 if what == "a short training" else 4)
    assert tried.asked == []


def test_every_precision_and_layout_is_tried_wide_then_the_best_side_by_side(tried):
    """Five ways, not eight: whether threads pay is asked of the best alone."""
    best = "bfloat16, contiguous, 1 x 2 cores"
    tried.seconds[best] = Rate(0.5, 0.1)
    found = place_network(convolutional(), DATA, LONG)
    assert name(found) == best
    assert sorted(tried.asked[:4]) == [
        "bfloat16, channels_last, 1 x 2 cores",
        "bfloat16, contiguous, 1 x 2 cores",
        "float32, channels_last, 1 x 2 cores",
        "float32, contiguous, 1 x 2 cores",
    ]
    assert tried.asked[4:] == ["bfloat16, contiguous, 2 x 1 cores"]


def test_one_network_per_core_wins_where_it_is_faster(tried):
    """As when another process has one of the cores."""
    side_by_side = "float32, channels_last, 2 x 1 cores"
    tried.seconds[side_by_side] = Rate(0.9, 0.1)
    found = place_network(convolutional(), DATA, LONG)
    assert (found.threads, found.cores, name(found)) == (2, 1, side_by_side)


def test_a_network_alone_is_never_tried_side_by_side(tried):
    """A single run has one network."""
    found = place_network(convolutional(), DATA, LONG, alone=True)
    assert (found.threads, found.cores) == (1, 2)
    assert len(tried.asked) == 4


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"precision": "float32"}, {"float32"}),
        ({"precision": "float64"}, {"float64"}),
        ({"layout": "contiguous"}, {"contiguous"}),
        ({"threads": 2}, {"2 x 1 cores"}),
        ({"threads": 1}, {"1 x 2 cores"}),
    ],
    ids=str,
)
def test_what_the_recipe_asks_for_is_not_probed(tried, asked, expected):
    """The other questions are."""
    place_network(convolutional(**asked), DATA, LONG)
    assert len(tried.asked) >= 2
    assert all(expected <= set(way.split(", ")) for way in tried.asked)


def test_a_recipe_that_asks_for_everything_is_not_probed(tried):
    """There is nothing left to choose."""
    asked = {"precision": "bfloat16", "layout": "contiguous", "threads": 2}
    assert name(place_network(convolutional(**asked), DATA, LONG)) == "bfloat16, contiguous, 2 x 1 cores"
    assert tried.asked == []


def test_bfloat16_is_not_tried_where_products_do_not_gain(tried, monkeypatch):
    """A processor without it would take minutes for the probe."""
    monkeypatch.setattr("study.training.placement.probe", lambda device: ("highest", "float32"))
    place_network(convolutional(), DATA, LONG)
    assert not any("bfloat16" in way for way in tried.asked)


def test_a_short_training_is_not_probed(tried):
    """The probe would take longer than the training."""
    found = place_network(convolutional(), DATA, 10_000)
    assert tried.asked == []
    assert found == place(convolutional().runtime, stackable=False)


def test_a_resumed_run_is_placed_as_it_was(tried):
    """Bits depend on precision, layout, and on how many threads share an operation."""
    was = Placement("cpu", "float32", "highest", 1, 2, 1, 2, layout="contiguous")
    found = place_network(convolutional(), DATA, LONG, like=was.tags())
    assert tried.asked == []
    assert name(found) == "float32, contiguous, 1 x 2 cores"


def test_a_run_of_before_there_were_layouts_goes_on_channels_last():
    """Then there was no other."""
    found = place(
        Runtime(device="cpu"), stackable=False, like={"study.placement": json.dumps({"precision": "float32"})}
    )
    assert (found.layout, found.precision) == ("channels_last", "float32")


def test_what_the_recipe_asks_for_wins_over_the_tags():
    """Who resumes with other settings wants them."""
    was = Placement("cpu", "float32", "highest", 1, 2, 1, 2, layout="contiguous").tags()
    found = place(Runtime(device="cpu", threads=2, layout="channels_last"), stackable=False, like=was)
    assert (found.threads, found.cores, found.layout) == (2, 1, "channels_last")


def ways() -> dict[str, Placement]:
    """Float32 and bfloat16."""
    return {precision: Placement("cpu", precision, "highest", 1, 1, 1) for precision in ("float32", "bfloat16")}


@pytest.mark.parametrize(("seconds", "expected"), [(0.9, "float32"), (0.7, "bfloat16")])
def test_bfloat16_has_to_gain_enough(seconds, expected):
    """Rounding is not paid for one per cent; GAIN is 1.3."""
    both = ways()
    rates = {name(both["float32"]): Rate(1.0, 0.3), name(both["bfloat16"]): Rate(seconds, 0.3)}
    assert fastest(list(both.values()), rates) is both[expected]


def test_a_way_that_does_not_work_never_wins():
    """None is what raised or left the finite numbers; when nothing works, nothing is chosen."""
    both = ways()
    rates = {name(both["float32"]): Rate(1.0, 0.3), name(both["bfloat16"]): None}
    assert fastest(list(both.values()), rates) is both["float32"]
    assert fastest(list(both.values()), dict.fromkeys(rates)) is None


@pytest.mark.parametrize("fault", ["raises", "is not finite"])
def test_a_network_that_fails_in_one_precision_is_placed_in_the_other(monkeypatch, fault):
    """Through real steps, with bfloat16 broken."""
    step = TimedWay._step

    def broken(contender, entry):
        if contender.placement.precision == "float32":
            return step(contender, entry)
        if fault == "raises":
            raise RuntimeError("not implemented for 'BFloat16'")
        return False

    monkeypatch.setattr(TimedWay, "_step", broken)
    assert place_network(convolutional(), DATA, LONG).precision == "float32"


def test_real_steps_give_rates_and_leave_torch_as_it_was(capsys):
    """Five ways are timed; threads and random numbers are the caller's again."""
    before = torch.get_num_threads(), torch.get_rng_state()
    found = place_network(convolutional(), DATA, LONG)
    rate = measured_rate(convolutional(), DATA, found)
    assert rate.train > 0
    assert rate.evaluate > 0
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"placement of tiny_batchnorm: {name(found)}, measured in ")


@pytest.mark.parametrize("remembered", ["all", "half"])
def test_real_steps_fill_up_what_the_cache_lacks(remembered, capsys):
    """With a warm cache nothing is left to measure; with half of one the other ways are."""
    first = place_network(convolutional(), DATA, LONG)
    rates = next(iter(autotune._rates.values()))
    if remembered == "half":
        for way in list(rates)[::2]:
            del rates[way]
    kept = dict(rates)
    capsys.readouterr()
    again = place_network(convolutional(), DATA, LONG)
    assert kept.items() <= next(iter(autotune._rates.values())).items()
    assert len(next(iter(autotune._rates.values()))) >= 5
    lines = capsys.readouterr().err.splitlines()
    assert (lines == [] and again == first) if remembered == "all" else len(lines) == 1


def test_a_probe_is_not_repeated(tried, monkeypatch):
    """Nor in the next process, which reads the file."""
    first = place_network(convolutional(), DATA, LONG)
    count = len(tried.asked)
    assert place_network(convolutional(), DATA, LONG) == first
    monkeypatch.setattr(autotune, "_rates", {})
    assert place_network(convolutional(), DATA, LONG) == first
    assert len(tried.asked) == count
    assert measured_rate(convolutional(), DATA, first) == Rate(1.0, 0.3)


def test_another_network_is_probed_anew(tried):
    """So is another shape or batch."""
    place_network(convolutional(), DATA, LONG)
    count = len(tried.asked)
    place_network(convolutional(), blobs(shape=(3, 8, 8)), LONG)
    assert len(tried.asked) == 2 * count


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '{"KEY": 3}', '{"KEY": {"x": [1]}}', '{"KEY": {"x": "y"}}']
)
def test_a_broken_cache_file_is_ignored_and_replaced(tried, content):
    """Half a disk is no reason not to train."""
    placement = place(convolutional().runtime, stackable=False)
    key = autotune._key(template_of(convolutional()), DATA, placement)
    file = cache_file()
    file.parent.mkdir()
    file.write_text(content.replace('"KEY"', json.dumps(key)))
    place_network(convolutional(), DATA, LONG)
    assert len(tried.asked) == 5
    assert len(json.loads(file.read_text())[key]) == 5
    assert [each.name for each in file.parent.iterdir()] == ["placement.json"]


def test_a_cache_folder_that_takes_nothing_does_not_stop_the_training(tried, monkeypatch, tmp_path):
    """A file where the folder should be; this process still remembers."""
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    place_network(convolutional(), DATA, LONG)
    place_network(convolutional(), DATA, LONG)
    assert len(tried.asked) == 5


def test_mlps_are_not_probed(tried):
    """They have a placement by rule."""
    recipe = toy_recipe(runtime={"kernel": "torch"})
    assert place_network(recipe, blobs(), LONG) == place(recipe.runtime, stackable=True)
    assert tried.asked == []


def test_a_network_with_dropout_is_tried_as_it_trains(tried):
    """Torch has one generator: such networks train one at a time."""
    recipe = toy_recipe(
        model={"settings": {"widths": [16], "dropout": 0.5}}, runtime={"device": "cpu", "precision": "auto"}
    )
    found = place_network(recipe, blobs(), LONG)
    assert tried.asked
    assert all(way.endswith("1 x 2 cores") for way in tried.asked)
    assert found.threads == 1


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_concatenations_equal_the_plain_loop_in_both_layouts(layout):
    """BatchNorm's slopes come in slices there, and are copied before it goes back."""
    model, train = {"name": "inception_small", "settings": {}}, {"epochs": 1, "batch_size": 30}
    recipe, (member,) = toy_recipe(model=model, train=train), members(DATA, count=1)
    kept = []
    hooks = Hooks(after_epoch=lambda member, epoch, look: kept.append(look.logits().numpy()))
    list(fit([member], DATA, recipe, replace(EXACT, layout=layout), hooks))
    np.testing.assert_allclose(kept[-1], plain_loop(DATA, recipe, member).logits.numpy(), rtol=0, atol=1e-9)


def learner_of(data):
    """A convolutional learner on data, in float64."""
    recipe = convolutional(precision="float64")
    examples = Examples(data, recipe.train, "cpu", torch.float64)
    (job,) = jobs(members(data, count=1), recipe)
    return new_learner(job, examples, data, EXACT), examples


def test_a_look_in_blocks_is_a_look_at_all():
    """Logits and penultimate layer; 300 rows are three blocks."""
    learner, examples = learner_of(blobs(240, 60, shape=(3, 6, 6)))
    images = examples.block(0, 300)
    logits, penultimate = learner.evaluate(images, True)
    with torch.no_grad():
        network = learner.module().eval()
        torch.testing.assert_close(logits, network(images), rtol=0, atol=1e-12)
        torch.testing.assert_close(penultimate, network.body(images).mean(dim=(2, 3)), rtol=0, atol=1e-12)


def test_the_network_can_be_differentiated_by_others():
    """Per-example gradients go through torch.func, where tensors take no hooks."""
    learner, examples = learner_of(DATA)
    network = learner.module().eval()
    weights = {key: value.detach() for key, value in network.named_parameters()}

    def slope(image):
        logits, pull = vjp(lambda own: functional_call(network, own, (image.unsqueeze(0),)), weights)
        return pull(torch.ones_like(logits))[0]["classifier.bias"]

    assert vmap(slope)(examples.block(0, 4)).tolist() == [[1.0] * 3] * 4
