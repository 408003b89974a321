"""Word forms of the European languages in the sample corpus: articles, cases, elision, agreement."""

import pytest

from braingpt.data.sample.english_grammar import English, article, plural, verb
from braingpt.data.sample.french import Country as FrenchCountry
from braingpt.data.sample.french import French
from braingpt.data.sample.german import FORMS as GERMAN
from braingpt.data.sample.german import Country as GermanCountry
from braingpt.data.sample.german import German
from braingpt.data.sample.grammar import Draw, fill
from braingpt.data.sample.italian import Country as ItalianCountry
from braingpt.data.sample.italian import Italian
from braingpt.data.sample.spanish import Country as SpanishCountry
from braingpt.data.sample.spanish import Spanish


def test_english() -> None:
    an = "apple egg hour honest old umbrella uncle idea orange unimportant"
    a = "cat house university uniform unicorn European one-way useful ukulele yellow"
    assert {article(word) for word in an.split()} == {"an"}
    assert {article(word) for word in a.split()} == {"a"}
    assert [
        plural(noun) for noun in ("box", "baby", "boy", "mouse", "wolf", "pencil case", "potato", "torch")
    ] == (["boxes", "babies", "boys", "mice", "wolves", "pencil cases", "potatoes", "torches"])
    assert [
        verb(phrase, "ed")
        for phrase in (
            "ride a bicycle",
            "skip stones",
            "carry",
            "dance",
            "play chess",
            "glue on a patch",
            "dig a hole",
        )
    ] == (
        [
            "rode a bicycle",
            "skipped stones",
            "carried",
            "danced",
            "played chess",
            "glued on a patch",
            "dug a hole",
        ]
    )
    assert [verb(phrase, "ing") for phrase in ("swim", "make bread", "see", "read", "sing")] == [
        "swimming",
        "making bread",
        "seeing",
        "reading",
        "singing",
    ]
    assert f"{English('Anna', 'f'):He} {English('Tom'):him} {English('Anna', 'f'):his}" == "She him her"


def test_german_cases() -> None:
    ball, lamp, book = (
        German("Ball", "m", color="rot"),
        German("Lampe", "f", color="rot"),
        German("Buch", "n", color="rot"),
    )
    specs = ("der*", "den*", "dem*", "ein*", "einen*", "einem*", "Der")
    assert [f"{ball:{s}}" for s in specs] == (
        [
            "der rote Ball",
            "den roten Ball",
            "dem roten Ball",
            "ein roter Ball",
            "einen roten Ball",
            "einem roten Ball",
            "Der Ball",
        ]
    )
    assert [f"{lamp:{s}}" for s in specs] == (
        [
            "die rote Lampe",
            "die rote Lampe",
            "der roten Lampe",
            "eine rote Lampe",
            "eine rote Lampe",
            "einer roten Lampe",
            "Die Lampe",
        ]
    )
    assert [f"{book:{s}}" for s in specs] == (
        [
            "das rote Buch",
            "das rote Buch",
            "dem roten Buch",
            "ein rotes Buch",
            "ein rotes Buch",
            "einem roten Buch",
            "Das Buch",
        ]
    )
    assert f"{German('Bär', 'm', 'Bären'):der} {German('Bär', 'm', 'Bären'):den}" == "der Bär den Bären"
    assert (
        f"{German('Hut', 'm', owner='f'):seinen} {German('Oma', 'f', owner='f'):seinem} "
        f"{German('Buch', 'n'):sein}" == "ihren Hut ihrer Oma sein Buch"
    )
    assert f"{ball:er/sie/es} {lamp:er/sie/es} {book:er/sie/es}" == "er sie es"
    assert f"{GermanCountry('die Schweiz'):von} {GermanCountry('Japan'):von}" == "der Schweiz von Japan"
    with pytest.raises(ValueError, match="no form"):
        f"{ball:wessen}"
    assert GERMAN.genders == German.genders


def test_french_elision_contraction_and_agreement() -> None:
    scarf, bag, owl = (
        French("écharpe", "f", color="vert/verte"),
        French("sac", "m", color="blanc/blanche"),
        French("hibou", "m"),
    )
    assert [f"{scarf:{s}}" for s in ("le*", "un*", "mon", "ce", "du", "au")] == (
        [
            "l'écharpe verte",
            "une écharpe verte",
            "mon écharpe",
            "cette écharpe",
            "de l'écharpe",
            "à l'écharpe",
        ]
    )
    assert [f"{bag:{s}}" for s in ("Le*", "du", "au", "son", "ce")] == [
        "Le sac blanc",
        "du sac",
        "au sac",
        "son sac",
        "ce sac",
    ]
    assert [f"{owl:{s}}" for s in ("le", "du", "de")] == ["le hibou", "du hibou", "de hibou"]
    assert (
        f"{French('homme', 'm'):le} {French('arbre', 'm'):ce} {French('Anna', 'f'):de} "
        f"{French('Inès', 'f'):que}" == "l'homme cet arbre d'Anna qu'Inès"
    )
    names = ("la France", "le Japon", "l'Italie", "Cuba")
    assert [f"{FrenchCountry(name):de}" for name in names] == [
        "de la France",
        "du Japon",
        "de l'Italie",
        "de Cuba",
    ]


def test_spanish() -> None:
    eagle, scarf, ball = (
        Spanish("águila", "f", color="negro/negra"),
        Spanish("bufanda", "f", color="rojo/roja"),
        Spanish("balón", "m", color="azul"),
    )
    assert [f"{eagle:{s}}" for s in ("el*", "un*", "al", "del")] == [
        "el águila negra",
        "un águila negra",
        "al águila",
        "del águila",
    ]
    assert [f"{scarf:{s}}" for s in ("El*", "un*", "al", "del", "*")] == [
        "La bufanda roja",
        "una bufanda roja",
        "a la bufanda",
        "de la bufanda",
        "bufanda roja",
    ]
    assert [f"{ball:{s}}" for s in ("el*", "al", "del")] == ["el balón azul", "al balón", "del balón"]
    assert [f"{Spanish(name):y}" for name in ("Inés", "Hilda", "Ana", "hierba")] == [
        "e Inés",
        "e Hilda",
        "y Ana",
        "y hierba",
    ]
    names = ("Francia", "el Reino Unido", "la India")
    assert [f"{SpanishCountry(name):de}" for name in names] == [
        "de Francia",
        "del Reino Unido",
        "de la India",
    ]


def test_italian() -> None:
    expected = {
        "m zaino zaini": "lo zaino|uno zaino|dello zaino|nello zaino|gli zaini|il suo zaino",
        "m gnomo gnomi": "lo gnomo|uno gnomo|dello gnomo|nello gnomo|gli gnomi|il suo gnomo",
        "m studente studenti": "lo studente|uno studente|dello studente|nello studente|gli studenti|il suo "
        "studente",
        "m amico amici": "l'amico|un amico|dell'amico|nell'amico|gli amici|il suo amico",
        "m sasso sassi": "il sasso|un sasso|del sasso|nel sasso|i sassi|il suo sasso",
        "f isola isole": "l'isola|un'isola|dell'isola|nell'isola|le isole|la sua isola",
        "f stella stelle": "la stella|una stella|della stella|nella stella|le stelle|la sua stella",
        "m yogurt yogurt": "lo yogurt|uno yogurt|dello yogurt|nello yogurt|gli yogurt|il suo yogurt",
        "m psicologo psicologi": "lo psicologo|uno psicologo|dello psicologo|nello psicologo|gli "
        "psicologi|il suo psicologo",
    }
    for entry, forms in expected.items():
        gender, one, many = entry.split()
        noun = Italian(one, gender, many)
        assert "|".join(f"{noun:{s}}" for s in ("il", "un", "del", "nel", "i", "il suo")) == forms
    assert (
        f"{Italian('sciarpa', 'f', color='rosso/rossa'):Il*} {Italian('Anna', 'f'):a} "
        f"{Italian('Elena', 'f'):e}" == "La sciarpa rossa ad Anna ed Elena"
    )
    names = ("la Francia", "il Belgio", "l'Italia", "Cuba")
    assert [f"{ItalianCountry(name):di}" for name in names] == [
        "della Francia",
        "del Belgio",
        "dell'Italia",
        "di Cuba",
    ]


def test_a_template_that_names_an_unknown_word_fails() -> None:
    with pytest.raises(KeyError):
        fill("{nobody:은} 왔다.", Draw(0), {})
    assert {fill("[a|[b|c]]", Draw(seed), {}) for seed in range(30)} == {"a", "b", "c"}
