"""`braingpt quickstart` from beginning to end, on a moment's training."""

import json

from tests.frozen.keys import assert_keys


def test_the_whole_path(tmp_path, monkeypatch, capsys, braingpt):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("braingpt.train.step_time.STEPS", 3)
    assert braingpt("quickstart", "--minutes", "0.02", "--json") in (None, 0)
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert_keys("quickstart", found)
    # settings that the user did not choose are no concern of theirs
    assert "has no effect" not in captured.err
    assert found["training"]["steps"] >= 20
    assert found["losses"][-1] < found["losses"][0] - 0.5
    assert {text["language"] for text in found["texts"]} == {"ko", "en"} and all(
        text["text"] for text in found["texts"]
    )
    assert set(found["training"]["validation"]["by_language"]) == {"ko", "en", "de", "fr", "es", "it"}
    assert (tmp_path / "runs" / "quickstart" / "metrics.jsonl").is_file()
