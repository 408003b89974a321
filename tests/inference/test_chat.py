import pytest

from braingpt.errors import UserError
from braingpt.inference.chat import Conversation
from braingpt.inference.engine import generate
from braingpt.inference.sampling import Sampler
from braingpt.inference.text_stream import non_text_tokens
from braingpt.model.config import V2Config
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.inference.scripted import Scripted

T = Tokenizer.default()


def turn(question: str) -> list[int]:
    return [T.user, *T.encode(question), T.assistant]


def test_every_token_is_read_once_in_order():
    """An answer ended by the limit, one ended by the model, one ended by a user token, and a last one."""
    first, second, third = T.encode(" one two three four"), T.encode(" 그래"), T.encode(" yes")
    limit = len(first) - 1
    script = [*first[:limit], *second, T.eot, *third, T.user, *third]
    model = Scripted(script)
    talk = Conversation(model, T, language="en", max_new_tokens=limit, temperature=0)
    answers = []
    for question in ("How?", "왜?", "Then?", "End"):
        # the limit leaves the last token unread
        model.chosen = model.chosen if not answers or len(answers) > 1 else limit
        answers.append("".join(talk.say(question)))
    assert answers == [T.decode(first[:limit]), " 그래", " yes", " yes"]
    transcript = [
        T.markers["en"],
        *turn("How?"),
        *first[:limit],
        *turn("왜?"),
        *second,
        *turn("Then?"),
        *third,
        *turn("End"),
        *third,
    ]
    assert model.read == transcript
    assert talk.tokens_read == len(transcript)


def test_the_penalty_applies_to_the_tokens_of_all_turns(monkeypatch):
    noted = []
    monkeypatch.setattr(Sampler, "note", lambda _, row, ids: noted.extend(ids))
    talk = Conversation(Scripted([5]), T, language="en", repetition_penalty=1.2, max_new_tokens=2)
    for question in ("How?", "왜?"):
        list(talk.say(question))
    assert {T.markers["en"], *turn("How?"), *turn("왜?")} <= set(noted)


def test_the_first_turn_names_the_language():
    model = Scripted([T.eot])
    list(Conversation(model, T).say("안녕하세요, 반갑습니다"))
    assert model.read[0] == T.markers["ko"]
    model = Scripted([T.eot])
    # no language to tell by: no marker
    list(Conversation(model, T).say("123"))
    assert model.read == turn("123")


def test_the_state_kept_equals_reading_the_whole_talk():
    config = V2Config(
        layers=2,
        hidden=32,
        heads=4,
        mamba={"state": 8, "head": 8},
        columns={"count": 4, "width": 8},
        attention={"layers": [1]},
    )
    model = awake(config)
    talk = Conversation(model, T, language="ko", max_new_tokens=6, temperature=0)
    stop = {T.eot, T.user}
    transcript = [T.markers["ko"]]
    for question in ("하나", "둘", "셋"):
        transcript += turn(question)
        answer = generate(
            model,
            transcript,
            6,
            temperature=0,
            stop=stop,
            banned=[i for i in non_text_tokens(T) if i not in stop],
        )
        assert "".join(talk.say(question)) == T.decode(answer)
        transcript += answer


def test_broken_text_is_refused_and_the_talk_goes_on():
    model = Scripted(T.encode(" yes"))
    talk = Conversation(model, T, language="en", temperature=0)
    with pytest.raises(UserError, match="surrogate"):
        talk.say("a\udcff")
    assert model.read == [] and "".join(talk.say("ok")) == " yes"
