"""Callbacks of other trainers, with the real libraries where they are installed."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from study import Recorder


def needed(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


class Digits(torch.utils.data.Dataset):
    """(image, label, id) of 200 digits; labels of the first five are wrong."""

    def __init__(self):
        digits = load_digits()
        self.images = torch.tensor(digits.images[:200] / 16, dtype=torch.float32)
        self.labels = torch.tensor(digits.target[:200])
        self.labels[:5] = (self.labels[:5] + 5) % 10

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return self.images[index], self.labels[index], index


@pytest.fixture(scope="module")
def lightning_run(tmp_path_factory):
    """Three epochs, then two more from the checkpoint of the second."""
    needed("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lightning's own imports
        import lightning

        from study.recorder.lightning import RecorderCallback

        class Classifier(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
                self.head = torch.nn.Linear(32, 10)

            def forward(self, images):
                return self.head(self.net(images))

            def training_step(self, batch, batch_idx):
                logits = self(batch[0])
                return {"loss": torch.nn.functional.cross_entropy(logits, batch[1]), "logits": logits}

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        folder = tmp_path_factory.mktemp("lightning")
        data, recorder = Digits(), None
        quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        loader = torch.utils.data.DataLoader(data, batch_size=20, shuffle=True)

        def trainer(epochs, recorder, **more):
            callback = RecorderCallback(recorder, loader=torch.utils.data.DataLoader(data, batch_size=100))
            return lightning.Trainer(max_epochs=epochs, callbacks=[callback], **quiet, **more)

        lightning.seed_everything(0, verbose=False)
        recorder = Recorder(200, data.labels, n_classes=10, folder=folder / "trace")
        first = trainer(2, recorder, default_root_dir=folder, enable_checkpointing=False)
        first.fit(Classifier(), loader)
        first.save_checkpoint(folder / "two.ckpt")
        recorder.add_epoch(np.arange(200), np.zeros((200, 10)), kind="online")  # lost when the training goes back
        again = Recorder.load(folder / "trace")
        trainer(4, again, default_root_dir=folder, enable_checkpointing=False).fit(
            Classifier(), loader, ckpt_path=folder / "two.ckpt", weights_only=False
        )
    return again


def test_lightning_records_every_epoch_of_both_traces(lightning_run):
    """Proxies that count epochs would be wrong by what a callback misses or records twice."""
    assert lightning_run.trace.epochs("online") == [1, 2, 3, 4]
    assert lightning_run.trace.epochs("end") == [1, 2, 3, 4]
    assert (lightning_run.scores()["epochs_seen"] == 4).all()


def test_lightnings_trace_finds_wrong_labels(lightning_run):
    worst = lightning_run.scores(["cumulative_confidence"])["cumulative_confidence"].sort_values().index[:10]
    assert len(set(worst) & set(range(5))) >= 4


def test_a_step_without_logits_is_one_line():
    needed("lightning")
    from study.errors import DataError
    from study.recorder.lightning import RecorderCallback

    callback = RecorderCallback(Recorder(3, [0, 1, 1]))
    with pytest.raises(DataError, match="training_step gives no logits"):
        callback.on_train_batch_end(None, None, {"loss": 1.0}, (), 0)


class Sentences(torch.utils.data.Dataset):
    """Lines of two descriptions that scikit-learn ships; the label says of which; a word is its hash."""

    def __init__(self):
        texts = [data.DESCR.splitlines() for data in (load_wine(), load_breast_cancer())]
        lines = [(line.split(), label) for label, some in enumerate(texts) for line in some if len(line.split()) > 3]
        self.words = torch.zeros(len(lines), 12, dtype=torch.long)
        for row, (words, _) in enumerate(lines):
            for place, word in enumerate(words[:12]):
                self.words[row, place] = 1 + sum(map(ord, word)) % 199
        self.labels = torch.tensor([label for _, label in lines])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.words[index], "labels": self.labels[index], "ids": index}


def test_transformers_records_every_epoch_of_both_traces(tmp_path):
    """The Trainer keeps logits from callbacks; hooks on the model take them, and leave nothing behind."""
    needed("transformers")
    needed("accelerate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers' own imports
        from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

        from study.recorder.transformers import RecorderCallback

        set_seed(0)
        data = Sentences()
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        model = BertForSequenceClassification(BertConfig(vocab_size=200, max_position_embeddings=16, **shape))
        recorder = Recorder(len(data), data.labels, n_classes=2)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=2,
            learning_rate=0.01,
            remove_unused_columns=False,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        callback = RecorderCallback(recorder, evaluate=True)
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()
    assert recorder.trace.epochs("online") == [1, 2]
    assert recorder.trace.epochs("end") == [1, 2]
    assert (recorder.scores()["epochs_seen"] == 2).all()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_trace_of_the_aum_package_becomes_a_run(tmp_path):
    """`study import` on the records that the package writes: same ids, its averages of margins, and in the store."""
    import pandas as pd
    from typer.testing import CliRunner

    from study.cli.main import app
    from study.tracking import open_store

    columns = ("epoch", "sample_id", "target_logit", "target_val", "other_logit", "other_val", "margin", "aum")
    rows = [(1, "a", 0, 2.0, 1, 1.0, 1.0, 1.0), (1, "b", 1, 0.0, 0, 2.0, -2.0, -2.0)]
    rows += [(2, "a", 0, 4.0, 1, 1.0, 3.0, 2.0), (2, "b", 1, 1.0, 0, 1.0, 0.0, -1.0)]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "full_aum_records.csv", index=False)
    words = ["import", str(tmp_path / "full_aum_records.csv"), "--root", str(tmp_path / "mlruns")]
    outcome = CliRunner().invoke(app, words, catch_exceptions=False)
    assert outcome.stdout.startswith("2 examples, aum")
    (run,) = open_store(tmp_path / "mlruns").find("recorded")
    scores = run.read_table("scores.parquet").set_index("id")
    assert scores["aum"].to_dict() == table[table["epoch"] == 2].set_index("sample_id")["aum"].to_dict()
    assert scores["label"].to_dict() == {"a": 0, "b": 1}


def test_a_recorded_run_has_a_report_with_its_suspects(tmp_path):
    """The one thing that a user of a recorder wants to see; it needs neither recipe nor images."""
    import pandas as pd

    from study.report.recorded import run_recorded_report
    from study.tracking import open_store

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    recorder = Recorder([f"{i}.jpg" for i in range(40)], labels, n_classes=3)
    for epoch in range(3):
        logits = rng.normal(0, 0.1, (40, 3))
        logits[np.arange(40), labels] += epoch + 1
        logits[7, labels[7]] = -3
        recorder.add_epoch(recorder.examples.ids, logits)
    store = open_store(tmp_path / "mlruns")
    recorded = store.get(recorder.log(store, "mine/recorded"))
    report = run_recorded_report(recorded, store)
    assert pd.read_csv(report.read("suspects.csv"))["example"][0] == "7.jpg"
    assert "7.jpg" in report.read("report.html").read_text()


def test_the_recorder_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    from benches import run

    small = ("--examples", "200", "--epochs", "2", "--steps", "1", "--batch", "2", "--side", "32", "--repeats", "1")
    printed = run("bench_recorder", *small)
    assert "200 examples, 2 epochs" in printed
    assert "update beside it" in printed
