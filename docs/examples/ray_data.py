"""Label images on Ray Data, where decoding and the network need machines of their own.

python ray_data.py LISTING ARTIFACT OUTPUT: a Parquet file with a column ``uri``, a model file, and a folder, all on
storage that every node reaches. The same command resumes an interrupted run, once that has ended.
"""

import sys
from dataclasses import replace

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

import runtimes
from runtimes.images.preprocessing import fit_image

NETWORKS, THREADS, GPUS, COMMIT_ROWS = 1, 1, 0, 500
listing, artifact, output = sys.argv[1:]
preprocessing = runtimes.Artifact.read(artifact).manifest.preprocessing


def decode(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Decode on CPUs: uint8 pixels (n, h, w, channels), and an error in place of a broken image."""
    pixels = np.zeros((len(rows["uri"]), *preprocessing.size, preprocessing.channels), np.uint8)
    errors = [""] * len(pixels)  # text in every row: Ray Data turns None into NaN where a whole block has none
    for row, uri in enumerate(rows["uri"]):
        try:
            pixels[row] = fit_image(uri, preprocessing)
        except runtimes.RexportError as error:
            errors[row] = str(error)
    return {"uri": rows["uri"], "pixels": pixels, "error": np.array(errors)}


class Network:
    """The network, opened once in each actor. Its images are fitted already, so it neither resizes nor crops."""

    def __init__(self) -> None:
        fitted = replace(preprocessing, resize=None, crop=preprocessing.size, pad=0)
        self.classifier = runtimes.Classifier.open(artifact, threads=THREADS, preprocessing=fitted)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Label fitted pixels."""
        predictions = self.classifier.predict(rows["pixels"], batch=len(rows["pixels"]))
        labels = ["" if error else p.label for p, error in zip(predictions, rows["error"], strict=True)]
        return {"uri": rows["uri"], "label": np.array(labels), "error": rows["error"]}


ray.init(log_to_driver=False)
processors, needed = int(ray.cluster_resources()["CPU"]), NETWORKS * THREADS + 2
if processors < needed:  # reading and the filter of finished rows take one each; without them Ray Data waits forever
    sys.exit(f"{NETWORKS} networks of {THREADS} threads need {needed} CPUs, and the cluster has {processors}")
DataContext.get_current().checkpoint_config = CheckpointConfig("uri", f"{output}/.checkpoint")  # unique and kept
rows = ray.data.read_parquet(listing).repartition(target_num_rows_per_block=COMMIT_ROWS)  # else one block, one commit
rows = rows.map_batches(decode, batch_size=64, num_cpus=1)
pool = ActorPoolStrategy(size=NETWORKS)
rows = rows.map_batches(Network, batch_size=64, compute=pool, num_cpus=THREADS, num_gpus=GPUS, max_task_retries=3)
rows.write_parquet(f"{output}/labels", mode="append")
