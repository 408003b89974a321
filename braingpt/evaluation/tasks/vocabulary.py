"""Words that our own tasks are made of: everyday nouns by kind, and words that no language knows."""


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


KINDS = {
    "ko": {
        "동물": _words("개 고양이 말 소 토끼 호랑이 곰 늑대 쥐 오리 여우 양"),
        "음식": _words("빵 밥 치즈 사과 국 떡 고기 바나나 달걀 두부 포도 김치"),
        "몸": _words("손 발 코 귀 눈 무릎 팔 입 어깨 목 손가락 머리"),
        "옷": _words("셔츠 모자 외투 치마 양말 바지 장갑 목도리 신발 조끼 한복 잠옷"),
    },
    "en": {
        "animal": _words("dog cat horse cow rabbit tiger bear wolf mouse duck fox sheep"),
        "food": _words("bread rice cheese apple soup cake meat banana egg potato grape butter"),
        "body": _words("hand foot nose ear eye knee arm mouth shoulder neck finger head"),
        "clothes": _words("shirt hat coat skirt sock dress glove scarf shoe vest jacket belt"),
    },
}
NEW = {
    "ko": _words("가붐 노딱 바룸 시믈 도퍼 루갑 메솟 초븟 카핌 포듭 허닌 주뱍 터궁 피놈 저맙 나훗"),
    "en": _words("blick dax wug toma zib fep lorp kiba mip gazzer tulver sorn pilk neem vorp yade"),
}
