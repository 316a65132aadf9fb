"""Give the windows, noisy or filtered, to RecBole: benchmark files and the YAML that runs them.

Reads   data/<dataset>/, as main.py does
Writes  SASRec_code/output/<dataset>/recbole_<settings>/: <name>/<name>.{train,valid,test}.inter (a window a row: history and
        target), <name>/<name>.item (every item and its title), <name>.yaml

    python export.py --dataset ML100K_noise_user0.1
    python export.py --dataset ML100K_noise_user0.1 --denoise_category all --evidence collaborative --edit delete \
        --train_noise_filter_threshold 0.3 --test_noise_filter_threshold 0.3

No times are written: RecBole keeps them as float32, which puts neighbours in one moment, and a row carries its order.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import FilterOptions, RowsOptions, check_filter, filter_parser, output_folder, with_settings

from denoise_code.common.errors import input_errors
from denoise_code.common.files import write_atomically

YAML = """\
data_path: "{folder}"
benchmark_filename: [train, valid, test]
alias_of_item_id: [item_id_list]
load_col: {{inter: [user_id, item_id_list, item_id], item: [item_id, title]}}
MAX_ITEM_LIST_LENGTH: {maxlen}
# the rows are the split: each ranks its own target among all items
eval_args: {{mode: full, order: TO}}
train_neg_sample_args: ~
loss_type: CE
metrics: [Hit, NDCG]
topk: [10, 20]
valid_metric: NDCG@20
"""


def parse_args(argv=None) -> argparse.Namespace:
    parser = filter_parser(__doc__)
    return check_filter(parser, parser.parse_args(argv))


def main(argv=None) -> Path:
    args = parse_args(argv)
    with input_errors(__file__):
        return export(args)


def export(args: argparse.Namespace) -> Path:
    """Writes the folder and returns it."""
    from experiment import read_rows
    from rows import choose_maxlen, find_files, rows_fingerprint

    from denoise_code.data_set.catalogue import read_titles

    # 1. Rows, filtered
    paths = find_files(RowsOptions.from_arguments(args))
    args = with_settings(args, maxlen=choose_maxlen(paths, args.maxlen))  # of the data set, where none is given
    rows_options = RowsOptions.from_arguments(args)
    rows = read_rows(rows_options, FilterOptions.from_arguments(args))
    windows = rows.edited()
    titles = read_titles(rows.splits["train"].path.parent)

    # 2. RecBole's files
    folder = output_folder(args, rows_fingerprint(rows_options), "recbole_")
    name = re.sub(r"\W", "_", args.dataset)  # RecBole takes what follows a dot or a dash for something else
    with write_atomically(folder) as partial:
        (partial / name).mkdir(parents=True)
        for split, split_windows in windows.items():
            write_interactions(partial / name / f"{name}.{split}.inter", rows.splits[split].users, split_windows)
        write_items(partial / name / f"{name}.item", titles)
        yaml = YAML.format(folder=folder.resolve(), maxlen=args.maxlen)
        (partial / f"{name}.yaml").write_text(yaml, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)

    # 3. How to train on them
    print_command(folder, name)
    return folder


def write_interactions(path: Path, users, windows) -> None:
    """A line a window: users (N,), windows (N, L + 1), left-padded with 0, the target last."""
    with path.open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id_list:token_seq\titem_id:token\n")
        for user, items in zip(users, windows.tolist()):
            history = " ".join(str(item) for item in items[:-1] if item)
            file.write(f"{user}\t{history}\t{items[-1]}\n")


def write_items(path: Path, titles: list[str]) -> None:
    """A line an item; titles (n_items + 1,), the first is padding's."""
    with path.open("w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\n")
        for item, title in enumerate(titles[1:], 1):
            file.write(f"{item}\t{' '.join(title.split())}\n")


def print_command(folder: Path, name: str) -> None:
    print(f"wrote {folder}; to train on it, where RecBole is installed (from torch 2.6 on it loads its own checkpoint only so):")
    print(
        'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python -c "from recbole.quick_start import run_recbole; '
        f"run_recbole(model='SASRec', dataset='{name}', config_file_list=['{folder / name}.yaml'])\""
    )


if __name__ == "__main__":
    main()
