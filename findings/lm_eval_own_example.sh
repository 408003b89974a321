#!/usr/bin/env bash
# lm-eval shows an item its own answer among the few-shot examples.
#
# One would guess: with `num_fewshot` the item under test is never one of its own examples, whatever splits a task's
#   YAML names; where only the test split exists, the item is left out of the draw.
# What happens: the item is left out only where the split of the examples is found to be the test split by its
#   settings. A YAML with `test_split` alone draws examples from the test split, item included. With all items as
#   examples each one sees its own answer, and a model that copies scores 1.0. `fewshot_split: test`, one more line,
#   leaves the item out. `training_split` with the name of the test split does not.
# Versions: lm_eval 0.4.13, datasets 5.2.0.
# Why it matters: few-shot scores of a home-made task are too high, more so for models that are good at copying, and
#   nothing in the result says so. A warning about the missing split appears, but not about the item.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet lm_eval==0.4.13 datasets==5.2.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hub" OMP_NUM_THREADS=1
mkdir "$work/tasks"
"$work/venv/bin/python" - "$work/tasks" 2>"$work/log" <<'PY' || { tail -n 20 "$work/log" >&2; exit 1; }
import json
import sys
from importlib.metadata import version
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

ITEMS = 12
folder = Path(sys.argv[1])
rows = [{"question": f"capital of land {i}?", "answer": f"city {i}"} for i in range(ITEMS)]
(folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
SPLITS = {
    "test_only": "test_split: test",
    "named_fewshot": "test_split: test\nfewshot_split: test",
    "named_training": "test_split: test\ntraining_split: test",
}
for name, splits in SPLITS.items():
    (folder / f"{name}.yaml").write_text(
        f"""task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "items.jsonl"}
{splits}
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
    )


class Copier(LM):
    """Knows nothing; answers where the same question with its answer stands in the prompt."""

    def loglikelihood(self, requests):
        answers = []
        for request in requests:
            prompt, target = request.args
            question = prompt.split("\n\n")[-1].strip()
            found = f"{question} {target.strip()}\n" in prompt
            answers.append((0.0 if found else -9.0, found))
        return answers

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def accuracy(task, shots):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    try:
        found = lm_eval.simple_evaluate(
            model=Copier(), tasks=[task], num_fewshot=shots, task_manager=manager, bootstrap_iters=0
        )
    except ValueError:
        return "refused"
    return found["results"][task]["acc,none"]


# shots: 0, 5, and as many as there are items
STATED = {
    "test_only": (0.0, "some", 1.0),
    "named_fewshot": (0.0, 0.0, "refused"),
    "named_training": (0.0, "some", 1.0),
}
print(f"lm_eval {version('lm_eval')}; datasets {version('datasets')}")
wrong = []
for task, stated in STATED.items():
    seen = [accuracy(task, shots) for shots in (0, 5, ITEMS)]
    print(f"  {task:15} accuracy of a copier with 0, 5 and {ITEMS} shots: {seen}")
    for expected, got in zip(stated, seen, strict=True):
        if got != expected and not (expected == "some" and got != "refused" and 0 < got < 1):
            wrong.append(f"{task}: stated {stated}, seen {seen}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
