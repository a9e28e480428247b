"""The life of a shard in a worker: claim, load, judge, finish. SQL belongs in `guardfleet/store`, tensors in `worker/engine`."""
