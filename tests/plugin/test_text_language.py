"""Languages of many texts at once: the same as of each one alone."""

from __future__ import annotations

import random

import pytest

from rlhi_plugin.text_language import TEXT_LANGUAGES, text_language, text_languages

pytest.importorskip("py3langid")
SENTENCES = (
    "Give it six hours of light a day, and water it when the soil is dry.",
    "Gib ihr sechs Stunden Licht am Tag und gieße sie, wenn die Erde trocken ist.",
    "Dale seis horas de luz al día y riégala cuando la tierra esté seca.",
    "Donne-lui six heures de lumière par jour et arrose-la quand la terre est sèche.",
    "Давайте ему шесть часов света в день и поливайте, когда земля сухая.",
    "每天给它六个小时的光照。土壤干了就浇水。不要放在风大的窗边。冬天要少浇一些。",
    "毎日六時間の光を当てて、土が乾いたら水をやってください。冬は少なめにします。",
    "GIVE IT SIX HOURS OF LIGHT A DAY AND WATER IT WHEN THE SOIL IS DRY",
    "Cafe\u0301 au lait et pain grille\u0301, voila\u0300 ce que je prends le matin.",
    "def water(plant):\n    return [leaf for leaf in plant if leaf.dry]",
    "```\nx = 1\n``` hello, this is what the code above does for you",
    "12345 67890 !!! ...",
    "\ud800 half a character and then some more words to tell what it is",
)


def test_many_texts_are_told_as_each_alone():
    draw = random.Random(0)
    texts = [" ".join(draw.choices(SENTENCES, k=draw.randint(1, 3)))[draw.randint(0, 40) :] for _ in range(400)]
    texts += [*SENTENCES, "", "Hola", "a" * 300, "\0" * 60]
    found = text_languages(texts)
    assert found == [text_language(text) for text in texts]
    assert {None, "english", "german", "spanish", "french", "russian", "chinese", "japanese"} <= set(found)
    assert set(found) <= {None, *TEXT_LANGUAGES}


def test_none_and_a_few():
    assert text_languages([]) == []
    assert text_languages(["Hola", SENTENCES[1]]) == [None, "german"]
