"""Batch labelling: a folder, tar archive, table or list of images in, Parquet files of labels out.

Read ``work`` first, then ``driver``. The work is cut into shards of the listing. A shard is labelled by a worker and
becomes one file with a name that its number determines, so that repeating a shard writes the same file again.
"""
