"""Give the windows, noisy or filtered, to RecBole: benchmark files and the YAML that runs them.

Reads   data/<dataset>/, as main.py does
Writes  SASRec_code/output/<dataset>/recbole_<settings>/: <name>/<name>.{train,valid,test}.inter (a window a row: history and
        target), <name>/<name>.item (every item and its title), <name>.yaml

    python export.py --dataset ML100K_noise_user0.1
    python export.py --dataset ML100K_noise_user0.1 --denoise_category all --evidence collaborative --edit delete \
        --train_noise_filter_threshold 0.3 --test_noise_filter_threshold 0.3

No times are written: RecBole keeps them as float32, which puts neighbours in one moment, and a row carries its order.
"""

import re
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import check_filter, filter_parser, output_folder

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


def parse_args(argv=None):
    parser = filter_parser(__doc__)
    return check_filter(parser, parser.parse_args(argv))


def main(argv=None) -> Path:
    args = parse_args(argv)
    with input_errors(__file__):
        return export(args)


def export(args) -> Path:
    from filter import FILTERED, check_replacements, denoise, make_replacer, weigh
    from rows import load
    from rows import rows_fingerprint as fingerprint

    from denoise_code.data_set.catalogue import read_titles

    splits, n_items = load(args, FILTERED[args.denoise_category])
    check_replacements(splits, args)
    windows = denoise(splits, weigh(splits, n_items, args), args, make_replacer(splits, n_items, args))
    titles = read_titles(splits["train"].path.parent)
    folder = output_folder(args, fingerprint(args, FILTERED[args.denoise_category]), "recbole_")
    name = re.sub(r"\W", "_", args.dataset)  # RecBole takes what follows a dot or a dash for something else
    with write_atomically(folder) as partial:
        (partial / name).mkdir(parents=True)
        for split, rows in windows.items():
            with (partial / name / f"{name}.{split}.inter").open("w", encoding="utf-8") as file:
                file.write("user_id:token\titem_id_list:token_seq\titem_id:token\n")
                for user, items in zip(splits[split].users, rows.tolist()):
                    file.write(f"{user}\t{' '.join(str(item) for item in items[:-1] if item)}\t{items[-1]}\n")
        with (partial / name / f"{name}.item").open("w", encoding="utf-8") as file:
            file.write("item_id:token\ttitle:token_seq\n")
            for item, title in enumerate(titles[1:], 1):
                file.write(f"{item}\t{' '.join(title.split())}\n")
        (partial / f"{name}.yaml").write_text(YAML.format(folder=folder.resolve(), maxlen=args.maxlen), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"wrote {folder}; to train on it, where RecBole is installed (from torch 2.6 on it loads its own checkpoint only so):")
    print(
        'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python -c "from recbole.quick_start import run_recbole; '
        f"run_recbole(model='SASRec', dataset='{name}', config_file_list=['{folder / name}.yaml'])\""
    )
    return folder


if __name__ == "__main__":
    main()
