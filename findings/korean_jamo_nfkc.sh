#!/usr/bin/env bash
# NFKC in a tokenizer's normalizer rewrites words of Korean chat.
#
# One would guess: NFKC turns full-width and compatibility characters into plain ones; a letter (jamo) that is typed
#   alone, as in chat, stays a letter of its own. One would also guess that two tokenizers "with NFKC" agree.
# What happens: the keyboard's letters U+3131 to U+3163 become parts of syllables, and then join their neighbours.
#   The chat word ㄳ ("thanks") joins the syllable before it: 감사ㄳ becomes 감삯, 너무ㄳ becomes 너묷. ㄱㅏ becomes 가.
#   ㅋㅋ turns into other code points, which NFC does not turn back. Nine consonant clusters join to the left, ㅄ does
#   not. SentencePiece's default rule (nmt_nfkc) maps ㄳ as well, but leaves it unjoined: the same text on screen, other
#   code points, other tokens.
# Versions: tokenizers 0.23.3, sentencepiece 0.2.3.
# Why it matters: decoded text differs from the input for good, evaluation by exact match fails, and a SentencePiece
#   model that is rebuilt with tokenizers' NFKC sees other characters than it was trained on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet tokenizers==0.23.3 sentencepiece==0.2.3
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import sentencepiece
from tokenizers import normalizers

nfkc = normalizers.NFKC().normalize_str
nfc = normalizers.NFC().normalize_str
work = Path(sys.argv[1])
(work / "text.txt").write_text("감사 합니다 너무 좋아요\n오늘 하루 수고 했어요\n" * 40, encoding="utf-8")
sentencepiece.SentencePieceTrainer.train(
    input=str(work / "text.txt"), model_prefix=str(work / "m"), vocab_size=60, hard_vocab_limit=False, minloglevel=3
)
model = sentencepiece.SentencePieceProcessor(model_file=str(work / "m.model"))


def piece(text):
    """SentencePiece's normal form, without its mark of the first word."""
    return model.normalize(text).removeprefix("\u2581")


# text: (NFKC of tokenizers, default rule of SentencePiece)
STATED = {
    "감사ㄳ": ("감삯", "감사\u11aa"),
    "너무ㄳ": ("너묷", "너무\u11aa"),
    "ㄱㅏ": ("가", "가"),
    "ㅋㅋ": ("\u110f\u110f", "\u110f\u110f"),
    "감사ㅄ": ("감사\u1121", "감사\u1121"),
}
JOIN = list("ㄳㄵㄶㄺㄻㄼㄽㄾㄿ")

print(f"tokenizers {version('tokenizers')}; sentencepiece {version('sentencepiece')}")
wrong = []
for text, stated in STATED.items():
    seen = (nfkc(text), piece(text))
    print(f"  {text}  tokenizers NFKC {seen[0]} {ascii(seen[0])}  SentencePiece {ascii(seen[1])}")
    if seen != stated or nfc(text) != text or nfc(seen[0]) != seen[0]:
        wrong.append(f"{text}: stated {ascii(stated)}, seen {ascii(seen)}")
join = [chr(c) for c in range(0x3131, 0x314F) if len(nfkc("사" + chr(c))) == 1]
print("  consonants that join the syllable before them:", "".join(join))
if join != JOIN:
    wrong.append(f"joining consonants: {join}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
