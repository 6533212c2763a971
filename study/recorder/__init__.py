"""Traces of other training loops.  in: logits by example id, files of other tools   out: proxies by id"""

from study.recorder.importers import read_trace
from study.recorder.recorder import Recorder, merge

__all__ = ["Recorder", "merge", "read_trace"]
