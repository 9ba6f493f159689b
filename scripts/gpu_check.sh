#!/usr/bin/env bash
# Checks and measures rexport on a machine with an NVIDIA GPU; see usage below.
set -euo pipefail

usage() {
    cat <<'END'
usage: scripts/gpu_check.sh FOLDER [--quick] [--limit-s S] [--no-tests] [--device cuda|cpu] [-- OPTION...]

Measures the comparison: resnet18, resnet50, resnet152 and the bundled model; every precision;
batches 1, 8, 64 and 256; every backend that is there; CUDA graphs against none. Then runs the tests
that need a GPU. It works with what is installed, and lists what is missing first.

FOLDER gets hardware.json, results.jsonl (raw samples), .md, .csv, .html, complete.json, tests.log and
log.txt. The same command goes on where it ended: nothing that FOLDER holds is measured again, and no
tests that passed are run again.

  --quick      two networks, two precisions, two batches: some minutes
  --limit-s S  begin nothing new after S seconds; what is being measured then is finished, tests that
               still run are ended
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

# The tests marked gpu or tensorrt, and no others, whatever else would not even import here.
run_tests() {
    local files=() limited=() code=0 left
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
        left=$(left)
        if ((left < 1)); then
            echo "tests: not run: the time was over"
            return 124
        fi
        limited=(timeout -s INT -k 10 "$left") # interrupted, they end what they started
    fi
    "${limited[@]}" "$PYTHON" -m pytest -q -m "gpu or tensorrt" -o filterwarnings=default -p no:cacheprovider \
        "${files[@]}" >"$folder/tests.log" 2>&1 || code=$?
    tail -n 25 "$folder/tests.log"
    case $code in
        0) echo "$passed" ;;
        5) echo "tests: none was selected"; code=0 ;;
        124 | 137) echo "tests: the time was over; they begin anew the next time"; code=124 ;;
        *) echo "tests: failed; all of it is in $folder/tests.log" ;;
    esac
    return "$code"
}

main() {
    local tested=0 measured=0
    echo "== what there is"
    "$PYTHON" -m scripts.inventory --device "$device" --json "$folder/hardware.json"
    echo "== measuring"
    "$PYTHON" -m scripts.gpu_matrix "$folder" --device "$device" ${limit:+--limit-s "$(left)"} "${options[@]}" || measured=$?
    if [[ $tests == yes ]] && ! grep -qsxF "$passed" "$folder/log.txt"; then
        echo "== tests"
        run_tests || tested=$?
    fi
    echo "== $folder has $(cd "$folder" && echo *)"
    if ((measured != 0 && measured != 10)); then return "$measured"; fi
    if ((tested == 124)); then return 10; fi
    if ((tested != 0)); then return 1; fi
    return "$measured"
}

main 2>&1 | tee -a "$folder/log.txt"
