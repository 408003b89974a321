"""Perplexity, educational value and decontamination: what they tell apart, what they are bound to, and their
files.
"""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.document import Document
from braingpt.data.prepare.request import missing_scores
from braingpt.data.quality import Judge
from braingpt.data.quality.config import Contamination as ContaminationSettings
from braingpt.data.quality.contamination import Contamination, prepare_list
from braingpt.data.quality.educational import SHIPPED as CLASSIFIER
from braingpt.data.quality.educational import Classifier
from braingpt.data.quality.perplexity import PERCENTILES, SHIPPED, Trigrams, load, sample, save
from braingpt.data.quality.text_stats import TextStats
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.language import LANGUAGES
from tests.data.test_quality_rules import GOOD, config, judge

REVIEW = (
    "진짜 재미없다 시간 아깝고 돈 아깝다 배우들 연기도 별로고 이걸 왜 봤는지 모르겠음 "
    "평점 알바 너무 심하네 절대 보지마세요 비추"
)


def encode(text: str) -> list[int]:
    return Tokenizer.default().encode(text)


def shuffled(text: str) -> str:
    return "".join(random.Random(0).sample(text, len(text)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_perplexity_drops_shuffled_characters_and_keeps_prose(language: str) -> None:
    one = judge()
    assert one.judge_tokens(language, encode(GOOD[language])) is None
    assert one.judge_tokens(language, encode(shuffled(GOOD[language]))) == "perplexity"
    assert judge(perplexity=False).judge_tokens(language, encode(shuffled(GOOD[language]))) is None


def test_a_model_of_another_vocabulary_is_left_out_with_a_note() -> None:
    other = Judge(config(educational={"classifier": 0.5}), LANGUAGES, "another")
    assert len(other.notes) == 2 and all("another tokenizer" in note for note in other.notes)
    assert other.judge_tokens("ko", encode(shuffled(GOOD["ko"]))) is None
    assert not judge().notes


def test_a_trained_model_survives_its_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer.default()
    ids = np.array(encode(" ".join(GOOD.values())), np.int64)
    model = Trigrams.fit(np.tile(ids, 3), tokenizer.token_bytes(), 10_000)
    path = tmp_path / "model.npz"
    save(path, tokenizer.fingerprint, {"xx": model}, {"xx": np.linspace(1, 2, len(PERCENTILES) + 1)})
    fingerprint, models, scores = load(path)
    assert fingerprint == tokenizer.fingerprint and set(scores) == {"xx"}
    # counts are kept in steps of an eighth of an octave
    assert models("xx").score(ids) == pytest.approx(model.score(ids), rel=0.05)
    assert model.score(ids) < 0.3 * model.score(np.random.default_rng(0).permutation(ids))


def test_a_file_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"not a model")
    for over in (
        {"perplexity": {**config().perplexity.model_dump(), "model": str(path)}},
        {"educational": {"classifier": 0.5, "model": str(path)}},
    ):
        with pytest.raises(UserError, match=r"train_(perplexity|educational)"):
            judge(**over)


def test_long_documents_are_scored_by_a_bounded_sample_from_all_over() -> None:
    ids = list(range(10_000))
    part = sample(ids, 2048)
    assert len(part) == 2048 and part[0] == 0 and part[-1] == 9999
    assert sample(ids[:2048], 2048).tolist() == ids[:2048]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*LANGUAGES, "xx"]), st.sampled_from([0, 1, 2, 3, 16, 17, 900, 5000])),
        max_size=12,
    ),
    st.randoms(),
)
def test_a_verdict_on_tokens_does_not_depend_on_the_others(
    drawn: list[tuple[str, int]], chance: random.Random
) -> None:
    one = judge(educational={"classifier": 0.5})
    prose = encode(" ".join(GOOD.values()))
    languages = [language for language, _ in drawn]
    ids = [(prose * (1 + count // len(prose)))[:count] for _, count in drawn]
    for some in ids[::2]:
        chance.shuffle(some)
    alone = [one.judge_tokens(language, some) for language, some in zip(languages, ids, strict=True)]
    assert one.judge_token_batch(languages, ids, [None] * len(ids)) == alone


def test_shipped_models_fit_the_shipped_tokenizer() -> None:
    assert load(SHIPPED)[0] == Classifier(CLASSIFIER).fingerprint == Tokenizer.default().fingerprint
    assert set(load(SHIPPED)[2]) == set(LANGUAGES)
    assert SHIPPED.stat().st_size + CLASSIFIER.stat().st_size < 5e6


def test_scores_of_the_source_decide_before_the_classifier() -> None:
    one = judge(educational={"scores": {"int_score": 3}, "classifier": 0.5})

    def rule(text: str, scores: dict[str, float] | None) -> str | None:
        judged = one.judge_text(Document(text, "ko", "test", "1", scores))
        return judged.rule or one.judge_tokens("ko", encode(text), scores)

    assert rule(REVIEW, {"int_score": 4}) is None
    assert rule(GOOD["ko"], {"int_score": 2}) == "educational"
    assert rule(REVIEW, None) == rule(REVIEW, {"other": 1}) == "educational"
    assert rule(GOOD["ko"], None) is None
    # off unless asked for
    assert judge().judge_tokens("ko", encode(REVIEW)) is None


@pytest.mark.parametrize("language", ["ko", "en"])
def test_a_document_that_holds_an_evaluation_item_is_dropped(tmp_path: Path, language: str) -> None:
    item, rest = GOOD[language][:110], GOOD[language][110:] + " " + GOOD["de"]
    (tmp_path / "set.jsonl").write_text(
        f'{{"question": {{"text": ["{item}"]}}, "answer": 3}}\n', encoding="utf-8"
    )
    for file in (tmp_path / "set.jsonl", tmp_path / "set.npy"):
        if file.suffix == ".npy":
            assert sum(prepare_list([tmp_path / "set.jsonl"], file).values()) > 20
        one = judge(contamination={"files": [str(file)]})
        # spacing, case and punctuation do not hide it
        spaced = item.upper().replace(" ", "  ").replace(",", " -")
        assert (
            one.judge_text(Document(f"{GOOD[language]}\n{spaced}\n{rest}", language, "test", "1")).rule
            == "contamination"
        )
        assert one.judge_text(Document(GOOD["fr"], "fr", "test", "1")).rule is None
    assert judge().judge_text(Document(GOOD[language], language, "test", "1")).rule is None


def test_hashes_find_every_shared_stretch_and_no_other() -> None:
    chance = random.Random(0)
    alphabet = "abcdefgh"
    text = "".join(chance.choices(alphabet, k=3000))
    asked = ContaminationSettings(files=["x"], characters=12)
    from braingpt.data.quality.contamination import _hashes, _letters

    hashes = _hashes(_letters(TextStats(text)), 12)
    assert len(hashes) == 2989 and len(set(hashes.tolist())) == len({text[i : i + 12] for i in range(2989)})
    assert (_hashes(_letters(TextStats(text[500:600])), 12) == hashes[500:589]).all()
    assert asked.characters == {"default": 12}


def test_an_evaluation_set_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    for name, content in [("a.jsonl", "{"), ("b.npy", "x"), ("c.parquet", "x")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=r"cannot read the evaluation set|is not a list of"):
            Contamination(ContaminationSettings(files=[str(tmp_path / name)]))
    with pytest.raises(UserError, match="names no evaluation sets"):
        Contamination(ContaminationSettings())
    (tmp_path / "good.txt").write_text(GOOD["en"])
    for content in ("", '{"text": "Too short."}'):
        (tmp_path / "empty.jsonl").write_text(content)
        with pytest.raises(UserError, match=r"empty\.jsonl holds no text of 20 letters"):
            Contamination(
                ContaminationSettings(files=[str(tmp_path / "good.txt"), str(tmp_path / "empty.jsonl")])
            )


def test_a_rule_that_can_drop_nothing_says_so() -> None:
    notes = Judge(
        config(educational={"classifier": 0.5}), ["ko", "en"], Tokenizer.default().fingerprint
    ).notes
    assert notes == ["the educational classifier knows ko; documents in en pass it"]
    asked = config(educational={"scores": {"int_scroe": 3, "score": 2}})
    assert missing_scores("text", asked) == ["int_scroe", "score"]
    assert missing_scores("fineweb-edu", asked) == ["int_scroe"]
    assert missing_scores("redpajama", asked) == missing_scores("text", config()) == []
