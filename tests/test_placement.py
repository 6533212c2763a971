"""Placement: what follows from machine and recipe, what is measured and kept, and when nothing is tried at all."""

import json
import os
import time
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
from study.training import placement as placement_rules
from study.training.autotune import Rate, TimedWay, cache_file, name
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
    """Two cores with instructions for bfloat16, a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_rates", {})
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(placement_rules, "cpu_flags", lambda: {"avx2", "avx512_bf16"})


@pytest.fixture
def tried(monkeypatch):
    """The ways that were measured, in order; `seconds` says how long an example takes in each, 1 unless set."""
    requested, seconds = [], {}

    def measure(template, dataset, way):
        requested.append(name(way))
        return {name(way): seconds.get(name(way), Rate(1.0, 0.3))}

    monkeypatch.setattr(autotune, "_measure", measure)
    return type("Tried", (), {"requested": requested, "seconds": seconds})


@pytest.fixture
def gpus(monkeypatch):
    """As if there were so many GPUs, none of which is used."""

    def have(count: int) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
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
    result = place(Runtime(), stackable=True)
    assert (result.device, result.devices, result.machine) == ("cuda:0", ("cuda:0", "cuda:1"), 2)
    assert result.tags()["study.side_by_side"] == "1 threads x 2 cores, stacks of 128, on each of 2 devices"
    assert [(part.device, part.devices, part.machine, part.stack) for part in result.split()] == [
        ("cuda:0", (), 1, 128),
        ("cuda:1", (), 1, 128),
    ]


def test_one_gpu_is_not_split(gpus):
    """Nor is a CPU: there is one process, as ever."""
    gpus(1)
    for result in (place(Runtime(), stackable=True), place(Runtime(device="cpu", kernel="torch"), stackable=True)):
        assert result.devices == ()
        assert result.split() == [result]
        assert "devices" not in result.tags()["study.side_by_side"]


@pytest.mark.parametrize("way", ["alone", "trials", "depth"])
def test_what_is_no_ensemble_of_plain_members_takes_one_gpu(way, gpus, tried):
    """A single run has one network; trials and prediction depths go on in the process that asks for them."""
    gpus(2)
    recipe = convolutional(device="auto")
    if way == "depth":
        recipe = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"depth": True})})
    result = place_network(recipe, DATA, LONG, **({} if way == "depth" else {way: True}))
    assert (result.device, result.devices, result.threads, result.cores) == ("cuda:0", (), 1, 2)
    assert tried.requested == []


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
    result = place_network(convolutional(device="auto"), DATA, LONG)
    assert (result.threads, len(tried.requested)) == (expected, count)
    assert place_network(convolutional(device="auto"), DATA, LONG) == result
    assert len(tried.requested) == count


@pytest.mark.parametrize("what", ["threads", "tags", "a short training"])
def test_a_gpu_is_not_probed_for_what_is_known(what, gpus, tried):
    """What the recipe asks for, what the resumed run had, what is over before the probe."""
    gpus(1)
    was = Placement("cuda", "float32", "highest", 4, 1, 1, 2).tags() if what == "tags" else None
    recipe = convolutional(device="auto", threads=4 if what == "threads" else 0)
    result = place_network(recipe, DATA, 10_000 if what == "a short training" else LONG, like=was)
    assert result.threads == (1 if what == "a short training" else 4)
    assert tried.requested == []


def test_a_cpu_trains_one_network_per_core_by_rule(tried):
    """Channels last, in bfloat16 where the processor has instructions for it; one that is alone has all cores."""
    assert name(place_network(convolutional(precision="float32"), DATA, LONG)) == "float32, channels_last, 2 x 1 cores"
    assert tried.requested == []
    assert name(place_network(convolutional(), DATA, LONG)) == "bfloat16, channels_last, 2 x 1 cores"
    assert name(place_network(convolutional(), DATA, LONG, alone=True)) == "bfloat16, channels_last, 1 x 2 cores"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2"}, ("float32", "native")),
        ({"avx2", "avx512_bf16"}, ("bfloat16", "native")),
        ({"avx512_bf16", "amx_bf16"}, ("bfloat16", "torch")),  # torch multiplies tiles
        (set(), ("float32", "native")),
    ],
)
def test_precision_and_kernel_follow_from_the_processor(flags, expected, monkeypatch):
    """No stopwatch: what else runs today must not decide bits."""
    monkeypatch.setattr(placement_rules, "cpu_flags", lambda: flags)
    monkeypatch.setattr(placement_rules, "trains", lambda optimizer, compute: True)
    monkeypatch.setattr(placement_rules.native, "library", lambda: "compiled")
    monkeypatch.setattr("time.perf_counter", None)
    monkeypatch.setattr("time.thread_time", None)
    chosen = place(Runtime(device="cpu"), stackable=True)
    assert (chosen.precision, chosen.kernel) == expected


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({"precision": "float32"}, "float32, channels_last, 2 x 1 cores"),
        ({"precision": "float64"}, "float64, channels_last, 2 x 1 cores"),
        ({"layout": "contiguous"}, "bfloat16, contiguous, 2 x 1 cores"),
        ({"threads": 1}, "bfloat16, channels_last, 1 x 2 cores"),
    ],
    ids=str,
)
def test_what_the_recipe_asks_for_is_taken(tried, requested, expected):
    assert name(place_network(convolutional(**requested), DATA, LONG)) == expected


def test_a_resumed_run_is_placed_as_it_was(tried):
    """Bits depend on precision, layout, and on how many threads share an operation."""
    was = Placement("cpu", "float32", "highest", 1, 2, 1, 2, layout="contiguous")
    result = place_network(convolutional(), DATA, LONG, like=was.tags())
    assert tried.requested == []
    assert name(result) == "float32, contiguous, 1 x 2 cores"


def test_a_run_of_before_there_were_layouts_goes_on_channels_last():
    """Then there was no other."""
    result = place(
        Runtime(device="cpu"), stackable=False, like={"study.placement": json.dumps({"precision": "float32"})}
    )
    assert (result.layout, result.precision) == ("channels_last", "float32")


def test_what_the_recipe_asks_for_wins_over_the_tags():
    """Who resumes with other settings wants them."""
    was = Placement("cpu", "float32", "highest", 1, 2, 1, 2, layout="contiguous").tags()
    result = place(Runtime(device="cpu", threads=2, layout="channels_last"), stackable=False, like=was)
    assert (result.threads, result.cores, result.layout) == (2, 1, "channels_last")


@pytest.mark.parametrize("fault", ["raises", "is not finite"])
def test_a_network_that_fails_in_bfloat16_is_placed_in_float32(monkeypatch, fault):
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


@pytest.mark.parametrize("cache", ["cold", "warm", "half warm", "corrupted", "no folder", "a FIFO"])
def test_real_steps_give_rates_whatever_the_cache_holds(cache, tmp_path, monkeypatch, capsys):
    """Side by side as on a GPU; threads and random numbers are the caller's again."""
    cpu = place(convolutional(precision="float32").runtime, stackable=False)
    template, before = template_of(convolutional()), (torch.get_num_threads(), torch.get_rng_state())
    monkeypatch.setattr(autotune, "BESIDE", (1, 2))
    monkeypatch.setattr(autotune, "MORE", 0.0)  # both are tried
    if "warm" in cache:
        autotune._beside(template, DATA, cpu, LONG)
        table = json.loads(cache_file().read_text())
        if cache == "half warm":
            table[next(iter(table))].popitem()
        cache_file().write_text(json.dumps(table))
        autotune._rates.clear()
    elif cache == "no folder":
        (tmp_path / "taken").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    elif cache != "cold":
        cache_file().parent.mkdir()
        os.mkfifo(cache_file()) if cache == "a FIFO" else cache_file().write_text("[" * 100_000)
    capsys.readouterr()
    assert autotune._beside(template, DATA, cpu, LONG) == replace(cpu, threads=2, cores=1)
    lines = capsys.readouterr().err.splitlines()
    count = {"warm": 0, "half warm": 1}.get(cache, 2)
    assert [line for line in lines if "ago" not in line] == [line for line in lines if ", measured in " in line]
    assert len(lines) == count + ("warm" in cache)
    rate = measured_rate(convolutional(precision="float32"), DATA, replace(cpu, threads=2, cores=1))
    assert min(rate.train, rate.evaluate) > 0
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_rate_is_kept_and_says_how_old_it_is(tried, monkeypatch, capsys):
    """In the next process too, which reads the file."""
    placement = place(convolutional(precision="float32").runtime, stackable=False)
    tried.seconds[name(placement)] = Rate(1.0, 0.3, time.time() - 3 * 86400)
    assert measured_rate(convolutional(), DATA, placement).train == 1.0
    autotune._rates.clear()
    capsys.readouterr()
    for _ in range(2):
        assert measured_rate(convolutional(), DATA, placement).train == 1.0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"rate of tiny_batchnorm: measured 3 d 0 h ago, from {cache_file()}"
    measured_rate(convolutional(), blobs(shape=(3, 8, 8)), placement)
    assert len(tried.requested) == 2  # another shape is measured anew


@pytest.mark.parametrize(("seconds", "again"), [(40.0, 0), (290.0, 0), (310.0, 1), (30.0, 1), (1.0, 0)])
def test_a_rate_that_a_training_contradicts_is_measured_anew(tried, seconds, again, capsys):
    """Measured while something else ran; a training of a second says nothing."""
    recipe = convolutional(precision="float32")
    placement = place(recipe.runtime, stackable=False)
    measured_rate(recipe, DATA, placement)
    autotune.review(template_of(recipe), DATA, placement, 70, 100, seconds)  # 100 seconds by the rate
    capsys.readouterr()
    measured_rate(recipe, DATA, placement)
    assert len(tried.requested) == 1 + again


@pytest.mark.parametrize(
    "entry", ["3", '{"WAY": [1]}', '{"WAY": "y"}', '{"WAY": [1, 1]}', '{"WAY": [NaN, 1, 1]}', '{"WAY": [-1, 1, 1]}']
)
def test_a_broken_cache_entry_is_replaced(tried, entry):
    """Half a disk is no reason not to train."""
    placement = place(convolutional(precision="float32").runtime, stackable=False)
    key = autotune._key(template_of(convolutional()), DATA, placement)
    file = cache_file()
    file.parent.mkdir()
    file.write_text(f"{{{json.dumps(key)}: {entry.replace('WAY', name(placement))}}}")
    assert measured_rate(convolutional(), DATA, placement) == Rate(1.0, 0.3)
    assert json.loads(file.read_text())[key] == {name(placement): [1.0, 0.3, 0.0]}
    assert [each.name for each in file.parent.iterdir()] == ["placement.json"]


def test_mlps_are_not_probed(tried):
    """They have a placement by rule."""
    recipe = toy_recipe(runtime={"kernel": "torch"})
    assert place_network(recipe, blobs(), LONG) == place(recipe.runtime, stackable=True)
    assert tried.requested == []


def test_a_network_with_dropout_trains_alone():
    """Torch has one generator: such networks train one at a time."""
    recipe = toy_recipe(
        model={"settings": {"widths": [16], "dropout": 0.5}}, runtime={"device": "cpu", "precision": "float32"}
    )
    chosen = place_network(recipe, blobs(), LONG)
    assert (chosen.threads, chosen.cores) == (1, 2)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_concatenations_equal_the_plain_loop_in_both_layouts(layout):
    """BatchNorm's slopes come in slices there, and are copied before it goes back."""
    model, train = {"name": "inception_small", "settings": {}}, {"epochs": 1, "batch_size": 30}
    recipe, (member,) = toy_recipe(model=model, train=train), members(DATA, count=1)
    kept = []
    hooks = Hooks(after_epoch=lambda member, epoch, evaluation: kept.append(evaluation.logits().numpy()))
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

    def gradient(image):
        logits, pull = vjp(lambda values: functional_call(network, values, (image.unsqueeze(0),)), weights)
        return pull(torch.ones_like(logits))[0]["classifier.bias"]

    assert vmap(gradient)(examples.block(0, 4)).tolist() == [[1.0] * 3] * 4
