"""A recorder beside the single run's trace, naive loops, and what goes wrong in loops that are not ours."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import study
from study.errors import DataError, StoreError
from study.proxies import PROXIES, compute
from study.recorder.signals import filled
from study.recorder.statistics import of_logits

N, C, EPOCHS = 40, 3, 5
LABELS = np.random.default_rng(0).integers(0, C, N)
LOGITS = np.random.default_rng(1).normal(0, 2, (EPOCHS, N, C))
LOGITS[np.arange(EPOCHS)[:, None], np.arange(N), LABELS] += np.arange(EPOCHS)[:, None] / 2


def batches(epoch, size=7, order=None):
    """Ids and logits of one epoch in random order."""
    order = np.random.default_rng(epoch).permutation(N) if order is None else order
    for low in range(0, N, size):
        rows = order[low : low + size]
        yield rows, LOGITS[epoch][rows]


def trained(ids=N, **settings):
    """A recorder that heard every epoch."""
    recorder = study.Recorder(ids, LABELS, n_classes=C, **settings)
    for epoch in range(EPOCHS):
        for rows, logits in batches(epoch):
            recorder.update(recorder.examples.ids[rows], logits)
    return recorder


def signals():
    """What the project's own trace would hold of the same logits, by a naive formula."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=2, keepdims=True)
    of_label = LOGITS[:, np.arange(N), LABELS]
    others = LOGITS.copy()
    others[:, np.arange(N), LABELS] = -np.inf
    error = p.copy()
    error[:, np.arange(N), LABELS] -= 1
    return {
        "labels": LABELS,
        "correct": LOGITS.argmax(axis=2) == LABELS,
        "online_correct": LOGITS.argmax(axis=2) == LABELS,
        "confidence": p[:, np.arange(N), LABELS],
        "top_confidence": p.max(axis=2),
        "loss": -np.log(p[:, np.arange(N), LABELS]),
        "margin": of_label - others.max(axis=2),
        "error_norm": np.linalg.norm(error, axis=2),
        "target_confidence_now": p[-1, np.arange(N), LABELS],
        "top_confidence_now": p[-1].max(axis=1),
        "output_margin_now": np.diff(np.sort(LOGITS[-1])[:, -2:], axis=1)[:, 0],
        "softmax_margin_now": np.diff(np.sort(p[-1])[:, -2:], axis=1)[:, 0],
    }


def test_scores_are_the_proxies_of_a_naive_trace():
    scores, expected = trained().scores(), signals()
    readable = [spec for spec in PROXIES.values() if set(spec.signals) <= set(expected) and spec.on == "train"]
    assert list(scores.columns[3:]) == [spec.name for spec in readable]
    assert len(readable) >= 12
    for spec in readable:
        np.testing.assert_allclose(scores[spec.name], compute(spec, expected), rtol=1e-5, atol=1e-6, err_msg=spec.name)


def test_scores_agree_with_a_single_run_of_the_same_logits():
    """The project's trace of a training, told to a recorder epoch by epoch, gives the project's scores."""
    names = ["cbtl", "forgetting_events", "cumulative_confidence", "variability"]
    run = study.single_run("digits", epochs=3, proxies=names)
    trace = run.trajectory
    recorder = study.Recorder(run.scores["example"].tolist(), run.scores["label"], split=run.scores["split"])
    for confidence, top, correct in zip(trace["confidence"], trace["top_confidence"], trace["correct"], strict=True):
        predicted = np.where(correct, run.scores["label"], (run.scores["label"] + 1) % 10)
        recorder.add_epoch(
            recorder.examples.ids, confidence=confidence, top_confidence=top, predicted=predicted, kind="end"
        )
    train = run.scores["split"].to_numpy() == "train"
    for name in names:
        np.testing.assert_allclose(recorder.scores([name])[name][train], run.scores[name][train], rtol=1e-6)


def test_statistics_of_saturated_logits_are_finite():
    logits = torch.tensor([[500.0, 0.0], [0.0, 500.0], [0.0, 0.0]])
    values = of_logits(logits, torch.tensor([0, 0, 1]))
    assert all(bool(torch.isfinite(each.float()).all()) for each in values.values())
    torch.testing.assert_close(values["entropy"], torch.tensor([0.0, 0.0, 0.6931472]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ids", [[f"img_{n:03d}.png" for n in range(N)], (np.arange(N) * 7 + 100)[::-1].copy()])
def test_ids_of_any_kind_name_the_rows(ids):
    np.testing.assert_array_equal(trained(ids).scores().to_numpy(), trained().scores().to_numpy())
    assert trained(ids).scores().index.tolist() == list(ids)


def test_the_order_of_batches_does_not_matter():
    backwards = study.Recorder(N, LABELS)
    for epoch in range(EPOCHS):
        for rows, logits in batches(epoch, size=11, order=np.arange(N)[::-1]):
            backwards.update(torch.from_numpy(rows.copy()), torch.from_numpy(logits.copy()).requires_grad_())
    pd.testing.assert_frame_equal(backwards.scores(), trained().scores())


def test_an_id_that_comes_again_begins_an_epoch():
    recorder = trained()
    assert recorder.epoch == EPOCHS - 1  # the last is under way
    recorder.end_epoch()
    assert recorder.epoch == EPOCHS


def test_with_a_sampler_that_repeats_the_last_update_counts():
    recorder = study.Recorder(2, [0, 1], auto_end=False)
    recorder.update([0, 0], np.array([[0.0, 1.0], [0.0, 1.0]]))
    recorder.update([0, 1], np.array([[1.0, 0.0], [1.0, 0.0]]))
    recorder.end_epoch()
    assert recorder.scores(["cbtl"])["cbtl"].tolist() == [1, 0]
    assert recorder.epoch == 1


def test_gaps_are_filled_from_the_epoch_before():
    """A loader with drop_last leaves other examples out in every epoch."""
    nan = np.nan
    series = np.array([[nan, 1.0, 2.0], [3.0, nan, 4.0], [nan, nan, 5.0]])
    np.testing.assert_array_equal(filled(series, nan), [[3, 1, 2], [3, 1, 4], [3, 1, 5]])
    np.testing.assert_array_equal(filled(np.array([[-1, 2], [0, -1]]), -1), [[0, 2], [0, 2]])


def test_an_example_never_seen_has_no_score():
    recorder = study.Recorder(3, [0, 1, 0])
    recorder.update([0, 2], np.array([[1.0, 0.0], [0.0, 1.0]]))
    scores = recorder.scores()
    assert scores["epochs_seen"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(scores["cbtl"], [1, np.nan, 0])


def test_test_examples_have_no_train_scores():
    split = np.where(np.arange(N) < 30, "train", "test")
    scores = trained(split=split).scores()
    assert scores["cbtl"].isna().tolist() == (split == "test").tolist()


class Toy(nn.Module):
    """Dropout tells evaluation from training."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(4, C), nn.Dropout(0.5)

    def forward(self, inputs):
        return self.linear(self.dropout(inputs))


def test_epoch_ends_are_read_where_there_are_some():
    """Evaluation mode, both traces apart, and the model's mode as it was."""
    recorder, model = trained(), Toy().train()
    inputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    recorder.evaluate(model, [(inputs[rows], rows) for rows in torch.arange(N).split(16)])
    assert model.training
    scores = recorder.scores()
    right = model.linear(inputs).argmax(dim=1).numpy() == LABELS
    np.testing.assert_array_equal(scores["cbtl"], right)
    assert scores.attrs["trace"]["cbtl"] == "end"
    assert scores.attrs["trace"]["cbtl_online"] == "online"
    np.testing.assert_array_equal(scores["cbtl_online"], signals()["correct"].sum(axis=0))


def test_the_untrained_model_is_read_by_iteration_learned():
    recorder = study.Recorder(2, [0, 1])
    predictions = iter([[1, 1], [1, 1], [0, 1]])
    loader = [(None, [0, 1])]

    def predict(inputs):
        return np.eye(2)[next(predictions)]

    recorder.evaluate(predict, loader, untrained=True)
    recorder.evaluate(predict, loader)
    recorder.evaluate(predict, loader)
    learned = recorder.scores(["iteration_learned"])["iteration_learned"]
    assert learned[0] > 0 == learned[1]


def test_losses_alone_give_the_proxies_of_the_loss():
    """Several labels or numbers to predict: there is a loss, and nothing else."""
    recorder = study.Recorder(["a", "b"])
    for value in (2.0, 1.0):
        recorder.update(["b", "a"], loss=torch.tensor([value, 2 * value]))
    scores = recorder.scores()
    readable = [name for name, spec in PROXIES.items() if set(spec.signals) == {"loss"}]
    assert list(scores.columns) == ["split", "epochs_seen", *readable]
    assert readable


def test_a_folder_keeps_every_epoch_that_ended(tmp_path):
    """A killed loop has its epochs on disk, and goes on."""
    recorder = study.Recorder(N, LABELS, folder=tmp_path / "trace")
    for epoch in range(3):
        for rows, logits in batches(epoch):
            recorder.update(rows, logits)
    del recorder  # the third epoch was under way
    again = study.Recorder(N, LABELS, folder=tmp_path / "trace")
    assert again.epoch == 2
    for epoch in range(2, EPOCHS):
        for rows, logits in batches(epoch):
            again.update(rows, logits)
    pd.testing.assert_frame_equal(again.scores(), trained().scores())
    pd.testing.assert_frame_equal(study.Recorder.load(tmp_path / "trace").scores(), trained().scores())


def test_a_loop_goes_on_from_an_earlier_checkpoint(tmp_path):
    recorder = trained(folder=tmp_path)
    recorder.end_epoch()
    recorder.resume_from(3)
    for epoch in range(3, EPOCHS):
        for rows, logits in batches(epoch):
            recorder.update(rows, logits)
    pd.testing.assert_frame_equal(recorder.scores(), trained().scores())


def test_saved_and_loaded_is_the_same(tmp_path):
    trained().save(tmp_path / "saved")
    pd.testing.assert_frame_equal(study.Recorder.load(tmp_path / "saved").scores(), trained().scores())


def test_ranks_that_saw_parts_are_merged(tmp_path):
    """As torch's DistributedSampler deals them, the last example padded with a repeat."""
    ranks = [study.Recorder(N, LABELS, folder=tmp_path / str(rank)) for rank in range(3)]
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(N)
        order = np.append(order, order[: -N % 3])
        for rank, recorder in enumerate(ranks):
            recorder.update(order[rank::3], LOGITS[epoch][order[rank::3]])
    ranks[2].end_epoch()
    merged = study.merge([*ranks[:2], tmp_path / "2"])
    pd.testing.assert_frame_equal(merged.scores(), trained().scores())


def test_a_recorded_training_is_a_run_in_mlflow(tmp_path):
    """Found by its kind, with the curves and the tables of a single run."""
    run_id = trained().log(tmp_path, "toys/recorded", params={"lr": 0.1})
    (run,) = study.open(tmp_path).runs("recorded")
    assert (run.id, run.params["lr"]) == (run_id, "0.1")
    pd.testing.assert_frame_equal(run.scores().set_index("id"), trained().scores(), check_index_type=False)
    trajectory = run.trajectory()
    np.testing.assert_array_equal(trajectory["correct"], signals()["correct"])
    np.testing.assert_allclose(trajectory["loss"], signals()["loss"], rtol=1e-4, atol=1e-5)
    assert run.metrics["train/accuracy"] == signals()["correct"][-1].mean()


def test_an_epoch_takes_26_bytes_per_example():
    recorder = trained()
    recorder.end_epoch()
    held = [recorder.trace.array("online", 1, name) for name in recorder.trace.names("online", 1)]
    assert sum(array.nbytes for array in held) == 26 * N


def test_logits_are_kept_on_request(tmp_path):
    recorder = trained(keep_logits=True, folder=tmp_path)
    recorder.end_epoch()
    kept = np.stack([recorder.trace.array("online", epoch + 1, "logits") for epoch in range(EPOCHS)])
    np.testing.assert_array_equal(kept, LOGITS.astype(np.float16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: study.Recorder(["a", "a"], [0, 1]), "id 'a' is there 2 times"),
        (lambda: study.Recorder(3, [0, 1]), "2 labels for 3 ids"),
        (lambda: study.Recorder(2, [[0, 1], [1, 0]]), "not one class number per example"),
        (lambda: study.Recorder(2, [0.5, 1.5]), "not one class number per example"),
        (lambda: study.Recorder(2, [0, 5], n_classes=3), "must lie in 0..2"),
        (lambda: study.Recorder(2, [0, 1], split=["train", "val"]), "not 'val'"),
        (lambda: study.Recorder([1.5, 2.5]), "integers or text"),
        (lambda: study.Recorder(2, [0, 1]).scores(), "no epoch was recorded"),
        (lambda: study.Recorder(2, [0, 1]).update([2], np.zeros((1, 2))), "id 2 is not among the 2"),
        (lambda: study.Recorder(["a", "b"], [0, 1]).update(["c"], np.zeros((1, 2))), "id 'c' is not among"),
        (lambda: study.Recorder(2, [0, 1]).update([0], np.zeros((1, 3))), r"logits are \(1, 3\), not \(1, 2\)"),
        (lambda: study.Recorder(2, [0, 1]).update([0]), "pass logits, or losses"),
        (lambda: study.Recorder(2).update([0], np.zeros((1, 0))), "logits need labels"),
        (lambda: study.Recorder(2, [0, 1]).evaluate(Toy(), []), "no batch"),
        (lambda: study.Recorder(2, [0, 1]).add_epoch([0], margins=[1.0]), "did you mean 'margin'"),
        (lambda: trained().scores(["prediction_depth"]), "reads final_class, probe_class, which was not recorded"),
        (lambda: study.merge([]), "nothing to merge"),
        (lambda: study.merge([study.Recorder(2, [0, 1]), study.Recorder(2, [1, 0])]), "other ids, labels or splits"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_a_line(make, message):
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="not empty"):
        study.Recorder(2, [0, 1], folder=tmp_path / "a")
    study.Recorder(2, [0, 1], folder=tmp_path / "b")
    with pytest.raises(DataError, match="other examples"):
        study.Recorder(2, [1, 0], folder=tmp_path / "b")
    with pytest.raises(StoreError, match="no recorded trace"):
        study.Recorder.load(tmp_path / "a")


def test_a_damaged_epoch_is_named(tmp_path):
    recorder = trained(folder=tmp_path)
    recorder.end_epoch()
    (tmp_path / "online-00002.npz").write_bytes(b"PK garbage")
    with pytest.raises(StoreError, match=r"online-00002.npz cannot be read"):
        recorder.scores()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ids_and_logits_on_a_gpu():
    recorder = study.Recorder(N, LABELS)
    for epoch in range(EPOCHS):
        for rows, logits in batches(epoch):
            recorder.update(torch.from_numpy(rows).cuda(), torch.from_numpy(logits).cuda())
    pd.testing.assert_frame_equal(recorder.scores(), trained().scores(), rtol=1e-5)


def cartography(folder):
    folder.mkdir()
    for epoch in range(EPOCHS):
        lines = [
            {"guid": f"g{row}", f"logits_epoch_{epoch}": LOGITS[epoch, row].tolist(), "gold": int(LABELS[row])}
            for row in np.random.default_rng(epoch).permutation(N)
        ]
        text = "\n".join(map(json.dumps, lines))
        (folder / f"dynamics_epoch_{epoch}.jsonl").write_text(text)
    return study.read_trace(folder)


def rows(path):
    table = pd.concat(
        pd.DataFrame(LOGITS[epoch], columns=[f"logit_{k}" for k in range(C)]).assign(
            id=[f"g{row}" for row in range(N)], epoch=epoch, label=LABELS
        )
        for epoch in range(EPOCHS)
    )
    path = path.with_suffix(".csv")
    table.sample(frac=1, random_state=0).to_csv(path, index=False)
    return study.read_trace(path)


def arrays(path):
    path = path.with_suffix(".npz")
    np.savez(path, logits=LOGITS, labels=LABELS, ids=[f"g{row}" for row in range(N)])
    return study.read_trace(path)


@pytest.mark.parametrize("write", [cartography, rows, arrays])
def test_traces_of_other_tools_give_the_same_scores(write, tmp_path):
    expected = study.Recorder([f"g{row}" for row in range(N)], LABELS)
    for logits in LOGITS:
        expected.add_epoch(expected.examples.ids, logits)
    recorder = write(tmp_path / "trace")
    scores = recorder.scores().loc[expected.examples.ids]
    pd.testing.assert_frame_equal(scores, expected.scores(), check_dtype=False)


def test_predicted_probabilities_are_read_as_cleanlab_keeps_them(tmp_path):
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    np.save(tmp_path / "pred_probs.npy", probabilities)
    scores = study.read_trace(tmp_path / "pred_probs.npy", labels=[0, 1, 1]).scores()
    np.testing.assert_allclose(scores["target_confidence"], [0.9, 0.5, 0], atol=1e-7)


def test_margins_alone_give_the_area_under_the_margin(tmp_path):
    table = pd.DataFrame({"sample_id": [0, 1, 0, 1], "epoch": [1, 1, 2, 2], "margin": [1.0, -2.0, 3.0, 0.0]})
    table.to_parquet(tmp_path / "aum.parquet")
    assert study.read_trace(tmp_path / "aum.parquet").scores(["aum"])["aum"].tolist() == [2, -1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "is no trace"),
        ("a.csv", "id,epoch\n1,1\n", "needs columns id, epoch"),
        ("a.csv", "", "cannot be read"),
        ("a.npy", "garbage", "cannot be read"),
        ("a.parquet", "garbage", "cannot be read"),
        ("d/x.jsonl", '{"a": 1}', "guid, gold and logits"),
        ("d/x.jsonl", "{", "no JSON lines"),
        ("d/x.txt", "", "no .jsonl files"),
    ],
)
def test_a_file_that_is_no_trace_is_named(name, content, message, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        study.read_trace(tmp_path / name.partition("/")[0])
