"""With lm-evaluation-harness itself, on task files that need no network."""

import json

import pytest
import torch

pytest.importorskip("lm_eval")

from braingpt.errors import Failure, UserError
from braingpt.evaluation import lm_eval
from braingpt.evaluation.likelihood import Pair, likelihoods
from braingpt.evaluation.runner import EvalRequest, check_tasks
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.tiny_runs import tiny

T = Tokenizer.default()
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{q}}}}"
"""
CHOICE = (
    'doc_to_choice: "{{choices}}"\ndoc_to_target: label\ntarget_delimiter: ""\nmetric_list: [{metric: acc}]\n'
)
WRITING = """doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: [".", "다"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
"""
ROWS = [
    {"q": f"{a} 더하기 {b}는", "choices": [f" {a + b}", f" {a * b + 5}"], "label": a % 2}
    for a in range(3)
    for b in range(3)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8"
    )
    for name, kind, rest in (("sums", "multiple_choice", CHOICE), ("writing", "generate_until", WRITING)):
        (folder / f"{name}.yaml").write_text(
            TASK.format(name=f"local_{name}", data=folder / "rows.jsonl", kind=kind) + rest
        )
    rolling = TASK.format(
        name="local_text", data=folder / "rows.jsonl", kind="loglikelihood_rolling"
    ).replace("{{q}}", "")
    (folder / "text.yaml").write_text(
        rolling
        + 'doc_to_target: "{{q}}"\nmetric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]\n'
    )
    return folder


@pytest.fixture(scope="module")
def model():
    return awake(tiny("v2").model).float().eval()


def run(model, files, names, **more):
    return lm_eval.run_tasks(model, T, lm_eval.open_tasks(names, files=files), names, context=32, **more)


def test_answers_are_those_of_the_model_item_by_item(model, files):
    (figure,) = run(model, files, ["local_sums"]).figures
    expected = []
    for row in ROWS:
        ids = [T.markers["ko"], *T.encode(row["q"])]
        pairs = [Pair(ids, T.encode(row["q"] + choice)[len(ids) - 1 :]) for choice in row["choices"]]
        nats = {found.index: found.nats for found in likelihoods(model, pairs, 32)}
        expected.append(float((nats[1] > nats[0]) == row["label"]))
    assert figure.amount.tolist() == expected and figure.task == "local_sums" and figure.metric == "acc"
    assert figure.interval()[0] <= figure.value <= figure.interval()[1]


def test_whole_texts_and_written_answers(model, files):
    answers = run(model, files, ["local_text", "local_writing"])
    found = {figure.metric: figure for figure in answers.figures}
    assert len(found["bits_per_byte"].amount) == 9 and found["bits_per_byte"].weight.sum() == sum(
        len(row["q"].encode()) for row in ROWS
    )
    ids = T.encode(ROWS[0]["q"])
    with torch.no_grad():
        log_LV = model(torch.tensor([[T.markers["ko"], *ids]])).logits[0].log_softmax(-1)
    bits = (
        -sum(float(log_LV[place, token]) for place, token in enumerate(ids)) / torch.tensor(2.0).log().item()
    )
    assert found["bits_per_byte"].amount[0] == pytest.approx(bits, rel=1e-4)
    assert found["word_perplexity"].value > 1 and found["word_perplexity"].interval() is None
    assert found["exact_match"].value == 0
    json.dumps(answers.raw, allow_nan=False)


def test_an_interrupted_run_goes_on_where_it_stopped(model, files, tmp_path, monkeypatch):
    whole = run(model, files, ["local_sums"]).figures[0]
    asked, real = [], lm_eval.likelihoods

    def until_interrupted(_model, pairs, longest):
        for found in real(_model, pairs, longest):
            asked.append(found.index)
            yield found
            if len(asked) == 7:
                raise KeyboardInterrupt

    monkeypatch.setattr(lm_eval, "likelihoods", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, files, ["local_sums"], cache=tmp_path / "answers")
    again = run(model, files, ["local_sums"], cache=tmp_path / "answers").figures[0]
    # Each of the 18 once.
    assert len(asked) == 18 and again.amount.tolist() == whole.amount.tolist()
    run(model, files, ["local_sums"], cache=tmp_path / "answers")
    assert len(asked) == 18


def test_generation_stops_at_its_strings_and_long_prompts_are_cut(model):
    adapter = lm_eval.HarnessModel(model, T, 16, "ko")
    marker, settings = T.markers["ko"], {"until": [], "max_gen_toks": 6}
    long, short = adapter._generate([[marker, *range(300, 340)], [marker, 300]], settings)
    assert adapter.cut == 1 and long and short
    assert adapter._generate([[marker, 300]], {**settings, "until": short[2]}) == [
        short[: short.index(short[2])]
    ]


def test_unknown_tasks_and_missing_data_are_one_line(model, files, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        check_tasks(EvalRequest(("local_sums",), files=tmp_path / "none"))
    (tmp_path / "gone.yaml").write_text(
        TASK.format(name="local_gone", data=tmp_path / "gone.jsonl", kind="multiple_choice") + CHOICE
    )
    with pytest.raises(Failure, match=r"cannot load the data of local_gone"):
        run(model, tmp_path, ["local_gone"])
