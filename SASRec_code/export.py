r"""Give the windows, noisy or filtered, to RecBole: benchmark files and the YAML that runs them.

Reads   data/<dataset>/, as main.py does
Writes  SASRec_code/output/<dataset>/recbole_<settings>/: <name>/<name>.{train,valid,test}.inter (a window a row: history and
        target), <name>/<name>.item (every item and its title), <name>.yaml

    python export.py --dataset ML100K_noise_user0.1
    python export.py --dataset ML100K_denoise_user0.1_0 --denoise_category all --evidence collaborative --edit delete \
        --train_noise_filter_threshold 0.3 --test_noise_filter_threshold 0.3

No times are written: RecBole keeps them as float32, which puts neighbours in one moment, and a row carries its order.
RecBole reads its files by pandas: quotation marks quote there, and `NA`, `null` and the like are missing values, so titles and
users that hold such text are written as it reads them.
"""

import argparse
import csv
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import FilterOptions, RowsOptions, check_filter, filter_parser, output_folder

from denoise_code.common.errors import input_errors
from denoise_code.common.files import publish_folder

# What pandas takes for a missing value, quoted or not. With a space behind it, which parts of a title are split at, it is text.
READ_AS_MISSING = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN",
    "None", "n/a", "nan", "null",
}  # fmt: skip
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
    parser.add_argument(
        "--rows",
        choices=["sample", "all"],
        default="sample",
        help="rows of valid and test: the 5,000 that the release evaluates on where there is such a file, or all; all takes every "
        "row of train too, where a sample lies beside them (default, release: sample)",
    )
    return check_filter(parser, parser.parse_args(argv))


def main(argv=None) -> Path:
    args = parse_args(argv)
    with input_errors(__file__):
        return export(args)


def export(args: argparse.Namespace) -> Path:
    """Writes the folder and returns it."""
    from experiment import read_rows
    from rows import rows_fingerprint, with_maxlen

    from denoise_code.data_set.catalogue import read_catalogue

    # 1. Rows, filtered
    args = with_maxlen(args)
    rows_options = RowsOptions.from_arguments(args)
    rows = read_rows(rows_options, FilterOptions.from_arguments(args))
    windows = {split: edits.windows for split, edits in rows.edited().items()}
    splits = rows.loaded.splits
    for split in splits.values():
        print_sample(split)
    titles = read_catalogue(splits["train"].path.parent, allow_untitled=True)

    # 2. RecBole's files
    folder = output_folder(args, rows_fingerprint(rows_options), "recbole_")
    name = re.sub(r"\W", "_", args.dataset)  # RecBole takes what follows a dot or a dash for something else

    def write_files(partial: Path) -> None:
        (partial / name).mkdir(parents=True)
        for split, split_windows in windows.items():
            write_interactions(partial / name / f"{name}.{split}.inter", splits[split].users, split_windows)
        write_items(partial / name / f"{name}.item", titles)
        yaml = YAML.format(folder=folder.resolve(), maxlen=args.maxlen)
        (partial / f"{name}.yaml").write_text(yaml, encoding="utf-8")

    publish_folder(folder, write_files)

    # 3. How to train on them
    print_command(folder, name)
    return folder


def write_interactions(path: Path, users, windows) -> None:
    """A line a window: users (N,), windows (N, L + 1), left-padded with 0, the target last."""
    lines = []
    for user, items in zip(users, windows.tolist()):
        history = " ".join(str(item) for item in items[:-1] if item)
        lines.append([as_text(str(user)), history, items[-1]])
    write_table(path, ["user_id:token", "item_id_list:token_seq", "item_id:token"], lines)


def write_items(path: Path, titles: list[str]) -> None:
    """A line an item; titles (n_items + 1,), the first is padding's."""
    lines = [[item, as_text(" ".join(title.split()))] for item, title in enumerate(titles[1:], 1)]
    write_table(path, ["item_id:token", "title:token_seq"], lines)


def as_text(cell: str) -> str:
    """A cell that RecBole reads as text, whatever it says."""
    return f"{cell} " if cell in READ_AS_MISSING else cell


def write_table(path: Path, header: list[str], lines: list[list]) -> None:
    """Tabs between cells; what holds a quotation mark is quoted, and its marks doubled."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def print_sample(split) -> None:
    """Say that the rows of a split are a sample where all of them lie beside it."""
    path = split.path
    name = path.stem.split("_")[0]
    if path.stem == name:
        return
    whole = path.with_name(f"{name}.csv")
    print(
        f"{name}: {path.name} is a sample of {len(split.items):,} rows"
        + (f"; --rows all takes those of {whole.name}" if whole.exists() else f", there is no {whole.name} in {path.parent.name}")
    )


def print_command(folder: Path, name: str) -> None:
    print(f"wrote {folder}; to train on it, where RecBole is installed (from torch 2.6 on it loads its own checkpoint only so):")
    print(
        'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python -c "from recbole.quick_start import run_recbole; '
        f"run_recbole(model='SASRec', dataset='{name}', config_file_list=['{folder / name}.yaml'])\""
    )


if __name__ == "__main__":
    main()
