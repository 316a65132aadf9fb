#!/usr/bin/env bash
# Stage 2 in one line. All GPUs there are, else the CPU. Interrupted? The same line goes on where it was.
set -euo pipefail
usage() {
    cat >&2 <<TEXT
./denoise.sh                                        MovieLens-100k with the adapter in this repository, and a report
./denoise.sh --quick                                the same for 50 users, then SASRec on noisy and denoised rows
./denoise.sh DENOISE_MODEL_PATH NOISE_DATASET_PATH [OPTION ...]
                                                    train, valid_5000 and test_5000 of any data set; options of
                                                    generate_denoised.py may follow
TEXT
    exit 2
}
start=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
case "$# ${1:-}" in
    "0 ") default=all root=data part=(--planted 400) ;;
    "1 --quick") default=quick root=data/quick part=(--planted 200 --users 50 --denoise_data valid_5000 test_5000) ;;
    [2-9]" "[!-]* | [1-9][0-9]" "[!-]*) default= ;;
    *) usage ;;
esac

python=python3
needed='torch, transformers, peft, accelerate, datasets, pandas, sklearn, safetensors, gguf'
if [ -n "$default" ] || [ -x .venv/bin/python ] || ! $python -c "import $needed" 2>/dev/null; then
    bash denoise_code/install.sh
    python=.venv/bin/python
fi

if [ -z "$default" ]; then
    # paths as the caller means them, else as seen from this folder
    from() { case "$1" in /*) echo "$1" ;; *) [ -e "$start/$1" ] && echo "$start/$1" || echo "$PWD/$1" ;; esac; }
    options=(--denoise_model_path "$(from "$1")" --noise_dataset_path "$(from "$2")" "${@:3}")
else
    data=ML100K_noise_user0.1
    if [ ! -d "data/$data" ]; then
        $python data/prepare_noise_data.py ml-100k --noise 0.1 --no_year
    fi
    mkdir -p "$root"
    [ -e "$root/$data" ] || ln -s "../$data" "$root/$data"
    options=(--denoise_model_path "save_denoise_model/$data/batch4_sample2400_epoch1/checkpoint-600"
        --noise_dataset_path "data/$data" --output_root "$root" --unit interaction --score likelihood --suggest catalogue "${part[@]}")
fi

gpus=$($python -c 'import torch; print(torch.cuda.device_count())')
launch=("$python")
[ "$gpus" -gt 1 ] && launch=("$python" -m accelerate.commands.launch --multi_gpu --num_processes "$gpus")
"${launch[@]}" generate_denoised.py "${options[@]}"

[ -n "$default" ] || exit 0
made=$(basename "$($python generate_denoised.py "${options[@]}" --where)")
$python SASRec_code/report.py --dataset "$made" --data_root "$root"
noisy=(SASRec_code/main.py --dataset "$made" --data_root "$root" --denoise_category none)
denoised=(SASRec_code/main.py --dataset "$made" --data_root "$root" --evidence fused --edit delete
    --test_noise_filter_threshold 0.3 --test_max_denoise_num 2)
if [ "$default" = all ]; then
    denoised+=(--denoise_category all --train_noise_filter_threshold 0.3 --train_max_denoise_num 2)
else
    denoised+=(--denoise_category test)
fi
if [ "$default" = quick ]; then
    $python "${noisy[@]}" --num_epochs 8
    $python "${denoised[@]}" --num_epochs 8
else
    echo "SASRec on these rows, noisy and denoised:"
    echo "  $python ${noisy[*]}"
    echo "  $python ${denoised[*]}"
fi
