"""denoise_code/common/files.py: files that are whole or absent, and what they are known by."""

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from denoise_code.common.files import fingerprint_of_json, save_tensors


def test_tensors_come_back_and_others_may_read_them(tmp_path):
    path = tmp_path / "arrays.safetensors"
    arrays = {"transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T, "half": np.array([1.5, -2], dtype=np.float16)}
    save_tensors(path, arrays, {"made_of": "two arrays"})
    stored = load_file(path)
    assert stored.keys() == arrays.keys()
    assert stored["transposed"].dtype == np.int32 and stored["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert stored["half"].dtype == np.float16 and stored["half"].tolist() == [1.5, -2]
    with safe_open(path, "np") as file:
        assert file.metadata() == {"made_of": "two arrays"}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_fingerprint_of_json_stays_the_same():
    """Files of earlier runs are found by it."""
    expected = "553bfc97cadb52dcd0a20355278d9ca653e35c571a6bf4ed1139de483371738e"
    assert fingerprint_of_json([3, {"a": 0.5}, None, "Müller"]) == expected
