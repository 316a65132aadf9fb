"""denoise_code/reading/grounding.py: the table of the release, and ours."""

import json

import numpy as np
import pandas as pd
import torch
from conftest import TITLES, csvs, run


def test_the_releases_embedding_is_used_when_it_fits(tiny_adapters, data, tmp_path, capsys):
    adapter = tiny_adapters["llama"]
    torch.save(torch.zeros(3, 8), data / "item_embedding.pt")
    ours = csvs(run(adapter, data, out=tmp_path / "a"))
    assert "does not fit this model and catalogue" in capsys.readouterr().out
    table = torch.full((len(TITLES) + 1, 64), 1e3)
    table[5] = 0  # so every text that is no title is nearest to item 5
    torch.save(table, data / "item_embedding.pt")
    theirs = run(adapter, data, out=tmp_path / "b")
    assert csvs(theirs) != ours
    free = pd.read_csv(theirs / "train.csv").suggest_item_ids.map(json.loads)
    share = json.loads((theirs / "run.json").read_text())["splits"]["train"]["share_grounded_by_embedding"]
    found = np.mean([item == 5 for row in free for item in row])
    assert found >= share > 0
    assert list(data.glob("item_embedding_*.safetensors"))
