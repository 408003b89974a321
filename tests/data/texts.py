"""Short documents that pass every rule and are no near duplicates of each other: numbers to sentences."""

import random

KOREAN_WORDS = [
    "사람이",
    "기계가",
    "학교에서",
    "도서관에서",
    "아침마다",
    "저녁에는",
    "조용히",
    "천천히",
    "새로운",
    "오래된",
    "작은",
    "커다란",
    "이야기를",
    "노래를",
    "편지를",
    "그림을",
    "친구와",
    "동생과",
    "선생님께",
    "바다를",
    "산길을",
    "골목을",
    "시장에서",
    "부엌에서",
    "창가에서",
    "읽고",
    "쓰고",
    "그리고",
    "걷다가",
    "웃으며",
    "생각하며",
    "기다리다가",
    "만나서",
    "함께",
    "다시",
    "먼저",
    "마침내",
    "어제는",
    "내일은",
    "봄에는",
    "겨울에도",
    "할머니가",
    "아버지께서",
    "고양이는",
    "강아지도",
    "나무를",
    "꽃을",
    "하늘을",
    "구름이",
    "비가",
    "눈이",
    "바람이",
    "지나가고",
    "들려오고",
    "떠오르고",
    "사라지고",
]
ENGLISH_WORDS = [
    "people",
    "machines",
    "letters",
    "stories",
    "gardens",
    "rivers",
    "mountains",
    "windows",
    "children",
    "teachers",
    "doctors",
    "sailors",
    "painters",
    "farmers",
    "kitchens",
    "markets",
    "libraries",
    "trains",
    "bridges",
    "islands",
    "forests",
    "winters",
    "mornings",
    "evenings",
    "voices",
    "colours",
    "numbers",
    "questions",
    "answers",
    "journeys",
    "houses",
    "streets",
    "neighbours",
    "animals",
    "shadows",
    "candles",
    "mirrors",
    "pockets",
    "baskets",
    "lanterns",
    "meadows",
    "harbours",
    "villages",
    "castles",
    "pictures",
    "whispers",
    "promises",
    "secrets",
]
KOREAN_ENDS = ("했다", "보았다", "있었다", "말했다", "좋았다", "떠났다")


def korean(number: int) -> str:
    """A Korean document."""
    draw = random.Random(number)
    return " ".join(
        " ".join(draw.sample(KOREAN_WORDS, 7)) + f" {draw.choice(KOREAN_ENDS)}." for _ in range(2)
    )


def english(number: int) -> str:
    """An English document."""
    draw = random.Random(number)
    words = [draw.choice(ENGLISH_WORDS) for _ in range(10)]
    template = (
        "The {} and the {} of the {} were near the {}, and {} with {} had {} for the {}, but {} saw {}."
    )
    return template.format(*words)
