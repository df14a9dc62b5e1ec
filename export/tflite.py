"""TFLite encoder: embedding and every Transformer layer, one token per step, int16 activations and int8 weights.

It is authored without TensorFlow, and runs in LiteRT, in tflite-runtime 2.14 and in TFLM on a microcontroller.
tflite_encoder.py says what is computed, tflite_float.py measures ranges, tflite_int16.py writes the graph, with
tflite_builder.py. DESIGN.md has the measurements behind the choice.
"""

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edgehmn.checkpoint.model import Checkpoint
from edgehmn.errors import DependencyError, UnsupportedError, UsageError
from edgehmn.files import MAX_INPUT_BYTES, write_bytes
from edgehmn.runtime.encoder import HIDDEN_FRAC_RANGE
from edgehmn.runtime.tflite import METADATA_NAME, Interface, seal


def export_encoder(
    checkpoint: Checkpoint, calibration_ids: npt.NDArray[np.int32], hidden_frac: int, path: Path
) -> None:
    """Write the encoder of `checkpoint` to `path`; the same arguments give the same bytes.

    calibration_ids: tokens of ordinary text, a few thousand, from which the range of every value is taken.
    hidden_frac: the graph's hidden output is the real value * 2**hidden_frac, rounded to the nearest, saturated
    to int16; -15..30. `edgehmn.runtime.tflite.Interface` describes the inputs and outputs.

    Raises UsageError for arguments out of range, UnsupportedError for a window of one position, a KV cache beyond its
    limit or a file beyond 1 GiB, DependencyError without ai-edge-litert, CannotWriteError.
    """
    if hidden_frac not in HIDDEN_FRAC_RANGE:
        raise UsageError(f"hidden_frac {hidden_frac} is outside {HIDDEN_FRAC_RANGE[0]}..{HIDDEN_FRAC_RANGE[-1]}")
    try:
        interface = Interface.of(checkpoint.config, hidden_frac)
    except ValueError as e:
        raise UnsupportedError(f"no TFLite encoder of this model: {e}; choose another n_ctx") from e
    try:
        from edgehmn.export.tflite_builder import GraphBuilder
    except ImportError as e:
        raise DependencyError(f"ai-edge-litert cannot be imported ({e}); pip install 'edgehmn[tflite]'") from e
    from edgehmn.export.tflite_encoder import encode
    from edgehmn.export.tflite_float import measure_ranges
    from edgehmn.export.tflite_int16 import Int16Operations

    graph = GraphBuilder()
    operations = Int16Operations(graph, interface, measure_ranges(checkpoint, calibration_ids))
    operations.finish(encode(operations, checkpoint))
    if graph.file_bytes > MAX_INPUT_BYTES:
        raise UnsupportedError(f"no TFLite encoder of this model: it would be larger than {MAX_INPUT_BYTES} bytes")
    data = graph.serialise("edgehmn encoder", {METADATA_NAME: interface.to_metadata()})
    write_bytes(path, cast("bytes", seal(data)))  # which may be any buffer; a copy would be a second model in memory
