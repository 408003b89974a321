"""Small, fixed Korean and English documents: the golden losses depend on every character."""

import random

KO = (
    ("아침", "점심때", "저녁", "밤늦게", "주말"),
    ("민수는", "지은이는", "할머니께서는", "우리 선생님은", "이웃집 아이는"),
    ("도서관에서", "시장에서", "강가에서", "부엌에서", "작은 공원에서"),
    ("책을 읽었다", "사과를 샀다", "노래를 불렀다", "편지를 썼다", "친구를 기다렸다"),
)
EN = (
    ("In the morning", "At noon", "Late at night", "On Sunday", "After the rain"),
    ("the old teacher", "my sister", "a young farmer", "the baker", "our neighbour"),
    ("read a letter", "bought two apples", "sang a quiet song", "painted the door", "waited for a friend"),
    ("near the river", "in the library", "at the market", "behind the house", "by the window"),
)


def documents(language: str, count: int) -> list[str]:
    """`count` documents of four to nine sentences."""
    chance = random.Random(f"{language} documents")
    made = []
    for _ in range(count):
        parts = [
            [chance.choice(options) for options in (KO if language == "ko" else EN)]
            for _ in range(chance.randint(4, 9))
        ]
        made.append(" ".join(" ".join(part) + "." for part in parts))
    return made
