#!/usr/bin/env bash
# Checks and measures rexport on a machine with an NVIDIA GPU; see usage below.
set -euo pipefail

usage() {
    cat <<'END'
usage: scripts/gpu_check.sh FOLDER [--quick] [--limit-s S] [--no-tests] [--device cuda|cpu] [-- OPTION...]

Checks and measures rexport on this machine, in the order of what is worth most:
  1. what there is, and what is missing
  2. the tests that need a GPU; first those of memory, streams and CUDA graphs, which need no TensorRT
  3. the bundled model, then ResNet-50, at batches 1 and 64, fp32 and fp16, all backends in turns
  4. resnet18, resnet50, resnet152 and the bundled model; every precision; batches 1, 8, 64 and 256;
     every backend that is there; CUDA graphs against none
It needs no network, and works with what is installed: without TensorRT, nncf or openvino there are fewer rows.

FOLDER gets six files: results.jsonl (raw samples), results.md, results.html, complete.json, tests.log and
log.txt. The same command goes on where it ended: nothing that FOLDER holds is measured again, and no tests
that passed are run again.

  --quick      steps 1 to 3 alone: some minutes
  --limit-s S  begin nothing new after S seconds; what is being measured then is finished. The tests get
               half of the time; those that still run then are ended, and begin anew the next time
  --no-tests   measure alone
  --device     cpu: a trial of the script itself without a GPU, on the bundled model alone
  -- OPTION... for the measuring, as --backend NAME (python -m scripts.gpu_matrix --help)

PYTHON names the interpreter; by default .venv/bin/python, else python3. rexport need not be installed.

Exit code: 0 all is measured and no test failed; 1 a test or a check failed; 2 usage; 5 nothing could be
measured; 10 nothing failed, and the time was over before all was measured and tested: run it again.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder= device=cuda limit= tests=yes options=()
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --quick) options+=(--quick) ;;
        --no-tests) tests=no ;;
        --device | --limit-s)
            (($# > 1)) || { echo "error: $1 needs a value" >&2; exit 2; }
            if [[ $1 == --device ]]; then device=$2; else limit=$2; fi
            shift ;;
        --) shift; options+=("$@"); break ;;
        -*) echo "error: no option $1 (scripts/gpu_check.sh --help)" >&2; exit 2 ;;
        *) [[ -z $folder ]] || { echo "error: one FOLDER, not also $1" >&2; exit 2; }; folder=$1 ;;
    esac
    shift
done
[[ -n $folder ]] || { usage >&2; exit 2; }
[[ $device == cuda || $device == cpu ]] || { echo "error: --device is cuda or cpu, not $device" >&2; exit 2; }
[[ -z $limit || $limit =~ ^[0-9]+$ ]] || { echo "error: --limit-s takes whole seconds, not $limit" >&2; exit 2; }

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$root"
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ -x .venv/bin/python ]] && PYTHON=$root/.venv/bin/python
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
# CUDA's libraries as Python packages: found by whoever needs them, wherever PyTorch brought them.
libraries=$("$PYTHON" -c 'import glob, sys; print(":".join(p for s in sys.path for p in glob.glob(f"{s}/nvidia/*/lib")))')
if [[ $device == cuda && -n $libraries ]]; then
    export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

# What is left of the time, in seconds.
left() { echo $((limit > SECONDS ? limit - SECONDS : 0)); }

passed="tests: all passed" # the line of log.txt by which it is known the next time

# One run of pytest on files, within the seconds given, if any; its output is added to tests.log. Slow tests are left
# out: those of a GPU compile for minutes.
run_pytest() {
    local seconds=$1 limited=() code=0
    shift
    if [[ -n $seconds ]]; then
        limited=(timeout -s INT -k 10 "$seconds") # interrupted, they end what they started
    fi
    "${limited[@]}" "$PYTHON" -m pytest -q -m "(gpu or tensorrt) and not slow" -o filterwarnings=default -p no:cacheprovider \
        "$@" >>"$folder/tests.log" 2>&1 || code=$?
    tail -n 25 "$folder/tests.log"
    ((code == 5)) || return "$code" # 5: none of these was selected
}

# The tests marked gpu or tensorrt, and no others, whatever else would not even import here.
run_tests() {
    local files=() first=() rest=() file code=0 again seconds=
    mapfile -t files < <(grep -rlE 'mark\.(gpu|tensorrt)\b' tests --include='test_*.py' | sort)
    if ((${#files[@]} == 0)); then
        echo "tests: there are none that are marked gpu or tensorrt"
        return 0
    fi
    if ! "$PYTHON" -c 'import pytest, pytest_timeout' 2>/dev/null; then
        echo "tests: not run: pip install pytest pytest-timeout"
        return 0
    fi
    if [[ -n $limit ]]; then
        seconds=$(($(left) / 2))
        if ((seconds < 1)); then
            echo "tests: not run: the time was over"
            return 124
        fi
    fi
    for file in "${files[@]}"; do
        if [[ $file == */gpu/test_streams.py ]]; then first+=("$file"); else rest+=("$file"); fi
    done
    : >"$folder/tests.log"
    if ((${#first[@]})); then
        run_pytest "$seconds" "${first[@]}" || code=$?
    fi
    if ((${#rest[@]} && code != 124 && code != 137)); then
        if [[ -n $limit ]]; then seconds=$(($(left) > limit / 2 ? $(left) - limit / 2 : 1)); fi
        run_pytest "$seconds" "${rest[@]}" || { again=$?; ((code)) || code=$again; }
    fi
    case $code in
        0)
            if grep -qE '\b[0-9]+ passed\b' "$folder/tests.log"; then echo "$passed"
            else echo "tests: none ran: each was left out, for the reason in $folder/tests.log"; fi ;;
        124 | 137) echo "tests: the time was over; they begin anew the next time"; code=124 ;;
        *) echo "tests: failed; all of it is in $folder/tests.log" ;;
    esac
    return "$code"
}

main() {
    local tested=0 measured=0
    echo "== what there is"
    "$PYTHON" -m scripts.inventory --device "$device"
    if [[ $tests == yes ]] && ! grep -qsxF "$passed" "$folder/log.txt"; then
        echo "== tests, after $SECONDS s"
        run_tests || tested=$?
    fi
    echo "== measuring, after $SECONDS s"
    "$PYTHON" -m scripts.gpu_matrix "$folder" --device "$device" ${limit:+--limit-s "$(left)"} "${options[@]}" || measured=$?
    echo "== after $SECONDS s, $folder has $(cd "$folder" && echo *)"
    if ((measured != 0 && measured != 10)); then return "$measured"; fi
    if ((tested == 124)); then return 10; fi
    if ((tested != 0)); then return 1; fi
    return "$measured"
}

main 2>&1 | tee -a "$folder/log.txt"
