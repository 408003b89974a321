import pytest

from braingpt.errors import UserError
from braingpt.inference.text_stream import generate_text, non_text_tokens, prompt_ids
from braingpt.model.config import V2Config
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.inference.scripted import Scripted

TOKENIZER = Tokenizer.default()
TEXT = "한강은 서울을 흐른다. 뷁! The river 😀 flows."


def test_the_prompt_begins_as_a_document_does():
    ko, en = TOKENIZER.markers["ko"], TOKENIZER.markers["en"]
    assert prompt_ids(TOKENIZER, None) == [ko] and prompt_ids(TOKENIZER, "", "en") == [en]
    assert prompt_ids(TOKENIZER, "안녕하세요") == [ko, *TOKENIZER.encode("안녕하세요")]
    assert prompt_ids(TOKENIZER, "안녕", "en")[0] == en
    with pytest.raises(UserError, match="unknown language 'xx'"):
        prompt_ids(TOKENIZER, "a", "xx")
    with pytest.raises(UserError, match="surrogate"):
        prompt_ids(TOKENIZER, "a\udcff")


def test_characters_come_whole_and_the_document_end_ends_the_text():
    script = TOKENIZER.encode(TEXT)
    written = generate_text(Scripted(script), TOKENIZER, "서울", max_new_tokens=200, seed=1)
    pieces = list(written)
    assert "".join(pieces) == written.text == TEXT
    assert all("�" not in piece for piece in pieces) and len(pieces) > 5
    assert written.tokens == script and written.finish == "stop" and written.language == "ko"
    assert 0 < written.first_token_seconds <= written.seconds and written.tokens_per_second > 0


def test_a_character_cut_by_the_limit_is_marked():
    # rare: several byte tokens
    script = TOKENIZER.encode("뷁")
    assert len(script) > 1
    written = generate_text(Scripted(script), TOKENIZER, max_new_tokens=len(script) - 1)
    assert "".join(written) == "�" and written.finish == "length"


def test_special_tokens_are_never_written():
    """Not even by a model that wants nothing else."""
    script = [TOKENIZER.user, TOKENIZER.pad, TOKENIZER.markers["en"], TOKENIZER.vocab_size - 1] * 2
    written = generate_text(Scripted(script), TOKENIZER, max_new_tokens=8, seed=0)
    text = "".join(written)
    assert len(written.tokens) == 8 or written.finish == "stop"
    assert max(written.tokens, default=0) < TOKENIZER.eot and "<|" not in text
    assert len(non_text_tokens(TOKENIZER)) == 63


def test_a_real_model_writes_the_same_text_with_the_same_seed():
    model = awake(
        V2Config(
            layers=1, hidden=32, heads=4, mamba={"state": 8, "head": 8}, columns={"count": 4, "width": 8}
        )
    ).float()
    written = [generate_text(model, TOKENIZER, "Hello", max_new_tokens=20, seed=seed) for seed in (1, 1, 2)]
    texts = ["".join(w) for w in written]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == TOKENIZER.decode(written[0].tokens)


def test_figures_of_nothing():
    written = generate_text(Scripted([]), TOKENIZER, "Hello", max_new_tokens=0)
    assert list(written) == [] and written.first_token_seconds is None and written.tokens_per_second is None
