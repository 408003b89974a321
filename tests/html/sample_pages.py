"""Every kind of page that a command writes, each with plain and with extreme contents."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braingpt.bench.report.page import architectures_page, kernels_page
from braingpt.data.shards import report as data_report
from braingpt.data.shards.documents import DocumentReader
from braingpt.data.shards.manifest import Manifest, TokenizerFacts
from braingpt.data.shards.writer import FolderWriter
from braingpt.evaluation import page as eval_page
from braingpt.evaluation.perplexity import Score, Scores
from braingpt.evaluation.runner import EvalResult
from braingpt.evaluation.uncertainty import Comparison, Figure, compare
from braingpt.inspection import page as inspection_page
from braingpt.inspection.dense_twin import DenseComparison
from braingpt.inspection.runner import Inspection, TokenWindows, inspect_model
from braingpt.model.lm import build
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer

BENCH = Path(__file__).parents[2] / "docs" / "results" / "bench-small.json"
TOKENIZER = Tokenizer.default()
# Names as people have them: long, with and without spaces, brackets, signs of HTML and of TeX, Hangul.
NAMES = (
    "runs/실험-2026/아주_긴_이름의_학습_결과[lr=1e-3]/체크포인트.마지막/step-0001200",
    '<b>a & b</b> "quoted" $x_1^2$ $y$',
    "한국어로만 지은 긴 이름 그리고 또 다른 낱말들이 뒤를 따르는 이름",
    "W" * 70,
    "[/bold] {curly} \\alpha %s \u202e\x1b[2J",
    "v",
)
EXTREMES = (0.0, 1e-12, 1e12, 572.1453, 1.0, 1e-4)
KOREAN = "한강은 서울을 가로질러 흐른다. 그리고 바다로 간다. "
ENGLISH = "<b>The river & the city</b>, unbelievably selective: $x$ reached. "


def bench_plain(_: Path) -> str:
    return architectures_page(json.loads(BENCH.read_text(encoding="utf-8")))


def bench_extreme(_: Path) -> str:
    """Contenders of all names, with extreme times, losses of one step, no validation of a language."""
    report = json.loads(BENCH.read_text(encoding="utf-8"))
    base = dict(zip(("v1", "v2", "dense"), NAMES[:3], strict=True))

    def renamed(tree: Any) -> Any:
        if isinstance(tree, dict):
            found = {base.get(key, key): renamed(value) for key, value in tree.items()}
            if set(base) <= set(tree):
                for number, name in enumerate(NAMES[3:]):
                    found[name] = renamed(tree[("v1", "v2", "dense")[number]])
            return found
        return [renamed(one) for one in tree] if isinstance(tree, list) else tree

    report = renamed(report)
    report["settings"]["architectures"] = list(NAMES)
    report["settings"]["folders"] = [NAMES[0]]
    for number, name in enumerate(NAMES):
        report["memory"][name] = int(10 ** (3 * number))
        for part, series in report["speed"][name].items():
            if part != "over":
                series.update(median=EXTREMES[number], min=EXTREMES[number] / 2, max=EXTREMES[number] * 1.5)
        for run in report["tokens"]["runs"][name]:
            for key, values in run["curve"].items():
                run["curve"][key] = values[:1] if number % 2 else values
            run["curve"]["grad_norm"] = [EXTREMES[number] for _ in run["curve"]["grad_norm"]]
    report["failed"] = {NAMES[0]: {"stage": "training", "reason": "out of memory: " + NAMES[3]}}
    return architectures_page(report)


def kernels(_: Path) -> str:
    """Operations of all names, one failed, one without a counterpart."""

    def series(value: float) -> dict[str, Any]:
        return {"median": value, "min": value / 2, "max": value * 2, "rounds": [value]}

    rows: list[dict[str, Any]] = [
        {
            "operation": name,
            "path": "cpu threads",
            "seconds": series(value),
            "reference_over_it": series(1 + number),
            "dense_over_it": series(23.4567) if number else None,
            "share_of_limit": number / 7,
            "limit_seconds": value,
            "bound_by": "operations",
            "dense_is": "SwiGLU" if number else None,
            "failed": {"reference": NAMES[1]} if number == 1 else {},
        }
        for number, (name, value) in enumerate(zip(NAMES, EXTREMES, strict=True))
    ]
    rows.append({"operation": "scan, one token", "error": "no backend <here>"})
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    settings = {"dtype": "float32", "size": "nano", "batch": 1, "context": 1024, "rounds": 5, "device": "cpu"}
    limits = {"float32": {"flops": 1e12, "bytes_per_second": 3e10}}
    return kernels_page({"settings": settings, "machine": bench["machine"], "limits": limits, "rows": rows})


def _figure(number: int, name: str, value: float, **more: Any) -> Figure:
    spread = np.random.default_rng(number).random(8)
    return Figure(name, "ko", "accuracy", value * (0.9 + 0.2 * spread), np.ones(8), **more)


def _result(name: str) -> dict[str, Any]:
    return {
        "recipe": name,
        "step": 1_200,
        "run": NAMES[0],
        "data": f"{NAMES[0]}, data/한국어 (validation)",
        "context": 256,
        "dtype": "float32",
        "layers_used": None,
        "against": {"recipe": NAMES[2], "step": 7},
    }


def evaluation(_: Path) -> str:
    """Perplexity of 1.0 to 572, tasks of all names with shares from 0 to 1, and a comparison."""
    scores = Scores()
    for number, language in enumerate(("ko", "en", "de")):
        nats = [(number + 0.01) * 300 + n for n in range(4)]
        windows = [Score(tokens=100, bytes=300, nats=one, text_nats=one) for one in nats]
        scores.count(language, windows)
    figures = [_figure(n, name, n / 5, chance=0.25) for n, name in enumerate(NAMES)]
    figures += [_figure(9, f"large {value}", value) for value in EXTREMES]
    pairs = [(figure, _figure(n + 20, figure.task, 0.5, chance=0.25)) for n, figure in enumerate(figures)]
    comparisons: list[Comparison] = [compare(first, second) for first, second in pairs]
    measured = EvalResult([*scores.figures(), *figures], scores, ["A note <with> $signs$."])
    return eval_page.page(_result(NAMES[1]), measured, comparisons)


def evaluation_of_one(_: Path) -> str:
    """One task with one item."""
    figure = Figure("recall", "ko", "accuracy", np.ones(1), np.ones(1))
    return eval_page.page(_result("nano-v2") | {"against": None}, EvalResult([figure]), [])


@cache
def _inspection() -> Inspection:
    model = build(load_recipe("nano-v2", ["model.layers=2", "model.hidden=32", "model.heads=4"]).model).eval()
    parts = [("ko", TOKENIZER.encode(KOREAN * 8, "ko")), ("en", TOKENIZER.encode(ENGLISH * 8, "en"))]
    return inspect_model(model, TOKENIZER, TokenWindows.of(parts, 32), rounds=0)


def _inspection_page(found: Inspection, steps: int, recipe: str) -> str:
    rows = [{"step": step, **found.as_dict()["total"]} for step in range(steps)]
    drawn = inspection_page.pictures(found, rows)
    head = {"recipe": recipe, "step": 1_200, "text": f"{NAMES[0]} & <text>"}
    return inspection_page.page(head, found, drawn, TOKENIZER)


def inspection(_: Path) -> str:
    twin = DenseComparison(None, "model", 0.4, 0.41, 1.2, 0.3, 0.9, None)
    return _inspection_page(replace(_inspection(), achieved=[twin]), 1, "nano-v2")


def inspection_of_many_layers(_: Path) -> str:
    """48 layers of 300 columns, 2,000 tokens, values that are not numbers, no token that was spared."""
    found, layers, tokens = _inspection(), 48, 2_000
    row = replace(found.report.layers[0], computed=1e-12, columns_dead=10**9, load_entropy=None)
    report = replace(found.report, layers=[replace(row, layer=n) for n in range(layers)], tokens=tokens)
    generator = np.random.default_rng(0)
    loads = [[float(x) for x in 3 * generator.random(300) ** 4] for _ in range(layers)]
    loads[0] = [float("nan"), 1e12, *[0.0] * 298]
    trace = replace(
        found.trace,
        ids=(found.trace.ids * 40)[:tokens],
        arrived=torch.ones(layers, tokens, dtype=torch.bool),
        winners=[torch.zeros(tokens, 1, dtype=torch.long)] * layers,
    )
    many = replace(
        found,
        report=report,
        trace=trace,
        starts={"?": 0},
        spent=torch.ones(tokens),
        loads={"?": loads, "ko": [[0.0, 1e-12]] * layers},
        specialisation=[replace(one, layer=n) for one in found.specialisation[:3] for n in range(layers)],
    )
    return _inspection_page(many, 500, NAMES[1])


def _prepared(folder: Path, documents: dict[tuple[str, str, str], list[str]], filters: Any) -> DocumentReader:
    with FolderWriter(folder, "uint16", 1 << 20) as writer:
        for (split, language, source), texts in documents.items():
            for text in texts:
                ids = [*TOKENIZER.encode(text, language), TOKENIZER.eot]
                writer.add(split, language, source, ids, int(TOKENIZER.token_bytes()[ids].sum()))
        streams = writer.close()
        TOKENIZER.save(writer.root / "tokenizer")
        facts = TokenizerFacts(fingerprint=TOKENIZER.fingerprint, vocab_size=TOKENIZER.vocab_size)
        about: dict[str, Any] = {
            "name": NAMES[1],
            "braingpt": "0.1",
            "created": "2026-01-01",
            "parameters": {"languages": ["ko", "en"], "folder": NAMES[0], "unbroken": NAMES[3]},
        }
        writer.publish(Manifest(**about, tokenizer=facts, dtype="uint16", streams=streams, filters=filters))
    return DocumentReader(folder)


def _data_page(reader: DocumentReader) -> str:
    counted = reader.count()
    return data_report.page(reader, counted, data_report.figures(reader, counted))


def data(folder: Path) -> str:
    """Documents of 1 to thousands of tokens, dropped ones with long words, sources of all names."""
    texts = [KOREAN * n for n in (1, 2, 50, 400)] + ["뷁" * 40, "가" * 900]
    documents = {
        ("train", "ko", "a-source-of-long-name_of-many-parts.v1"): texts,
        ("train", "en", "b"): [ENGLISH * 3, "https://example.org/" + "a/b" * 300, "x"],
        ("validation", "en", "b"): ["One\n\n\ttwo\u200bthree\x1b[2J"],
    }
    dropped = {
        name: {"documents": 10**number, "samples": [KOREAN * 3, NAMES[3] * 4, ENGLISH]}
        for number, name in enumerate(NAMES)
    }
    filters = {
        NAMES[2]: {"read": 10**12, "kept": 1, "dropped": dropped},
        "empty": {"read": 0, "kept": 0, "dropped": {}},
    }
    return _data_page(_prepared(folder / "자료 [폴더]", documents, filters))


def data_of_one_document(folder: Path) -> str:
    return _data_page(_prepared(folder / "d", {("train", "ko", "s"): ["가"]}, {}))


PAGES: dict[str, Callable[[Path], str]] = {
    one.__name__: one
    for one in (
        bench_plain,
        bench_extreme,
        kernels,
        evaluation,
        evaluation_of_one,
        inspection,
        inspection_of_many_layers,
        data,
        data_of_one_document,
    )
}
