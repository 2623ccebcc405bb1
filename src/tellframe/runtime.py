"""Run an ONNX graph on arrays: the only place that knows ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import BundleError, OutOfMemoryError
from tellframe.graphfile import read_graph, require_self_contained

_NO_MEMORY: Final = ("std::bad_alloc", "Failed to allocate memory")
"""In messages of ONNX Runtime."""


def usable_cores() -> int:
    """Return how many cores this process may use, which a container can make fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Session:
    """One ONNX graph, ready to run on the CPU.

    A session may be used by several threads at once. ONNX Runtime is imported when the first
    session is made, not before.

    Args:
        source: path of the graph, or its bytes.
        num_threads: threads that one run uses; 0 takes all cores that this process may use.

    Raises:
        BundleError: the graph is missing, unreadable, keeps weights in other files, or is not a
            graph that can be run here.
    """

    def __init__(self, source: str | Path | bytes, num_threads: int = 0) -> None:
        import onnxruntime

        if isinstance(source, bytes):
            self._name, graph = "graph given as bytes", source
            require_self_contained(graph, self._name)
        else:
            # Read here, so that what was checked is what is run.
            self._name, graph = str(source), read_graph(source)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = num_threads or usable_cores()
        options.inter_op_num_threads = 1
        # Plans of the memory are kept for every shape ever seen, and P-Net sees new ones with every
        # picture size. The arena only keeps what the largest run took.
        options.enable_mem_pattern = False
        # Threads that spin between runs take the cores away from the video decoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
            raise BundleError(
                f"{self._name}: ONNX Runtime cannot load this graph ({_first_line(error)}); "
                "fetch or export it again"
            ) from error
        self._inputs = tuple(value.name for value in self._session.get_inputs())
        self._outputs = tuple(value.name for value in self._session.get_outputs())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the graph."""
        return self._inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the graph."""
        return self._outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: one array for every input name, of the shape and type the graph declares.

        Returns:
            One array for every output name.

        Raises:
            BundleError: names, shapes or types do not fit the graph.
            OutOfMemoryError: memory does not suffice.
        """
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:
            given = {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
            if any(mark in str(error) for mark in _NO_MEMORY):
                name = Path(self._name).name
                raise OutOfMemoryError(
                    f"memory does not suffice to run {name} on {given}"
                ) from error
            raise BundleError(
                f"{self._name}: the graph does not accept {given}; it has the inputs "
                f"{self._inputs} ({_first_line(error)})"
            ) from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
