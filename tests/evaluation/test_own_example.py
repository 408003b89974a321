"""No item of lm-evaluation-harness's tasks is among its own examples, however its task names its splits."""

import json

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.model import LM

from braingpt.errors import UserError
from braingpt.evaluation import lm_eval

ITEMS = 12
ROWS = [{"q": f"capital of land {i}?", "a": f"city {i}", "i": i} for i in range(ITEMS)]
SPLITS = {
    "test_only": ("{test: ITEMS}", "test_split: test"),
    "validation_only": ("{validation: ITEMS}", "validation_split: validation"),
    "named_fewshot": ("{test: ITEMS}", "test_split: test\nfewshot_split: test"),
    "named_training": ("{test: ITEMS}", "test_split: test\ntraining_split: test"),
    "named_validation": ("{test: ITEMS}", "test_split: test\nvalidation_split: test"),
    "fewshot_is_validation": (
        "{validation: ITEMS}",
        "validation_split: validation\nfewshot_split: validation",
    ),
    "first_n": ("{test: ITEMS}", "test_split: test\nfewshot_config: {sampler: first_n}"),
    "first_n_named": (
        "{test: ITEMS}",
        "test_split: test\nfewshot_split: test\nfewshot_config: {sampler: first_n}",
    ),
    # The training split has the items of the test split, under other numbers.
    "same_rows": ("{test: ITEMS, train: TRAIN}", "test_split: test\ntraining_split: train"),
    "given_samples": ("{test: ITEMS}", f"test_split: test\nfewshot_config: {{samples: {json.dumps(ROWS)}}}"),
}
KINDS = {
    "loglikelihood": 'output_type: loglikelihood\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: acc}]\n',
    "choice": 'output_type: multiple_choice\ndoc_to_choice: ["city 0", "x", "{{a}}"]\n'
    'doc_to_target: "{{a}}"\nmetric_list: [{metric: acc}]\n',
    "writing": 'output_type: generate_until\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
    'generation_kwargs: {until: ["\\n"]}\n',
}


class Watcher(LM):
    """Keeps the prompts."""

    def __init__(self):
        super().__init__()
        self.prompts = []

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [(0.0, True)] * len(requests)

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [""] * len(requests)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, shift in (("items", 0), ("train", 100)):
        rows = [{**row, "i": row["i"] + shift} for row in ROWS]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for splits, (data, names) in SPLITS.items():
        for kind, rest in KINDS.items():
            data_files = data.replace("ITEMS", str(folder / "items.jsonl"))
            data_files = data_files.replace("TRAIN", str(folder / "train.jsonl"))
            (folder / f"{splits}-{kind}.yaml").write_text(
                f"task: {splits}-{kind}\ndataset_path: json\ndataset_kwargs: {{data_files: {data_files}}}\n"
                f'{names}\ndoc_to_text: "{{{{q}}}}"\n{rest}'
            )
    (folder / "inner.yaml").write_text(
        "group: inner\ntask: [test_only-loglikelihood, named_training-choice]\n"
    )
    (folder / "outer.yaml").write_text(
        "group: outer\ntask:\n  - inner\n  - group: inline\n"
        "    task: [first_n-loglikelihood, test_only-writing]\n"
    )
    (folder / "tagged.yaml").write_text(
        (folder / "test_only-choice.yaml")
        .read_text()
        .replace("task: test_only-choice", "task: tagged\ntag: label")
    )
    return folder


def prompts(monkeypatch, files, name, shots) -> list[str]:
    """What a model is asked."""
    watcher = Watcher()
    monkeypatch.setattr(lm_eval, "HarnessModel", lambda *_: watcher)
    watcher.cut = 0
    lm_eval.run_tasks(None, None, lm_eval.open_tasks([name], files=files), [name], context=64, shots=shots)
    return watcher.prompts


def own_examples(asked: list[str]) -> int:
    """Prompts whose last question was already answered in them."""
    count = 0
    for prompt in asked:
        *examples, question = prompt.split("\n\n")
        assert question.startswith("capital of land")
        count += any(example.startswith(question) for example in examples)
    return count


@pytest.mark.parametrize(
    ("splits", "kind"),
    [(splits, "loglikelihood") for splits in SPLITS] + [("test_only", "choice"), ("test_only", "writing")],
)
def test_an_item_is_not_among_its_examples(monkeypatch, files, splits, kind):
    for shots in (5, ITEMS - 1):
        asked = prompts(monkeypatch, files, f"{splits}-{kind}", shots)
        assert own_examples(asked) == 0 and {prompt.count("\n\n") for prompt in asked} == {shots}
        assert len(set(asked)) == ITEMS


@pytest.mark.parametrize("name", ["outer", "label", "test_only-*"])
def test_nor_in_groups_tags_and_patterns(monkeypatch, files, name):
    asked = prompts(monkeypatch, files, name, 7)
    assert len(asked) >= ITEMS and own_examples(asked) == 0


@pytest.mark.parametrize("splits", ["test_only", "first_n_named", "named_fewshot", "same_rows"])
def test_more_examples_than_other_items_are_refused_before_the_model_is_asked(monkeypatch, files, splits):
    with pytest.raises(UserError, match=rf"has only {ITEMS - 1} other items .* not the {ITEMS} asked for"):
        prompts(monkeypatch, files, f"{splits}-loglikelihood", ITEMS)


def test_the_harness_alone_would_show_them(monkeypatch, files):
    """Otherwise the tests above would test nothing."""
    from contextlib import nullcontext

    monkeypatch.setattr(lm_eval, "own_examples_left_out", nullcontext)
    assert own_examples(prompts(monkeypatch, files, "test_only-loglikelihood", 5)) > 0


def test_draws_without_the_item_are_the_harnesss_own(monkeypatch, files):
    """Figures of tasks that name a split for their examples compare with those of other programs."""
    from contextlib import nullcontext

    ours = prompts(monkeypatch, files, "named_fewshot-choice", 5)
    monkeypatch.setattr(lm_eval, "own_examples_left_out", nullcontext)
    assert ours == prompts(monkeypatch, files, "named_fewshot-choice", 5)
